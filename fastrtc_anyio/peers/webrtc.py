"""A WebRTC client, by way of aiortc.

Two halves. :class:`_Connection` lives on the portal's asyncio loop and is the only code that
touches aiortc. :class:`WebRTCPeer` lives on the host, under trio or asyncio. They share the queues
of :mod:`._channels` under a lock, and otherwise only post functions to each other.

What we do ourselves, because aiortc does not:

* Sound out is encoded here, in the codec that was negotiated, and given to aiortc as packets: in
  the handler's own rate and channels, straight from the playout buffer, so that a pause or a flush
  acts on the very next 20 ms and the RTP clock never stops.
* Packets of the client's audio are put in order and decoded here, as they come: aiortc's jitter
  buffer would add 60 ms, and 280 after the first loss.
* A client that vanishes is noticed within seconds (aiortc takes up to 35 s).
* Candidates are added after the answer is made: resolving an mDNS name never holds it back.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import anyio
import numpy as np
from aioice.ice import get_host_addresses
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceCandidate,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc import sdp as aiortc_sdp
from aiortc.codecs import CODECS, get_decoder
from aiortc.codecs.base import Decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcconfiguration import RTCIceTransportPolicy
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtpPacket
from anyio.lowlevel import checkpoint
from av import AudioFrame as AvAudioFrame
from av import Packet
from av.error import FFmpegError

from fastrtc_anyio.abc import Peer
from fastrtc_anyio.errors import (
    Closed,
    CloseReason,
    ConnectTimeout,
    FastRTCError,
    InvalidCandidate,
    InvalidOffer,
    PeerClosed,
    PeerError,
    PeerFailed,
    UnsupportedFormat,
)
from fastrtc_anyio.media.av_frames import from_av
from fastrtc_anyio.media.encode import AudioEncoder, OpusOptions, create_encoder
from fastrtc_anyio.media.frames import AudioFrame
from fastrtc_anyio.media.jitter import JitterBuffer
from fastrtc_anyio.protocol.ice import RtcConfiguration
from fastrtc_anyio.protocol.sdp import set_opus_parameters, split_candidates
from fastrtc_anyio.protocol.signaling import IceCandidate, SessionDescription
from fastrtc_anyio.workers import Host

from ._channels import AudioInput, AudioOutput, Link, MessageChannel
from ._portal import Portal

__all__ = ["PacketStatistics", "WebRTCPeer", "local_addresses"]

logger = logging.getLogger("fastrtc_anyio")

PTIME = 0.02
DRAIN_LIMIT = 0.5
"""Seconds that unsent messages get before the connection is closed."""
_LATE_LIMIT = 0.2
"""Seconds: after a longer stall of this thread playout goes on from now, instead of in a burst."""
_CHANNEL_BUFFER = 65_536
"""Bytes handed to the data channel ahead of what the network takes."""


@dataclass(frozen=True)
class PacketStatistics:
    """RTP packets of a connection."""

    received: int
    lost: int
    """Expected, by their sequence numbers, and not received."""
    sent: int
    round_trip_time: float | None
    """Seconds, by RTCP; None until the first report."""


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
        link = Link(threading.Lock(), self._host.post)
        self.audio_in = AudioInput(link, input_buffer_s)
        self.messages = MessageChannel(link, self._kick)
        self._connected = anyio.Event()
        self._closed_event = anyio.Event()
        self._closed: Closed | None = None
        self._released: anyio.Event | None = None
        self._connection = _Connection(
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


class _Connection:
    """The portal's half. Every method runs on the portal's loop, but for the constructor."""

    audio_out: AudioOutput

    def __init__(
        self,
        *,
        configuration: RtcConfiguration,
        audio_in: AudioInput,
        messages: MessageChannel,
        make_output: Callable[[int, int], AudioOutput],
        sample_rate: int,
        channels: int,
        opus: OpusOptions,
        liveness_s: float | None,
        on_connected: Callable[[], None],
        on_closed: Callable[[Closed], None],
    ) -> None:
        self._configuration = configuration
        self._audio_in = audio_in
        self._messages = messages
        self._make_output = make_output
        self._sample_rate = sample_rate
        self._channels = channels
        self._opus = opus
        self._liveness = liveness_s
        self._on_connected = on_connected
        self._on_closed = on_closed
        self._pc: RTCPeerConnection | None = None
        self._channel: RTCDataChannel | None = None
        self._encoder: AudioEncoder | None = None
        self._negotiation: asyncio.Task[str] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._heard = 0.0
        self._has_audio = False
        self._closing = False

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
        try:
            return await self._answer(offer_sdp)
        except FastRTCError:
            raise
        except Exception as exc:
            # aiortc checks an offer as it goes, and has no error of its own for a bad one: its
            # parser, its transports and its answer may raise anything.
            raise InvalidOffer(f"the offer cannot be used: {_text(exc)}") from exc

    async def _answer(self, offer_sdp: str) -> str:
        offer, candidates, complete = split_candidates(offer_sdp)
        pc = self._open()
        await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        audio = self._choose_transceivers(pc.getTransceivers())
        self._tap(audio)
        # Until the answer is made, only this says which codec it will name first.
        pc.addTrack(self._make_track(audio._codecs[0].name))
        self._prepare_transports(pc)
        await pc.setLocalDescription()
        self._spawn(self._add_candidates(candidates, complete))
        return self._local_sdp(pc)

    async def offer(self) -> str:
        pc = self._open()
        transceiver = pc.addTransceiver(self._make_track("opus"))
        capabilities = RTCRtpSender.getCapabilities("audio").codecs
        transceiver.setCodecPreferences([c for c in capabilities if c.mimeType == "audio/opus"])
        self._tap(transceiver)
        self._use_channel(pc.createDataChannel("text"))
        self._prepare_transports(pc)
        await pc.setLocalDescription()
        return self._local_sdp(pc)

    async def accept(self, answer_sdp: str) -> str:
        assert self._pc is not None, "accept() comes after offer()"
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(answer_sdp, "answer"))
        except Exception as exc:  # see answer()
            raise InvalidOffer(f"the answer cannot be used: {_text(exc)}") from exc
        return answer_sdp

    async def add_candidate(self, candidate: IceCandidate | None) -> None:
        if self._negotiation is not None:
            await asyncio.wait([self._negotiation])  # the session may be being made just now
        if self._pc is None or self._closing:
            return
        if candidate is None:
            await self._pc.addIceCandidate(None)
            return
        try:
            parsed = aiortc_sdp.candidate_from_sdp(candidate.candidate.removeprefix("candidate:"))
        except (ValueError, AssertionError, IndexError) as exc:
            raise InvalidCandidate(f"not a candidate: {candidate.candidate[:100]!r}") from exc
        parsed.sdpMid = candidate.sdp_mid
        parsed.sdpMLineIndex = candidate.sdp_mline_index
        self._spawn(self._add_parsed(self._pc, parsed))  # resolving its name may take seconds

    def flush_messages(self) -> None:
        """Send what is in the outbox, as far as the channel takes it."""
        channel = self._channel
        while (
            channel is not None
            and channel.readyState == "open"
            and channel.bufferedAmount < _CHANNEL_BUFFER
            and (text := self._messages.take()) is not None
        ):
            try:
                channel.send(text)
            except ValueError as exc:  # longer than the client said it takes
                logger.warning("a message was not sent: %s", exc)

    async def packet_statistics(self) -> PacketStatistics:
        received = lost = sent = 0
        round_trip: float | None = None
        if self._pc is not None and not self._closing:
            for stats in (await self._pc.getStats()).values():
                match stats.type:
                    case "inbound-rtp":
                        received += stats.packetsReceived
                        lost += stats.packetsLost
                    case "outbound-rtp":
                        sent += stats.packetsSent
                    case "remote-inbound-rtp":
                        round_trip = stats.roundTripTime
                    case _:
                        pass
        return PacketStatistics(received, lost, sent, round_trip)

    async def close(self) -> None:
        """Close everything. Runs as a task of its own that nobody cancels: a second close of an
        aiortc connection whose first was cancelled waits for ever."""
        self._closing = True
        if self._negotiation is not None:
            await asyncio.wait([self._negotiation])
            if not self._negotiation.cancelled():
                self._negotiation.exception()  # seen: its caller may be gone
        if self._pc is not None:
            if self._pc.connectionState == "connected":
                await self._drain(self._pc)
            self._audio_in.end()
            await self._pc.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._end(Closed(CloseReason.CANCELLED, "closed by this side"))
        if self._encoder is not None:
            self._encoder.close()

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
        pc.on("track", self._on_track)
        pc.on("datachannel", self._use_channel)
        pc.on("connectionstatechange", self._on_state)
        return pc

    def _choose_transceivers(self, transceivers: list[RTCRtpTransceiver]) -> RTCRtpTransceiver:
        """The audio section we talk on. What we have no use for is answered ``inactive``."""
        audio: RTCRtpTransceiver | None = None
        for transceiver in transceivers:
            if transceiver.kind == "audio" and audio is None:
                audio = transceiver
            else:
                transceiver.direction = "inactive"
        if audio is None:
            raise InvalidOffer("the offer has no audio section; this stream needs one")
        return audio

    def _make_track(self, codec: str) -> _PlayoutTrack:
        try:
            encoder = create_encoder(codec, self._sample_rate, self._channels, self._opus)
        except UnsupportedFormat as exc:
            raise InvalidOffer(str(exc)) from exc
        self._encoder = encoder
        self.audio_out = self._make_output(encoder.sample_rate, encoder.channels)
        return _PlayoutTrack(self.audio_out, encoder, self._on_broken)

    def _local_sdp(self, pc: RTCPeerConnection) -> str:
        stereo = self._encoder is not None and self._encoder.channels == 2
        return set_opus_parameters(
            pc.localDescription.sdp, stereo=stereo, inband_fec=self._opus.inband_fec
        )

    def _prepare_transports(self, pc: RTCPeerConnection) -> None:
        transports = {transceiver.sender.transport for transceiver in pc.getTransceivers()}
        if pc.sctp is not None:
            transports.add(pc.sctp.transport)
        for transport in transports:
            self._choose_addresses(transport)
            self._listen(transport)

    def _choose_addresses(self, transport: RTCDtlsTransport) -> None:
        # aioice takes every address but loopback's and has no setting for it (checked in 0.13),
        # nor for how long it waits for STUN and TURN. One method of one object knows both.
        connection: Any = transport.transport._connection
        gather = connection.get_component_candidates
        configuration = self._configuration

        async def get_component_candidates(
            component: int, addresses: list[str], timeout: float = 0
        ) -> Any:
            if configuration.ice_transport_policy == "all":
                addresses = list(configuration.addresses or addresses or ("127.0.0.1",))
            return await gather(component, addresses, configuration.gather_timeout)

        connection.get_component_candidates = get_component_candidates

    def _listen(self, transport: RTCDtlsTransport) -> None:
        """Note when the client was last heard: by SRTP, SRTCP or a STUN check, each of which
        reaches these methods only after it was authenticated."""
        loop = asyncio.get_running_loop()

        def noting(function: Callable[..., Any]) -> Callable[..., Any]:
            def note(*args: Any, **kwargs: Any) -> Any:
                self._heard = loop.time()
                return function(*args, **kwargs)

            return note

        connection: Any = transport.transport._connection
        connection.check_incoming = noting(connection.check_incoming)
        live: Any = transport
        live._handle_rtp_data = noting(live._handle_rtp_data)
        live._handle_rtcp_data = noting(live._handle_rtcp_data)

    async def _add_candidates(self, candidates: list[IceCandidate], complete: bool) -> None:
        for candidate in candidates:
            try:
                await self.add_candidate(candidate)
            except InvalidCandidate as exc:
                logger.debug("ignored: %s", exc)
        if complete:
            await self.add_candidate(None)

    async def _add_parsed(self, pc: RTCPeerConnection, candidate: RTCIceCandidate) -> None:
        try:
            await pc.addIceCandidate(candidate)
        except ValueError as exc:  # an address or a transport aioice has no use for
            logger.debug("ignored a candidate: %s", exc)

    def _tap(self, transceiver: RTCRtpTransceiver) -> None:
        """Take the client's audio packets in place of aiortc's jitter buffer.

        That one adds 60 to 80 ms, and after a single lost packet 280 ms to the end of the call
        (aiortc 1.16). Statistics and RTCP stay aiortc's.
        """
        receiver: Any = transceiver.receiver
        assert hasattr(receiver, "_RTCRtpReceiver__jitter_buffer"), "aiortc has changed"
        codecs = {codec.payloadType or 0: codec for codec in transceiver._codecs or CODECS["audio"]}
        receiver._RTCRtpReceiver__jitter_buffer = _AudioTap(codecs, self._audio_in.push)

    def _on_track(self, track: MediaStreamTrack) -> None:
        # Every track is drained, wanted or not: its queue has no bound. Ours yields nothing, as its
        # packets are tapped, but for the news that it has ended.
        wanted = track.kind == "audio" and not self._has_audio
        self._has_audio |= wanted
        self._spawn(self._drain_track(track, self._audio_in.end if wanted else None))

    async def _drain_track(self, track: MediaStreamTrack, ended: Callable[[], None] | None) -> None:
        try:
            while True:
                await track.recv()
        except MediaStreamError:
            if ended is not None:
                ended()

    def _use_channel(self, channel: RTCDataChannel) -> None:
        channel.on("message", self._on_message)
        if self._channel is not None:
            return  # messages are taken from every channel and sent on the first
        self._channel = channel
        channel.bufferedAmountLowThreshold = _CHANNEL_BUFFER // 4
        channel.on("bufferedamountlow", self.flush_messages)
        channel.on("open", self._on_channel_open)
        if channel.readyState == "open":
            self._on_channel_open()

    def _on_channel_open(self) -> None:
        self._messages.open()
        self.flush_messages()

    def _on_message(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            message = message.decode("utf-8", "replace")
        self._messages.push(message)

    def _on_state(self) -> None:
        assert self._pc is not None
        state = self._pc.connectionState
        if state == "connected":
            self._heard = asyncio.get_running_loop().time()
            if self._liveness is not None:
                self._spawn(self._watch_liveness(self._liveness))
                self._liveness = None  # once is enough
            self._on_connected()
        elif state == "failed":
            self._end(Closed(CloseReason.PEER_FAILED, "the connection failed"))
        elif state == "closed" and not self._closing:
            self._end(Closed(CloseReason.HUNG_UP, "the client closed the connection"))

    def _on_broken(self, error: Exception) -> None:
        logger.error("audio could not be encoded", exc_info=error)
        self._end(Closed(CloseReason.PEER_FAILED, f"audio could not be encoded: {error}"))

    def _end(self, closed: Closed) -> None:
        """No media and no messages any more."""
        self._audio_in.end()
        if hasattr(self, "audio_out"):
            self.audio_out.end()
        self._messages.end()
        self._on_closed(closed)

    async def _watch_liveness(self, limit: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            silent = loop.time() - self._heard
            if silent >= limit:
                text = f"nothing was heard from the client for {limit:g} s"
                self._end(Closed(CloseReason.VANISHED, text))
                return
            if silent >= limit / 2:
                # A muted or hidden client sends little, yet it answers when it is asked.
                self._spawn(self._ask_whether_alive())
            await asyncio.sleep(min(limit / 5, limit - silent))

    async def _ask_whether_alive(self) -> None:
        """One STUN binding request on the selected pair, as for consent (RFC 7675 5.1)."""
        assert self._pc is not None
        connection: Any = self._pc.getTransceivers()[0].sender.transport.transport._connection
        pair = connection._nominated.get(1)
        if pair is None:
            return
        request = connection.build_request(pair, nominate=False)
        key = connection.remote_password.encode()
        try:
            await pair.protocol.request(
                request, pair.remote_addr, integrity_key=key, retransmissions=0
            )
        except Exception as exc:  # a transaction that fails in any way says: not heard
            logger.debug("no answer from the client: %r", exc)
            return
        self._heard = asyncio.get_running_loop().time()

    async def _drain(self, pc: RTCPeerConnection) -> None:
        """Give messages time to be acknowledged: aiortc's close throws away what is not."""
        sctp: Any = pc.sctp
        if sctp is None or not (self._messages.has_outgoing or self._channel):
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN_LIMIT
        while loop.time() < deadline and (
            self._messages.has_outgoing
            or sctp._data_channel_queue
            or sctp._outbound_queue
            or sctp._sent_queue
        ):
            # SCTP has no event for "all acknowledged"; this runs once, at the end of a call.
            await asyncio.sleep(0.005)

    def _spawn(self, coroutine: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task of a WebRTC connection failed", exc_info=error)
            self._end(Closed(CloseReason.PEER_FAILED, f"internal error: {error!r}"))


class _PlayoutTrack(MediaStreamTrack):
    """Audio out, as packets: 20 ms every 20 ms, silence if there is nothing else.

    ``recv`` never raises, returns ``None`` or leaves a gap in the timestamps: aiortc would stop
    the sender and say nothing.
    """

    kind = "audio"

    def __init__(
        self, output: AudioOutput, encoder: AudioEncoder, on_broken: Callable[[Exception], None]
    ) -> None:
        super().__init__()
        self._output = output
        self._encoder = encoder
        self._on_broken: Callable[[Exception], None] | None = on_broken
        self._time_base = Fraction(1, encoder.clock_rate)
        self._timestamp = 0
        self._due: float | None = None
        self._payload = b""

    async def recv(self) -> Packet[Any]:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._due is None or now - self._due > _LATE_LIMIT:
            self._due = now
        elif self._due > now:
            await asyncio.sleep(self._due - now)
        self._due += PTIME
        try:
            self._payload = self._encoder.encode(self._output.pull())
        except Exception as exc:  # reported, once; the RTP stream itself goes on to the end
            if self._on_broken is not None:
                self._on_broken(exc)
                self._on_broken = None
        packet = Packet(self._payload)
        packet.pts = self._timestamp
        packet.time_base = self._time_base
        self._timestamp += self._encoder.rtp_increment
        return packet


class _AudioTap:
    """Stands where aiortc's jitter buffer does: orders, decodes and delivers the client's audio.

    A lost packet, or one that cannot be decoded, becomes as much silence: the handler's clock goes
    on as the client's does.
    """

    def __init__(
        self, codecs: dict[int, RTCRtpCodecParameters], deliver: Callable[[AudioFrame], None]
    ) -> None:
        self._codecs = codecs
        self._deliver = deliver
        self._order: JitterBuffer[RtpPacket] = JitterBuffer()
        self._decoder: tuple[int | None, Decoder] | None = None
        self._last: AudioFrame | None = None

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        """aiortc's call: a packet has come. The answer: no key frame needed, nothing to decode."""
        for ready in self._order.push(packet.sequence_number, packet):
            frames = [] if ready is None else self._decode(ready)
            for frame in frames:
                self._last = frame
                self._deliver(frame)
            if not frames and self._last is not None:
                silence = np.zeros_like(self._last.samples)
                self._deliver(AudioFrame(self._last.sample_rate, silence))
        return False, None

    def _decode(self, packet: RtpPacket) -> list[AudioFrame]:
        codec = self._codecs.get(packet.payload_type)
        if codec is None or not packet.payload:
            return []
        if self._decoder is None or self._decoder[0] != codec.payloadType:
            self._decoder = (codec.payloadType, get_decoder(codec))
        decoder = self._decoder[1]
        try:
            frames = decoder.decode(JitterFrame(packet.payload, packet.timestamp))
        except FFmpegError as exc:
            logger.debug("a packet could not be decoded: %s", exc)
            return []
        return [from_av(frame) for frame in frames if isinstance(frame, AvAudioFrame)]


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def local_addresses() -> tuple[str, ...]:
    """The IP addresses of this machine that ICE takes by default: all but loopback."""
    return tuple(get_host_addresses(use_ipv4=True, use_ipv6=True))
