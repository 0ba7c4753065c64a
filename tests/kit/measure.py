"""Measure sound: its SNR, and the echo of a tone over a real call.

A busy machine delays frames now and then, and a frame that comes too late to be played spoils a
measurement. A defect (a click at the frame borders, a wrong rate, a lossy conversion) spoils every
one. Measurements are therefore robust to outliers, or repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import numpy as np

from fastrtc_anyio import AudioFrame
from fastrtc_anyio.testing import tone, tone_snr

from .aiortc_client import AiortcClient
from .waiting import SECONDS

T = TypeVar("T")

FREQUENCY = 440.0
ATTEMPTS = 5
"""Maximum measurements of an echo, until it is clean."""
QUIET_FRAMES = 10
"""20 ms frames of silence that end a sound: longer than any gap in it."""


def typical_snr(samples: Any, frequency: int, rate: int) -> float:
    """The SNR that 70 % of all 60 ms windows reach, in dB."""
    size = rate * 60 // 1000
    loud = np.flatnonzero(np.abs(samples) > 1000)
    body = samples[loud[0] + rate // 5 : loud[-1] - rate // 20]
    windows = [body[i : i + size] for i in range(0, body.size - size, size)]
    return float(np.quantile([tone_snr(w, frequency, rate) for w in windows], 0.3))


def measure_until(is_good: Callable[[T], bool], measure: Callable[[], T], attempts: int = 3) -> T:
    """Return the first good measurement, or the last of ``attempts``."""
    for _ in range(attempts - 1):
        measured = measure()
        if is_good(measured):
            return measured
    return measure()


def speak(client: AiortcClient, samples: Any) -> None:
    """Queue 48 kHz samples in the client's microphone."""
    for start in range(0, samples.shape[1], 960):
        client.send_audio(AudioFrame(48_000, samples[:, start : start + 960]))


async def check_echo(client: AiortcClient) -> None:
    """Send a tone until 100 ms of it come back clean."""
    speak(client, tone(FREQUENCY, 48_000, 5.0))
    window: list[Any] = []
    with anyio.fail_after(SECONDS):
        while True:
            frame = await client.receive_audio()
            window = [*window[-4:], frame.samples[0]]
            heard = np.concatenate(window)
            loud = np.abs(heard.astype(np.int32)).max() > 2000
            if len(window) == 5 and loud and tone_snr(heard, FREQUENCY, frame.sample_rate) > 15:
                return


async def echo_of_tones(
    client: AiortcClient, frequencies: list[int], *, wanted: float = 30.0, seconds: float = 1.0
) -> list[float]:
    """Send a tone on each channel, and return the SNR of each one's echo, in dB."""
    measured: list[float] = []
    for _ in range(ATTEMPTS):
        with anyio.fail_after(SECONDS):
            measured = await _echo_once(client, frequencies, seconds)
        if min(measured) > wanted:
            break
    return measured


async def _echo_once(client: AiortcClient, frequencies: list[int], seconds: float) -> list[float]:
    speak(client, np.concatenate([tone(f, 48_000, seconds) for f in frequencies]))
    heard: list[AudioFrame] = []
    loud = quiet = 0
    # Read up to the silence after the tone, so that nothing is left for the next measurement.
    while not loud or quiet < QUIET_FRAMES:
        heard.append(await client.receive_audio())
        is_loud = bool(np.any(np.abs(heard[-1].samples) > 1000))
        loud, quiet = loud + is_loud, 0 if is_loud else quiet + 1
    if loud < (seconds - 0.1) * 50:  # more is missing than a network may lose
        return [0.0] * len(frequencies)
    rate = heard[0].sample_rate
    samples = np.concatenate([frame.samples for frame in heard], axis=1)
    return [typical_snr(samples[i], f, rate) for i, f in enumerate(frequencies)]
