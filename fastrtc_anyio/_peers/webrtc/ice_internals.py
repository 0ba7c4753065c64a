"""Access to private names of aioice for checks, paths and restarts.

The rules are those of :mod:`.internals`, which does the same for everything else.

Verified against aiortc 1.16.0 and aioice 0.13.0. :data:`REQUIRED` is checked on import.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeAlias

from aioice import ice, stun
from aioice.candidate import Candidate, candidate_priority
from aioice.mdns import is_mdns_hostname
from aiortc import RTCIceCandidate, rtcicetransport

from fastrtc_anyio._core.required import check_required

from .guard import Destinations
from .internals import SUPPORTED, Address, replace_attribute

REQUIRED: Mapping[type | ModuleType, tuple[str, ...]] = {
    rtcicetransport: ("candidate_to_aioice",),
    ice.Connection: (
        "_add_remote_candidate",
        "_check_list",
        "_closing",
        "_nominated",
        "_protocols",
        "_queue",
        "_remote_candidates",
        "_valid_username",
        "build_request",
        "ice_controlling",
        "query_consent",
        "remote_password",
        "request_received",
    ),
    Candidate: ("_network_host",),
    ice.CandidatePair: ("protocol", "remote_addr", "remote_nominated", "task"),
    ice.StunProtocol: ("send_stun", "transactions"),
    stun.Message: ("check_message_integrity",),
}
"""Undocumented names by the class or module that has them."""

check_required(REQUIRED, SUPPORTED)


Origin: TypeAlias = tuple[ice.StunProtocol, Address]
"""One path to the client: the local socket or relay, and the client's address."""


class IceAgent:
    """One ICE generation: an ``aioice.Connection`` with one pair of credentials on each side.

    aioice 0.13 and aiortc 1.16 have no ICE restart, no access to checks, and consent checks whose
    answers count for 0.5 s only. Can go once they have.

    Args:
        connection: the connection of aiortc's transport.
        destinations: addresses to use; aioice uses all.
    """

    def __init__(self, connection: ice.Connection, destinations: Destinations) -> None:
        self.connection = connection
        self._destinations = destinations
        self._has_ignored = False
        self._connect = connection.connect
        self._token = f"{connection.local_username}:".encode()
        replace_attribute(connection, "query_consent", _return)
        add = connection._add_remote_candidate

        def add_remote_candidate(candidate: Candidate, host: str) -> None:
            # Called for each candidate, and for a name once it is resolved.
            if destinations.permits((host, candidate.port)):
                add(candidate, host)
            else:
                self._has_ignored = True

        replace_attribute(connection, "_add_remote_candidate", add_remote_candidate)

    @property
    def ufrag(self) -> str:
        """Fragment of the user name of this side."""
        return self.connection.local_username

    @property
    def remote_credentials(self) -> tuple[str | None, str | None]:
        """Fragment of the user name and password of the client."""
        return self.connection.remote_username, self.connection.remote_password

    @property
    def selected(self) -> Origin | None:
        """The path to which data is sent."""
        pair = self.connection._nominated.get(1)
        return None if pair is None else (pair.protocol, pair.remote_addr)

    def select(self, origin: Origin) -> None:
        """Send data to another path, which must have answered a check."""
        pair = self._find_or_add_pair(origin)
        pair.state = ice.CandidatePair.State.SUCCEEDED
        self.connection._nominated[1] = pair

    def is_nominated(self, origin: Origin) -> bool:
        """Return whether the client has nominated a path, which may not be selected yet."""
        pair = self._find_pair(origin)
        return pair is not None and pair.remote_nominated

    def send_check(self, origin: Origin, on_answer: Callable[[], None]) -> Callable[[], None]:
        """Send one connectivity check (RFC 8445 7.2) and call ``on_answer`` for a valid answer.

        An answer counts until the returned function is called, however late it comes.
        """
        connection, (protocol, address) = self.connection, origin
        if connection._closing or connection.remote_password is None:
            return lambda: None
        key = connection.remote_password.encode()
        pair = self._find_pair(origin) or _make_pair(origin)
        request = connection.build_request(pair, nominate=connection.ice_controlling)
        request.add_message_integrity(key)
        number = request.transaction_id
        transactions: dict[bytes, Any] = protocol.transactions

        def forget() -> None:
            transactions.pop(number, None)

        def receive(message: stun.Message) -> None:
            if message.check_message_integrity(key):
                forget()
                if message.message_class == stun.Class.RESPONSE:
                    on_answer()

        transactions[number] = _Transaction(receive, address)
        protocol.send_stun(request, address)
        return forget

    def named(self) -> set[Address]:
        """Return the addresses of the client's candidates, without those learned from checks."""
        return {
            (candidate._network_host, candidate.port)
            for candidate in self.connection._remote_candidates
            if candidate.type != "prflx"
        }

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
        connection = self.connection
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
        is_name = candidate is not None and is_mdns_hostname(candidate.ip)
        if is_name and not self._destinations.permits_names():
            self._has_ignored = True
            return
        if candidate is None and self._has_ignored and not self.connection._remote_candidates:
            # Without any candidate, aioice would fail now. The client's checks reveal an address.
            return
        convert = rtcicetransport.candidate_to_aioice
        await self.connection.add_remote_candidate(
            None if candidate is None else convert(candidate)
        )

    async def close(self) -> None:
        """End all checks. The sockets stay open: they belong to the other agents too."""
        self.connection._protocols, self.connection._queue = [], asyncio.Queue()
        await self.connection.close()

    def is_addressed_in(self, data: bytes) -> bool:
        """Return whether a check may be for this agent."""
        return self._token in data

    def authenticates(self, message: stun.Message) -> bool:
        """Return whether a check comes from the client, for this agent."""
        connection, attributes = self.connection, message.attributes
        return (
            "PRIORITY" in attributes
            and connection._valid_username(attributes["USERNAME"])
            and message.check_message_integrity(connection.local_password.encode())
        )

    def authenticates_answer(self, message: stun.Message) -> bool:
        """Return whether an answer comes from the client, to this agent."""
        password = self.connection.remote_password
        return password is not None and message.check_message_integrity(password.encode())

    def receive_request(self, message: stun.Message, origin: Origin) -> None:
        """Answer an authentic check, and check its origin."""
        protocol, address = origin
        self.connection.request_received(message, address, protocol)

    def _find_pair(self, origin: Origin) -> ice.CandidatePair | None:
        for pair in self.connection._check_list:
            if (pair.protocol, pair.remote_addr) == origin:
                return pair
        return None

    def _find_or_add_pair(self, origin: Origin) -> ice.CandidatePair:
        pair = self._find_pair(origin)
        if pair is None:
            pair = _make_pair(origin)
            self.connection._remote_candidates.append(pair.remote_candidate)
            self.connection._check_list.append(pair)
        return pair


def _make_pair(origin: Origin) -> ice.CandidatePair:
    protocol, (host, port) = origin
    priority = candidate_priority(1, "prflx")
    candidate = Candidate(secrets.token_hex(5), 1, "udp", priority, host, port, "prflx")
    pair = ice.CandidatePair(protocol, candidate)
    pair.state = ice.CandidatePair.State.WAITING
    return pair


class _Transaction:
    """Receives the answer of a check, in place of aioice's transaction with its timer.

    The mangled name of its address is the same as in aioice's class.
    """

    def __init__(self, receive: Callable[[stun.Message], None], address: Address) -> None:
        self._receive = receive
        self.__addr = address

    def response_received(self, message: stun.Message, address: Address) -> None:
        self._receive(message)


async def _return() -> None:
    """Do nothing, in place of aioice's consent checks."""
