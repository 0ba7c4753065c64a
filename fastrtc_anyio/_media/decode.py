"""Audio decoders: Opus, G.722 and G.711, with concealment of lost packets.

`create_decoder` chooses one by the codec's name. Decoders of Opus use libopus (:mod:`.opus`), or
PyAV if there is none. libopus conceals losses itself, and repairs them with the redundancy (FEC) in
the packet after the loss. For all others :mod:`.conceal` repeats the audio before the loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from fastrtc_anyio.errors import UnsupportedFormat

from .av_frames import from_av
from .conceal import CONCEALED_SECONDS, FADE_IN_SECONDS, Concealer, fade, fade_in
from .encode import G722_SAMPLE_RATE, OPUS_CLOCK_RATE, OPUS_SAMPLE_RATES, PCM_SAMPLE_RATE
from .frames import Int16Array
from .g711 import decode_alaw, decode_mulaw
from .opus import LibOpus, NativeOpusDecoder, OpusError, load_libopus

P = TypeVar("P")

_FADE_OUT_SECONDS = 0.02
"""Seconds in which libopus's concealment fades to silence, behind ``CONCEALED_SECONDS``."""


class MalformedPacket(ValueError):
    """The packet cannot be decoded. The decoder remains usable."""


class AudioDecoder(ABC, Generic[P]):
    """Stateful decoder from payloads to int16 PCM of shape ``(channels, n)``.

    Attributes:
        sample_rate: sample rate of the PCM, Hz.
        channels: channels of the PCM.
        clock_rate: rate of the codec's RTP timestamps, Hz.
        concealable: seconds after which concealed audio has faded to silence.
    """

    concealable = CONCEALED_SECONDS

    def __init__(self, sample_rate: int, channels: int, clock_rate: int) -> None:
        self.sample_rate = sample_rate
        self.channels = channels
        self.clock_rate = clock_rate

    @abstractmethod
    def decode(self, payload: P) -> Int16Array:
        """Decode the next packet.

        Raises:
            MalformedPacket: the payload is not a packet of this codec.
        """

    @abstractmethod
    def conceal(self, samples: int) -> Int16Array:
        """Return ``samples`` samples per channel in place of lost ones."""

    @abstractmethod
    def skip(self) -> None:
        """Note that silence follows: the next packet fades in from it."""

    def redundancy(self, payload: P) -> int:
        """Return the samples per channel before a packet that :meth:`recover` can restore."""
        return 0

    def recover(self, payload: P, samples: int) -> Int16Array:
        """Restore lost samples from the packet behind them, which has to be decoded next."""
        return self.conceal(samples)


class WaveformDecoder(AudioDecoder[P]):
    """Decoder with concealment by repetition.

    Args:
        decode: decodes one payload to int16, shape ``(channels, n)``.
    """

    def __init__(
        self, decode: Callable[[P], Int16Array], sample_rate: int, channels: int, clock_rate: int
    ) -> None:
        super().__init__(sample_rate, channels, clock_rate)
        self._decode_payload = decode
        self._concealer = Concealer(sample_rate, channels)

    def decode(self, payload: P) -> Int16Array:
        return self._concealer.receive(self._decode_payload(payload))

    def conceal(self, samples: int) -> Int16Array:
        return self._concealer.conceal(samples)

    def skip(self) -> None:
        self._concealer.skip()


def create_pcm_decoder(
    sample_rate: int, channels: int, clock_rate: int
) -> AudioDecoder[Int16Array]:
    """Create the decoder of a transport without a codec, which only conceals losses."""
    return WaveformDecoder(lambda samples: samples, sample_rate, channels, clock_rate)


class OpusDecoder(AudioDecoder[bytes]):
    """Opus by libopus."""

    concealable = CONCEALED_SECONDS + _FADE_OUT_SECONDS

    def __init__(self, library: LibOpus, sample_rate: int, channels: int) -> None:
        super().__init__(sample_rate, channels, OPUS_CLOCK_RATE)
        self._native = NativeOpusDecoder(library, sample_rate, channels)
        self._concealed = 0  # samples since the last real one
        self._silent = False

    def decode(self, payload: bytes) -> Int16Array:
        _check_size(payload)
        try:
            samples = self._native.decode(payload)
        except OpusError as exc:
            raise MalformedPacket(str(exc)) from exc
        return self._fade_in(samples) if self._silent or self._concealed else samples

    def conceal(self, samples: int) -> Int16Array:
        full, end = (
            seconds * self.sample_rate for seconds in (CONCEALED_SECONDS, self.concealable)
        )
        gain = fade(self._concealed, samples, full, end)
        self._concealed += samples
        self._silent = self._concealed >= end
        if not gain.any():
            return np.zeros((self.channels, samples), np.int16)
        concealed = self._native.conceal(samples)
        return np.rint(concealed * gain).astype(np.int16) if gain[-1] < 1 else concealed

    def skip(self) -> None:
        self._silent = True

    def redundancy(self, payload: bytes) -> int:
        return self._native.redundancy(payload)

    def recover(self, payload: bytes, samples: int) -> Int16Array:
        try:
            return self._fade_in(self._native.recover(payload, samples))
        except OpusError:  # the packet is malformed behind its first flags
            return self.conceal(samples)

    def _fade_in(self, samples: Int16Array) -> Int16Array:
        if self._silent:  # otherwise libopus itself makes the transition from concealed audio
            samples = fade_in(samples, 0.0, round(FADE_IN_SECONDS * self.sample_rate))
        self._concealed, self._silent = 0, False
        return samples


def create_decoder(
    codec_name: str, sample_rate: int = OPUS_CLOCK_RATE, channels: int = 2
) -> AudioDecoder[bytes]:
    """Create the decoder for a negotiated codec.

    Args:
        codec_name: "opus", "G722", "PCMU" or "PCMA", in any case.
        sample_rate: rate to decode Opus at, up to 48000 Hz: 8000, 12000, 16000, 24000 or 48000 Hz,
            or else the next of these. PyAV's decoder has 48000 Hz alone. The other codecs have one
            rate each: G722 16 kHz, PCMU and PCMA 8 kHz.
        channels: channels to decode Opus to, 1 or 2. The other codecs are mono.

    Raises:
        UnsupportedFormat: another codec.
    """
    match codec_name.lower():
        case "opus":
            library = load_libopus()
            if library is not None:
                rate = next(rate for rate in OPUS_SAMPLE_RATES if rate >= sample_rate)
                return OpusDecoder(library, rate, channels)
            # FFmpeg decodes Opus at 48 kHz only.
            decode = _native("libopus", OPUS_CLOCK_RATE, channels)
            return WaveformDecoder(decode, OPUS_CLOCK_RATE, channels, OPUS_CLOCK_RATE)
        case "g722":
            decode = _native("g722", G722_SAMPLE_RATE, 1)
            # RFC 3551 4.5.2: the RTP clock of G722 is 8 kHz, by a historical error.
            return WaveformDecoder(decode, G722_SAMPLE_RATE, 1, PCM_SAMPLE_RATE)
        case "pcmu" | "pcma":
            decode = _g711(decode_mulaw if codec_name.lower() == "pcmu" else decode_alaw)
            return WaveformDecoder(decode, PCM_SAMPLE_RATE, 1, PCM_SAMPLE_RATE)
        case _:
            raise UnsupportedFormat(
                f"codec_name must be one of opus, G722, PCMU, PCMA; got {codec_name!r}"
            )


def is_stereo(codec_name: str, payload: bytes) -> bool:
    """Return whether a packet has two channels. RFC 6716 3.1: a bit of its first byte."""
    return codec_name.lower() == "opus" and bool(payload) and bool(payload[0] & 0x04)


def _check_size(payload: bytes) -> None:
    # libopus takes an empty packet for a loss, and FFmpeg for the end of the stream.
    if not payload:
        raise MalformedPacket("a packet must have at least one byte; got 0")


def _g711(decode: Callable[[bytes], Int16Array]) -> Callable[[bytes], Int16Array]:
    def decode_channel(payload: bytes) -> Int16Array:
        _check_size(payload)
        return decode(payload).reshape(1, -1)

    return decode_channel


def _native(library: str, sample_rate: int, channels: int) -> Callable[[bytes], Int16Array]:
    """Return a function that decodes a packet with FFmpeg."""
    from av import AudioCodecContext, CodecContext, Packet
    from av.error import FFmpegError

    context = CodecContext.create(library, "r")
    assert isinstance(context, AudioCodecContext)
    context.format = "s16"
    context.layout = "mono" if channels == 1 else "stereo"
    context.sample_rate = sample_rate

    def decode(payload: bytes) -> Int16Array:
        _check_size(payload)
        try:
            frames = context.decode(Packet(payload))
        except FFmpegError as exc:
            raise MalformedPacket(f"FFmpeg cannot decode the packet: {exc}") from exc
        parts = [from_av(frame).samples for frame in frames]
        if not parts:
            raise MalformedPacket("FFmpeg decodes the packet to nothing")
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    return decode
