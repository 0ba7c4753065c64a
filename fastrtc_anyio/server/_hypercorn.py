"""Run an application in hypercorn: all workarounds for hypercorn are here.

Hypercorn supports trio and asyncio, but a malformed request can end it, and an open connection can
keep it from ending. Each workaround states its reason, the upstream issue if there is one, and when
it can go. Undocumented names are checked on import, those of a backend's worker when that backend
is first used.

Verified against hypercorn 0.18.0.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache, partial
from importlib import import_module
from typing import Any

import anyio
from anyio import CancelScope, create_task_group
from hypercorn.config import Config, Sockets
from hypercorn.events import Closed
from hypercorn.events import Event as ConnectionEvent
from hypercorn.protocol import h2, h11
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection
from wsproto.events import Event as FrameEvent

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._core.required import check_required
from fastrtc_anyio.limits import RequestLimits

logger = logging.getLogger("fastrtc_anyio")

SUPPORTED = {"hypercorn": ">=0.18,<0.19"}
"""Versions that this module was verified against, as in pyproject.toml."""

_GRACE = 0.5
"""Seconds that open WebSockets and event streams get to end when the server stops."""

check_required(
    {
        Config: ("create_sockets",),
        WSStream: ("handle", "_handle_events", "_send_wsproto_event", "app_put", "state"),
        h11: ("WSStream",),
        h2: ("WSStream",),
    },
    SUPPORTED,
)


async def serve(
    app: ASGIApp,
    listener: socket.socket,
    limits: RequestLimits,
    ready: anyio.Event,
    stop: anyio.Event,
) -> None:
    """Serve until ``stop`` is set.

    Args:
        listener: the listening socket, which hypercorn closes.
        ready: set once the server accepts connections, unless the lifespan failed to start.
        stop: ends the server.

    Cancellation:
        Has no effect: a cancelled asyncio worker would leave the application's lifespan running
        (hypercorn 0.18). Set ``stop`` instead.
    """
    port = listener.getsockname()[1]
    endable = _EndableApp(app)
    run = _load_worker(Host().asyncio_loop is None)

    async def wait_for_stop() -> None:  # called once hypercorn accepts connections
        if not endable.failed:  # the trio worker accepts connections even then, for a moment
            ready.set()
        await stop.wait()

    async def end_requests() -> None:
        await stop.wait()
        await anyio.sleep(_GRACE)
        endable.end()
        await anyio.sleep(_GRACE)
        _shut_down_connections(port)

    with CancelScope(shield=True):
        async with create_task_group() as tg:
            tg.start_soon(end_requests)
            await run(endable, _Config(listener, limits), shutdown_trigger=wait_for_stop)
            tg.cancel_scope.cancel()


class _Config(Config):
    """A configuration with a listening socket in place of an address.

    Can go once ``serve()`` takes sockets.
    """

    loglevel = "WARNING"
    graceful_timeout = 4 * _GRACE

    def __init__(self, listener: socket.socket, limits: RequestLimits) -> None:
        super().__init__()
        self._listener = listener
        # Above the application's limit, whose error message states the limit.
        self.websocket_max_message_size = 4 * limits.message_bytes
        self.keep_alive_timeout = limits.head_seconds

    def create_sockets(self) -> Sockets:
        return Sockets([], [self._listener], [])


@cache
def _load_worker(on_trio: bool) -> Callable[..., Awaitable[None]]:
    """Load hypercorn's ``serve`` for a backend, and contain the failures of single connections.

    Some malformed handshakes raise an exception in the task of their connection. It ends the trio
    worker with all its connections; the asyncio worker leaves it to the loop's exception handler
    (pgjones/hypercorn#225, #329). The trio worker shuts a connection down while another task sends,
    whose error is not that of a closed connection. The worker finds its connection class by a
    global name, which is replaced here. Can go once ``TCPServer`` handles these exceptions.
    """
    package = "hypercorn.trio" if on_trio else "hypercorn.asyncio"
    worker: Any = import_module(f"{package}.run")
    check_required({worker: ("TCPServer",)}, SUPPORTED)
    check_required({worker.TCPServer: ("protocol_send", "run")}, SUPPORTED)
    base: Any = worker.TCPServer
    trio: Any = getattr(import_module(f"{package}.tcp_server"), "trio", None)
    busy: Any = () if trio is None else trio.BusyResourceError

    class Connection(base):  # type: ignore[misc]  # the backend's class
        async def run(self) -> None:
            try:
                await super().run()
            except Exception as exc:
                logger.warning("closed a connection that failed: %s", type(exc).__name__)
                logger.debug("closed a connection that failed", exc_info=exc)

        async def protocol_send(self, event: ConnectionEvent) -> None:
            try:
                await super().protocol_send(event)
            except busy:
                await self.protocol.handle(Closed())

    worker.TCPServer = Connection
    for protocol in (h11, h2):
        vars(protocol)["WSStream"] = _WebSocket
    run: Callable[..., Awaitable[None]] = import_module(package).serve
    return run


class _WebSocket(WSStream):
    """A WebSocket that reports to the application how it was closed.

    Hypercorn reports code 1006, "closed without a close frame" (RFC 6455 7.1.5), for every close
    that the client begins, and for those it begins itself because a message is too long. It closes
    the connection without a frame, where it should send 1002 or 1007 (RFC 6455 7.4.1), for a
    malformed frame. Here the report has the code and the reason of the close frame, and 1006 stands
    for a connection that broke. A violation of the client's has the key ``violation`` besides. Can
    go once hypercorn does the same.
    """

    _close: CloseConnection | None = None
    _violation = False

    async def _handle_events(self) -> None:
        events = list(self.connection.events())
        end = events[-1] if events else None
        if isinstance(end, CloseConnection) and self.connection.state is ConnectionState.OPEN:
            await self._send_wsproto_event(end)  # wsproto's report of a malformed frame
        vars(self.connection)["events"] = lambda: events
        try:
            await super()._handle_events()
        finally:
            del vars(self.connection)["events"]

    async def _send_wsproto_event(self, event: FrameEvent) -> None:
        # The application's own close has left this state before.
        if isinstance(event, CloseConnection) and self.state is ASGIWebsocketState.CONNECTED:
            # The answer to a close frame repeats its code and its reason.
            self._violation = self.connection.state is not ConnectionState.REMOTE_CLOSING
            self._close = event
        await super()._send_wsproto_event(event)

    async def handle(self, event: Event) -> None:
        put = self.app_put
        # Otherwise the application has closed it already, and hypercorn reports that.
        if isinstance(event, StreamClosed) and self.state is ASGIWebsocketState.CONNECTED and put:
            close = self._close or CloseConnection(1006)
            ending: dict[str, object] = {"code": int(close.code), "reason": close.reason or ""}
            if self._violation:
                ending["violation"] = True
            self.app_put = lambda message: put({**message, **ending})
        await super().handle(event)


class _EndableApp:
    """An application whose open requests can be cancelled.

    From Python 3.12 on the asyncio worker waits for open WebSockets and event streams for ever, in
    ``Server.wait_closed()`` (pgjones/hypercorn#308, #374). Can go once it keeps to
    ``graceful_timeout``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._requests: set[CancelScope] = set()
        self.failed = False
        """Whether the lifespan failed to start."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, partial(self._send_lifespan, send))
            return
        with CancelScope() as request:
            self._requests.add(request)
            try:
                await self._app(scope, receive, send)
            finally:
                self._requests.discard(request)

    def end(self) -> None:
        """Cancel every open request."""
        for request in list(self._requests):
            request.cancel()

    async def _send_lifespan(self, send: Send, message: Message) -> None:
        if message["type"] == "lifespan.startup.failed":
            self.failed = True
        await send(message)


def _shut_down_connections(port: int) -> None:
    """Shut down the remaining connections to a port: their clients have stopped reading.

    The trio worker shields sends from cancellation, so that one such client keeps it from ending,
    and it gives no access to its sockets. Can go once ``graceful_timeout`` ends them.
    """
    for fd in os.listdir("/dev/fd") if os.path.isdir("/dev/fd") else []:
        with (
            suppress(OSError),  # not a socket, not connected, or already closed
            socket.fromfd(int(fd), socket.AF_INET, socket.SOCK_STREAM) as connection,
        ):
            kind = connection.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
            address = connection.getsockname()
            if kind == socket.SOCK_STREAM and address[1:2] == (port,) and connection.getpeername():
                connection.shutdown(socket.SHUT_RDWR)
