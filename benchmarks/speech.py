"""The prepared speech that clients send: samples, and their Opus packets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import av
import numpy as np
from numpy.typing import NDArray

RATE = 48_000
FRAME = RATE // 50
ANALYSIS_RATE = 8_000
"""Rate at which echoes are compared with what was sent: speech has little above 4 kHz."""

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Speech:
    """Audio that repeats for ever, and the Opus packet of each 20 ms of it."""

    samples: Samples
    """At :data:`ANALYSIS_RATE`, full scale 1."""
    packets: list[bytes]


@cache
def prepare_speech(seconds: int = 16) -> Speech:
    """Encode noise with the spectrum and rhythm of speech, as a browser encodes a voice."""
    wave = _speech_like(seconds)
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate = RATE
    encoder.layout = "mono"
    encoder.format = "s16"
    encoder.bit_rate = 32_000
    encoder.options = {"application": "voip", "frame_duration": "20"}
    packets: list[bytes] = []
    # The loop is encoded twice and its second half kept, so that the end fits the beginning.
    for start in range(0, 2 * wave.size, FRAME):
        begin = start % wave.size
        frame = av.AudioFrame.from_ndarray(wave[np.newaxis, begin : begin + FRAME], "s16", "mono")
        frame.sample_rate, frame.pts = RATE, start
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    count = wave.size // FRAME
    return Speech(decimate(_to_float(wave)), packets[count : 2 * count])


def _speech_like(seconds: int) -> NDArray[np.int16]:
    count = seconds * RATE
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(count))
    frequencies = np.fft.rfftfreq(count, 1 / RATE)
    spectrum *= (frequencies > 100) / np.maximum(frequencies, 500)
    wave = np.fft.irfft(spectrum, count)
    wave *= 0.55 - 0.45 * np.cos(2 * np.pi * 4 * np.arange(count) / RATE)
    return np.asarray(np.round(wave / np.abs(wave).max() * 16_000), np.int16)


def decimate(wave: Samples) -> Samples:
    """Resample from :data:`RATE` to :data:`ANALYSIS_RATE`, without delay."""
    size = wave.size * ANALYSIS_RATE // RATE
    spectrum = np.fft.rfft(wave)[: size // 2 + 1]
    return np.asarray(np.fft.irfft(spectrum, size) * (ANALYSIS_RATE / RATE), np.float32)


def _to_float(samples: NDArray[np.int16]) -> Samples:
    return np.asarray(samples * np.float32(1 / 32768), np.float32)


def decode(payloads: list[bytes]) -> list[Samples]:
    """Decode Opus packets to mono at :data:`RATE`; an unreadable packet gives no samples."""
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate = RATE
    decoder.layout = "mono"
    decoder.format = "s16"
    decoded: list[Samples] = []
    for payload in payloads:
        try:
            frames = decoder.decode(av.Packet(payload))
        except av.FFmpegError:
            frames = []
        parts = [frame.to_ndarray().reshape(-1, frame.layout.nb_channels) for frame in frames]
        samples = np.concatenate([part[:, 0] for part in parts]) if parts else np.zeros(0, np.int16)
        decoded.append(_to_float(samples))
    return decoded
