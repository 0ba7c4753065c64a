"""The prepared audio that clients send: samples, and their Opus packets."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from benchmarks.load.media import Media

RATE = 48_000
FRAME = RATE // 50
ANALYSIS_RATE = 8_000
"""Rate at which echoes are compared with what was sent: speech has little above 4 kHz."""
PAUSE = 2.5
"""Seconds between two utterances of a talking client."""

Int16 = NDArray[np.int16]
Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Speech:
    """Audio that repeats for ever, and the Opus packet of each 20 ms of it."""

    samples: Samples
    """At :data:`ANALYSIS_RATE`, full scale 1."""
    packets: list[bytes]

    @property
    def media(self) -> Media:
        return Media([[packet] for packet in self.packets], FRAME / RATE, FRAME)

    @property
    def seconds(self) -> float:
        return self.samples.size / ANALYSIS_RATE


@cache
def prepare_speech(seconds: int = 16) -> Speech:
    """Return noise with the spectrum and rhythm of speech. No part of it is like another."""
    noise = _shaped_noise(seconds)
    noise *= 0.55 - 0.45 * np.cos(2 * np.pi * 4 * np.arange(noise.size) / RATE)
    return _prepare(noise * 0.5)


@cache
def prepare_room(seconds: int = 4) -> Speech:
    """Return the noise of a quiet room: 60 dB below full scale."""
    return _prepare(_shaped_noise(seconds) * 0.003)


@cache
def prepare_talk() -> Speech:
    """Return one utterance of a voice, and a pause of :data:`PAUSE` with the noise of the room."""
    with wave.open(str(files("fastrtc_anyio") / "_cli" / "speech.wav")) as file:
        rate = file.getframerate()
        spoken = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
    seconds = spoken.size // rate
    voice = _resample(spoken[: seconds * rate], seconds * RATE)
    noise = _shaped_noise(4)
    voice = np.concatenate([voice, np.zeros(round(PAUSE * RATE))])
    return _prepare(voice + 0.003 * np.resize(noise, voice.size))


def _shaped_noise(seconds: int) -> NDArray[np.float64]:
    """Return noise with the spectrum of speech, full scale 1."""
    count = seconds * RATE
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(count))
    frequencies = np.fft.rfftfreq(count, 1 / RATE)
    spectrum *= (frequencies > 100) / np.maximum(frequencies, 500)
    noise = np.fft.irfft(spectrum, count)
    return np.asarray(noise / np.abs(noise).max())


def _prepare(samples: NDArray[np.float64]) -> Speech:
    """Encode as a browser encodes a voice."""
    whole = np.asarray(np.round(samples * 32767), np.int16)
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate = RATE
    encoder.layout = "mono"
    encoder.format = "s16"
    encoder.bit_rate = 32_000
    encoder.options = {"application": "voip", "frame_duration": "20"}
    packets: list[bytes] = []
    # The loop is encoded twice and its second half kept, so that the end fits the beginning.
    for start in range(0, 2 * whole.size, FRAME):
        begin = start % whole.size
        frame = av.AudioFrame.from_ndarray(whole[np.newaxis, begin : begin + FRAME], "s16", "mono")
        frame.sample_rate, frame.pts = RATE, start
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    count = whole.size // FRAME
    return Speech(decimate(_to_float(whole)), packets[count : 2 * count])


def decimate(samples: Samples) -> Samples:
    """Resample from :data:`RATE` to :data:`ANALYSIS_RATE`, without delay."""
    return np.asarray(_resample(samples, samples.size * ANALYSIS_RATE // RATE), np.float32)


def _resample(samples: NDArray[np.float32] | NDArray[np.float64], size: int) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(samples)[: size // 2 + 1]
    return np.fft.irfft(spectrum, size) * (size / samples.size)


def _to_float(samples: Int16) -> Samples:
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
        except FFmpegError:
            frames = []
        parts = [frame.to_ndarray().reshape(-1, frame.layout.nb_channels) for frame in frames]
        samples = np.concatenate([part[:, 0] for part in parts]) if parts else np.zeros(0, np.int16)
        decoded.append(_to_float(np.asarray(samples, np.int16)))
    return decoded
