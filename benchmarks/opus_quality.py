"""Measure the quality of encoded audio against the time that encoding takes.

``python -m benchmarks.opus_quality [--rounds 15]`` prints the tables of
docs/concepts/audio_quality.md, and ``--write`` updates that page.
Apart from the times, the result depends only on the recordings and
the version of libopus.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio import OpusOptions
from fastrtc_anyio._cli.wav import read_wav
from fastrtc_anyio._media.decode import create_decoder
from fastrtc_anyio._media.encode import Application, OpusEncoder
from fastrtc_anyio._media.frames import FRAMES_PER_SECOND, Int16Array
from fastrtc_anyio.testing import tone, tone_snr
from tests.kit.loss import spectral_distance

COMPLEXITIES = (0, 5, 7, 9, 10)
RATES = (24_000, 48_000)
TONES = [round(125 * 2 ** (step / 5)) for step in range(25)]
"""Hz, up to 3.5 kHz."""
ROOT = Path(__file__).parents[1]
RECORDINGS = ("fastrtc_anyio/_cli/speech.wav", "examples/caller.wav")
PAGE = ROOT / "docs" / "concepts" / "audio_quality.md"
MARK = "<!-- benchmarks/opus_quality.py -->\n"
HEAD = (
    "| application | complexity | us | speech SNR | speech distance | music SNR | music distance "
    "| tone SNR | kbit/s |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)

_QUIET = 100.0
"""RMS of a frame in a pause, int16. Its SNR is not heard."""
_BEST = 35.0
"""dB at which the SNR of a frame is limited, as usual for segmental SNR."""
_DELAY_S = {"voip": 0.0065, "audio": 0.0065, "lowdelay": 0.0025}
"""Delay of the encoder and the decoder."""


class Quality(NamedTuple):
    """Likeness of a decoded signal to the original.

    Attributes:
        snr: segmental signal-to-noise ratio, in dB.
        distance: mean log-spectral distance up to 8 kHz, in dB.
        bitrate: in bits per second.
    """

    snr: float
    distance: float
    bitrate: float


def make_music(rate: int, seconds: float = 6.0) -> Int16Array:
    """Return chords of plucked strings with a brushed drum: int16, shape ``(1, n)``."""
    count = int(rate * seconds)
    music = np.zeros(count)
    noise = np.random.default_rng(1).normal(size=2 * rate)
    for beat, chord in enumerate([(45, 57, 60, 64), (41, 57, 60, 65), (43, 55, 59, 62)] * 4):
        start = beat * rate // 2
        after = np.arange(min(rate, count - start)) / rate
        for pitch in chord:
            frequency = 440 * 2 ** ((pitch - 69) / 12)
            for harmonic in range(1, 12):
                if harmonic * frequency < 0.4 * rate:
                    decay = np.exp(-after * (2 + harmonic)) / harmonic
                    music[start : start + after.size] += decay * np.sin(
                        2 * np.pi * harmonic * frequency * after
                    )
        # Noise of 24 kHz, so that every rate has the same drum.
        drum = np.interp(after * 24_000, np.arange(noise.size), noise)
        music[start : start + after.size] += 0.3 * drum * np.exp(-after * 40)
    scaled: Int16Array = np.rint(music * 9_000 / np.abs(music).max()).astype(np.int16)
    return scaled.reshape(1, -1)


def transmit(sound: Int16Array, rate: int, options: OpusOptions) -> tuple[Int16Array, float]:
    """Encode and decode; return the decoded audio, without the delay, and the bitrate."""
    encoder, decoder = OpusEncoder(rate, 1, options), create_decoder("opus", rate, 1)
    assert options.application is not None
    delay = round(_DELAY_S[options.application] * rate)
    padded = np.pad(sound, [(0, 0), (0, rate // 10)])
    payloads = [encoder.encode(frame) for frame in split(padded, rate)]
    heard = np.concatenate([decoder.decode(payload) for payload in payloads], axis=1)
    bits = 8 * sum(map(len, payloads)) * FRAMES_PER_SECOND / len(payloads)
    return heard[:, delay : delay + sound.shape[1]], bits


def split(sound: Int16Array, rate: int) -> list[Int16Array]:
    """Return the whole frames of a sound."""
    size = rate // FRAMES_PER_SECOND
    ends = range(size, sound.shape[1] + 1, size)
    return [np.ascontiguousarray(sound[:, end - size : end]) for end in ends]


def measure(sound: Int16Array, rate: int, options: OpusOptions) -> Quality:
    heard, bitrate = transmit(sound, rate, options)
    size = rate // FRAMES_PER_SECOND
    count = sound.shape[1] // size

    def power(samples: NDArray[np.float64]) -> NDArray[np.float64]:
        means: NDArray[np.float64] = np.square(samples[: count * size].reshape(count, size)).mean(1)
        return means

    said = sound[0].astype(float)
    signal, noise = power(said), power(heard[0] - said)
    ratio = 10 * np.log10((signal + 1) / (noise + 1))
    snr = float(np.clip(ratio, 0, _BEST)[np.sqrt(signal) > _QUIET].mean())
    distance = float(np.nanmean(spectral_distance(heard[0], sound[0], rate)))
    return Quality(snr, distance, bitrate)


def measure_tones(rate: int, options: OpusOptions) -> float:
    """Return the mean SNR of steady tones, in dB."""
    ratios: list[float] = []
    for frequency in TONES:
        heard, _ = transmit(tone(frequency, rate, 1.0), rate, options)
        ratios.append(tone_snr(heard[0, rate // 2 :], frequency, rate))
    return float(np.mean(ratios))


def time_encoders(
    sounds: list[Int16Array], rate: int, options: list[OpusOptions], rounds: int
) -> list[float]:
    """Return the median time of a frame for each set of options, in us, measured in turns."""
    frames = [frame for sound in sounds for frame in split(sound, rate)]
    times: list[list[float]] = [[] for _ in options]
    for _ in range(rounds):
        for took, one in zip(times, options, strict=True):
            encoder = OpusEncoder(rate, 1, one)
            began = time.thread_time()
            for frame in frames:
                encoder.encode(frame)
            took.append((time.thread_time() - began) / len(frames))
    return [median(took) * 1e6 for took in times]


def table(rate: int, rounds: int, bitrate: int) -> str:
    """Return the Markdown table for a rate: a row for each application and complexity."""
    speech = [read_wav(ROOT / name, rate) for name in RECORDINGS]
    music = make_music(rate)
    options = [
        OpusOptions(bitrate=bitrate, application=application, complexity=complexity)
        for application in get_args(Application)
        for complexity in COMPLEXITIES
    ]
    lines = [HEAD]
    for one, took in zip(options, time_encoders(speech, rate, options, rounds), strict=True):
        spoken = [measure(sound, rate, one) for sound in speech]
        played = measure(music, rate, one)
        lines.append(
            f"| {one.application} | {one.complexity} | {took:.0f} "
            f"| {np.mean([q.snr for q in spoken]):.1f} "
            f"| {np.mean([q.distance for q in spoken]):.2f} | {played.snr:.1f} "
            f"| {played.distance:.2f} | {measure_tones(rate, one):.1f} "
            f"| {np.mean([q.bitrate for q in spoken]) / 1000:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="runs of each encoder to time")
    parser.add_argument("--write", action="store_true", help="write the tables to the page")
    arguments = parser.parse_args()
    cases = [*((rate, 64_000) for rate in RATES), (24_000, 24_000)]
    tables = "\n".join(
        f"### {rate // 1000} kHz, {bitrate // 1000} kbit/s\n\n"
        + table(rate, arguments.rounds, bitrate)
        for rate, bitrate in cases
    )
    if arguments.write:
        before, _, _ = PAGE.read_text().partition(MARK)
        PAGE.write_text(before + MARK + "\n" + tables)
    else:
        print(tables)


if __name__ == "__main__":
    main()
