"""Nobody is heard until they have said a stop word.

:class:`StopWordRule` keeps what is being said and says silence, until it is told that a stop word
was in it. From the sample on at which that ended it is the usual rule. Looking for stop words takes
a speech recogniser, and is somebody else's work: it is done now and then while somebody speaks, and
once more when they pause.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from fastrtc_anyio._media.frames import Int16Array

from .pause_rules import SPEECH_PROBABILITY, AlgoOptions, SlidingWindow, Verdict

__all__ = ["StopWordCandidate", "StopWordRule"]

# A stop word is shorter. As much is looked through at a time.
LONGEST_S = 2.5
# While that is done, so much of what follows is kept.
LONGEST_KEPT_S = 30.0
# How much more has to be said before it is worth looking again: a recogniser is slow.
STEP_S = 0.4


@dataclass(frozen=True, eq=False)
class StopWordCandidate:
    """Speech that may hold a stop word.

    Attributes:
        samples: int16, shape ``(1, n)``.
        end: after how many samples heard in all it ends.
        complete: whether the speaker has paused.
        turn: what it is a candidate for; nothing is decided by it after a reset.
    """

    samples: Int16Array
    end: int
    complete: bool
    turn: int


class StopWordRule:
    """A :class:`.PauseRule` that is deaf until it is told of a stop word, and again after a reset.

    Args:
        sample_rate: Of the audio, Hz.
        options: Window and thresholds.
        speech_probability: A hop is speech from this probability on.
        background_db: See :class:`.SlidingWindow`.
        pre_roll_s: Audio before the first speech that may belong to a stop word, seconds.
    """

    def __init__(
        self,
        sample_rate: int,
        options: AlgoOptions,
        speech_probability: float = SPEECH_PROBABILITY,
        background_db: float = math.inf,
        pre_roll_s: float = 0.3,
    ) -> None:
        self._window = SlidingWindow(sample_rate, options, speech_probability, background_db)
        self._longest = round(LONGEST_S * sample_rate)
        self._longest_kept = round(LONGEST_KEPT_S * sample_rate)
        self._step = round(STEP_S * sample_rate)
        self._pre_roll = round(pre_roll_s * sample_rate)
        self._now = 0
        self._turn = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything heard, a stop word too."""
        self._window.reset()
        self._turn += 1
        self._awake = False
        self._verdict = Verdict.SILENCE
        self._hops: deque[tuple[Int16Array, float]] = deque()
        self._kept = 0
        # Where the candidate given out last ended.
        self._looked = self._now
        self._looking = False
        # Speech from before it was woken that nobody has been told of, in samples back from now.
        self._owed = 0
        self._told = False

    @property
    def awake(self) -> bool:
        """Whether a stop word was heard, and what follows is listened to."""
        return self._awake

    @property
    def lookback(self) -> int:
        """See :class:`.PauseRule`. While it is deaf, all that may follow on a stop word."""
        return max(self._window.lookback, self._owed) if self._awake else self._kept

    def push(self, samples: Int16Array, probability: float, over_reply: bool = False) -> Verdict:
        """Judge the stream as it is with one hop more."""
        self._now += int(samples.shape[1])
        verdict = self._window.push(samples, probability, over_reply and self._awake)
        if self._awake:
            self._owed = 0 if self._told or not self._owed else self._owed + samples.shape[1]
            self._told = verdict is not Verdict.SILENCE
            return verdict
        self._verdict = verdict
        self._keep(samples, probability)
        return Verdict.SILENCE

    def candidate(self) -> StopWordCandidate | None:
        """What is to be looked through now, if there is something: each time it is something new.

        Answer with :meth:`wake` or :meth:`nothing_in`, at once or later.
        """
        if self._awake or self._verdict is Verdict.SILENCE:
            return None
        complete = self._verdict is Verdict.PAUSE
        if self._now - self._looked < (1 if complete else self._step):
            return None
        self._looked = self._now
        self._looking = True
        samples = np.concatenate([hop for hop, _ in self._hops], axis=1)
        return StopWordCandidate(samples[:, -self._longest :], self._now, complete, self._turn)

    def wake(self, candidate: StopWordCandidate, end: int) -> int | None:
        """A stop word is in the candidate: hear what follows on it.

        Args:
            candidate: The one looked through.
            end: After how many of its samples the stop word ends.

        Returns:
            How many samples ago that was. None if it is too late: everything was forgotten since.
        """
        ago = self._now - candidate.end + int(candidate.samples.shape[1]) - end
        if self._awake or candidate.turn != self._turn or ago > self._kept:
            return None
        self._awake = True
        self._window.reset()
        for samples, probability in _last(self._hops, ago):
            verdict = self._window.push(samples, probability)
            if self._owed:
                self._owed += int(samples.shape[1])
            elif verdict is not Verdict.SILENCE:
                self._owed = self._window.lookback
        self._hops.clear()
        self._kept = 0
        return ago

    def nothing_in(self, candidate: StopWordCandidate) -> None:
        """There is none. Of a candidate that is complete, nothing needs to be kept."""
        if candidate.turn != self._turn:
            return
        self._looking = False
        said_more = self._awake or self._verdict is not Verdict.PAUSE
        if candidate.complete and not said_more:
            self.reset()

    def _keep(self, samples: Int16Array, probability: float) -> None:
        self._hops.append((samples.copy(), probability))
        self._kept += int(samples.shape[1])
        limit = self._window.lookback + self._pre_roll
        if self._looking:
            limit = self._longest_kept
        elif self._verdict is not Verdict.SILENCE:
            limit = self._longest
        while self._kept - self._hops[0][0].shape[1] >= limit:
            self._kept -= int(self._hops.popleft()[0].shape[1])


def _last(hops: deque[tuple[Int16Array, float]], count: int) -> list[tuple[Int16Array, float]]:
    """The hops that hold the last ``count`` samples, the first of them cut."""
    found: list[tuple[Int16Array, float]] = []
    for samples, probability in reversed(hops):
        if count <= 0:
            break
        part = samples[:, max(0, samples.shape[1] - count) :]
        count -= part.shape[1]
        found.append((part, probability))
    return found[::-1]
