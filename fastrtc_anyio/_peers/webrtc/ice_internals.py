"""Access to private names of aioice for checks, paths and restarts.

The rules are those of :mod:`.internals`, which does the same for everything else.

Verified against aiortc 1.16.0 and aioice 0.13.0. :data:`REQUIRED` is checked on import.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any, TypeAlias

from aioice import ice, stun
from aioice.candidate import Candidate, candidate_priority
from aiortc import RTCIceCandidate, rtcicetransport
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcicetransport import RTCIceGatherer, RTCIceTransport

from fastrtc_anyio._core.required import check_required

from .internals import SUPPORTED, Address, Receive, replace_attribute
from .task_internals import abort_sockets

REQUIRED: Mapping[type | ModuleType, tuple[str, ...]] = {
    RTCIceGatherer: ("_connection", "_remote_candidates_end"),
    RTCIceTransport: ("_connection", "_recv", "_send"),
    rtcicetransport: ("candidate_to_aioice",),
    ice.Connection: (
        "_check_list",
        "_closing",
        "_event_waiter",
        "_local_candidates",
        "_local_candidates_end",
        "_local_candidates_start",
        "_nominated",
        "_protocols",
        "_queue",
        "_remote_candidates",
        "_transport_policy",
        "build_request",
        "check_incoming",
        "data_received",
        "ice_controlling",
        "protocol_lost",
        "query_consent",
        "remote_password",
        "request_received",
    ),
    ice.CandidatePair: ("protocol", "remote_addr", "remote_nominated", "task"),
    ice.StunProtocol: ("datagram_received", "receiver", "send_stun", "transactions"),
}
"""Undocumented names by the class or module that has them."""

check_required(REQUIRED, SUPPORTED)


_SRTP = range(128, 192)
"""First bytes of SRTP and SRTCP (RFC 7983 7)."""
_SRTP_LIMIT = 1500
"""Bytes of a packet that pylibsrtp 1.0 decrypts."""

Origin: TypeAlias = tuple[ice.StunProtocol, Address]
"""One path to the client: the local socket or relay, and the client's address."""


class IceAgent:
    """One ICE generation: an ``aioice.Connection`` with one pair of credentials on each side.

    aioice 0.13 and aiortc 1.16 have no ICE restart, no access to checks, and consent checks whose
    answers count for 0.5 s only. Can go once they have.

    Args:
        connection: the connection of aiortc's transport.
        admit: called with the origin of each authenticated check, and whether it nominates;
            returns whether aioice shall handle it. A check is answered before.
    """

    def __init__(
        self, connection: ice.Connection, admit: Callable[[IceAgent, Origin, bool], bool]
    ) -> None:
        self._connection = connection
        self._admit = admit
        self._connect = connection.connect
        self._check_incoming = connection.check_incoming
        replace_attribute(connection, "query_consent", _return)
        replace_attribute(connection, "check_incoming", self._handle_check)

    @property
    def ufrag(self) -> str:
        """Fragment of the user name of this side."""
        return self._connection.local_username

    @property
    def remote_credentials(self) -> tuple[str | None, str | None]:
        """Fragment of the user name and password of the client."""
        return self._connection.remote_username, self._connection.remote_password

    @property
    def selected(self) -> Origin | None:
        """The path to which data is sent."""
        pair = self._connection._nominated.get(1)
        return None if pair is None else (pair.protocol, pair.remote_addr)

    def select(self, origin: Origin) -> None:
        """Send data to another path, which must have answered a check."""
        pair = self._find_or_add_pair(origin)
        pair.state = ice.CandidatePair.State.SUCCEEDED
        self._connection._nominated[1] = pair

    def is_nominated(self, origin: Origin) -> bool:
        """Return whether the client has nominated a path, which may not be selected yet."""
        return self._find_or_add_pair(origin).remote_nominated

    def send_check(self, origin: Origin, on_answer: Callable[[], None]) -> Callable[[], None]:
        """Send one connectivity check (RFC 8445 7.2) and call ``on_answer`` for a valid answer.

        An answer counts until the returned function is called, however late it comes.
        """
        connection, (protocol, address) = self._connection, origin
        if connection._closing or connection.remote_password is None:
            return lambda: None
        key = connection.remote_password.encode()
        pair = self._find_or_add_pair(origin)
        request = connection.build_request(pair, nominate=connection.ice_controlling)
        request.add_message_integrity(key)
        number = request.transaction_id
        transactions: dict[bytes, Any] = protocol.transactions

        def forget() -> None:
            transactions.pop(number, None)

        def receive(message: stun.Message, source: Address) -> None:
            # RFC 8445 7.2.5.2.1: the answer must come from the address of the request.
            if source == address and message.check_message_integrity(key):
                forget()
                if message.message_class == stun.Class.RESPONSE:
                    on_answer()

        transactions[number] = _Transaction(receive)
        protocol.send_stun(request, address)
        return forget

    def learned(self) -> list[Origin]:
        """Return the paths whose addresses no candidate of the client's has named."""
        return [
            (pair.protocol, pair.remote_addr)
            for pair in self._connection._check_list
            if pair.remote_candidate.type == "prflx"
        ]

    def knows(self, origin: Origin) -> bool:
        """Return whether a check has come from a path, or a candidate has named it."""
        return self._find_pair(origin) is not None

    def forget(self, origin: Origin) -> None:
        """Remove a path and its check."""
        pair = self._find_pair(origin)
        if pair is None:
            return
        if pair.task is not None:
            pair.task.cancel()
        connection = self._connection
        connection._check_list.remove(pair)
        if all(pair.remote_candidate is not p.remote_candidate for p in connection._check_list):
            connection._remote_candidates.remove(pair.remote_candidate)

    async def connect(self) -> None:
        """Check the paths until one is nominated.

        Raises:
            ConnectionError: all have failed, or the agent was closed.
        """
        await self._connect()

    async def add_candidate(self, candidate: RTCIceCandidate | None) -> None:
        """Add a candidate of the client, or their end.

        Raises:
            ValueError: aioice does not support the candidate, or has got their end.
        """
        convert = rtcicetransport.candidate_to_aioice
        await self._connection.add_remote_candidate(
            None if candidate is None else convert(candidate)
        )

    async def close(self) -> None:
        """End all checks. The sockets stay open: they belong to the other agents too."""
        self._connection._protocols, self._connection._queue = [], asyncio.Queue()
        await self._connection.close()

    def receive_request(
        self, message: stun.Message, address: Address, protocol: ice.StunProtocol
    ) -> None:
        self._connection.request_received(message, address, protocol)

    def _handle_check(
        self, message: stun.Message, address: Address, protocol: ice.StunProtocol
    ) -> None:
        if self._admit(self, (protocol, address), "USE-CANDIDATE" in message.attributes):
            self._check_incoming(message, address, protocol)

    def _find_pair(self, origin: Origin) -> ice.CandidatePair | None:
        for pair in self._connection._check_list:
            if (pair.protocol, pair.remote_addr) == origin:
                return pair
        return None

    def _find_or_add_pair(self, origin: Origin) -> ice.CandidatePair:
        pair = self._find_pair(origin)
        if pair is None:
            protocol, (host, port) = origin
            priority = candidate_priority(1, "prflx")
            name = secrets.token_hex(5)
            candidate = Candidate(name, 1, "udp", priority, host, port, "prflx")
            self._connection._remote_candidates.append(candidate)
            pair = ice.CandidatePair(protocol, candidate)
            pair.state = ice.CandidatePair.State.WAITING
            self._connection._check_list.append(pair)
        return pair


class _Transaction:
    """Receives the answer of a check, in place of aioice's transaction with its timer."""

    def __init__(self, receive: Callable[[stun.Message, Address], None]) -> None:
        self.response_received = receive


class IceSockets:
    """The sockets of a transport, shared by the agents of all ICE generations.

    An ICE restart thus needs neither further ports nor time to gather candidates (RFC 8445 9 allows
    the same ones). Checks go to the agent that their user name addresses, data to one queue.

    Args:
        transport: aiortc's transport.
        admit: as for :class:`IceAgent`.
        connect: establishes the connection, in place of aioice's method.
        on_lost: called when the selected socket or relay fails.
    """

    def __init__(
        self,
        transport: RTCDtlsTransport,
        admit: Callable[[IceAgent, Origin, bool], bool],
        connect: Callable[[], Awaitable[None]],
        on_lost: Callable[[], None],
    ) -> None:
        self._transport = transport.transport
        self._admit = admit
        self._on_lost = on_lost
        connection = self._transport._connection
        self.agent = IceAgent(connection, admit)
        """The agent whose selected path is used."""
        self._agents = {connection.local_username: self.agent}
        self._queue: asyncio.Queue[Any] = connection._queue
        self._arriving: Origin | None = None
        self.origin: Origin | None = None
        """Path of the last received datagram."""
        replace_attribute(connection, "connect", connect)
        replace_attribute(self._transport, "_recv", self._receive)

    def open(self) -> None:
        """Receive the datagrams of the sockets, once they are gathered."""
        for protocol in self._transport._connection._protocols:
            replace_attribute(protocol, "receiver", self)
            receive = partial(self._receive_datagram, protocol, protocol.datagram_received)
            replace_attribute(protocol, "datagram_received", receive)

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
        new._protocols, new._queue = list(old._protocols), old._queue
        new._local_candidates = list(old._local_candidates)
        new._local_candidates_start = new._local_candidates_end = True
        agent = IceAgent(new, self._admit)
        self._agents[new.local_username] = agent
        return agent

    def use(self, agent: IceAgent) -> IceAgent:
        """Send to the paths of another agent from now on. Returns the former one, still open."""
        old, new = self.agent._connection, agent._connection
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
        abort_sockets(self.agent._connection._protocols)

    async def _receive(self) -> bytes:
        item = await self._queue.get()
        if item is None:  # closed, or the selected socket was lost
            raise ConnectionError("the ICE connection has ended")
        data, self.origin = item
        return bytes(data)

    def _receive_datagram(
        self, protocol: ice.StunProtocol, receive: Receive, data: bytes, address: Any
    ) -> None:
        self._arriving = (protocol, (address[0], address[1]))
        receive(data, address)

    # The methods that aioice calls on a connection.

    def data_received(self, data: bytes, component: int) -> None:
        # aiortc 1.16 reads the first byte of any packet, and pylibsrtp raises ValueError for a long
        # one, which aiortc does not catch. Both would end the connection, whoever has sent them.
        if data and not (len(data) > _SRTP_LIMIT and data[0] in _SRTP):
            self._queue.put_nowait((data, self._arriving))

    def request_received(
        self, message: stun.Message, address: Address, protocol: ice.StunProtocol
    ) -> None:
        user = str(message.attributes.get("USERNAME", "")).partition(":")[0]
        self._agents.get(user, self.agent).receive_request(message, address, protocol)

    def protocol_lost(self, protocol: ice.StunProtocol) -> None:
        selected = self.agent.selected
        if selected is not None and selected[0] is protocol:
            self._on_lost()
            self._queue.put_nowait(None)


async def _return() -> None:
    """Do nothing, in place of aioice's consent checks."""
