"""The pause rule of a handler that replies only after a stop word.

:class:`StopWordRule` keeps recent speech and reports silence until a stop word is found in it. From
the sample at which the stop word ended it judges like :class:`.SlidingWindow`. Finding stop words
takes a speech recogniser, so the driver does it: repeatedly while the user speaks, and once more
when the user pauses.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from fastrtc_anyio._media.frames import Int16Array

from .machine import PRE_ROLL_S
from .pause_rules import SPEECH_PROBABILITY, AlgoOptions, SlidingWindow, Verdict

__all__ = ["StopWordCandidate", "StopWordRule"]

LONGEST_S = 2.5
"""Maximum audio of a candidate in seconds; longer than a stop word."""
LONGEST_KEPT_S = 30.0
"""Maximum audio in seconds kept while the recogniser works."""
STEP_S = 0.4
"""Seconds of new speech before the next candidate, because a recogniser is slow."""


@dataclass(frozen=True, eq=False)
class StopWordCandidate:
    """Speech that may contain a stop word.

    Attributes:
        samples: int16, shape ``(1, n)``.
        end: place after its last sample, in samples since the first one pushed.
        complete: whether the user has paused.
        turn: the turn it belongs to; a reset of the rule makes the candidate void.
    """

    samples: Int16Array
    end: int
    complete: bool
    turn: int


class StopWordRule:
    """A :class:`.PauseRule` that reports silence until a stop word wakes it. A reset puts it back
    to sleep. The arguments are those of :class:`.SlidingWindow`.

    Attributes:
        awake: whether a stop word was found, and the speech after it counts.
    """

    def __init__(
        self,
        sample_rate: int,
        options: AlgoOptions,
        speech_probability: float = SPEECH_PROBABILITY,
        background_db: float = math.inf,
    ) -> None:
        self._window = SlidingWindow(sample_rate, options, speech_probability, background_db)
        self._longest = round(LONGEST_S * sample_rate)
        self._longest_kept = round(LONGEST_KEPT_S * sample_rate)
        self._step = round(STEP_S * sample_rate)
        self._pre_roll = round(PRE_ROLL_S * sample_rate)
        self._now = 0
        self._turn = 0
        self.reset()

    def reset(self) -> None:
        """Forget all audio and any stop word."""
        self._window.reset()
        self._turn += 1
        self.awake: bool = False
        self._verdict = Verdict.SILENCE
        self._hops: deque[tuple[Int16Array, float]] = deque()
        self._kept = 0
        # Place at which the last candidate ended.
        self._looked = self._now
        self._looking = False
        # Samples back to speech that was detected while waking up and not reported yet.
        self._owed = 0
        self._reported = False

    @property
    def lookback(self) -> int:
        """See :class:`.PauseRule`. During sleep, all audio that may follow a stop word."""
        return max(self._window.lookback, self._owed) if self.awake else self._kept

    @property
    def silence(self) -> int:
        """See :class:`.PauseRule`."""
        return self._window.silence

    def push(self, samples: Int16Array, probability: float, over_reply: bool = False) -> Verdict:
        """Judge the audio including the next hop."""
        self._now += int(samples.shape[1])
        verdict = self._window.push(samples, probability, over_reply and self.awake)
        if self.awake:
            owes = self._owed and not self._reported
            self._owed = self._owed + samples.shape[1] if owes else 0
            self._reported = verdict is not Verdict.SILENCE
            return verdict
        self._verdict = verdict
        self._keep(samples, probability)
        return Verdict.SILENCE

    def candidate(self) -> StopWordCandidate | None:
        """Return speech to search for a stop word, or None without new speech.

        Answer with :meth:`wake` or :meth:`reject`, at once or later.
        """
        if self.awake or self._verdict is Verdict.SILENCE:
            return None
        complete = self._verdict is Verdict.PAUSE
        if self._now - self._looked < (1 if complete else self._step):
            return None
        self._looked = self._now
        self._looking = True
        samples = np.concatenate([hop for hop, _ in self._hops], axis=1)
        return StopWordCandidate(samples[:, -self._longest :], self._now, complete, self._turn)

    def wake(self, candidate: StopWordCandidate, end: int) -> int | None:
        """Wake up: the first ``end`` samples of the candidate end in a stop word. Judge the audio
        after it.

        Returns:
            Samples since the end of the stop word. None if the rule was reset meanwhile.
        """
        ago = self._now - candidate.end + int(candidate.samples.shape[1]) - end
        if self.awake or candidate.turn != self._turn or ago > self._kept:
            return None
        self.awake = True
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

    def reject(self, candidate: StopWordCandidate) -> None:
        """Continue to sleep: the candidate contains no stop word."""
        if candidate.turn != self._turn:
            return
        self._looking = False
        said_more = self.awake or self._verdict is not Verdict.PAUSE
        if candidate.complete and not said_more:
            self.reset()  # no part of a complete utterance can belong to a later stop word

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
    """Return the hops that hold the last ``count`` samples, with the first hop cut."""
    found: list[tuple[Int16Array, float]] = []
    for samples, probability in reversed(hops):
        if count <= 0:
            break
        part = samples[:, max(0, samples.shape[1] - count) :]
        count -= part.shape[1]
        found.append((part, probability))
    return found[::-1]
