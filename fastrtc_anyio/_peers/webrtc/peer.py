"""Host's half of a WebRTC connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._core.records import log_failure
from fastrtc_anyio._media.encode import OpusOptions
from fastrtc_anyio._media.media_plan import MediaPlan
from fastrtc_anyio._media.video_encode import VideoOptions
from fastrtc_anyio._peers.lifecycle import LifecyclePeer
from fastrtc_anyio._peers.portal import Portal
from fastrtc_anyio._peers.streams.audio import AudioOutput, BufferOptions
from fastrtc_anyio._peers.streams.drain import DrainableAudioInput
from fastrtc_anyio._peers.streams.link import Link
from fastrtc_anyio._peers.streams.messages import MessageChannel
from fastrtc_anyio._peers.streams.video import VideoInput, VideoOutput
from fastrtc_anyio._signaling.ice import RtcConfiguration
from fastrtc_anyio._signaling.requests import IceCandidate, SessionDescription
from fastrtc_anyio._signaling.restart import Remote
from fastrtc_anyio.limits import RequestLimits

from .connection import Connection
from .media import MediaOptions, Streams


class WebRTCPeer(LifecyclePeer):
    """One WebRTC connection, which answers an offer or makes one.

    Args:
        portal: the thread of aiortc; it must stay open for as long as the peer.
        media: directions of the media; audio in both by default.
        sample_rate: rate of outgoing audio in Hz. ``audio_out.sample_rate`` becomes the codec's
            nearest rate.
        channels: 1, or 2 to negotiate stereo.
        input_sample_rate: rate of incoming audio in Hz, if its codec is Opus and has that rate. If
            Opus lacks it, its next rate up.
        input_channels: channels of incoming audio, if its codec is Opus. None: 2 from the client's
            first stereo packet on.
        fps: maximum frame rate of outgoing video, in Hz.
        configuration: addresses, ports and ICE servers.
        buffers: sizes of the audio queues.
        liveness_s: seconds without an authenticated packet after which the client counts as
            vanished; None to rely on ICE alone.
        opus: settings of the Opus encoder.
        video: codec and bitrate of outgoing video.
        limits: limits on data from the client other than media.
    """

    def __init__(
        self,
        portal: Portal,
        *,
        media: MediaPlan | None = None,
        sample_rate: int = 48_000,
        channels: int = 1,
        input_sample_rate: int = 48_000,
        input_channels: int | None = None,
        fps: float = 30,
        configuration: RtcConfiguration | None = None,
        buffers: BufferOptions | None = None,
        liveness_s: float | None = 5.0,
        opus: OpusOptions | None = None,
        video: VideoOptions | None = None,
        limits: RequestLimits | None = None,
    ) -> None:
        super().__init__()
        self._portal = portal
        self._host = Host()
        self.media = media or MediaPlan()
        buffers = buffers or BufferOptions()
        link = Link(self._host, time.monotonic)
        self._requests = requests = _Requests(portal)
        audio_in = DrainableAudioInput(link, buffers.input_s, requests.heard, requests.probe)
        self.audio_in = audio_in
        self.audio_out = audio_out = AudioOutput(link, sample_rate, channels, buffers, bound=False)
        self.video_in = video_in = VideoInput(link)
        self.video_out = video_out = VideoOutput(link, fps, video_in, requests.flush_pictures)
        self.messages = messages = MessageChannel(link, requests.flush_messages, self._discards)
        self._released: anyio.Event | None = None
        self._connection = requests.connection = Connection(
            configuration=configuration or RtcConfiguration(),
            media=MediaOptions(
                self.media,
                sample_rate,
                channels,
                input_sample_rate,
                input_channels,
                opus or OpusOptions(),
                video or VideoOptions(),
            ),
            streams=Streams(audio_in, audio_out, video_in, video_out, messages, self._discards),
            liveness_s=liveness_s,
            limits=limits or RequestLimits(),
            on_connected=lambda: self._host.post(self._mark_connected),
            on_closed=lambda closed: self._host.post(lambda: self._mark_closed(closed)),
        )

    async def answer(self, offer: SessionDescription) -> SessionDescription:
        """Answer a client's offer. The connection is then established in the background.

        Raises:
            InvalidOffer: the offer is malformed, or has no audio codec in common with aiortc.
            LimitExceeded: the offer has too many sections.

        Cancellation:
            The negotiation continues in the background; :meth:`aclose` waits for it.
        """
        connection = self._connection
        sdp = await self._portal.call(connection.negotiate, connection.answer, offer.sdp)
        return SessionDescription("answer", sdp)

    async def restart(self, offer: SessionDescription) -> SessionDescription | None:
        """Answer an offer for an ICE restart, which the handler does not notice.

        Returns None if the offer is for none: its certificates are not those of the connection, or
        its ICE credentials are not new.

        Raises:
            InvalidOffer: the offer is malformed, or changes more than the ICE credentials.
            InvalidStateError: the connection has not begun to connect.
            LimitExceeded: the client has restarted ICE too often in the last minute.
        """
        sdp = await self._portal.call(self._connection.restart, offer.sdp)
        return None if sdp is None else SessionDescription("answer", sdp)

    async def restart_ice(self, remote: Remote) -> str:
        """Restart ICE with new credentials of the client; return those of this side.

        The result is an SDP fragment (RFC 8840 9) with the credentials and the candidates.

        Raises:
            InvalidCandidate: a transport has no new, valid credentials.
            InvalidStateError, LimitExceeded: as for :meth:`restart`.
        """
        return await self._portal.call(self._connection.restart_ice, remote)

    async def offer(self) -> SessionDescription:
        """Create an offer with a data channel. Pass the client's answer to :meth:`accept`."""
        connection = self._connection
        sdp = await self._portal.call(connection.negotiate, connection.offer)
        return SessionDescription("offer", sdp)

    async def accept(self, answer: SessionDescription) -> None:
        """Accept the client's answer to the offer.

        Raises:
            InvalidOffer: the answer is malformed.
        """
        connection = self._connection
        await self._portal.call(connection.negotiate, connection.accept, answer.sdp)

    async def add_ice_candidate(self, candidate: IceCandidate | None) -> None:
        """Add a candidate of the client; None marks the end of the candidates.

        Raises:
            InvalidCandidate: the candidate is malformed.
            LimitExceeded: the client has reached the limit of candidates.
        """
        await self._portal.call(self._connection.add_candidate, candidate)

    async def aclose(self) -> None:
        if self._released is None:
            released = self._released = anyio.Event()
            self._requests.is_open = False

            def start() -> None:
                task = asyncio.get_running_loop().create_task(self._connection.close())
                task.add_done_callback(finish)

            def finish(task: asyncio.Task[None]) -> None:
                if not task.cancelled() and (error := task.exception()) is not None:
                    log_failure(
                        "closing a WebRTC connection failed",
                        error=error,
                        event="webrtc.close_failed",
                    )
                self._host.post(released.set)

            self._portal.post(start)
        await self._released.wait()
        await checkpoint()

    async def transport_statistics(self) -> dict[str, dict[str, Any]]:
        """Return aiortc's reports by id, each with its ``type``: the ``getStats`` of W3C."""
        return await self._portal.call(self._connection.statistics)


class _Requests:
    """Requests of a peer's streams to its connection, until it is closed.

    The streams refer to this object, not to the peer, which refers to them: without a reference
    cycle a closed peer needs no garbage collector.
    """

    connection: Connection

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self.is_open = True

    def heard(self) -> float:
        return self.connection.reach.heard()

    def probe(self) -> None:
        self._post(self.connection.reach.probe)

    def flush_pictures(self) -> None:
        self._post(lambda: self.connection.media.flush_pictures())

    def flush_messages(self) -> None:
        self._post(lambda: self.connection.data_channels.flush())

    def _post(self, function: Callable[[], object]) -> None:
        if self.is_open:
            self._portal.post(self.connection.run, function)
