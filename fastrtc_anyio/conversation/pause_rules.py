"""Pause rules: when the user has begun to speak, and when the user has paused.

A *rule* says after each hop of audio whether the user is silent, speaks or has paused.
:class:`SlidingWindow`, the default, sums the speech in the last ``audio_chunk_duration`` seconds
after every hop. FastRTC judges consecutive chunks of that length instead, so it detects a pause up
to one chunk late; a sliding window detects it one hop late at most.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from fastrtc_anyio._core.options import check_number
from fastrtc_anyio._media.frames import Int16Array

from .foreground import Foreground

__all__ = ["AlgoOptions", "PauseRule", "SlidingWindow", "Verdict"]

SPEECH_PROBABILITY = 0.5
"""Default probability from which a hop counts as speech: Silero's default."""
INTERRUPT_PART = 0.5
"""Default ratio of the interrupt threshold to ``started_talking_threshold``. Silero detects an
onset 50 to 130 ms late, and audio leaves in frames of 20 ms: with a threshold of 0.1 s, a reply
falls silent within 0.3 s of the first word over it."""


@dataclass(frozen=True)
class AlgoOptions:
    """Thresholds for the start of speech and for a pause, with FastRTC's names and meanings.

    FastRTC applies them to consecutive chunks of audio. Here they apply to a sliding window, after
    every hop.

    Args:
        audio_chunk_duration: length of the window in seconds.
        started_talking_threshold: the user has begun to speak when the window holds more speech
            than this, in seconds.
        speech_threshold: the user has paused when the window then holds less speech than this, in
            seconds. It may exceed ``started_talking_threshold``: the comparison then begins once
            the speech in the window stops increasing.
        max_continuous_speech_s: maximum length of an utterance in seconds, including the pre-roll.
            A longer one is cut there, and the next utterance begins with the next sample. Infinity
            stands for `LONGEST_UTTERANCE_S`, 300 s.
        interrupt_threshold: replaces ``started_talking_threshold`` during a reply, so that a reply
            falls silent quickly; FastRTC has no such option. Half of
            ``started_talking_threshold`` by default, 0.1 s.

    Raises:
        TypeError: an option is not a number.
        ValueError: an option is out of range.
    """

    audio_chunk_duration: float = 0.6
    started_talking_threshold: float = 0.2
    speech_threshold: float = 0.1
    max_continuous_speech_s: float = math.inf
    interrupt_threshold: float | None = None

    def __post_init__(self) -> None:
        for name in ("audio_chunk_duration", "speech_threshold"):
            check_number(name, getattr(self, name), above=0, unit="s")
        check_number("max_continuous_speech_s", self.max_continuous_speech_s, above=0, finite=False)
        for name in ("started_talking_threshold", "interrupt_threshold"):
            if name != "interrupt_threshold" or self.interrupt_threshold is not None:
                check_number(name, getattr(self, name), at_least=0, unit="s")
                # The window never holds more speech than its own length.
                self._check_window(name, getattr(self, name) < self.audio_chunk_duration, "below")
        within = self.speech_threshold <= self.audio_chunk_duration
        self._check_window("speech_threshold", within, "at most")

    def _check_window(self, name: str, holds: bool, relation: str) -> None:
        if not holds:
            raise ValueError(
                f"{name} must be {relation} audio_chunk_duration ({self.audio_chunk_duration} s); "
                f"got {getattr(self, name)!r}"
            )


class Verdict(enum.Enum):
    """A rule's verdict after one hop."""

    SILENCE = "silence"
    """The user has not begun to speak."""
    SPEECH = "speech"
    """The user speaks."""
    PAUSE = "pause"
    """The user has spoken and has paused. The rule repeats this verdict after each hop until the
    user continues or the rule is reset."""


class PauseRule(Protocol):
    """Judges, hop by hop, whether the user speaks. The machine resets it between utterances."""

    @property
    def lookback(self) -> int:
        """Samples from the beginning of the current speech to the end of the last hop.

        It is 0 without signs of speech. One hop increases it by the hop's samples at most, because
        older audio is no longer in the machine's buffer.
        """
        ...

    @property
    def silence(self) -> int | None:
        """Samples from the end of the last hop of speech to that of the last hop; None if the rule
        does not know."""
        ...

    def push(self, samples: Int16Array, probability: float, over_reply: bool = False) -> Verdict:
        """Judge the audio including the next hop.

        Args:
            samples: the hop: int16, shape ``(1, n)``.
            probability: probability that the hop is speech, from 0 to 1.
            over_reply: whether a reply is active that speech would interrupt.
        """
        ...

    def reset(self) -> None:
        """Forget all audio: the next hop is the first."""
        ...


class SlidingWindow:
    """`AlgoOptions` as a rule: the sum of speech in a sliding window.

    The sum is exact to the sample: a hop that is half inside the window counts half.

    Args:
        sample_rate: rate of the audio in Hz.
        options: window and thresholds.
        speech_probability: probability from which a hop counts as speech.
        background_db: level difference in dB from which speech belongs to a background voice; see
            :mod:`.foreground`. By default all voices count.
    """

    def __init__(
        self,
        sample_rate: int,
        options: AlgoOptions,
        speech_probability: float = SPEECH_PROBABILITY,
        background_db: float = math.inf,
    ) -> None:
        self._speech_probability = speech_probability
        # In whole samples, because 0.07 * 16000 is slightly more than 1120 and would fail a
        # comparison with 1120 samples of speech.
        self._window = max(1, round(options.audio_chunk_duration * sample_rate))
        # Rounding can make two durations equal that differ by less than a sample.
        started = round(options.started_talking_threshold * sample_rate)
        self._started = min(started, self._window - 1)
        interrupts = options.interrupt_threshold
        if interrupts is None:
            interrupts = INTERRUPT_PART * options.started_talking_threshold
        self._interrupts = min(round(interrupts * sample_rate), self._window - 1)
        self._foreground = Foreground(sample_rate, background_db, self._window)
        self._paused = max(1, round(options.speech_threshold * sample_rate))
        self.reset()

    def reset(self) -> None:
        """Forget all audio except the speaker's level: speech counts for one utterance only."""
        self._now = 0
        # Begin and end of each hop of speech in the window.
        self._hops: deque[tuple[int, int]] = deque()
        self._speech = 0
        self._spoken_until = 0
        # Maximum speech in the window since the user began to speak; 0 before that.
        self._peak = 0

    @property
    def lookback(self) -> int:
        """Samples since the beginning of the first hop of speech in the window."""
        return self._now - self._hops[0][0] if self._hops else 0

    @property
    def silence(self) -> int:
        """See :class:`PauseRule`."""
        return self._now - self._spoken_until

    def push(self, samples: Int16Array, probability: float, over_reply: bool = False) -> Verdict:
        """Judge the audio including the next hop."""
        is_speech = probability >= self._speech_probability
        self._foreground.push(samples, is_speech)
        if self._peak:
            is_speech = is_speech and self._foreground.continues
        inside = self._add(int(samples.shape[1]), is_speech)
        enough = self._interrupts if over_reply else self._started
        if self._peak or (inside > enough and self._foreground.may_begin):
            self._peak = max(self._peak, inside)
        if not self._peak:
            return Verdict.SILENCE
        # A sum can only fall below a threshold that it had reached. Without the minimum, a pause
        # threshold above the start threshold would end every utterance at once.
        return Verdict.PAUSE if inside < min(self._paused, self._peak) else Verdict.SPEECH

    def _add(self, count: int, is_speech: bool) -> int:
        """Advance the window and return the samples of speech inside."""
        if is_speech:
            self._spoken_until = self._now + count
            self._hops.append((self._now, self._spoken_until))
            self._speech += count
        self._now += count
        edge = self._now - self._window
        while self._hops and self._hops[0][1] <= edge:
            begin, end = self._hops.popleft()
            self._speech -= end - begin
        outside = max(0, edge - self._hops[0][0]) if self._hops else 0
        return self._speech - outside
