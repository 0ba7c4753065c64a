"""Audio encoders for WebRTC: Opus, G.722 and G.711, one packet per 20 ms frame.

`create_encoder` chooses the sample rate and channels of a codec. The caller reads them from the
encoder and passes PCM in that format. The bytes returned are an RTP payload. Opus is encoded by
libopus (:mod:`.opus`), or by PyAV if there is none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from fastrtc_anyio._core.options import check_choice, check_number, check_type, short_repr
from fastrtc_anyio.errors import UnsupportedFormat

from .av_frames import to_av
from .frames import FRAME_MS, FRAMES_PER_SECOND, AudioFrame, Int16Array, check_channels
from .g711 import encode_alaw, encode_mulaw
from .opus import NativeOpusEncoder, load_libopus

Application = Literal["voip", "audio", "lowdelay"]

# RFC 6716 2.1.3: the sample rates of Opus's audio bandwidths. libopus takes no others.
OPUS_SAMPLE_RATES = (8000, 12000, 16000, 24000, 48000)
# RFC 7587 4.1: the RTP clock of Opus is 48 kHz at every audio rate.
OPUS_CLOCK_RATE = 48000
# RFC 3551 4.5.2: G722 samples at 16 kHz, but its RTP clock is 8 kHz, by a historical error.
G722_SAMPLE_RATE = 16000
# RFC 3551 4.5.14: the rate of PCMU and PCMA, and G722's clock.
PCM_SAMPLE_RATE = 8000

# The range of libopus, bits per second.
_OPUS_MIN_BITRATE, _OPUS_MAX_BITRATE = 6000, 510_000
# Bits per second and channel. With less, libopus starts a steady tone with its speech coder and
# switches to the music coder 200 ms later: an audible seam, of 25 dB signal to noise.
_OPUS_BITRATE_PER_CHANNEL = 64_000
_DEFAULT_COMPLEXITY = 10
# Multiple of the bitrate that unconstrained VBR, FFmpeg's default, takes on average for steady
# tones. It sounds better than constrained VBR, which takes 1.0 to 1.2 of it.
_VBR_PEAK = 2.2
# libopus: a packet of this length or less need not be transmitted.
_DTX_BYTES = 2
# Equal payloads of one frame after which the encoder has settled: a second. DTX varies them sooner.
_SETTLED_AFTER = 50


@dataclass(frozen=True)
class OpusOptions:
    """Settings of the Opus encoder.

    Attributes:
        bitrate: target in bits per second, 6000 to 510000. None: 64000 per channel.
        application: optimisation target of libopus: "voip" for speech, "audio" for fidelity at any
            bitrate, "lowdelay" for a delay of 2.5 ms instead of 6.5 ms. At 64000 bits per second
            and channel "lowdelay" has the same fidelity as "audio". None: "lowdelay" from that
            bitrate on if ``inband_fec`` is False, otherwise "audio".
        inband_fec: whether to repeat speech at a low rate in the next packet, so that a decoder
            can repair a loss. Effective only with ``packet_loss_percent`` above 0, and not with
            "lowdelay".
        packet_loss_percent: expected loss, 0 to 100.
        complexity: 0 (fastest) to 10 (best). None: 10.
        dtx: whether to send only two packets a second while there is silence (discontinuous
            transmission). PyAV's encoder, the replacement for a missing libopus, ignores it.

    Raises:
        TypeError: a setting has the wrong type.
        ValueError: a setting is out of range.
    """

    bitrate: int | None = None
    application: Application | None = None
    inband_fec: bool = False
    packet_loss_percent: int = 0
    complexity: int | None = None
    dtx: bool = False

    def __post_init__(self) -> None:
        if self.bitrate is not None:
            _check_int("bitrate", self.bitrate, _OPUS_MIN_BITRATE, _OPUS_MAX_BITRATE)
        check_choice("application", self.application, (None, *get_args(Application)))
        check_type("inband_fec", self.inband_fec, bool)
        check_type("dtx", self.dtx, bool)
        _check_int("packet_loss_percent", self.packet_loss_percent, 0, 100)
        if self.complexity is not None:
            _check_int("complexity", self.complexity, 0, 10)


def _check_int(name: str, value: int, low: int, high: int) -> None:
    check_number(name, value, at_least=low, at_most=high, integer=True)


class AudioEncoder(ABC):
    """Stateful encoder from 20 ms frames of PCM to RTP payloads.

    Attributes:
        sample_rate: sample rate of the PCM, Hz.
        channels: channels of the PCM.
        clock_rate: rate of the codec's RTP timestamps, Hz.
        rtp_increment: RTP timestamp units per frame.
    """

    def __init__(self, codec_name: str, sample_rate: int, channels: int, clock_rate: int) -> None:
        self.sample_rate = sample_rate
        self.channels = channels
        self.clock_rate = clock_rate
        self.rtp_increment = clock_rate // FRAMES_PER_SECOND
        self._codec_name = codec_name
        self._closed = False
        self._repeated: Int16Array | None = None  # the last frame, if it cannot change
        self._equal = 0  # consecutive equal payloads of that frame
        self._payload = b""

    def encode(self, samples: Int16Array) -> bytes:
        """Encode one frame.

        The payload of a read-only array that is passed again and again, such as silence, is reused
        once it no longer changes.

        Args:
            samples: int16, shape ``(channels, sample_rate // 50)``.

        Returns:
            One RTP payload; empty if no packet is to be sent for this frame (DTX).

        Raises:
            UnsupportedFormat: another dtype or shape.
            RuntimeError: the encoder is closed.
        """
        if self._closed:
            raise RuntimeError(f"this {self._codec_name} encoder is closed")
        if samples is not self._repeated:
            self._repeated, self._equal = None, 0
        elif self._equal >= _SETTLED_AFTER:
            return self._payload
        wanted = (self.channels, self.sample_rate // FRAMES_PER_SECOND)
        if samples.dtype != np.int16 or samples.shape != wanted:
            raise UnsupportedFormat(
                f"samples for {self._codec_name} must be an int16 array of shape {wanted}; "
                f"got {short_repr(samples)}"
            )
        payload = self._encode(samples)
        if samples is self._repeated:
            self._equal = self._equal + 1 if payload == self._payload else 0
        elif not samples.flags.writeable:
            self._repeated = samples
        self._payload = payload
        return payload

    @abstractmethod
    def _encode(self, samples: Int16Array) -> bytes: ...

    def close(self) -> None:
        """Free the native encoder. Idempotent."""
        self._closed = True
        self._repeated = None


class _FFmpegCodec:
    """An encoder of FFmpeg.

    PyAV keeps a filter graph for each, with one idle native thread per core. They are freed with
    this object, without a garbage collection.
    """

    def __init__(
        self,
        library: str,
        sample_rate: int,
        channels: int,
        bitrate: int | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        from av import AudioCodecContext, CodecContext

        context = CodecContext.create(library, "w")
        assert isinstance(context, AudioCodecContext)
        context.sample_rate = sample_rate
        context.format = "s16"
        context.layout = "mono" if channels == 1 else "stereo"
        if bitrate is not None:
            context.bit_rate = bitrate
        # The time base stays unset and is then 1 / sample_rate, the unit of pts below.
        context.options = options or {}
        context.open()
        self._context = context
        self._sample_rate = sample_rate
        self._pts = 0

    def encode(self, samples: Int16Array) -> bytes:
        frame = to_av(AudioFrame(self._sample_rate, samples))
        frame.pts = self._pts
        self._pts += samples.shape[1]
        # Any: PyAV's stubs leave the packet's stream type open.
        context: Any = self._context
        packets: list[Any] = context.encode(frame)
        # True because a frame has exactly the codec's frame size.
        assert len(packets) == 1, f"{len(packets)} packets for one frame"
        return bytes(packets[0])


class _CodecEncoder(AudioEncoder):
    """Encoder with a state that `close` frees."""

    def __init__(
        self,
        codec_name: str,
        sample_rate: int,
        channels: int,
        clock_rate: int,
        codec: _FFmpegCodec | NativeOpusEncoder,
    ) -> None:
        super().__init__(codec_name, sample_rate, channels, clock_rate)
        self._codec: _FFmpegCodec | NativeOpusEncoder | None = codec

    def _encode(self, samples: Int16Array) -> bytes:
        assert self._codec is not None
        return self._codec.encode(samples)

    def close(self) -> None:
        super().close()
        self._codec = None


class OpusEncoder(_CodecEncoder):
    """Opus at one of its rates, mono or stereo (RFC 6716, RFC 7587).

    It uses libopus (:mod:`.opus`), or PyAV if there is none. Both give the same bytes.
    """

    def __init__(
        self,
        sample_rate: int,
        channels: int,
        options: OpusOptions | None = None,
        max_bitrate: int | None = None,
    ) -> None:
        if sample_rate not in OPUS_SAMPLE_RATES:
            raise UnsupportedFormat(
                f"sample_rate must be one of {', '.join(map(str, OPUS_SAMPLE_RATES))} Hz for "
                f"Opus; got {sample_rate}"
            )
        check_channels(channels)
        options = options or OpusOptions()
        usual = _OPUS_BITRATE_PER_CHANNEL * channels
        bitrate = min(options.bitrate or usual, max_bitrate or _OPUS_MAX_BITRATE)
        application = options.application or (
            "audio" if options.inband_fec or bitrate < usual else "lowdelay"
        )
        controls = {
            "bitrate": bitrate,
            "complexity": _DEFAULT_COMPLEXITY if options.complexity is None else options.complexity,
            "inband_fec": int(options.inband_fec),
            "packet_loss_percent": options.packet_loss_percent,
            "dtx": int(options.dtx),
            "vbr_constraint": int(max_bitrate is not None and max_bitrate < _VBR_PEAK * bitrate),
        }
        library = load_libopus()
        codec = (
            _ffmpeg_opus(sample_rate, channels, application, controls)
            if library is None
            else NativeOpusEncoder(library, sample_rate, channels, application, controls)
        )
        super().__init__("Opus", sample_rate, channels, OPUS_CLOCK_RATE, codec)
        self._dtx = options.dtx

    def _encode(self, samples: Int16Array) -> bytes:
        payload = super()._encode(samples)
        return b"" if self._dtx and len(payload) <= _DTX_BYTES else payload


def _ffmpeg_opus(
    sample_rate: int, channels: int, application: str, controls: dict[str, int]
) -> _FFmpegCodec:
    settings = {
        "application": application,
        "frame_duration": FRAME_MS,
        "compression_level": controls["complexity"],
        "fec": controls["inband_fec"],
        "packet_loss": controls["packet_loss_percent"],
        "vbr": "constrained" if controls["vbr_constraint"] else "on",
    }
    options = {name: str(value) for name, value in settings.items()}
    return _FFmpegCodec("libopus", sample_rate, channels, controls["bitrate"], options)


class _G711Encoder(AudioEncoder):
    def __init__(self, codec_name: str, encode: Callable[[Int16Array], bytes]) -> None:
        super().__init__(codec_name, PCM_SAMPLE_RATE, 1, PCM_SAMPLE_RATE)
        self._encode_channel = encode

    def _encode(self, samples: Int16Array) -> bytes:
        return self._encode_channel(samples[0])


def create_encoder(
    codec_name: str,
    sample_rate: int,
    channels: int,
    options: OpusOptions | None = None,
    max_bitrate: int | None = None,
) -> AudioEncoder:
    """Create the encoder for a negotiated codec, at the rate nearest to the handler's.

    Opus uses its lowest rate that is not below ``sample_rate``, and the given channels. The
    telephony codecs have one format each: G722 16 kHz, PCMU and PCMA 8 kHz, all mono.

    Args:
        codec_name: "opus", "G722", "PCMU" or "PCMA", in any case.
        sample_rate: output rate of the handler, Hz, up to 48000.
        channels: channels of the handler, 1 or 2.
        options: settings of Opus; the other codecs have none.
        max_bitrate: upper limit of the bitrate of Opus, bits per second; None for none.

    Returns:
        An encoder; its ``sample_rate`` and ``channels`` are the format of the PCM to encode.

    Raises:
        UnsupportedFormat: another codec, rate or number of channels.
    """
    check_channels(channels)
    if not 0 < sample_rate <= OPUS_SAMPLE_RATES[-1]:
        raise UnsupportedFormat(
            f"sample_rate must be from 1 to {OPUS_SAMPLE_RATES[-1]} Hz; got {sample_rate}"
        )
    match codec_name.lower():
        case "opus":
            rate = next(rate for rate in OPUS_SAMPLE_RATES if rate >= sample_rate)
            return OpusEncoder(rate, channels, options, max_bitrate)
        case "g722":
            codec = _FFmpegCodec("g722", G722_SAMPLE_RATE, 1)
            return _CodecEncoder("G722", G722_SAMPLE_RATE, 1, PCM_SAMPLE_RATE, codec)
        case "pcmu":
            return _G711Encoder("PCMU", encode_mulaw)
        case "pcma":
            return _G711Encoder("PCMA", encode_alaw)
        case _:
            raise UnsupportedFormat(
                f"codec_name must be one of opus, G722, PCMU, PCMA; got {codec_name!r}"
            )
