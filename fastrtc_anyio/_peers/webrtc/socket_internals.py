"""Access to private names of aioice and aiortc for what arrives on the sockets of a transport.

The rules are those of :mod:`.internals`, which does the same for everything else.

Verified against aiortc 1.16.0 and aioice 0.13.0. :data:`REQUIRED` is checked on import.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from types import ModuleType
from typing import Any

from aioice import ice, stun
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcicetransport import RTCIceGatherer, RTCIceTransport

from fastrtc_anyio._core.required import check_required

from .guard import Guard
from .ice_internals import IceAgent, Origin
from .internals import SUPPORTED, Address, replace_attribute
from .sockets import UdpTransport
from .task_internals import abort_sockets, release_socket

REQUIRED: Mapping[type | ModuleType, tuple[str, ...]] = {
    RTCDtlsTransport: ("_recv_next",),
    RTCIceGatherer: ("_connection", "_remote_candidates_end"),
    RTCIceTransport: ("_connection", "_recv", "_send"),
    ice.Connection: (
        "_event_waiter",
        "_local_candidates",
        "_local_candidates_end",
        "_local_candidates_start",
        "_protocols",
        "_queue",
        "_transport_policy",
        "protocol_lost",
    ),
    ice.StunProtocol: ("datagram_received", "receiver", "send_stun", "transactions"),
    stun: ("parse_message",),
    stun.Transaction: ("__addr", "response_received"),
}
"""Undocumented names by the class or module that has them."""

check_required(REQUIRED, SUPPORTED)

_QUEUED = 1024
"""Datagrams that wait for aiortc; about 5 s of a call with video."""
_BATCH = 8
"""Datagrams that are processed before other connections have their turn."""
_HEADER = 20
_COOKIE = b"\x21\x12\xa4\x42"
_REQUEST, _RESPONSE, _ERROR = b"\0\1", b"\1\1", b"\1\x11"
"""Types of binding messages (RFC 8489 5). A peer sends no other that needs an action."""


class _Datagrams:
    """Queue of received datagrams, bounded, in place of aioice's.

    None, the end, always finds room.
    """

    def __init__(self, on_full: Callable[[], None]) -> None:
        self._items: deque[tuple[bytes, Origin] | None] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._on_full = on_full
        self.taken = 0
        """Number of items that were taken out."""

    @property
    def is_empty(self) -> bool:
        return not self._items

    def put(self, data: bytes, origin: Origin) -> None:
        if len(self._items) < _QUEUED:
            self._items.append((data, origin))
            self._wake()
        else:
            self._on_full()

    def put_nowait(self, item: None) -> None:
        """Mark the end; aioice calls this."""
        self._items.append(item)
        self._wake()

    async def get(self) -> tuple[bytes, Origin] | None:
        items = self._items
        if items and self.taken % _BATCH == 0:
            await asyncio.sleep(0)
        while not items:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self.taken += 1
        return items.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class IceSockets:
    """The sockets of a transport, shared by the agents of all ICE generations.

    An ICE restart thus needs neither further ports nor time to gather candidates (RFC 8445 9 allows
    the same ones). Checks go to the agent that their user name addresses, data to one queue. All
    datagrams pass a guard: aioice 0.13 answers each check, passes on anything else from any host,
    and has an unbounded queue; aiortc 1.16 ends a connection for an exception of any library.

    Args:
        transport: aiortc's transport.
        guard: decides about the datagrams.
        admit: called with the agent, the origin of each authentic check or answer, and whether the
            client nominates it; returns whether to use it.
        connect: establishes the connection, in place of aioice's method.
        on_lost: called when the selected socket or relay fails.
        on_stranger: called with the origin of media that was dropped.
        on_failure: called for each datagram that a library could not process, with the exception;
            and with the text for one that exceeds the queue.
    """

    def __init__(
        self,
        transport: RTCDtlsTransport,
        guard: Guard[ice.StunProtocol],
        *,
        admit: Callable[[IceAgent, Origin, bool], bool],
        connect: Callable[[], Awaitable[None]],
        on_lost: Callable[[], None],
        on_stranger: Callable[[Origin], None],
        on_failure: Callable[[object], None],
    ) -> None:
        self._transport = transport.transport
        self._guard = guard
        self._admit = admit
        self._on_lost = on_lost
        self._on_stranger = on_stranger
        self._on_failure = on_failure
        connection = self._transport._connection
        self.agent = IceAgent(connection, guard.destinations)
        """The agent whose selected path is used."""
        self._agents = {connection.local_username: self.agent}
        self._datagrams = _Datagrams(lambda: on_failure("the queue of datagrams is full"))
        self._watched: set[ice.StunProtocol] = set()
        self.origin: Origin | None = None
        """Path of the last datagram that aiortc has taken."""
        self.take: Callable[[bytes, Origin, bool], bool] | None = None
        """Called with a datagram, its origin, and whether no former one waits for aiortc. Returns
        whether it has processed the datagram; otherwise aiortc does."""
        replace_attribute(connection, "_queue", self._datagrams)
        replace_attribute(connection, "connect", connect)
        replace_attribute(self._transport, "_recv", self._receive)
        self._process: Callable[[], Coroutine[Any, Any, None]] = transport._recv_next
        replace_attribute(transport, "_recv_next", self._process_next)

    def watch(self, protocol: ice.StunProtocol) -> None:
        """Guard a socket or relay from now on. Idempotent."""
        if protocol in self._watched:
            return
        self._watched.add(protocol)
        receive = self._guard.make_filter(
            protocol,
            self._receive_data,
            partial(self._receive_stun, protocol),
            self._on_stranger,
        )
        replace_attribute(protocol, "receiver", self)
        replace_attribute(protocol, "datagram_received", receive)
        send = protocol.send_stun

        def send_stun(message: stun.Message, address: Address) -> None:
            is_check = message.message_class == stun.Class.REQUEST
            if not is_check or self._guard.destinations.may_check(address):
                send(message, address)

        replace_attribute(protocol, "send_stun", send_stun)

    def watch_all(self) -> None:
        """Guard all sockets and relays, once they are gathered."""
        for protocol in self._transport._connection._protocols:
            self.watch(protocol)
            self._guard.destinations.add_local(protocol.local_candidate.host)

    def read_at_ticks(self) -> None:
        """Read the sockets together with those of other calls; relays are read by events."""
        for protocol in self._transport._connection._protocols:
            transport: object = protocol.transport
            if isinstance(transport, UdpTransport):
                transport.read_at_ticks()

    def make_agent(self, remote: tuple[str, str], local: tuple[str, str]) -> IceAgent:
        """Make the agent of another generation, with its credentials, on the same sockets."""
        old = self._transport._connection
        new = ice.Connection(
            ice_controlling=old.ice_controlling,
            local_username=local[0],
            local_password=local[1],
            transport_policy=old._transport_policy,
        )
        new.remote_username, new.remote_password = remote
        new.remote_is_lite = old.remote_is_lite
        new._protocols = list(old._protocols)
        replace_attribute(new, "_queue", self._datagrams)
        new._local_candidates = list(old._local_candidates)
        new._local_candidates_start = new._local_candidates_end = True
        agent = IceAgent(new, self._guard.destinations)
        self._agents[new.local_username] = agent
        return agent

    def use(self, agent: IceAgent) -> IceAgent:
        """Send to the paths of another agent from now on. Returns the former one, still open."""
        old, new = self.agent.connection, agent.connection
        former, self.agent = self.agent, agent
        self._transport._connection = new
        replace_attribute(self._transport, "_send", new.send)
        gatherer = self._transport.iceGatherer
        gatherer._connection, gatherer._remote_candidates_end = new, False
        # aiortc's monitor waits for the end of the old connection, which is not the transport's.
        new._event_waiter, old._event_waiter = old._event_waiter, None
        return former

    async def close_agent(self, agent: IceAgent) -> None:
        """Close an agent that is not in use."""
        self._agents.pop(agent.ufrag, None)
        await agent.close()

    def abort(self) -> None:
        """Close the sockets at once, if they are still open."""
        abort_sockets(self.agent.connection._protocols)

    def release(self) -> None:
        """Free the memory of closed sockets."""
        for protocol in self._watched:
            release_socket(protocol)

    def _receive_data(self, data: bytes, origin: Origin) -> None:
        if self.take is not None:
            try:
                if self.take(data, origin, self._datagrams.is_empty):
                    return
            except Exception as exc:
                self._on_failure(exc)
                return
        self._datagrams.put(data, origin)

    async def _receive(self) -> bytes:
        item = await self._datagrams.get()
        if item is None:  # closed, or the selected socket was lost
            raise ConnectionError("the ICE connection has ended")
        data, self.origin = item
        return data

    async def _process_next(self) -> None:
        """Process a datagram, and contain the exceptions of the libraries."""
        taken = self._datagrams.taken
        try:
            await self._process()
        except ConnectionError:  # aiortc's signal for the regular end of the transport
            raise
        except Exception as exc:
            if self._datagrams.taken == taken:  # not of a datagram: the next call would fail, too
                raise
            self._on_failure(exc)

    def _receive_stun(self, protocol: ice.StunProtocol, data: bytes, address: Address) -> None:
        if len(data) < _HEADER or data[4:8] != _COOKIE:
            return
        kind = data[:2]
        transaction: Any = None
        if kind == _REQUEST:
            # A stranger does not know the user fragment. Finding it costs 1 % of parsing.
            if not any(agent.is_addressed_in(data) for agent in self._agents.values()):
                return
        elif kind in (_RESPONSE, _ERROR):
            transaction = protocol.transactions.get(data[8:_HEADER])
            # RFC 8445 7.2.5.2.1: the answer must come from the address of the request.
            if transaction is None or transaction._Transaction__addr != address:
                return
        else:
            return
        origin = (protocol, address)
        # Only the client knows the number of a transaction.
        known = transaction is not None or self._guard.is_established(origin)
        if not self._guard.checks.take(established=known):
            return
        try:
            message = stun.parse_message(data)
        except Exception:  # of several types, for a malformed message
            return
        try:
            if transaction is None:
                self._receive_check(message, origin)
            else:
                self._receive_answer(message, origin, transaction)
        except Exception as exc:
            self._on_failure(exc)

    def _receive_check(self, message: stun.Message, origin: Origin) -> None:
        user = str(message.attributes.get("USERNAME", "")).partition(":")[0]
        agent = self._agents.get(user)
        if agent is None or not agent.authenticates(message):
            return
        if self._guard.destinations.accepts(origin[1]):
            nominates = "USE-CANDIDATE" in message.attributes
            if self._admit(agent, origin, nominates):
                agent.receive_request(message, origin)

    def _receive_answer(self, message: stun.Message, origin: Origin, transaction: Any) -> None:
        for agent in self._agents.values():
            if agent.authenticates_answer(message):
                self._admit(agent, origin, False)
                break
        transaction.response_received(message, origin[1])  # authenticates it, too

    # The method that aioice calls on a connection.

    def protocol_lost(self, protocol: ice.StunProtocol) -> None:
        selected = self.agent.selected
        if selected is not None and selected[0] is protocol:
            self._on_lost()
            self._datagrams.put_nowait(None)
