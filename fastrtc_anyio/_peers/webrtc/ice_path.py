"""The ICE transport of a connection: its generations, its paths, and what arrives on them.

aiortc 1.16 keeps the ICE connection it began with. :class:`IcePath` replaces it under DTLS, SRTP
and SCTP, which notice nothing: each generation has an agent (an ``aioice.Connection``) on the same
sockets, and one of them carries the data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeAlias

from aiortc import RTCIceCandidate, RTCRtpTransceiver, RTCSctpTransport
from aiortc.rtcdtlstransport import RTCDtlsTransport

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._peers.discards import Discards
from fastrtc_anyio._signaling.restart import IceCredentials
from fastrtc_anyio.errors import Closed, CloseReason

from . import fast_internals, internals
from .consent import Clock, Consent
from .guard import Admission, Guard
from .ice_internals import IceAgent, Origin
from .receiving import AudioReception
from .socket_internals import IceSockets

_RESTART_LIMIT = 30.0
"""Seconds in which a restart has to connect."""


Section: TypeAlias = RTCRtpTransceiver | RTCSctpTransport
"""A section of a description in aiortc."""


def by_transport(sections: Iterable[Section]) -> dict[RTCDtlsTransport, list[Section]]:
    """Return the sections that share each transport."""
    found: dict[RTCDtlsTransport, list[Section]] = {}
    for section in sections:
        transport = (
            section.transport if isinstance(section, RTCSctpTransport) else section.sender.transport
        )
        found.setdefault(transport, []).append(section)
    return found


def explain_end(paths: Sequence[IcePath]) -> Closed:
    """Return the reason why aiortc ended a connection, for which it has no field."""
    transports = [path.transport for path in paths]
    if any(internals.is_closed_by_client(transport) for transport in transports):
        return Closed(CloseReason.HUNG_UP, "the client closed the connection")
    if any(transport.transport.state == "failed" for transport in transports):
        text = "no ICE candidate pair works: UDP may be blocked between client and server"
    elif any(transport.state == "failed" for transport in transports):
        text = "the DTLS handshake failed"
    elif any(path.lost for path in paths):
        text = "the socket or the TURN relay of the connection was lost"
    else:
        text = "a packet could not be processed; aiortc's log has the reason at level DEBUG"
    return Closed(CloseReason.PEER_FAILED, text)


class IcePath:
    """Replaces the ICE part of a transport. Must be made before candidates are gathered.

    Args:
        transport: the DTLS transport.
        sections: transceivers and SCTP transport that it carries.
        clock: the time in seconds.
        admission: limits of the call for what arrives.
        spawn: starts a task.
        discards: counts what could not be processed.
    """

    def __init__(
        self,
        transport: RTCDtlsTransport,
        sections: Sequence[Section],
        clock: Clock,
        admission: Admission,
        spawn: Callable[[Coroutine[Any, Any, object]], None],
        discards: Discards,
    ) -> None:
        self.transport = transport
        self._sections = sections
        self._clock = clock
        self._spawn = spawn
        self._guard: Guard[Any] = Guard(clock, admission)
        self.sockets = IceSockets(
            transport,
            self._guard,
            admit=self._admit,
            connect=self._connect,
            on_lost=self._on_lost,
            on_stranger=self._suspect,
            on_failure=lambda why: discards.count(
                "datagrams", "a datagram could not be processed", repr(why)
            ),
        )
        """The sockets, shared by all generations."""
        self.consent: Consent[Origin] = Consent(self.sockets.agent, clock)
        self._pending: IceAgent | None = None
        self._connecting: set[IceAgent] = set()
        self._connected: asyncio.Future[None] | None = None
        self.lost = False
        """Whether the selected socket or relay has failed."""
        sctp = next((s for s in sections if isinstance(s, RTCSctpTransport)), None)
        internals.watch_packets(
            transport,
            sctp,
            lambda: self._hear_packet(self.sockets.origin),
            lambda error: discards.count("packets", "a packet is malformed", repr(error)),
        )
        transport.on("statechange", self._on_state)

    @property
    def mids(self) -> list[str | None]:
        """The mids of its sections for aiortc."""
        return [section.mid for section in self._sections]

    @property
    def is_started(self) -> bool:
        """Whether the first generation has begun to connect."""
        return self._connected is not None

    @property
    def remote_credentials(self) -> tuple[str | None, str | None]:
        """The client's user fragment and password in the newest generation."""
        return (self._pending or self.sockets.agent).remote_credentials

    def restart(self, remote: IceCredentials, local: IceCredentials) -> None:
        """Begin another generation with new credentials of both sides.

        The former one carries the data until a path of the new one is nominated, and goes on if
        none ever is. A restart replaces an unfinished one.
        """
        if self._pending is not None:
            self._spawn(self.sockets.close_agent(self._pending))
        self._pending = agent = self.sockets.make_agent(
            (remote.ufrag, remote.password), (local.ufrag, local.password)
        )
        self._start(agent, _RESTART_LIMIT)

    async def add_candidate(self, candidate: RTCIceCandidate | None) -> None:
        """Add a candidate of the client, or their end, to the newest generation.

        Raises:
            ValueError: aioice does not support the candidate, or has got their end.
        """
        await (self._pending or self.sockets.agent).add_candidate(candidate)

    async def close(self) -> None:
        """Abandon an unfinished restart. aiortc closes the agent in use and the sockets."""
        self.consent.close()
        agent, self._pending = self._pending, None
        if agent is not None:
            await self.sockets.close_agent(agent)

    def abort(self) -> None:
        """Close the sockets at once, if they are still open."""
        self.sockets.abort()

    def release(self) -> None:
        """Free the memory of closed sockets. Nothing may use the path any more."""
        self.sockets.release()
        del self.sockets, self.consent, self._connected

    async def _connect(self) -> None:
        """Connect for aiortc: return once any generation is connected."""
        self._connected = asyncio.get_running_loop().create_future()
        self._start(self.sockets.agent, None)
        await self._connected

    def _start(self, agent: IceAgent, limit: float | None) -> None:
        self._connecting.add(agent)
        self._spawn(self._run(agent, limit))

    async def _run(self, agent: IceAgent, limit: float | None) -> None:
        failed = False
        try:
            async with asyncio.timeout(limit):
                await agent.connect()
        except (ConnectionError, TimeoutError) as exc:
            failed = True
            logger.debug("an ICE generation failed: %r", exc, event="ice.generation_failed")
        finally:
            self._connecting.discard(agent)
        unused = None
        if agent is self._pending:
            self._pending = None
            unused = agent if failed else self._use(agent)
        self._report(failed)
        if unused is not None:
            await self.sockets.close_agent(unused)

    def _use(self, agent: IceAgent) -> IceAgent:
        """Use an agent whose path is nominated; return the former one."""
        former = self.sockets.use(agent)
        self.consent.use(agent)
        # The client's last packets on the former path may still be under way.
        last = former.selected
        self._guard.retain(lambda origin: origin == last or agent.knows(origin))
        return former

    def _report(self, failed: bool) -> None:
        """Let aiortc go on, or fail, once it is certain which."""
        assert self._connected is not None
        if self._connected.done():
            return
        if not failed:
            self._connected.set_result(None)
        elif not self._connecting:
            self._connected.set_exception(ConnectionError("ICE negotiation failed"))

    def _admit(self, agent: IceAgent, origin: Origin, nominates: bool) -> bool:
        """Record an authentic check or answer; False if the client has too many addresses."""
        forgotten = self._guard.establish(origin, agent.named(), agent.selected)
        if forgotten is None:
            logger.debug(
                "ignored a check: the client sends from too many addresses",
                event="ice.check_ignored",
            )
            return False
        for former in forgotten:
            agent.forget(former)
        current = agent is self.sockets.agent
        self.consent.hear(origin if current else None, nominates=nominates)
        return True

    def _suspect(self, origin: Origin) -> None:
        """Check whether the client sends from another address now. The packet was dropped."""
        if self.consent.misses_packets and self._guard.destinations.permits(origin[1]):
            self.consent.suspect(origin)

    def _hear_packet(self, origin: Origin | None) -> None:
        """Record an authenticated packet that is not a check."""
        if origin is not None:
            self._guard.hear(origin)
        self.consent.hear(origin)

    def _on_state(self) -> None:
        # Until then each datagram counts for the time to connect. A picture is several datagrams:
        # reading them at ticks saves little, and delays the picture.
        is_connected = self.transport.state == "connected"
        if is_connected and not any(map(_has_pictures, self._sections)):
            self.sockets.read_at_ticks()
        self.sockets.take = None
        if is_connected and fast_internals.is_usable():
            reception = AudioReception(
                self.transport, self._hear_packet, asyncio.get_running_loop()
            )
            self.sockets.take = reception.take

    def _on_lost(self) -> None:
        self.lost = True


def _has_pictures(section: Section) -> bool:
    if isinstance(section, RTCSctpTransport) or section.kind != "video":
        return False
    return section.currentDirection not in (None, "inactive")
