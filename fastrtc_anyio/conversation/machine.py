"""The turn machine: speech probabilities in, utterances and interruptions out.

Theory of operation. The driver pushes audio hop by hop, each hop with the probability that it is
speech. Time is the number of samples pushed; the machine reads no clock. It has three parts:

* A *rule* (:mod:`.pause_rules`) says after each hop whether the user is silent, speaks or has
  paused.
* A *buffer* (:mod:`.segmentation`) holds the audio that an utterance may still need.
* The *table* (:mod:`.turn_table`) holds the states and transitions.

Where a judge decides about interruptions, speech over a reply is first a *candidate*, and the
driver pauses playout until the judge decides. A confirmed candidate was the beginning of the next
utterance. A rejected candidate is forgotten; continued speech becomes another candidate. Without a
judge, speech over a reply interrupts it at once.

Speech that was already in progress when a reply began does not interrupt that reply: the utterance
was cut at its maximum length, or the application requested the reply. The machine keeps collecting
such speech and interrupts the reply when it ends. It drops speech that ends within one window,
which is a last syllable or noise.

Memory: see :mod:`.segmentation`. An utterance is at most ``max_continuous_speech_s`` long, or
`LONGEST_UTTERANCE_S` if that is infinite.
"""

from __future__ import annotations

import math
from typing import Literal

from fastrtc_anyio._core.options import check_choice, check_number
from fastrtc_anyio._media.frames import Int16Array, check_pcm, check_sample_rate
from fastrtc_anyio.errors import InvalidTransition, UnsupportedFormat

from .pause_rules import AlgoOptions, PauseRule, SlidingWindow, Verdict
from .segmentation import UtteranceBuffer
from .turn_table import (
    TRANSITIONS,
    CandidateRejected,
    Interrupted,
    InterruptionCandidate,
    ReplyDue,
    ReplyEnded,
    SpeechStarted,
    SpeechStopped,
    TurnState,
    TurnStep,
)

__all__ = ["LONGEST_UTTERANCE_S", "PRE_ROLL_S", "TurnMachine"]

LONGEST_UTTERANCE_S = 300.0
"""Seconds that replace an infinite ``max_continuous_speech_s``: 29 MB at 48 kHz. A television that
the voice-activity model takes for a speaker must not fill the memory."""
PRE_ROLL_S = 0.3
"""Default pre-roll in seconds. Silero detects a soft onset one or two hops (64 ms) late, and a
fricative before a vowel lasts up to 0.2 s."""


class TurnMachine:
    """Turn taking with one user.

    Each method returns the steps that follow from the call, in order. The machine has no other
    effect: the driver pauses, cancels and starts replies, and reports when one was played out.

    Args:
        sample_rate: rate of the audio pushed, in Hz: a multiple of 50 from 8000 to 48000.
        options: thresholds; FastRTC's defaults if None.
        rule: decides about speech and pauses; a `SlidingWindow` with ``options`` if None.
        can_interrupt: whether to listen during a reply. If not, speech that continues when the
            reply ends is detected then, with its pre-roll.
        interrupt_on: whether speech over a reply interrupts it when it starts or, as in FastRTC,
            when it pauses.
        judged: whether a judge decides about interruptions. If not, speech interrupts at once.
        pre_roll_s: seconds of audio before the first speech that belong to the utterance.

    Attributes:
        state: whose turn it is.
        reply: number of the latest reply; 0 before the first.
        candidate: the candidate that awaits a decision, if any.
        user_paused: whether the user has paused and the utterance only awaits the decision.

    Raises:
        TypeError: an argument has the wrong type.
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
        judged: bool = False,
        pre_roll_s: float = PRE_ROLL_S,
    ) -> None:
        rate = check_sample_rate(sample_rate)
        check_choice("interrupt_on", interrupt_on, ("speech", "pause"))
        check_number("pre_roll_s", pre_roll_s, at_least=0, unit="s")
        options = options or AlgoOptions()
        longest = options.max_continuous_speech_s
        if longest == math.inf:
            longest = LONGEST_UTTERANCE_S
        self._longest = max(1, round(longest * rate))
        self._window = round(options.audio_chunk_duration * rate)
        self._can_interrupt = can_interrupt
        self._interrupt_on = interrupt_on
        self._judged = judged
        self._rule = rule or SlidingWindow(rate, options)
        self._buffer = UtteranceBuffer(round(pre_roll_s * rate))
        self.state: TurnState = TurnState.LISTENING
        self.reply: int = 0
        self.candidate: InterruptionCandidate | None = None
        self.user_paused: bool = False
        self._steps: list[TurnStep] = []

    @property
    def now(self) -> int:
        """Number of samples pushed so far."""
        return self._buffer.now

    @property
    def user_speaks(self) -> bool:
        """Whether an utterance is in progress."""
        return self._buffer.began is not None

    @property
    def buffered(self) -> int:
        """Number of samples in memory."""
        return self._buffer.held

    def heard(self) -> Int16Array:
        """Copy the utterance in progress: int16, shape ``(1, n)``; empty without one."""
        return self._buffer.in_progress()

    def forget(self, ago: int) -> None:
        """Let no utterance reach back further than ``ago`` samples before now."""
        self._buffer.exclude_before(ago)

    def push(self, samples: Int16Array, probability: float) -> list[TurnStep]:
        """Process one hop of audio.

        Args:
            samples: int16, shape ``(1, n)``, at least one sample. They are copied.
            probability: probability that the hop is speech, from 0 to 1.

        Returns:
            The steps that follow, in order.

        Raises:
            UnsupportedFormat: ``samples`` has another dtype or shape.
            ValueError: ``probability`` is out of range. The machine is unchanged.
        """
        check_pcm(samples, 1)
        if samples.shape[1] == 0:
            raise UnsupportedFormat("expected at least 1 sample in a hop, got 0")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be from 0 to 1; got {probability!r}")
        self._buffer.append(samples)
        if self._can_interrupt or self.state is not TurnState.REPLYING:
            over_reply = self._is_replying and self._interrupt_on == "speech"
            self._apply(self._rule.push(samples, probability, over_reply))
        self._buffer.discard(self._rule.lookback)
        return self._take_steps()

    def trigger_response(self) -> list[TurnStep]:
        """Start a reply now, to the utterance in progress or to an empty one.

        During a reply, this does nothing unless the user speaks over it: then it confirms the
        interruption.
        """
        began = self._buffer.began
        if self.state is TurnState.LISTENING:
            self._reply_to(self.now, self.now)
        elif began is not None and (
            # A second press of the button does not interrupt the reply to the first.
            not self._is_replying or self._is_worth_a_reply(began)
        ):
            self._cut(began, self.now)
        return self._take_steps()

    def reply_started(self) -> list[TurnStep]:
        """Start a reply without a `ReplyDue`, for instance a greeting; its number is `reply`.

        An utterance in progress stays in progress.

        Raises:
            InvalidTransition: a reply is active. The machine is unchanged.
        """
        self._begin_reply()
        return self._take_steps()

    def reply_finished(self, reply: int) -> list[TurnStep]:
        """Report that a reply ended by itself: its last sample was played, or it failed.

        A number other than the active reply's has no effect: that reply was interrupted a moment
        ago.
        """
        if reply != self.reply or not self._is_replying:
            return []
        self.candidate = None
        self._step(ReplyEnded(self.now, reply))
        if self._buffer.began is not None and self.state is TurnState.LISTENING:
            # The speech began over the reply without interrupting it. Its SpeechStarted is out.
            self._move(SpeechStarted)
        if self.user_paused:
            self._finish_utterance()
        return self._take_steps()

    def confirm(self, candidate: InterruptionCandidate) -> list[TurnStep]:
        """Interrupt the reply. No effect if ``candidate`` no longer awaits a decision."""
        if candidate is not self.candidate:
            return []
        self._interrupt()
        if self.user_paused:
            self._finish_utterance()
        return self._take_steps()

    def reject(self, candidate: InterruptionCandidate) -> list[TurnStep]:
        """Continue the reply and forget the utterance, a cough or "uh-huh".

        No effect if ``candidate`` no longer awaits a decision.
        """
        if candidate is not self.candidate:
            return []
        self.candidate = None
        self._step(CandidateRejected(self.now, self.reply))
        self._stop_speech()
        return self._take_steps()

    @property
    def _is_replying(self) -> bool:
        return self.state in (TurnState.REPLYING, TurnState.INTERRUPTING)

    def _apply(self, verdict: Verdict) -> None:
        """Draw the conclusions from the rule's verdict on the latest hop."""
        buffer = self._buffer
        if buffer.began is None:
            if verdict is Verdict.SILENCE:
                return
            self._start_speech()
        # One hop may be longer than the maximum utterance.
        while buffer.began is not None and self.now - buffer.began >= self._longest:
            self._cut(buffer.began, buffer.began + self._longest)
        # The reply to a cut ends the utterance where replies cannot be interrupted.
        if buffer.began is not None:
            self.user_paused = verdict is not Verdict.SPEECH
            if self.user_paused:
                self._pause(buffer.began)

    def _start_speech(self) -> None:
        speech_at = self._buffer.begin(self._rule.lookback)
        self._step(SpeechStarted(self.now, speech_at))
        if self._is_replying and self._interrupt_on == "speech":
            self._barge_in()

    def _pause(self, began: int) -> None:
        if self.state is TurnState.INTERRUPTING:
            # The utterance stays open until the decision: the user may continue before that.
            return
        if not self._is_worth_a_reply(began):
            self._stop_speech()
            return
        if self._is_replying:
            self._barge_in()
        if not self._is_replying:
            self._finish_utterance()

    def _is_worth_a_reply(self, began: int) -> bool:
        """Tell an utterance from the end of one that was cut.

        Speech after a cut has not passed the threshold that starts an utterance. If a pause is
        found within one window, the window holds less than ``speech_threshold`` of speech.
        """
        return not self._buffer.continued or self.now - began > self._window

    def _barge_in(self) -> None:
        if self._judged:
            self.candidate = InterruptionCandidate(self.now, self.reply)
            self._step(self.candidate)
        else:
            self._interrupt()

    def _interrupt(self) -> None:
        self.candidate = None
        self._step(Interrupted(self.now, self.reply))

    def _finish_utterance(self) -> None:
        began, silence = self._buffer.began, self._rule.silence
        assert began is not None
        self._stop_speech()
        self._reply_to(began, self.now, silence)

    def _cut(self, began: int, end: int) -> None:
        """Reply to the utterance up to ``end`` while the user continues to speak."""
        if self._is_replying:
            self._interrupt()
        self._buffer.continue_from(end)
        self.user_paused = False
        self._reply_to(began, end)

    def _reply_to(self, began: int, end: int, silence: int | None = None) -> None:
        due = ReplyDue(self.reply + 1, self._buffer.take(began, end), began, end, silence)
        self._begin_reply(due)

    def _begin_reply(self, due: ReplyDue | None = None) -> None:
        self._move(ReplyDue)
        self.reply += 1
        if not self._can_interrupt:
            self._stop_speech()
        if due is not None:
            self._steps.append(due)

    def _stop_speech(self) -> None:
        """End the utterance, if there is one, and listen as if after silence."""
        if self._buffer.began is not None:
            self._buffer.end()
            self._step(SpeechStopped(self.now))
        self.user_paused = False
        self._rule.reset()

    def _step(self, step: TurnStep) -> None:
        self._move(type(step))
        self._steps.append(step)

    def _move(self, kind: type[TurnStep]) -> None:
        try:
            self.state = TRANSITIONS[self.state][kind]
        except KeyError:
            raise InvalidTransition(
                f"{kind.__name__} is not possible in the state {self.state.value!r}"
            ) from None

    def _take_steps(self) -> list[TurnStep]:
        steps, self._steps = self._steps, []
        return steps
