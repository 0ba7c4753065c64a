"""The speaker's voice, told from background voices by level.

A voice-activity model reports speech of every voice. With a television behind the user, a turn
would never end: the user has paused, and the television has not. Background voices are quieter,
because the user is near the microphone. The filter therefore remembers the level of recent speech
and attributes much quieter speech to background voices. The memory fades, so that a soft speaker
counts after some seconds.

The filter decides only about the beginning and the end of a turn. A syllable may be soft: it is
enough that the speaker's voice occurred within the last 0.2 s or, for the beginning of a turn,
within the window.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from fastrtc_anyio._media.frames import Int16Array

__all__ = ["BACKGROUND_DB", "Foreground"]

BACKGROUND_DB = 12.0
"""Default level difference in dB. It separates six voices 10 dB below the speaker's and finds no
pause inside a sentence. 15 does not separate them, and 10 finds pauses:
docs/concepts/turn_benchmark.md."""
BEGINNING = 2 / 3
"""Part of the level difference that is allowed at the beginning of a turn: it takes more to begin a
turn than to continue one."""
HOLD_S = 0.2
"""Seconds for which the speaker's voice is held; longer than a soft syllable."""
FADING_DB_PER_S = 1.0
"""Decay of the remembered level."""
SILENCE_DB = -100.0
"""Level of digital silence."""


class Foreground:
    """Level filter for one speaker.

    Args:
        sample_rate: rate of the audio in Hz.
        background_db: level difference in dB from the loudest recent speech from which speech
            belongs to a background voice. Infinite: all speech is the speaker's.
        window: samples within which a turn begins.
    """

    def __init__(self, sample_rate: int, background_db: float, window: int) -> None:
        self._rate = sample_rate
        self._background = background_db
        self._window = window
        self._hold = round(HOLD_S * sample_rate)
        self._now = 0
        self._loudest = SILENCE_DB
        # End and level of each hop of speech in the window.
        self._levels: deque[tuple[int, float]] = deque()

    def push(self, samples: Int16Array, is_speech: bool) -> None:
        """Process one hop: int16, shape ``(1, n)``. ``is_speech`` includes background voices."""
        count = int(samples.shape[1])
        self._now += count
        self._loudest -= FADING_DB_PER_S * count / self._rate
        if is_speech:
            level = _level(samples)
            self._loudest = max(self._loudest, level)
            self._levels.append((self._now, level))
        while self._levels and self._levels[0][0] <= self._now - self._window:
            self._levels.popleft()

    @property
    def may_begin(self) -> bool:
        """Whether speech in the window may begin the speaker's turn."""
        return self._reaches(self._window, BEGINNING * self._background)

    @property
    def continues(self) -> bool:
        """Whether current speech is the speaker's."""
        return self._reaches(self._hold, self._background)

    def _reaches(self, within: int, margin: float) -> bool:
        since, enough = self._now - within, self._loudest - margin
        return any(level >= enough for end, level in self._levels if end > since)


def _level(samples: Int16Array) -> float:
    """Compute the power in dB relative to full scale."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) / 2**30
    return max(10 * math.log10(power), SILENCE_DB) if power else SILENCE_DB
