"""A sound that tells when it was sent: a tone that changes every 100 ms."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import Any

import numpy as np
from aiortc import MediaStreamTrack
from av import Packet

from tests.kit.loss import Packets

RATE = 48_000
FRAME = 0.02
STEP = 0.1
_LOWEST, _INTERVAL, _STEPS = 300, 60, 40
"""Each tone has a whole number of periods in a step, so that the phase is continuous."""
_FRAMES = round(STEP / FRAME)


def _frequency(step: int) -> int:
    return _LOWEST + _INTERVAL * (step % _STEPS)


def make_payloads() -> list[bytes]:
    """Encode all steps with Opus at 24 kbit/s with FEC: 4 s, which can be repeated."""
    time = np.arange(round(STEP * RATE)) / RATE
    tones = [np.sin(2 * np.pi * _frequency(step) * time) for step in range(_STEPS)]
    samples = (np.concatenate(tones)[np.newaxis] * 8000).astype(np.int16)
    return Packets("opus+fec", samples, RATE).payloads


def read_step(samples: Any, near: int) -> int | None:
    """Return the step that a frame of 20 ms carries, the one that is nearest; None for silence."""
    if np.abs(samples.astype(np.int32)).max(initial=0) < 500:
        return None
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size), RATE // 10))
    step = round((int(np.argmax(spectrum)) * 10 - _LOWEST) / _INTERVAL)
    return near + (step - near + _STEPS // 2) % _STEPS - _STEPS // 2


class Ladder(MediaStreamTrack):
    """Sends the sound, a packet every 20 ms, and notes when each step began."""

    kind = "audio"

    def __init__(self, payloads: list[bytes]) -> None:
        super().__init__()
        self._payloads = payloads
        self._begin: float | None = None
        self._count = 0
        self.sent: list[float] = []
        """Times of the loop at which the steps began."""

    async def recv(self) -> Packet[Any]:
        loop = asyncio.get_running_loop()
        self._begin = loop.time() if self._begin is None else self._begin
        await asyncio.sleep(max(self._begin + self._count * FRAME - loop.time(), 0))
        if self._count % _FRAMES == 0:
            self.sent.append(loop.time())
        packet = Packet(self._payloads[self._count % len(self._payloads)])
        packet.pts, packet.time_base = self._count * 960, Fraction(1, RATE)
        self._count += 1
        return packet


class Listener:
    """Measures the delay of each step in what arrives."""

    def __init__(self, ladder: Ladder) -> None:
        self._ladder = ladder
        self._step = -1
        self.delays: list[tuple[float, float]] = []
        """Times of arrival and delays in seconds."""

    def hear(self, samples: Any, now: float) -> None:
        """Read a frame that arrives now."""
        newest = len(self._ladder.sent) - 1
        step = read_step(samples, max(newest - 5, self._step))
        # A frame on the border of two steps may show any tone.
        if step is None or not self._step < step <= min(newest, self._step + 60):
            return
        self._step = step
        self.delays.append((now, now - self._ladder.sent[step]))
