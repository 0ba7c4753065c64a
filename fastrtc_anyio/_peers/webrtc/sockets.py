"""UDP sockets of calls, which are read together at each tick of the loop.

asyncio wakes up for each datagram. Its cost is mostly that of the wake-up: the code is no longer in
the caches of the processor. Once a call is connected, its sockets are read together with those of
all other calls (:class:`.Ticks`). A datagram then waits for 10 ms at most.
"""

from __future__ import annotations

import asyncio
import errno
import selectors
import socket
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, cast

from fastrtc_anyio._core.log import logger

from .internals import Address, Endpoint, ProtocolFactory
from .ticks import Registration, Ticks

_SIZE = 2048
"""Bytes read of a datagram. The guard drops those of more than 1500."""
_ROUNDS = 64
"""Datagrams that are read from a socket at one tick: 6,400 in a second."""
_SWEEP = 100
"""Ticks between two searches for silent sockets, which are read by events again."""
_ATTRIBUTE = "fastrtc_anyio_shared_reading"
_FULL = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS})
"""Errors of a socket that has no room for a datagram."""


class UdpTransport(asyncio.DatagramTransport):
    """An open UDP socket with the protocol that receives its datagrams.

    It is read by events of the loop, until :meth:`read_at_ticks` is called. Must be used on the
    loop's thread.

    A datagram that the system cannot send at once is dropped, as a network would: media that is
    sent later is of no use, and anything else is sent again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
    ) -> None:
        super().__init__({"socket": sock, "sockname": sock.getsockname()})
        self._loop = loop
        self._socket = sock
        self._protocol = protocol
        # Tasks that the protocol starts belong to the connection that has opened the socket.
        self._run = copy_context().run
        self._shared: SharedReading | None = None
        self._closing = False
        self.is_silent = True
        """Whether no datagram came since the attribute was set; for :class:`SharedReading`."""
        self.dropped = 0
        """Datagrams that could not be sent at once."""
        protocol.connection_made(self)
        loop.add_reader(sock, self._on_event)

    def read_at_ticks(self) -> None:
        """Read at the ticks of the loop from the next datagram on, while there are datagrams."""
        self._shared = SharedReading.of(self._loop)

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send a datagram, or drop it if the system has no room for it."""
        if self._closing:
            return
        try:
            self._socket.sendto(data, addr)
        except InterruptedError:
            self.dropped += 1
        except OSError as exc:
            if exc.errno in _FULL:
                self.dropped += 1
            else:
                self._call(self._protocol.error_received, exc)

    def is_closing(self) -> bool:
        """Return whether the socket is closed."""
        return self._closing

    def close(self) -> None:
        """Close the socket at once. The protocol learns it a little later. Idempotent."""
        self._close(None)

    abort = close

    def read(self) -> None:
        """Pass a datagram to the protocol, if there is one."""
        if self._closing:
            return
        try:
            data, address = self._socket.recvfrom(_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._run(self._call, self._protocol.error_received, exc)
            return
        self.is_silent = False
        self._run(self._call, self._protocol.datagram_received, data, address)

    def read_by_events(self) -> None:
        """Read by events of the loop again. Only :class:`SharedReading` may call this."""
        if self._closing:
            return
        try:
            self._run(self._loop.add_reader, self._socket, self._on_event)
        except Exception as exc:  # such as no memory to watch it: the others must be read
            self._close(exc)

    def _on_event(self) -> None:
        self.read()
        if self._shared is not None and not self._closing and self._shared.add(self, self._socket):
            self._loop.remove_reader(self._socket)

    def _call(self, method: Callable[..., None], *args: Any) -> None:
        """Call a method of the protocol. An exception closes this socket."""
        try:
            method(*args)
        except BaseException as exc:  # it must not end the reading of other sockets
            text = f"{method.__name__} of a socket's protocol failed"
            self._loop.call_exception_handler({"message": text, "exception": exc})
            self._close(exc if isinstance(exc, Exception) else None)

    def _close(self, error: Exception | None) -> None:
        if self._closing:
            return
        self._closing = True
        if self._shared is not None:
            self._shared.remove(self._socket)
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._loop.call_soon(self._protocol.connection_lost, error)


class SharedReading:
    """Reads the sockets of all calls on a loop at each tick.

    Each round of a tick reads one datagram of each socket that has any: a flood on one does not
    delay the others. Datagrams that remain after the last round are read at the next tick.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._selector: selectors.BaseSelector | None = None
        self._registration: Registration | None = None
        self._ticks = 0

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> SharedReading:
        """Return the instance of a loop."""
        found = vars(loop).get(_ATTRIBUTE)
        if not isinstance(found, cls):
            found = cls(loop)
            setattr(loop, _ATTRIBUTE, found)
        return found

    def add(self, transport: UdpTransport, sock: socket.socket) -> bool:
        """Read a socket at each tick; return False if the system has no resources for it."""
        try:
            if self._selector is None:
                self._selector = selectors.DefaultSelector()
                # An empty context: that of the first call would keep the call alive beyond its end.
                ticks = Ticks.of(self._loop)
                self._registration = Context().run(ticks.add_reader, self._read, self._on_failure)
            self._selector.register(sock, selectors.EVENT_READ, transport)
        except OSError as exc:
            logger.debug("sockets are read one by one: %r", exc, event="sockets.read_singly")
            self._stop_if_unused()
            return False
        return True

    def remove(self, sock: socket.socket) -> None:
        """Forget a socket. Idempotent."""
        selector = self._selector
        if selector is None or sock not in selector.get_map():
            return
        selector.unregister(sock)
        self._stop_if_unused()

    def _stop_if_unused(self) -> None:
        if self._selector is not None and not self._selector.get_map():
            self._selector.close()
            self._selector = None
            if self._registration is not None:
                self._registration.remove()
                self._registration = None

    def _read(self) -> None:
        self._ticks += 1
        if self._ticks % _SWEEP == 0:
            self._release(silent_only=True)
        for _ in range(_ROUNDS):
            ready = [] if self._selector is None else self._selector.select(0)
            if not ready:
                return
            for key, _events in ready:
                key.data.read()

    def _release(self, *, silent_only: bool) -> None:
        """Read sockets by events again."""
        if self._selector is None:
            return
        for key in list(self._selector.get_map().values()):
            transport: UdpTransport = key.data
            if transport.is_silent or not silent_only:
                self.remove(cast(socket.socket, key.fileobj))
                transport.read_by_events()
            transport.is_silent = True

    def _on_failure(self, error: BaseException) -> None:
        """Go on without ticks: no call may end for a fault of this class."""
        logger.error(
            "reading sockets together failed: %r; they are read one by one",
            error,
            event="sockets.read_singly",
        )
        self._release(silent_only=False)


def open_socket(
    loop: asyncio.AbstractEventLoop, factory: ProtocolFactory, address: Address
) -> Endpoint:
    """Open a UDP socket on an IP address and a port.

    Raises:
        OSError: the address is not of this machine, the port is in use, or similar.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind(address)
        protocol = factory()
        return UdpTransport(loop, sock, protocol), protocol
    except BaseException:
        sock.close()
        raise


def can_open(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a loop supports :func:`open_socket`. The default one of Windows does not."""
    return not isinstance(loop, getattr(asyncio, "ProactorEventLoop", ()))
