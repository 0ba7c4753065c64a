"""The half of a WebRTC connection that runs on the portal's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any

from aiortc import RTCPeerConnection, RTCSessionDescription, exceptions

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.records import log_failure
from fastrtc_anyio._overload import as_overloaded
from fastrtc_anyio._peers.portal import Portal
from fastrtc_anyio._signaling.answer import describe_local, restore_answer
from fastrtc_anyio._signaling.ice import RtcConfiguration
from fastrtc_anyio._signaling.offer import Negotiation, check_answer, negotiate
from fastrtc_anyio._signaling.requests import IceCandidate
from fastrtc_anyio._signaling.restart import Remote
from fastrtc_anyio._signaling.sdp import Description
from fastrtc_anyio._signaling.sdp_parser import parse_description, parse_in_steps
from fastrtc_anyio.errors import (
    Closed,
    CloseReason,
    FastRTCError,
    InvalidOffer,
    InvalidStateError,
    PeerClosed,
)
from fastrtc_anyio.limits import RequestLimits

from . import internals, task_internals
from .closing import Closing
from .consent import Clock, Reach, wait_silent
from .data import DataChannels, guard_sctp
from .feedback import limit_feedback
from .guard import Admission
from .ice_internals import Origin
from .ice_path import IcePath, Section, by_transport, explain_end
from .media import ConnectionMedia, MediaOptions, Streams, drain_track
from .network import choose_addresses, convert_configuration
from .remote_ice import RemoteIce
from .tasks import ConnectionTasks

_EXPLAINED = 1.0
"""Seconds to wait after the end of a sender for the event that explains it, such as a hang-up."""


class Connection:
    """An aiortc connection with its tracks, data channels and liveness check.

    All methods except the constructor must be called on the portal's loop.

    Arguments as for :class:`.WebRTCPeer`. ``on_connected`` is called once the connection is up, and
    ``on_closed`` with the reason when it ends, possibly more than once.
    """

    def __init__(
        self,
        *,
        configuration: RtcConfiguration,
        media: MediaOptions,
        streams: Streams,
        liveness_s: float | None,
        limits: RequestLimits,
        on_connected: Callable[[], None],
        on_closed: Callable[[Closed], None],
    ) -> None:
        self._configuration = configuration
        self._messages = streams.messages
        self._discards = streams.discards
        self._liveness = liveness_s
        self._watched = False
        self._limits = limits
        self._on_connected = on_connected
        self._on_closed = on_closed
        self._pc: RTCPeerConnection | None = None
        self.media = ConnectionMedia(media, streams, limits, self._on_broken, self._on_sender_ended)
        self.data_channels = DataChannels(
            streams.messages, limits, streams.discards, self._on_violation
        )
        self._negotiation: asyncio.Task[str] | None = None
        self._tasks = ConnectionTasks(self._on_task_failed)
        self._paths: list[IcePath] = []
        self.reach: Reach[Origin] = Reach()
        self._ice: RemoteIce | None = None
        self._connect_tasks: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._over = False
        self._released = False
        self._has_failed = False

    def run(self, function: Callable[[], object]) -> None:
        """Call a function, unless the connection is closed. Its tasks belong to the connection."""
        if not self._released:
            self._tasks.run(function)

    async def negotiate(self, step: Callable[..., Coroutine[Any, Any, str]], *args: str) -> str:
        """Run one step of the negotiation as a task that goes on if the caller is cancelled.

        aiortc's coroutines leave an inconsistent connection when cancelled half-way. They are
        short, and :meth:`close` waits for the last.

        Raises:
            PeerClosed: the connection is closing.
        """
        if self._closing:
            raise PeerClosed("the connection is closed")
        self._negotiation = self._tasks.start_apart(step(*args))
        return await asyncio.shield(self._negotiation)

    async def answer(self, offer_sdp: str) -> str:
        """Apply a client's offer and return the answer.

        Raises:
            InvalidOffer: the offer is malformed, or has no media this stream can use.
            LimitExceeded: the offer has too many media sections.
        """
        offer = await Portal.take_turns(parse_in_steps(offer_sdp, self._limits))
        negotiation = negotiate(offer, self.media.plan, self.media.video_codec)
        pc = self._open()
        with _blaming("offer"):
            offered = str(negotiation.present())
            await pc.setRemoteDescription(RTCSessionDescription(offered, "offer"))
        # setLocalDescription() writes directions and codecs into the answer, gathers candidates and
        # starts to connect, so all changes to these come before it.
        self.media.use_offered(negotiation, pc.getTransceivers())
        self._prepare_transports(pc)
        self.media.use_video_encoder()
        with _blaming("offer"):
            await pc.setLocalDescription()
        for track in self.media.unsent_tracks():
            # The client receives none of it, but wait_played() has to return all the same.
            self._spawn(drain_track(track))
        local = parse_description(pc.localDescription.sdp)
        opus, size = self.media.opus_parameters, self._limits.message_bytes
        answer = restore_answer(negotiation, local, opus, size)
        self._open_ice(negotiation, answer)
        return str(answer)

    async def offer(self) -> str:
        """Return an offer with a data channel."""
        pc = self._open()
        self.media.add_sections(pc)
        self.data_channels.add(pc.createDataChannel("text"))
        self._prepare_transports(pc)
        await pc.setLocalDescription()
        local = parse_description(pc.localDescription.sdp)
        return str(describe_local(local, self.media.opus_parameters, self._limits.message_bytes))

    async def accept(self, answer_sdp: str) -> str:
        """Apply the client's answer to :meth:`offer`.

        Raises:
            InvalidOffer: the answer is malformed, or rejects a section of the offer.
        """
        assert self._pc is not None, "accept() comes after offer()"
        answer = await Portal.take_turns(parse_in_steps(answer_sdp, self._limits))
        negotiation = check_answer(parse_description(self._pc.localDescription.sdp), answer)
        with _blaming("answer"):
            answered = str(negotiation.present())
            await self._pc.setRemoteDescription(RTCSessionDescription(answered, "answer"))
        self._open_ice(negotiation, None)
        self.media.use_video_encoder()
        return answer_sdp

    async def add_candidate(self, candidate: IceCandidate | None) -> None:
        """Add a candidate of the client's. Ignored if the negotiation failed.

        Raises:
            InvalidCandidate: the candidate is malformed.
            LimitExceeded: the client has sent as many as it may.
        """
        ice = await self._wait_negotiated()
        # None, the end of candidates, is not passed on: aioice ignores all candidates after it, but
        # HTTP requests can overtake each other, and Firefox sends one for each media section.
        # Without it a failed connection is noticed later, by the connect timeout.
        if ice is not None and candidate is not None:
            ice.add(candidate)

    async def restart(self, offer_sdp: str) -> str | None:
        """Answer an offer for an ICE restart; see :meth:`.RemoteIce.restart`."""
        ice = await self._wait_negotiated()
        return None if ice is None else await ice.restart(offer_sdp)

    async def restart_ice(self, remote: Remote) -> str:
        """Restart ICE with a client's new credentials; see :meth:`.RemoteIce.restart_with`."""
        ice = await self._wait_negotiated()
        if ice is None:
            raise InvalidStateError("the connection has ended, or does not exist yet")
        return ice.restart_with(remote)

    async def statistics(self) -> dict[str, dict[str, Any]]:
        """Return the reports of ``getStats()`` by id. Empty before negotiation and on close."""
        if self._pc is None or self._closing:
            return {}
        return {key: dict(vars(report)) for key, report in (await self._pc.getStats()).items()}

    async def close(self) -> None:
        """Close the connection and wait until all tasks of it have ended.

        Must run as a task that is never cancelled: after a cancelled ``RTCPeerConnection.close()``
        the next one waits for ever (aiortc 1.16).
        """
        self._closing = True
        await Closing(
            tasks=self._tasks,
            negotiation=self._negotiation,
            find_pc=lambda: self._pc,
            paths=self._paths,
            data_channels=self.data_channels,
            media=self.media,
            connecting=self._connect_tasks,
            has_failed=self._has_failed,
            end=lambda: self._end(Closed(CloseReason.CANCELLED, "closed by this side")),
        ).run(self._release)

    def _release(self) -> None:
        """Free the memory: no reference cycle is left for the garbage collector."""
        self._released = True
        if self._pc is not None:
            transports = [path.transport for path in self._paths]
            channels = self.data_channels.channels
            task_internals.release_connection(self._pc, transports, channels)
        for path in self._paths:
            path.release()
        self._paths.clear()
        self.reach.consents.clear()
        self._pc = self._ice = self._negotiation = None
        del self.media, self.data_channels, self._messages, self._tasks
        del self._on_connected, self._on_closed

    async def _connect(self, connect: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Perform ICE and DTLS, in a task of aiortc that :meth:`close` has to end."""
        task = asyncio.current_task()
        assert task is not None
        self._connect_tasks.add(task)
        try:
            await connect()
        except exceptions.InvalidStateError:
            logger.debug("closed while it was connecting", event="webrtc.closed_early")
        finally:
            self._connect_tasks.discard(task)

    def _open(self) -> RTCPeerConnection:
        self._clock = Clock()
        self._pc = pc = RTCPeerConnection(convert_configuration(self._configuration))
        internals.set_up_dtls(pc)
        internals.wrap_connect(pc, self._connect)
        pc.on("track", lambda track: self._spawn(drain_track(track)))
        pc.on("datachannel", self.data_channels.add)
        pc.on("connectionstatechange", self._on_state)
        return pc

    def _prepare_transports(self, pc: RTCPeerConnection) -> None:
        sections: list[Section] = list(pc.getTransceivers())
        if pc.sctp is not None:
            sections.append(pc.sctp)
            guard_sctp(pc.sctp, self._on_violation, self._discards)
        clock, policy = self._clock, self._configuration.address_policy
        admission = Admission(clock, policy, self._limits.candidates)
        for transport, carried in by_transport(sections).items():
            path = IcePath(transport, carried, clock, admission, self._spawn, self._discards)
            choose_addresses(transport, self._configuration, path.sockets)
            limit_feedback(transport, carried, self._discards)
            internals.skip_hopeless_handshake(transport)
            transport.on("statechange", self._on_transport_state)
            self._paths.append(path)
            self.reach.consents.append(path.consent)

    async def _wait_negotiated(self) -> RemoteIce | None:
        """Wait for the end of the negotiation. Return None if it failed, or on close."""
        negotiation = self._negotiation
        if negotiation is None:
            return None
        await asyncio.wait([negotiation])
        failed = negotiation.cancelled() or negotiation.exception() is not None
        return None if failed or self._closing else self._ice

    def _open_ice(self, negotiation: Negotiation, answer: Description | None) -> None:
        self._ice = RemoteIce(
            negotiation, answer, self._paths, self._limits, self._spawn, self._discards
        )
        self._spawn(self._add_described())

    async def _add_described(self) -> None:
        # In a task, after the negotiation: aiortc needs both descriptions to pair a candidate, and
        # would resolve the mDNS names in a description, which takes seconds, before it returns.
        ice = await self._wait_negotiated()
        if ice is not None:
            ice.add_described(complete=True)

    def _on_violation(self, text: str) -> None:
        if not self._over:
            self._end(Closed(CloseReason.PEER_FAILED, text))

    def _on_state(self) -> None:
        assert self._pc is not None
        state = self._pc.connectionState
        if state == "connected":
            if not self._watched:  # the state can return to "connected"
                self._watched = True
                self._spawn(self._watch())
            self._on_connected()
        elif state == "failed" or (state == "closed" and not self._closing):
            self._end(explain_end(self._paths))

    def _on_transport_state(self) -> None:
        """Notice a hang-up that aiortc reports only once all transports are closed.

        Some of the transports that the offer asked for may never have connected.
        """
        if not self._closing and not self._over:
            closed = explain_end(self._paths)
            if closed.reason is CloseReason.HUNG_UP:
                self._end(closed)

    def _on_broken(self, error: Exception) -> None:
        log_failure("encoding media failed", error=error, event="webrtc.encoding_failed")
        text = f"encoding media failed: {type(error).__name__}"
        self._end(Closed(CloseReason.PEER_FAILED, text))

    def _on_sender_ended(self) -> None:
        """Find out why aiortc stopped a sender: it only logs the exception of an encoder."""
        if not self._closing:
            self._spawn(self._check_sender())

    async def _check_sender(self) -> None:
        await asyncio.sleep(_EXPLAINED)  # a hang-up ends the senders, too
        if not self._over:
            text = "sending media failed"
            logger.error(
                "%s; aiortc's log has the reason at level DEBUG", text, event="webrtc.part_failed"
            )
            self._end(Closed(CloseReason.PEER_FAILED, text))

    def _end(self, closed: Closed) -> None:
        """End all streams and report the reason.

        Messages go on until :meth:`close` unless the client has closed the connection: the session
        sends it the reason.
        """
        self._over = True
        self.media.end_output()
        self._on_closed(closed)  # first: a driver may return at the end of its input
        self.media.end_input()
        if self._closing or closed.reason is CloseReason.HUNG_UP:
            self._messages.end()

    async def _watch(self) -> None:
        text = await wait_silent(self.reach.consents, self._liveness, self._clock)
        self._end(Closed(CloseReason.VANISHED, text))

    def _spawn(self, coroutine: Coroutine[Any, Any, object]) -> None:
        self._tasks.start(coroutine)

    def _on_task_failed(self, name: str, error: BaseException) -> None:
        if self._pc is not None:
            task_internals.release_ended(self._pc)
        if self._closing or self._over:  # a consequence; the first failure has been logged
            logger.debug(
                "%s failed after the end", name, exc_info=error, event="webrtc.failed_late"
            )
            return
        self._has_failed = True
        if as_overloaded(error) is None:  # it logs shortages
            log_failure(
                "a task of a WebRTC connection failed: %s",
                name,
                error=error,
                event="webrtc.task_failed",
            )
        self._end(Closed(CloseReason.PEER_FAILED, f"{name} failed: {type(error).__name__}"))


@contextmanager
def _blaming(description: str) -> Generator[None, None, None]:
    """Raise InvalidOffer for any exception of aiortc while it applies a description.

    aiortc 1.16 raises exceptions of many types. Their text is for the developers of aiortc.
    """
    try:
        yield
    except FastRTCError:  # raised by this package, about this side
        raise
    except Exception as exc:
        if (refusal := as_overloaded(exc)) is not None:
            raise refusal from exc
        logger.debug(
            "aiortc cannot use the %s",
            description,
            exc_info=True,
            event="webrtc.description_unusable",
        )
        text = f"the {description} cannot be used; the server's log has the reason at level DEBUG"
        raise InvalidOffer(text) from exc
