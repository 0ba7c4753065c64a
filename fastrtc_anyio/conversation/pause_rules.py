"""When somebody has begun to talk, and when they have paused.

A *rule* says after each hop of audio whether the user is silent, talks or has paused.
:class:`SlidingWindow`, the usual one, adds up the speech inside the last ``audio_chunk_duration``
seconds after every hop. FastRTC looks at that much audio at a time and then at the next, so it
learns of a pause up to a whole chunk late; a window that slides is late by one hop at most.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from fastrtc_anyio._media.frames import Int16Array

from .foreground import Foreground

__all__ = ["AlgoOptions", "PauseRule", "SlidingWindow", "Verdict"]

# Silero's own default.
SPEECH_PROBABILITY = 0.5
# Silero finds an onset 50 to 130 ms late, and sound leaves in frames of 20 ms: with 0.1 s between,
# a reply falls silent within 0.3 s of the first word over it.
INTERRUPT_PART = 0.5


@dataclass(frozen=True)
class AlgoOptions:
    """When talking has started and when it has paused. The names and meanings are FastRTC's.

    FastRTC applies them to one chunk of audio after another; here they apply to a window that
    slides, after every hop.

    Args:
        audio_chunk_duration: Length of the window, seconds.
        started_talking_threshold: Talking has started when there is more speech than this inside
            the window, seconds.
        speech_threshold: Having started, talking has paused when the speech inside the window
            falls below this, seconds. It may be larger than ``started_talking_threshold``: it
            then counts from the moment on that the speech inside the window grows no more.
        max_continuous_speech_s: An utterance that gets this long, pre-roll included, is given out
            while the user talks on, and the next begins with the sample after it.
            300 s if infinite: `turn_taking.LONGEST_UTTERANCE_S`.
        interrupt_threshold: What takes the place of ``started_talking_threshold`` while a reply
            goes on, which FastRTC does not have: who is talked over should fall silent at once.
            Half of the other by default: 0.1 s.

    Raises:
        ValueError: names the option, its value and what it has to be.
    """

    audio_chunk_duration: float = 0.6
    started_talking_threshold: float = 0.2
    speech_threshold: float = 0.1
    max_continuous_speech_s: float = math.inf
    interrupt_threshold: float | None = None

    def __post_init__(self) -> None:
        window = self.audio_chunk_duration
        if not 0 < window < math.inf:
            raise self._invalid("audio_chunk_duration", "must be a positive number of seconds")
        if not 0 <= self.started_talking_threshold < window:
            raise self._invalid(
                "started_talking_threshold",
                f"must be from 0 to less than audio_chunk_duration ({window}): there is never "
                "more speech than that inside the window",
            )
        if not 0 < self.speech_threshold <= window:
            raise self._invalid(
                "speech_threshold",
                f"must be more than 0 and at most audio_chunk_duration ({window}): else speech "
                "would never fall below it, or always be below it",
            )
        if self.interrupt_threshold is not None and not 0 <= self.interrupt_threshold < window:
            raise self._invalid(
                "interrupt_threshold",
                f"must be from 0 to less than audio_chunk_duration ({window}), or None",
            )
        if not self.max_continuous_speech_s > 0:
            raise self._invalid(
                "max_continuous_speech_s", "must be a positive number of seconds, or infinite"
            )

    def _invalid(self, name: str, wanted: str) -> ValueError:
        return ValueError(f"{name} {wanted}; got {getattr(self, name)!r}")


class Verdict(enum.Enum):
    """What a rule says after a hop."""

    SILENCE = "silence"
    """The user has not begun to talk."""
    SPEECH = "speech"
    """The user talks."""
    PAUSE = "pause"
    """The user has talked and has paused. It is said again after each hop until the user talks
    on or the rule is reset."""


class PauseRule(Protocol):
    """Decides, hop by hop, whether the user talks. The machine resets it between utterances."""

    @property
    def lookback(self) -> int:
        """Where speech began, if it is found now: samples back from the end of the last hop.

        0 when nothing points to speech. A hop makes it larger by the hop's samples at most: what
        is further back is no longer on the tape.
        """
        ...

    def push(self, samples: Int16Array, probability: float, over_reply: bool = False) -> Verdict:
        """Judge the stream as it is with one hop more.

        Args:
            samples: int16, shape ``(1, n)``, the hop.
            probability: That it is speech, 0 to 1.
            over_reply: Whether a reply goes on, which speech would interrupt.
        """
        ...

    def reset(self) -> None:
        """Forget everything heard: the next hop is the first."""
        ...


class SlidingWindow:
    """`AlgoOptions` as a rule: it adds up the speech inside the last seconds.

    Exact to the sample: a hop that is half inside the window counts half.

    Args:
        sample_rate: Of the audio, Hz.
        options: Window and thresholds.
        speech_probability: A hop is speech from this probability on.
        background_db: Speech that is this much quieter than the speaker's is somebody else's; see
            :mod:`.foreground`. By default every voice counts.
    """

    def __init__(
        self,
        sample_rate: int,
        options: AlgoOptions,
        speech_probability: float = SPEECH_PROBABILITY,
        background_db: float = math.inf,
    ) -> None:
        self._speech_probability = speech_probability
        # Whole samples: 0.07 * 16000 is a little more than 1120, and "less than" would notice.
        self._window = max(1, round(options.audio_chunk_duration * sample_rate))
        # Two durations of less than a sample's difference are the same number of samples.
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
        """Forget everything heard, but how loud the speaker is. No decision counts twice."""
        self._now = 0
        # Of the hops that are speech: where they begin and end.
        self._hops: deque[tuple[int, int]] = deque()
        self._speech = 0
        # The most speech there was inside the window since talking started; 0 before.
        self._peak = 0

    @property
    def lookback(self) -> int:
        """Samples since the beginning of the first speech of which some is inside the window."""
        return self._now - self._hops[0][0] if self._hops else 0

    def push(self, samples: Int16Array, probability: float, over_reply: bool = False) -> Verdict:
        """Judge the stream as it is with one hop more."""
        is_speech = probability >= self._speech_probability
        self._foreground.push(samples, is_speech)
        if self._peak:
            is_speech = is_speech and self._foreground.goes_on
        inside = self._add(int(samples.shape[1]), is_speech)
        enough = self._interrupts if over_reply else self._started
        if self._peak or (inside > enough and self._foreground.may_begin):
            self._peak = max(self._peak, inside)
        if not self._peak:
            return Verdict.SILENCE
        # To fall below the threshold it must have been higher. That matters only where the
        # threshold is larger than the one that starts talking: every utterance would end at once.
        return Verdict.PAUSE if inside < min(self._paused, self._peak) else Verdict.SPEECH

    def _add(self, count: int, is_speech: bool) -> int:
        """Slide the window on and return the samples of speech inside."""
        if is_speech:
            self._hops.append((self._now, self._now + count))
            self._speech += count
        self._now += count
        edge = self._now - self._window
        while self._hops and self._hops[0][1] <= edge:
            begin, end = self._hops.popleft()
            self._speech -= end - begin
        outside = max(0, edge - self._hops[0][0]) if self._hops else 0
        return self._speech - outside
