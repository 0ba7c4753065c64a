"""Voice activity from loudness alone: it needs no model and next to no time.

Theory of operation. Noise is what is always there; speech rises over it and falls back, several
times a second. The noise floor is therefore the quietest window of the last 1.5 seconds: it falls
at once, and rises only when nothing was quieter for that long. How far a window is above the floor
gives the probability. A sound that begins and stays, a fan or a hum, is taken for speech at first
and becomes the floor after 1.5 seconds. So does a vowel that is held as long.

It can't tell speech from other sounds that come and go: music, typing, somebody else in the room.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from fastrtc_anyio._media.frames import Int16Array

from .vad import check_window

__all__ = ["EnergyVad"]

# 20 ms: two periods of a low voice, and whole periods of 50 Hz hum.
SAMPLE_RATE = 16_000
WINDOW = 320
# The noise floor is kept as the quietest of each 100 ms: 15 numbers to compare instead of 75.
BLOCK = 5
# dB from a probability of 0.5 to 0.73. The level of white noise varies by 0.35 dB from one window
# to the next, so steady noise stays below 0.02.
SLOPE_DB = 1.5
# The level of an alternating last bit: nothing is quieter but digital silence.
SILENCE_DBFS = -96.0


class EnergyVad:
    """A `Vad` that goes by loudness. Some microseconds a window, so it runs on the event loop.

    For tests, for small machines, and where callers are in quiet places. A window is speech, with
    a probability of at least 0.5, if it is ``margin_db`` louder than the noise floor and not below
    ``quietest_dbfs``. The same audio always gives the same numbers.

    Args:
        margin_db: How far over the noise floor the probability is 0.5, dB.
        quietest_dbfs: What is below this is never speech, however quiet the room. dB relative to
            full scale; speech close to a microphone has about -25.
        memory_s: For how long a quiet moment counts as the noise floor, seconds. Longer than
            people talk without a gap, shorter than a new noise may be taken for speech.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self, *, margin_db: float = 9.0, quietest_dbfs: float = -55.0, memory_s: float = 1.5
    ) -> None:
        if not 0 < margin_db <= -SILENCE_DBFS:
            raise ValueError(
                f"margin_db must be more than 0 and at most {-SILENCE_DBFS:g} dB; got {margin_db!r}"
            )
        if not SILENCE_DBFS < quietest_dbfs <= 0:
            raise ValueError(
                f"quietest_dbfs must be more than {SILENCE_DBFS:g} and at most 0 dBFS; "
                f"got {quietest_dbfs!r}"
            )
        if not BLOCK * WINDOW / SAMPLE_RATE <= memory_s < math.inf:
            raise ValueError(f"memory_s must be 0.1 or more seconds; got {memory_s!r}")
        self._margin = margin_db
        self._quietest = quietest_dbfs
        self._blocks = round(memory_s * SAMPLE_RATE / (BLOCK * WINDOW))

    @property
    def sample_rate(self) -> int:
        """Of the audio it takes: 16000 Hz."""
        return SAMPLE_RATE

    @property
    def window(self) -> int:
        """Samples it takes at a time: 320, which is 20 ms."""
        return WINDOW

    @property
    def blocking(self) -> bool:
        """False: no thread is worth while."""
        return False

    def new_stream(self) -> EnergyVadStream:
        """Begin to listen to somebody. The noise floor is theirs."""
        return EnergyVadStream(self._margin, self._quietest, self._blocks)


class EnergyVadStream:
    """One speaker's noise floor; see `EnergyVad`."""

    def __init__(self, margin_db: float, quietest_dbfs: float, blocks: int) -> None:
        self._margin = margin_db
        self._lowest_floor = quietest_dbfs - margin_db
        # The quietest window of each block; the last block is the one being heard.
        self._minima: deque[float] = deque(maxlen=blocks)
        self._windows = 0

    def probability(self, window: Int16Array) -> float:
        """Hear the next 20 ms.

        The first window counts as noise, so noise that is there from the beginning is silence.

        Args:
            window: int16, shape ``(1, 320)``, at 16 kHz.

        Returns:
            How probable it is that it is speech, 0 to 1.

        Raises:
            UnsupportedFormat: for another dtype or shape.
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
    """Power without the constant part, which cheap microphones have; a full sine has -3 dBFS."""
    samples = window[0].astype(np.float64)
    power = float(samples @ samples / WINDOW - samples.mean() ** 2) / 2.0**30
    return max(10 * math.log10(power), SILENCE_DBFS) if power > 0 else SILENCE_DBFS
