"""Voice activity from loudness alone: no model, and a few microseconds per window.

Theory of operation. Noise is steady. Speech rises above it and falls back several times a second.
The noise floor is therefore the quietest window of the last 1.5 seconds: it falls at once, and
rises only after nothing was quieter for that long. The probability follows from the level of a
window above the floor. A steady sound that sets in, such as a fan or a hum, counts as speech for
1.5 seconds and then becomes the floor. So does a vowel held for as long.

The detector cannot distinguish speech from other intermittent sounds such as music or typing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from fastrtc_anyio._core.options import check_number
from fastrtc_anyio._media.frames import Int16Array

from .vad import check_window

__all__ = ["EnergyVad", "EnergyVadStream"]

# 20 ms: two periods of a low voice, and whole periods of 50 Hz hum.
SAMPLE_RATE = 16_000
WINDOW = 320
# The floor keeps the quietest window of each 100 ms: 15 numbers to compare instead of 75.
BLOCK = 5
# dB from a probability of 0.5 to 0.73. The level of white noise varies by 0.35 dB from one window
# to the next, so steady noise stays below 0.02.
SLOPE_DB = 1.5
# Level of an alternating last bit: only digital silence is quieter.
SILENCE_DBFS = -96.0


class EnergyVad:
    """`Vad` based on loudness, fast enough for the event loop.

    Use it in tests, on small machines, and for callers in quiet places. A window is speech, with a
    probability of at least 0.5, if it is ``margin_db`` louder than the noise floor and not below
    ``quietest_dbfs``. The result depends on the audio alone.

    Args:
        margin_db: level above the noise floor, in dB, at which the probability is 0.5.
        quietest_dbfs: level in dB relative to full scale below which a window is never speech.
            Speech close to a microphone has about -25.
        memory_s: seconds for which a quiet window counts as the noise floor. Longer than people
            talk without a gap, and shorter than new noise may count as speech.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of range.
    """

    sample_rate = SAMPLE_RATE
    window = WINDOW
    blocking = False  # a window needs no thread

    def __init__(
        self, *, margin_db: float = 9.0, quietest_dbfs: float = -55.0, memory_s: float = 1.5
    ) -> None:
        check_number("margin_db", margin_db, above=0, at_most=-SILENCE_DBFS, unit="dB")
        check_number("quietest_dbfs", quietest_dbfs, above=SILENCE_DBFS, at_most=0, unit="dBFS")
        check_number("memory_s", memory_s, at_least=BLOCK * WINDOW / SAMPLE_RATE, unit="seconds")
        self._margin = margin_db
        self._quietest = quietest_dbfs
        self._blocks = round(memory_s * SAMPLE_RATE / (BLOCK * WINDOW))

    def new_stream(self) -> EnergyVadStream:
        """Return the state for a new speaker, with its own noise floor."""
        return EnergyVadStream(self._margin, self._quietest, self._blocks)

    def probabilities(
        self, streams: Sequence[EnergyVadStream], windows: Sequence[Int16Array]
    ) -> list[float]:
        """Process the next window of each of several speakers, one after another."""
        pairs = zip(streams, windows, strict=True)
        return [stream.probability(window) for stream, window in pairs]


class EnergyVadStream:
    """Noise floor of one speaker; see `EnergyVad`."""

    def __init__(self, margin_db: float, quietest_dbfs: float, blocks: int) -> None:
        self._margin = margin_db
        self._lowest_floor = quietest_dbfs - margin_db
        # The quietest window of each block. The last block is incomplete.
        self._minima: deque[float] = deque(maxlen=blocks)
        self._windows = 0

    def probability(self, window: Int16Array) -> float:
        """Process the next 320 samples at 16 kHz; see :meth:`.vad.VadStream.probability`.

        The first window counts as noise.
        """
        check_window(window, WINDOW)
        level = _level_dbfs(window)
        if self._windows % BLOCK == 0:
            self._minima.append(level)
        self._minima[-1] = min(self._minima[-1], level)
        self._windows += 1
        floor = max(min(self._minima), self._lowest_floor)
        return 1 / (1 + math.exp((floor + self._margin - level) / SLOPE_DB))


def _level_dbfs(window: Int16Array) -> float:
    """Power without the DC offset of cheap microphones. A full-scale sine has -3 dBFS."""
    samples = window[0].astype(np.float64)
    power = float(samples @ samples / WINDOW - samples.mean() ** 2) / 2.0**30
    return max(10 * math.log10(power), SILENCE_DBFS) if power > 0 else SILENCE_DBFS
