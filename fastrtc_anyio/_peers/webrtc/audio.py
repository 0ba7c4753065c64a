"""Outgoing audio as encoded packets, and decoding of incoming packets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from aiortc import MediaStreamTrack, RTCRtpTransceiver
from aiortc.codecs import CODECS, get_decoder
from aiortc.codecs.base import Decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtpPacket
from av import AudioFrame as AvAudioFrame
from av import Packet
from av.error import FFmpegError

from fastrtc_anyio._media.av_frames import from_av
from fastrtc_anyio._media.encode import AudioEncoder
from fastrtc_anyio._media.frames import AudioFrame
from fastrtc_anyio._media.reorder import ReorderBuffer
from fastrtc_anyio._peers.streams.audio import AudioOutput

from . import internals

logger = logging.getLogger("fastrtc_anyio")

PTIME = 0.02
_LATE_LIMIT = 0.2
"""Seconds. After a longer stall of this thread playout resumes from now, without a burst."""


class PlayoutTrack(MediaStreamTrack):
    """Outgoing audio: one encoded packet every 20 ms, silence when the queue is empty.

    ``recv`` never raises, never returns None and never skips a timestamp: aiortc 1.16 would stop
    the sender without an error.
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
        except Exception as exc:  # reported once; the last packet is repeated from then on
            if self._on_broken is not None:
                self._on_broken(exc)
                self._on_broken = None
        packet = Packet(self._payload)
        packet.pts = self._timestamp
        packet.time_base = self._time_base
        self._timestamp += self._encoder.rtp_increment
        return packet


class AudioTap:
    """Reorders, decodes and delivers the client's audio, in place of aiortc's jitter buffer.

    Each lost or undecodable packet becomes silence of the same length, so that the number of
    samples keeps up with the client's clock.
    """

    def __init__(
        self, codecs: dict[int, RTCRtpCodecParameters], deliver: Callable[[AudioFrame], None]
    ) -> None:
        self._codecs = codecs
        self._deliver = deliver
        self._order: ReorderBuffer[RtpPacket] = ReorderBuffer.rtp()
        self._ssrc: int | None = None
        self._decoder: tuple[int | None, Decoder] | None = None
        self._last: AudioFrame | None = None

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        """Take a packet from aiortc. The result means: no key frame needed, no frame to decode."""
        if packet.ssrc != self._ssrc:
            self._ssrc = packet.ssrc
            self._order = ReorderBuffer.rtp()
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
            logger.debug("decoding a packet failed: %s", exc)
            return []
        return [from_av(frame) for frame in frames if isinstance(frame, AvAudioFrame)]


def tap_audio(transceiver: RTCRtpTransceiver, deliver: Callable[[AudioFrame], None]) -> None:
    """Decode a transceiver's incoming packets on arrival and pass the frames to ``deliver``.

    aiortc still handles RTCP and statistics.
    """
    # Before the answer to our offer arrives, any codec is possible.
    codecs = internals.get_codecs(transceiver) or CODECS["audio"]
    tap = AudioTap({codec.payloadType or 0: codec for codec in codecs}, deliver)
    internals.replace_audio_jitter_buffer(transceiver.receiver, tap)
