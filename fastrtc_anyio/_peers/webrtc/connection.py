"""The portal's half of a WebRTC connection: aiortc's peer connection and what we add to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceCandidate,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc import sdp as aiortc_sdp
from aiortc.exceptions import InvalidStateError
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcconfiguration import RTCIceTransportPolicy

from fastrtc_anyio._media.encode import AudioEncoder, OpusOptions, VideoOptions, create_encoder
from fastrtc_anyio._media.media_plan import MediaPlan
from fastrtc_anyio._peers.channels import (
    AudioInput,
    AudioOutput,
    MessageChannel,
    VideoInput,
    VideoOutput,
)
from fastrtc_anyio._signaling.ice import RtcConfiguration
from fastrtc_anyio._signaling.requests import IceCandidate
from fastrtc_anyio._signaling.sdp import (
    check_sections,
    keep_feedback,
    set_message_size,
    set_opus_parameters,
    split_candidates,
)
from fastrtc_anyio.errors import (
    Closed,
    CloseReason,
    FastRTCError,
    InvalidCandidate,
    InvalidOffer,
    LimitExceeded,
    PeerClosed,
    UnsupportedFormat,
)
from fastrtc_anyio.limits import RequestLimits, check_candidates

from .audio import PlayoutTrack, tap_audio
from .data import DRAIN_LIMIT, DataChannels, guard_sctp, poll
from .network import Heartbeat, accept_rsa, choose_addresses, stop_consent
from .video import PictureTrack, keep_receiving, limit_bitrate, prefer_codec, receive_pictures

__all__ = ["Connection", "MediaOptions", "Streams"]

logger = logging.getLogger("fastrtc_anyio")

_EXPLAINED = 1.0
"""Seconds after the end of a sender in which the reason for it becomes known."""
_SENDING = ("sendonly", "sendrecv")
_LAST_PORT = 65_535


@dataclass(frozen=True)
class Streams:
    """The queues a connection shares with the host. Audio out is made when its codec is known."""

    audio_in: AudioInput
    video_in: VideoInput
    video_out: VideoOutput
    messages: MessageChannel
    make_audio_out: Callable[[int, int], AudioOutput]


@dataclass(frozen=True)
class MediaOptions:
    """What media a connection carries, and how."""

    plan: MediaPlan
    sample_rate: int
    channels: int
    opus: OpusOptions
    video: VideoOptions


class Connection:
    """The portal's half. Every method runs on the portal's loop, but for the constructor."""

    audio_out: AudioOutput

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
        self._media = media
        self._streams = streams
        self._liveness = liveness_s
        self._limits = limits
        self._on_connected = on_connected
        self._on_closed = on_closed
        self._pc: RTCPeerConnection | None = None
        self.data_channels = DataChannels(streams.messages, limits)
        self._encoder: AudioEncoder | None = None
        self._pictures: PictureTrack | None = None
        self._video: RTCRtpTransceiver | None = None
        self._negotiation: asyncio.Task[str] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._heartbeat = Heartbeat()
        self._candidates = 0
        self._connecting: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._over = False

    async def negotiate(self, step: Callable[..., Coroutine[Any, Any, str]], *args: str) -> str:
        """Run one step of the negotiation as a task that a cancelled caller leaves alone.

        aiortc's coroutines are not written to be cancelled half-way. They are short, and
        :meth:`close` waits for the last.
        """
        if self._closing:
            raise PeerClosed("the connection is closed")
        self._negotiation = asyncio.get_running_loop().create_task(step(*args))
        return await asyncio.shield(self._negotiation)

    async def answer(self, offer_sdp: str) -> str:
        offer, candidates, complete = split_candidates(offer_sdp)
        pc = self._open()
        check_sections(offer, self._limits)
        with _blaming("offer"):
            await pc.setRemoteDescription(RTCSessionDescription(keep_feedback(offer), "offer"))
        for transceiver in pc.getTransceivers():
            if transceiver._offerDirection is None:
                transceiver._offerDirection = "sendrecv"  # RFC 8866 6.7: the default
        audio, video = self._choose_transceivers(pc.getTransceivers())
        if audio is not None:
            # Until the answer is made, only this says which codec it will name first.
            self._use_audio(audio, audio._codecs[0].name)
        if video is not None:
            prefer_codec(video, self._media.video)
            self._use_video(video)
        self._prepare_transports(pc)
        self._limit_bitrate()
        with _blaming("offer"):
            await pc.setLocalDescription()
        for used in (audio, video):
            if used is not None and used.currentDirection not in _SENDING:
                track: MediaStreamTrack | None = used.sender.track
                if track is not None:  # nobody listens, yet what is played has to end
                    self._spawn(_drain_track(track))
        self._spawn(self._add_candidates(candidates, complete))
        return self._local_sdp(pc)

    async def offer(self) -> str:
        pc, plan = self._open(), self._media.plan
        if plan.audio:
            audio = pc.addTransceiver("audio", plan.direction("audio"))
            capabilities = RTCRtpSender.getCapabilities("audio").codecs
            audio.setCodecPreferences([c for c in capabilities if c.mimeType == "audio/opus"])
            self._use_audio(audio, "opus")
        if plan.video:
            self._use_video(pc.addTransceiver("video", plan.direction("video")))
        self.data_channels.add(pc.createDataChannel("text"))
        self._prepare_transports(pc)
        await pc.setLocalDescription()
        return self._local_sdp(pc)

    async def accept(self, answer_sdp: str) -> str:
        assert self._pc is not None, "accept() comes after offer()"
        with _blaming("answer"):
            await self._pc.setRemoteDescription(RTCSessionDescription(answer_sdp, "answer"))
        self._limit_bitrate()
        return answer_sdp

    async def add_candidate(self, candidate: IceCandidate | None) -> None:
        if self._negotiation is not None:
            await asyncio.wait([self._negotiation])  # the session may be being made just now
        described = self._negotiation is not None and _succeeded(self._negotiation)
        if self._pc is None or not described or self._closing:
            return
        if candidate is None:
            # aioice takes none after it, of any section. Yet requests overtake each other, and
            # Firefox tells the end of each section. Without it only a failure is noticed later: by
            # the connect limit.
            return
        check_candidates(self._candidates, self._limits)
        self._candidates += 1
        try:
            parsed = aiortc_sdp.candidate_from_sdp(candidate.candidate.removeprefix("candidate:"))
        except (ValueError, AssertionError, IndexError) as exc:
            raise InvalidCandidate(f"not a candidate: {candidate.candidate[:100]!r}") from exc
        if not 0 <= parsed.port <= _LAST_PORT:
            raise InvalidCandidate(f"a port is 0 to {_LAST_PORT}; got {parsed.port}")
        parsed.sdpMid = candidate.sdp_mid
        parsed.sdpMLineIndex = candidate.sdp_mline_index
        self._spawn(self._add_parsed(self._pc, parsed))  # resolving its name may take seconds

    def flush_pictures(self) -> None:
        """There is a picture to send."""
        if self._pictures is not None:
            self._pictures.wake()

    async def statistics(self) -> dict[str, dict[str, Any]]:
        if self._pc is None or self._closing:
            return {}
        return {key: dict(vars(report)) for key, report in (await self._pc.getStats()).items()}

    async def close(self) -> None:
        """Close everything. Runs as a task of its own that nobody cancels: a second close of an
        aiortc connection whose first was cancelled waits for ever."""
        self._closing = True
        if self._negotiation is not None:
            await asyncio.wait([self._negotiation])
            if not self._negotiation.cancelled():
                self._negotiation.exception()  # seen: its caller may be gone
        if self._pc is not None:
            # Half way through its handshake, a client would not hear of the end.
            await poll(lambda: not self._is_shaking_hands, DRAIN_LIMIT)
            if self._pc.connectionState == "connected" and self._pc.sctp is not None:
                await self.data_channels.drain(self._pc.sctp)
            self._end_input()
            try:
                await self._pc.close()
            except Exception:  # aiortc trips over what an offer left half made; the rest goes on
                logger.exception("a WebRTC connection could not be closed in order")
            await self._end_connecting(self._pc)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._end(Closed(CloseReason.CANCELLED, "closed by this side"))
        if self._encoder is not None:
            self._encoder.close()

    @property
    def _is_shaking_hands(self) -> bool:
        transports = {t.sender.transport for t in self._pc.getTransceivers()} if self._pc else set()
        return any(transport.state == "connecting" for transport in transports)

    def _open(self) -> RTCPeerConnection:
        configuration = self._configuration
        self._pc = pc = RTCPeerConnection(
            RTCConfiguration(
                iceServers=[
                    RTCIceServer(list(server.urls), server.username, server.credential)
                    for server in configuration.ice_servers
                ],
                iceTransportPolicy=RTCIceTransportPolicy(configuration.ice_transport_policy),
            )
        )
        accept_rsa(pc)
        self._track_connecting(pc)
        pc.on("track", self._on_track)
        pc.on("datachannel", self.data_channels.add)
        pc.on("connectionstatechange", self._on_state)
        return pc

    def _track_connecting(self, pc: RTCPeerConnection) -> None:
        """Know the tasks in which aiortc connects: it starts them and forgets them."""
        live: Any = pc
        assert hasattr(live, "_RTCPeerConnection__connect"), "aiortc has changed"
        connect = live._RTCPeerConnection__connect

        async def tracked_connect() -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connecting.add(task)
            try:
                await connect()
            except InvalidStateError:
                logger.debug("closed while it was connecting")
            finally:
                self._connecting.discard(task)

        live._RTCPeerConnection__connect = tracked_connect

    async def _end_connecting(self, pc: RTCPeerConnection) -> None:
        """End what a connect that was under way started after the close had passed it."""
        if self._connecting:
            await asyncio.wait(self._connecting, timeout=1)
        for task in list(self._connecting):
            task.cancel()
        for transceiver in pc.getTransceivers():
            await transceiver.stop()
            stop_consent(transceiver.sender.transport)
        if pc.sctp is not None:
            stop_consent(pc.sctp.transport)

    def _choose_transceivers(
        self, transceivers: list[RTCRtpTransceiver]
    ) -> tuple[RTCRtpTransceiver | None, RTCRtpTransceiver | None]:
        """The sections we use: the first of each kind. All others are answered ``inactive``."""
        plan = self._media.plan
        chosen: dict[str, RTCRtpTransceiver] = {}
        for transceiver in transceivers:
            if transceiver.kind in chosen or not getattr(plan, transceiver.kind):
                transceiver.direction = "inactive"
            else:
                chosen[transceiver.kind] = transceiver
        for kind in ("audio", "video"):
            if getattr(plan, kind) and kind not in chosen:
                raise InvalidOffer(f"the offer has no {kind} section; this stream needs one")
        return chosen.get("audio"), chosen.get("video")

    def _use_audio(self, transceiver: RTCRtpTransceiver, codec: str) -> None:
        plan = self._media.plan
        transceiver.direction = plan.direction("audio")
        if plan.audio_in:
            tap_audio(transceiver, self._streams.audio_in.push)
        if plan.audio_out:
            transceiver.sender.replaceTrack(self._make_playout_track(codec))

    def _use_video(self, transceiver: RTCRtpTransceiver) -> None:
        plan = self._media.plan
        transceiver.direction = plan.direction("video")
        self._video = transceiver
        if plan.video_in:
            keep_receiving(transceiver)
        if plan.video_out:
            self._pictures = PictureTrack(self._streams.video_out, self._on_broken)
            self._pictures.on("ended", self._on_sender_ended)
            transceiver.sender.replaceTrack(self._pictures)

    def _limit_bitrate(self) -> None:
        if self._video is not None and self._media.plan.video_out:
            limit_bitrate(self._video, self._media.video)

    def _make_playout_track(self, codec: str) -> PlayoutTrack:
        media = self._media
        try:
            encoder = create_encoder(codec, media.sample_rate, media.channels, media.opus)
        except UnsupportedFormat as exc:
            raise InvalidOffer(str(exc)) from exc
        self._encoder = encoder
        self.audio_out = self._streams.make_audio_out(encoder.sample_rate, encoder.channels)
        track = PlayoutTrack(self.audio_out, encoder, self._on_broken)
        track.on("ended", self._on_sender_ended)
        return track

    def _local_sdp(self, pc: RTCPeerConnection) -> str:
        media = self._media
        stereo = media.channels == 2 if self._encoder is None else self._encoder.channels == 2
        sdp = set_message_size(pc.localDescription.sdp, self._limits.message_bytes)
        return set_opus_parameters(sdp, stereo=stereo, inband_fec=media.opus.inband_fec)

    def _prepare_transports(self, pc: RTCPeerConnection) -> None:
        transports = {transceiver.sender.transport for transceiver in pc.getTransceivers()}
        if pc.sctp is not None:
            transports.add(pc.sctp.transport)
            guard_sctp(pc.sctp, self._on_garbage)
        for transport in transports:
            choose_addresses(transport, self._configuration)
            self._heartbeat.listen(transport)

    async def _add_candidates(self, candidates: list[IceCandidate], complete: bool) -> None:
        for candidate in candidates:
            try:
                await self.add_candidate(candidate)
            except InvalidCandidate as exc:
                logger.debug("ignored: %s", exc)
            except LimitExceeded as exc:
                logger.warning("an offer has %d candidates: %s", len(candidates), exc)
                break
        if complete and self._pc is not None and not self._closing:
            self._spawn(self._pc.addIceCandidate(None))  # behind those of the candidates

    async def _add_parsed(self, pc: RTCPeerConnection, candidate: RTCIceCandidate) -> None:
        try:
            await pc.addIceCandidate(candidate)
        except ValueError as exc:  # an address or a transport aioice has no use for
            logger.debug("ignored a candidate: %s", exc)

    def _on_track(self, track: MediaStreamTrack) -> None:
        # Every track is drained: its queue has no bound. The audio we listen to yields nothing, as
        # its packets are tapped. That aiortc ends it, after an RTCP BYE, means little: a browser
        # sends one when its microphone is turned off, and sends on when it is turned on.
        self._spawn(self._consume(track))

    async def _consume(self, track: MediaStreamTrack) -> None:
        if self._negotiation is not None:  # which of several is the camera is decided by its end
            await asyncio.wait([self._negotiation])
        video = self._video
        if self._media.plan.video_in and video is not None and track is video.receiver.track:
            await receive_pictures(track, self._streams.video_in)
        else:
            await _drain_track(track)

    def _on_garbage(self, text: str) -> None:
        if not self._over:
            self._end(Closed(CloseReason.PEER_FAILED, text))

    def _on_state(self) -> None:
        assert self._pc is not None
        state = self._pc.connectionState
        if state == "connected":
            if self._liveness is not None:
                self._spawn(self._watch_liveness(self._pc, self._liveness))
                self._liveness = None  # once is enough
            self._on_connected()
        elif state == "failed":
            self._end(Closed(CloseReason.PEER_FAILED, "the connection failed"))
        elif state == "closed" and not self._closing:
            self._end(Closed(CloseReason.HUNG_UP, "the client closed the connection"))

    def _on_broken(self, error: Exception) -> None:
        logger.error("media could not be encoded", exc_info=error)
        self._end(Closed(CloseReason.PEER_FAILED, f"media could not be encoded: {error}"))

    def _on_sender_ended(self) -> None:
        """aiortc stops a sender whose encoder fails, and only logs it."""
        if not self._closing:
            self._spawn(self._check_sender())

    async def _check_sender(self) -> None:
        await asyncio.sleep(_EXPLAINED)  # a client that hangs up ends the senders, too
        if not self._over:
            text = "media could not be sent any more"
            logger.error("%s; aiortc's log says why", text)
            self._end(Closed(CloseReason.PEER_FAILED, text))

    def _end(self, closed: Closed) -> None:
        """No media and no messages any more."""
        self._over = True
        self._end_input()
        if hasattr(self, "audio_out"):
            self.audio_out.end()
        self._streams.video_out.end()
        self._streams.messages.end()
        self._on_closed(closed)

    def _end_input(self) -> None:
        self._streams.audio_in.end()
        self._streams.video_in.end()

    async def _watch_liveness(self, pc: RTCPeerConnection, limit: float) -> None:
        await self._heartbeat.wait_silent(limit, pc.getTransceivers()[0].sender.transport)
        text = f"nothing was heard from the client for {limit:g} s"
        self._end(Closed(CloseReason.VANISHED, text))

    def _spawn(self, coroutine: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task of a WebRTC connection failed", exc_info=error)
            self._end(Closed(CloseReason.PEER_FAILED, f"internal error: {error!r}"))


@contextmanager
def _blaming(description: str) -> Generator[None, None, None]:
    """aiortc checks a description as it goes, and has no error of its own for a bad one: its
    parser, its transports and its answer may raise anything."""
    try:
        yield
    except FastRTCError:  # our own, about this side
        raise
    except Exception as exc:
        text = str(exc) or type(exc).__name__
        raise InvalidOffer(f"the {description} cannot be used: {text}") from exc


def _succeeded(task: asyncio.Task[Any]) -> bool:
    return not task.cancelled() and task.exception() is None


async def _drain_track(track: MediaStreamTrack) -> None:
    try:
        while True:
            await track.recv()
    except MediaStreamError:
        pass
