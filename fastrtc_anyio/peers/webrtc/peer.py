"""The host's half of a WebRTC connection."""

from __future__ import annotations

import asyncio
import logging

import anyio
from anyio.lowlevel import checkpoint

from fastrtc_anyio.abc import Peer
from fastrtc_anyio.errors import (
    Closed,
    CloseReason,
    ConnectTimeout,
    PeerClosed,
    PeerError,
    PeerFailed,
)
from fastrtc_anyio.media.encode import OpusOptions
from fastrtc_anyio.peers._channels import AudioInput, AudioOutput, Link, MessageChannel
from fastrtc_anyio.peers._portal import Portal
from fastrtc_anyio.protocol.ice import RtcConfiguration
from fastrtc_anyio.protocol.signaling import IceCandidate, SessionDescription
from fastrtc_anyio.workers import Host

from .connection import Connection, PacketStatistics

__all__ = ["WebRTCPeer"]

logger = logging.getLogger("fastrtc_anyio")


class WebRTCPeer(Peer):
    """One WebRTC connection. Answers an offer, or makes one.

    Args:
        portal: where aiortc runs; open for as long as the peer is.
        sample_rate: rate in Hz of the audio to send. ``audio_out.sample_rate`` is what the codec
            makes of it.
        channels: 1, or 2 for stereo to be negotiated.
        output_buffer_s: seconds of audio that can be queued for playout.
        input_buffer_s: seconds of audio that wait for a slow reader.
        liveness_s: seconds without an authenticated packet after which the client counts as
            vanished; None to rely on ICE alone.

    ``audio_in`` and ``messages`` exist from the start, ``audio_out`` once the codec is known:
    after :meth:`answer` or :meth:`offer`.
    """

    def __init__(
        self,
        portal: Portal,
        *,
        sample_rate: int = 48_000,
        channels: int = 1,
        configuration: RtcConfiguration | None = None,
        output_buffer_s: float = 30.0,
        input_buffer_s: float = 1.0,
        liveness_s: float | None = 5.0,
        opus: OpusOptions | None = None,
    ) -> None:
        self._portal = portal
        self._host = Host()
        link = Link(self._host)
        self.audio_in = AudioInput(link, input_buffer_s)
        self.messages = MessageChannel(link, self._kick)
        self._connected = anyio.Event()
        self._closed_event = anyio.Event()
        self._closed: Closed | None = None
        self._released: anyio.Event | None = None
        self._connection = Connection(
            configuration=configuration or RtcConfiguration(),
            audio_in=self.audio_in,
            messages=self.messages,
            make_output=lambda rate, n: AudioOutput(link, rate, n, output_buffer_s),
            sample_rate=sample_rate,
            channels=channels,
            opus=opus or OpusOptions(),
            liveness_s=liveness_s,
            on_connected=lambda: self._host.post(self._connected.set),
            on_closed=lambda closed: self._host.post(lambda: self._set_closed(closed)),
        )

    async def answer(self, offer: SessionDescription) -> SessionDescription:
        """Answer a client's offer. The connection then comes up by itself.

        Raises:
            InvalidOffer: the offer is malformed, or has no audio we have a codec for.

        Cancellation:
            The negotiation ends by itself; :meth:`aclose` waits for it.
        """
        connection = self._connection
        sdp = await self._portal.call(connection.negotiate, connection.answer, offer.sdp)
        self.audio_out = connection.audio_out
        return SessionDescription("answer", sdp)

    async def offer(self) -> SessionDescription:
        """Make an offer, with a data channel. The client's answer goes to :meth:`accept`."""
        connection = self._connection
        sdp = await self._portal.call(connection.negotiate, connection.offer)
        self.audio_out = connection.audio_out
        return SessionDescription("offer", sdp)

    async def accept(self, answer: SessionDescription) -> None:
        """Take the answer to our offer.

        Raises:
            InvalidOffer: the answer is malformed.
        """
        connection = self._connection
        await self._portal.call(connection.negotiate, connection.accept, answer.sdp)

    async def add_ice_candidate(self, candidate: IceCandidate | None) -> None:
        """Add a candidate of the client's, or None: there are no more.

        Raises:
            InvalidCandidate: it is malformed.
        """
        await self._portal.call(self._connection.add_candidate, candidate)

    async def wait_connected(self) -> None:
        await self._connected.wait()
        if self._closed is not None:
            raise _ERRORS.get(self._closed.reason, PeerFailed)(self._closed.message)

    async def wait_closed(self) -> Closed:
        await self._closed_event.wait()
        assert self._closed is not None
        return self._closed

    async def aclose(self) -> None:
        if self._released is None:
            released = self._released = anyio.Event()

            def start() -> None:
                task = asyncio.get_running_loop().create_task(self._connection.close())
                task.add_done_callback(finish)

            def finish(task: asyncio.Task[None]) -> None:
                if not task.cancelled() and (error := task.exception()) is not None:
                    logger.error("closing a WebRTC connection failed", exc_info=error)
                self._host.post(released.set)

            self._portal.post(start)
        await self._released.wait()
        await checkpoint()

    async def packet_statistics(self) -> PacketStatistics:
        """RTP's counters, as aiortc keeps them. All zero before media flows."""
        return await self._portal.call(self._connection.packet_statistics)

    def _kick(self) -> None:
        if self._released is None:
            self._portal.post(self._connection.flush_messages)

    def _set_closed(self, closed: Closed) -> None:
        if self._closed is None:
            self._closed = closed
            self._connected.set()
            self._closed_event.set()


_ERRORS: dict[CloseReason, type[PeerError]] = {
    CloseReason.HUNG_UP: PeerClosed,
    CloseReason.CONNECT_TIMEOUT: ConnectTimeout,
}
