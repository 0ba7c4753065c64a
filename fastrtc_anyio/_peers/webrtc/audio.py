"""Decoding of incoming audio packets."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aiortc import RTCRtpTransceiver
from aiortc.codecs import CODECS
from aiortc.rtp import RtpPacket

from fastrtc_anyio._core.budget import Budget
from fastrtc_anyio._media.decode import create_decoder, is_stereo
from fastrtc_anyio._media.encode import OPUS_CLOCK_RATE
from fastrtc_anyio._media.reception import RTP_MODULUS, Reception
from fastrtc_anyio._media.reorder import Ordered, ReorderBuffer
from fastrtc_anyio._peers.discards import Discards
from fastrtc_anyio._peers.streams.audio import AudioInput

from . import internals, media_internals
from .sending import PTIME

AUDIO_RATE = 5.0
"""Maximum seconds of a client's audio that are decoded in a second, and in a burst. A packet of two
bytes can hold 120 ms."""
_TIMESTAMP_TOLERANCE = 0.005
"""Seconds. Senders that derive timestamps from a clock round them; real gaps are longer."""


class _Packet(NamedTuple):
    payload_type: int
    timestamp: int
    payload: bytes


class AudioTap:
    """Reorders, decodes and delivers the client's audio, in place of aiortc's jitter buffer.

    Runs on the loop's thread.

    Args:
        codecs: names of the codecs, by payload type.
        audio: takes the decoded audio.
        discards: counts what cannot be decoded.
        loop: its clock and timers.
        sample_rate: rate to decode Opus at, in Hz. If Opus lacks it, its next rate up.
        channels: channels to decode Opus to. None: 2 from the first stereo packet on.
    """

    def __init__(
        self,
        codecs: dict[int, str],
        audio: AudioInput,
        discards: Discards,
        loop: asyncio.AbstractEventLoop,
        sample_rate: int = OPUS_CLOCK_RATE,
        channels: int | None = None,
    ) -> None:
        self._codecs = codecs
        self._audio = audio
        self._discards = discards
        self._loop = loop
        self._sample_rate = sample_rate
        self._channels = channels or 1
        self._may_widen = channels is None
        self._order: ReorderBuffer[_Packet] = ReorderBuffer.rtp()
        self._ssrc: int | None = None
        self._payload_type: int | None = None
        self._reception: Reception[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._budget = Budget(AUDIO_RATE)

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        """Take a packet from aiortc. The result means: no key frame needed, no frame to decode."""
        self.take(
            packet.ssrc,
            packet.payload_type,
            packet.sequence_number,
            packet.timestamp,
            packet.payload,
            self._loop.time(),
        )
        return False, None

    def take(
        self,
        ssrc: int,
        payload_type: int,
        sequence_number: int,
        timestamp: int,
        payload: bytes,
        now: float,
    ) -> None:
        """Take the fields of a packet, and its time of arrival on the loop's clock."""
        if self._closed:
            return
        if ssrc != self._ssrc:
            self._restart(ssrc)
        if self._order.passes(sequence_number):
            self._decode(payload_type, timestamp, payload, 0, now)
            return
        packet = _Packet(payload_type, timestamp, payload)
        self._deliver(self._order.push(sequence_number, packet, now), now)
        self._set_timer()

    def close(self) -> None:
        """Free the decoder. Packets are ignored from then on."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._reception = None

    def _restart(self, ssrc: int) -> None:
        """Begin with a new sender: numbers and timestamps have other origins (RFC 3550 5.1)."""
        self._deliver(self._order.flush(), self._loop.time())
        self._ssrc = ssrc
        self._order = ReorderBuffer.rtp()
        if self._reception is not None:
            self._reception.restart()

    def _set_timer(self) -> None:
        """Have the packets held released in time, though no other packet may arrive."""
        due = self._order.due
        if due is not None and self._timer is None:
            self._timer = self._loop.call_at(due, self._release)

    def _release(self) -> None:
        self._timer = None
        now = self._loop.time()
        self._deliver(self._order.poll(now), now)
        self._set_timer()

    def _deliver(self, packets: list[Ordered[_Packet]], now: float) -> None:
        for packet, lost in packets:
            self._decode(packet.payload_type, packet.timestamp, packet.payload, lost, now)

    def _decode(
        self, payload_type: int, timestamp: int, payload: bytes, lost: int, now: float
    ) -> None:
        reception = self._choose_reception(payload_type, payload)
        if reception is None:  # such as a telephone event: sent in place of audio
            self._audio.count_lost(lost)
            return
        if self._budget.refill(now) <= 0:
            self._discards.count("audio", "a client sends audio much faster than in real time")
            return
        before = reception.lost
        pieces = reception.receive(payload, timestamp, lost)
        if reception.lost != before:
            self._audio.count_lost(reception.lost - before)
            if reception.lost - before > lost:
                self._discards.count("audio", "an audio packet could not be decoded")
        duration = 0.0
        for piece in pieces:
            duration += piece.frame.duration
            self._audio.push(*piece)
        self._budget.spend(max(PTIME / 2, duration), now)

    def _choose_reception(self, payload_type: int, payload: bytes) -> Reception[bytes] | None:
        if payload_type == self._payload_type and not self._may_widen:
            return self._reception
        codec = self._codecs.get(payload_type)
        if codec is None:
            return None
        widens = self._may_widen and is_stereo(codec, payload)
        if widens:
            self._channels, self._may_widen = 2, False
        if payload_type != self._payload_type or self._reception is None:
            self._reception = Reception(
                create_decoder(codec, self._sample_rate, self._channels),
                tolerance=_TIMESTAMP_TOLERANCE,
                modulus=RTP_MODULUS,
            )
            self._payload_type = payload_type
        elif widens:
            decoder = create_decoder(codec, self._sample_rate, self._channels)
            self._reception.replace_decoder(decoder)
        return self._reception


def tap_audio(
    transceiver: RTCRtpTransceiver,
    audio: AudioInput,
    discards: Discards,
    sample_rate: int,
    channels: int | None,
) -> AudioTap:
    """Decode a transceiver's incoming packets on arrival and push the frames to ``audio``.

    aiortc still handles RTCP and statistics. See :class:`AudioTap`.
    """
    # Before the answer to our offer arrives, any codec is possible.
    codecs = internals.get_codecs(transceiver) or CODECS["audio"]
    names = {codec.payloadType or 0: codec.name for codec in codecs}
    loop = asyncio.get_running_loop()
    tap = AudioTap(names, audio, discards, loop, sample_rate, channels)
    media_internals.replace_audio_jitter_buffer(transceiver.receiver, tap)
    return tap
