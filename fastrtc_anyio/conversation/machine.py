"""Whose turn it is: speech probabilities in, utterances and interruptions out.

Theory of operation. The caller pushes audio hop by hop, each hop with the probability that it is
speech. Time is the number of samples pushed; there is no other clock. Three parts work together:

* A *rule* (:mod:`.endpointing`) says after each hop whether the user is silent, talks or has
  paused.
* A *tape* holds the audio that may still be needed. A rule finds speech some time after it began,
  so the tape reaches back to where it began, and the pre-roll before that: the first syllable is
  never cut. An utterance is one slice of the input. What was given out once is never given out
  again: of two utterances close to each other, the second begins where the first ended.
* A *table* of states says what follows from it::

    LISTENING -> USER_SPEAKING -> REPLYING -> LISTENING
                       ^             |  ^
                       |      speech |  | rejected
             confirmed |             v  |
                       +-------- INTERRUPTING

Speech over a reply is a *candidate* for an interruption until somebody judges it: its playout is
paused meanwhile. Confirmed, it was the beginning of the next utterance. Rejected, it never was
one; it is forgotten, and who goes on talking becomes a candidate again.

Speech that went on while a reply began is no barge-in: the utterance was cut at its maximal
length, or somebody triggered the response. It goes on being collected and interrupts the reply
when it ends. If it ends before a window has passed, it was the last syllable or nothing at all,
and is dropped.

Memory: while nobody speaks, the pre-roll, the window and two hops. While somebody does, an
utterance of ``max_continuous_speech_s``, `LONGEST_UTTERANCE_S` if that is infinite, and a hop.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from fastrtc_anyio._media.frames import Int16Array, check_pcm, check_sample_rate
from fastrtc_anyio.errors import InvalidStateError, UnsupportedFormat

from .pause_rules import AlgoOptions, PauseRule, SlidingWindow, Verdict

__all__ = [
    "LONGEST_UTTERANCE_S",
    "PRE_ROLL_S",
    "TRANSITIONS",
    "Interrupted",
    "InterruptionCandidate",
    "ReplyDue",
    "SpeechStarted",
    "SpeechStopped",
    "TurnStep",
    "TurnMachine",
    "TurnSignal",
    "TurnState",
]

# What stands for an infinite max_continuous_speech_s: 29 MB at 48 kHz. A television that a VAD
# takes for a speaker must not fill the memory.
LONGEST_UTTERANCE_S = 300.0
# Silero says speech one or two hops (64 ms) into a soft onset; a fricative before a vowel takes
# 0.2 s at most.
PRE_ROLL_S = 0.3


class TurnState(enum.Enum):
    """Whose turn it is."""

    LISTENING = "listening"
    """Nobody speaks."""
    USER_SPEAKING = "user speaking"
    REPLYING = "replying"
    """From the moment a reply is due until it has been played out."""
    INTERRUPTING = "interrupting"
    """The user speaks over a reply, which is not judged yet."""


class TurnSignal(enum.Enum):
    """What moves the turn on."""

    SPEECH = "speech"
    SILENCE = "silence"
    REPLY = "a reply"
    CANDIDATE = "a candidate"
    CONFIRMED = "an interruption"
    REJECTED = "a rejection"
    FINISHED = "the end of a reply"


S, T = TurnState, TurnSignal

TRANSITIONS: dict[TurnState, dict[TurnSignal, TurnState]] = {
    S.LISTENING: {T.SPEECH: S.USER_SPEAKING, T.REPLY: S.REPLYING},
    S.USER_SPEAKING: {T.SILENCE: S.LISTENING, T.REPLY: S.REPLYING},
    S.REPLYING: {
        T.CANDIDATE: S.INTERRUPTING,
        # Without a candidate: the utterance got too long to wait, or was triggered.
        T.CONFIRMED: S.USER_SPEAKING,
        T.FINISHED: S.LISTENING,
    },
    S.INTERRUPTING: {
        T.CONFIRMED: S.USER_SPEAKING,
        T.REJECTED: S.REPLYING,
        # Nothing is left to interrupt: the user has the turn.
        T.FINISHED: S.USER_SPEAKING,
    },
}


@dataclass(frozen=True)
class SpeechStarted:
    """The user began to talk.

    Attributes:
        at: When that was found. All times are in samples since the first one pushed.
        speech_at: Where the first speech is that counted. The utterance begins earlier, by the
            pre-roll.
    """

    at: int
    speech_at: int


@dataclass(frozen=True)
class SpeechStopped:
    """The user paused, or is no longer listened to: rejected, or ``can_interrupt`` is False.

    It comes after each `SpeechStarted` and before the next.
    """

    at: int


@dataclass(frozen=True, eq=False)
class ReplyDue:
    """An utterance is complete, or somebody asked for a reply: begin with it now.

    No other reply is going on: if there was one, an `Interrupted` came first.

    Attributes:
        reply: The number of the reply, for `TurnMachine.reply_finished`.
        utterance: int16, shape ``(1, stopped_at - started_at)``: that slice of the input, a copy.
            Without samples where a response was triggered while nobody spoke.
        started_at: Place of its first sample.
        stopped_at: Place after its last.
    """

    reply: int
    utterance: Int16Array
    started_at: int
    stopped_at: int


@dataclass(frozen=True)
class InterruptionCandidate:
    """The user speaks over a reply: pause its playout and judge.

    Answer with `TurnMachine.confirm` or `TurnMachine.reject`, at once or later.

    Attributes:
        at: When that was found, samples.
        reply: The number of the reply.
    """

    at: int
    reply: int


@dataclass(frozen=True)
class Interrupted:
    """A reply is over before its end: cancel it and flush what is not played yet.

    Attributes:
        at: When that was decided, samples of input.
        reply: The number of the reply.
    """

    at: int
    reply: int


TurnStep: TypeAlias = SpeechStarted | SpeechStopped | ReplyDue | InterruptionCandidate | Interrupted


class TurnMachine:
    """One caller's turn taking.

    Each method returns what follows from the call, in order. Nothing else happens: the caller
    pauses, cancels and starts replies, and says when one is played out.

    Args:
        sample_rate: Of the audio pushed, Hz; a multiple of 50 from 8000 to 48000.
        options: Thresholds; FastRTC's defaults if None.
        rule: Decides about speech and pauses; a `SlidingWindow` over ``options`` if None.
        can_interrupt: False: the user is not heard while a reply is due or sounds, as in FastRTC.
            Whoever still talks when it ends is found then, with the pre-roll.
        interrupt_on: Whether speech over a reply is a candidate for an interruption when it
            starts or, as in FastRTC, when it pauses.
        pre_roll_s: Audio before the first speech that belongs to the utterance, seconds.

    Raises:
        TypeError: the sample rate is no whole number.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        sample_rate: int,
        options: AlgoOptions | None = None,
        *,
        rule: PauseRule | None = None,
        can_interrupt: bool = True,
        interrupt_on: Literal["speech", "pause"] = "speech",
        pre_roll_s: float = PRE_ROLL_S,
    ) -> None:
        rate = check_sample_rate(sample_rate)
        if interrupt_on not in ("speech", "pause"):
            raise ValueError(f"interrupt_on must be 'speech' or 'pause'; got {interrupt_on!r}")
        if not 0 <= pre_roll_s < math.inf:
            raise ValueError(f"pre_roll_s must be 0 or more seconds; got {pre_roll_s!r}")
        options = options or AlgoOptions()
        longest = options.max_continuous_speech_s
        if longest == math.inf:
            longest = LONGEST_UTTERANCE_S
        self._longest = max(1, round(longest * rate))
        self._window = round(options.audio_chunk_duration * rate)
        self._pre_roll = round(pre_roll_s * rate)
        self._can_interrupt = can_interrupt
        self._interrupt_on = interrupt_on
        self._rule = rule or SlidingWindow(rate, options)
        self._tape = _Tape()
        self._state = TurnState.LISTENING
        self._reply = 0
        self._candidate: InterruptionCandidate | None = None
        # Where the utterance being spoken begins; None while nobody speaks.
        self._utterance: int | None = None
        # It follows on one that was given out while the user talked.
        self._goes_on = False
        self._paused = False
        # Up to here every sample that belongs to an utterance has been given out.
        self._given = 0
        self._events: list[TurnStep] = []

    @property
    def state(self) -> TurnState:
        """Whose turn it is."""
        return self._state

    @property
    def now(self) -> int:
        """Samples pushed so far."""
        return self._tape.end

    @property
    def reply(self) -> int:
        """The number of the newest reply; 0 before the first."""
        return self._reply

    @property
    def candidate(self) -> InterruptionCandidate | None:
        """The candidate for an interruption that is to be judged, if there is one."""
        return self._candidate

    @property
    def user_speaking(self) -> bool:
        """Whether an utterance has begun and not ended, over a reply or not."""
        return self._utterance is not None

    @property
    def user_paused(self) -> bool:
        """Whether that utterance only waits for its candidate to be judged: the user paused."""
        return self._paused

    @property
    def buffered(self) -> int:
        """Samples held at present."""
        return self._tape.end - self._tape.begin

    def heard(self) -> Int16Array:
        """The utterance as far as it has come: int16, shape ``(1, n)``, a copy.

        It is what the judge of a candidate listens to. Without samples while nobody speaks.
        """
        begin = self.now if self._utterance is None else self._utterance
        return self._tape.cut(begin, self.now)

    def forget(self, ago: int) -> None:
        """Let no utterance reach back further than ``ago`` samples before now."""
        self._given = max(self._given, self.now - ago)

    def push(self, samples: Int16Array, probability: float) -> list[TurnStep]:
        """Hear one hop.

        Args:
            samples: int16, shape ``(1, n)``, at least one sample. They are copied.
            probability: That this hop is speech, 0 to 1.

        Returns:
            What follows from it, in order.

        Raises:
            UnsupportedFormat: for another dtype or shape.
            ValueError: if ``probability`` is no probability. Nothing has changed then.
        """
        check_pcm(samples, 1)
        if samples.shape[1] == 0:
            raise UnsupportedFormat("expected at least 1 sample in a hop, got 0")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be from 0 to 1; got {probability!r}")
        self._tape.append(samples)
        if self._can_interrupt or self._state is not TurnState.REPLYING:
            over_reply = self._reply_goes_on and self._interrupt_on == "speech"
            self._judge(self._rule.push(samples, probability, over_reply))
        self._tidy()
        return self._take_events()

    def trigger_response(self) -> list[TurnStep]:
        """Have a reply begin now, with what the user has said so far.

        Without an utterance in progress the reply gets none. It does nothing during a reply, unless
        the user speaks over it: that is a confirmed interruption then.
        """
        if self._state is TurnState.LISTENING:
            self._reply_to(self.now, self.now)
        elif self._utterance is not None and (
            # A second press of the button is no interruption.
            not self._reply_goes_on or self._is_worth_a_reply(self._utterance)
        ):
            self._cut(self._utterance, self.now)
        return self._take_events()

    def reply_started(self) -> list[TurnStep]:
        """A reply begins that no `ReplyDue` asked for, a greeting for instance; see `reply`.

        Speech that is going on goes on.

        Raises:
            InvalidStateError: a reply is going on already; nothing has changed.
        """
        self._begin_reply()
        return self._take_events()

    def reply_finished(self, reply: int) -> list[TurnStep]:
        """A reply has ended by itself: its last sample is played out, or it failed.

        Args:
            reply: Its number. If it is not the reply going on, it was interrupted a moment ago,
                and nothing happens.
        """
        if reply != self._reply or not self._reply_goes_on:
            return []
        self._candidate = None
        self._move(T.FINISHED)
        if self._utterance is not None and self._state is S.LISTENING:
            self._move(T.SPEECH)
        if self._paused:
            self._finish_utterance()
        return self._take_events()

    def confirm(self, candidate: InterruptionCandidate) -> list[TurnStep]:
        """The candidate is an interruption. Nothing happens if it is no longer to be judged."""
        if candidate is not self._candidate:
            return []
        self._interrupt()
        if self._paused:
            self._finish_utterance()
        return self._take_events()

    def reject(self, candidate: InterruptionCandidate) -> list[TurnStep]:
        """The candidate is none (a cough, "uh-huh"): resume the reply where it was paused.

        What was said is forgotten. Nothing happens if the candidate is no longer to be judged.
        """
        if candidate is not self._candidate:
            return []
        self._candidate = None
        self._move(T.REJECTED)
        self._stop_speech()
        return self._take_events()

    @property
    def _reply_goes_on(self) -> bool:
        return self._state in (S.REPLYING, S.INTERRUPTING)

    def _judge(self, verdict: Verdict) -> None:
        if self._utterance is None:
            if verdict is Verdict.SILENCE:
                return
            self._start_speech()
        while self._utterance is not None and self.now - self._utterance >= self._longest:
            self._cut(self._utterance, self._utterance + self._longest)
        # Where a reply can't be interrupted, the user is not heard once it is due.
        if self._utterance is not None:
            self._paused = verdict is not Verdict.SPEECH
            if self._paused:
                self._pause(self._utterance)

    def _start_speech(self) -> None:
        # Only another's rule could look back further than the tape reaches.
        earliest = max(self._given, self._tape.begin)
        speech_at = max(self.now - self._rule.lookback, earliest)
        self._utterance = max(speech_at - self._pre_roll, earliest)
        self._goes_on = False
        self._events.append(SpeechStarted(self.now, speech_at))
        if self._state is S.LISTENING:
            self._move(T.SPEECH)
        elif self._interrupt_on == "speech":
            self._raise_candidate()

    def _pause(self, began: int) -> None:
        if self._state is S.INTERRUPTING:
            # It stays open until it is judged: the user may go on before that.
            return
        if not self._is_worth_a_reply(began):
            if self._state is S.USER_SPEAKING:
                self._move(T.SILENCE)
            self._stop_speech()
        elif self._state is S.REPLYING:
            self._raise_candidate()
        else:
            self._finish_utterance()

    def _is_worth_a_reply(self, began: int) -> bool:
        """Whether more was said than the end of what was given out already.

        What follows on a cut has not passed the threshold that starts an utterance. If a pause is
        found within one window, there is less than ``speech_threshold`` in it.
        """
        return not self._goes_on or self.now - began > self._window

    def _raise_candidate(self) -> None:
        self._move(T.CANDIDATE)
        self._candidate = InterruptionCandidate(self.now, self._reply)
        self._events.append(self._candidate)

    def _interrupt(self) -> None:
        self._candidate = None
        self._move(T.CONFIRMED)
        self._events.append(Interrupted(self.now, self._reply))

    def _finish_utterance(self) -> None:
        began = self._utterance
        assert began is not None
        self._stop_speech()
        self._reply_to(began, self.now)

    def _cut(self, began: int, end: int) -> None:
        """Give out what has been said up to ``end``; the user goes on talking."""
        if self._reply_goes_on:
            self._interrupt()
        self._utterance = end
        self._goes_on = True
        self._paused = False
        self._reply_to(began, end)

    def _reply_to(self, began: int, end: int) -> None:
        self._begin_reply()
        # Without samples nothing is given out: the pre-roll may reach further back.
        self._given = end if end > began else self._given
        self._events.append(ReplyDue(self._reply, self._tape.cut(began, end), began, end))

    def _begin_reply(self) -> None:
        self._move(T.REPLY)
        self._reply += 1
        if not self._can_interrupt:
            self._stop_speech()

    def _stop_speech(self) -> None:
        """Hear from now on as if nobody had spoken; what is on the tape may be a pre-roll."""
        if self._utterance is not None:
            self._utterance = None
            self._events.append(SpeechStopped(self.now))
        self._paused = False
        self._rule.reset()

    def _tidy(self) -> None:
        """Forget the audio that no utterance can contain any more."""
        needed = self._utterance
        if needed is None:
            needed = self.now - self._rule.lookback - self._pre_roll
        self._tape.forget(needed)

    def _move(self, signal: TurnSignal) -> None:
        try:
            self._state = TRANSITIONS[self._state][signal]
        except KeyError:
            raise InvalidStateError(
                f"{signal.value} is not possible while the turn is: {self._state.value}"
            ) from None

    def _take_events(self) -> list[TurnStep]:
        events, self._events = self._events, []
        return events


class _Tape:
    """The last part of a stream, by its place in the whole.

    ``begin`` and ``end`` are the places of the first sample held and after the last.
    """

    def __init__(self) -> None:
        self._chunks: deque[Int16Array] = deque()
        self.begin = 0
        self.end = 0

    def append(self, samples: Int16Array) -> None:
        # The caller may use its buffer again.
        self._chunks.append(samples.copy(order="C"))
        self.end += int(samples.shape[1])

    def forget(self, before: int) -> None:
        """Drop the chunks that lie wholly before a place."""
        while self._chunks and self.begin + self._chunks[0].shape[1] <= before:
            self.begin += int(self._chunks.popleft().shape[1])

    def cut(self, begin: int, end: int) -> Int16Array:
        """A copy of what is between two places that are on the tape."""
        if begin == end:
            return np.empty((1, 0), np.int16)
        samples = np.concatenate(list(self._chunks), axis=1)
        return samples[:, begin - self.begin : end - self.begin].copy(order="C")
