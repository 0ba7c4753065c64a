"""Who is talking to us: the nearest voice, not every voice.

A voice-activity model says speech of anybody's. With a television or the next table behind the
user, a turn would go on for ever: the user has paused, and the voices go on. They are quieter, for
whoever talks to a microphone is near it. So a memory is kept of how loud speech was, and speech
that is much quieter is somebody else's. The memory fades: somebody who speaks softly is heard after
some seconds.

Only the end of a turn and its very beginning are decided by it. A syllable may be soft, so it is
enough that the speaker's voice was there within the last 0.2 s, or, for a turn to begin, at all.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from fastrtc_anyio._media.frames import Int16Array

__all__ = ["BACKGROUND_DB", "Foreground"]

# Six voices 10 dB below the speaker's are told from it by this, and no pause is found inside a
# sentence; with 15 they are not, with 10 there are: docs/turn_benchmark.md.
BACKGROUND_DB = 12.0
# To begin a turn takes more: nobody is known to be talking.
BEGINNING = 2 / 3
# Longer than a soft syllable.
HOLD_S = 0.2
FADING_DB_PER_S = 1.0
# Of digital silence.
SILENCE_DB = -100.0


class Foreground:
    """Tells the speaker's voice from quieter ones.

    Args:
        sample_rate: of the audio, Hz.
        background_db: speech that is this much quieter than the loudest of late is somebody
            else's. Infinite: every voice is the speaker's.
        window: samples within which a turn begins.
    """

    def __init__(self, sample_rate: int, background_db: float, window: int) -> None:
        self._rate = sample_rate
        self._background = background_db
        self._window = window
        self._hold = round(HOLD_S * sample_rate)
        self._now = 0
        self._loudest = SILENCE_DB
        # Of the hops of speech inside the window: where they end, and how loud they are.
        self._levels: deque[tuple[int, float]] = deque()

    def push(self, samples: Int16Array, is_speech: bool) -> None:
        """Hear one hop.

        Args:
            samples: int16, shape ``(1, n)``.
            is_speech: whether it is anybody's speech.
        """
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
        """Whether the speech inside the window may be the beginning of the speaker's turn."""
        return self._reaches(self._window, BEGINNING * self._background)

    @property
    def goes_on(self) -> bool:
        """Whether speech now is the speaker's."""
        return self._reaches(self._hold, self._background)

    def _reaches(self, within: int, margin: float) -> bool:
        since, enough = self._now - within, self._loudest - margin
        return any(level >= enough for end, level in self._levels if end > since)


def _level(samples: Int16Array) -> float:
    """Power in dB of full scale."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) / 2**30
    return max(10 * math.log10(power), SILENCE_DB) if power else SILENCE_DB
