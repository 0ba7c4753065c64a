"""Turn taking, one situation at a time. Times are samples at 16 kHz, hops are Silero's 512."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.conversation.machine import LONGEST_UTTERANCE_S, TurnMachine
from fastrtc_anyio.conversation.pause_rules import AlgoOptions, Verdict
from fastrtc_anyio.conversation.turn_table import (
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
from fastrtc_anyio.errors import InvalidTransition, UnsupportedFormat

RATE = 16000
HOP = 512
# Hops until there is more than 0.2 s of speech, over a reply more than 0.1 s, and until less than
# 0.1 s is left of the 0.6 s.
TO_START = 7
TO_INTERRUPT = 4
TO_PAUSE = 16
PRE_ROLL = 4800


def numbered(begin: int, end: int) -> Int16Array:
    """The input: each sample tells its place."""
    return (np.arange(begin, end) % 60000 - 30000).astype(np.int16).reshape(1, -1)


class Caller:
    """Someone on the line, who speaks and is silent for whole hops."""

    def __init__(self, options: AlgoOptions | None = None, **settings: Any) -> None:
        self.machine = TurnMachine(RATE, options, **{"judged": True, **settings})

    def hops(self, probability: float, count: int) -> list[TurnStep]:
        events = []
        for _ in range(count):
            now = self.machine.now
            events += self.machine.push(numbered(now, now + HOP), probability)
        return events

    def speak(self, hops: int = 1) -> list[TurnStep]:
        return self.hops(0.9, hops)

    def be_silent(self, hops: int = 1) -> list[TurnStep]:
        return self.hops(0.1, hops)

    def say(self, hops: int = 30) -> ReplyDue:
        """An utterance while nothing else goes on."""
        started, stopped, due = self.speak(hops) + self.be_silent(TO_PAUSE)
        assert isinstance(started, SpeechStarted)
        assert isinstance(stopped, SpeechStopped)
        return check_due(due)

    def barge_in(self) -> InterruptionCandidate:
        started, candidate = self.speak(TO_INTERRUPT)
        assert isinstance(started, SpeechStarted)
        assert isinstance(candidate, InterruptionCandidate)
        return candidate


def check_due(event: TurnStep) -> ReplyDue:
    """The utterance is what was pushed, to the sample."""
    assert isinstance(event, ReplyDue)
    assert np.array_equal(event.utterance, numbered(event.started_at, event.stopped_at))
    assert event.utterance.flags.c_contiguous
    return event


def check_state(caller: Caller, state: TurnState) -> None:
    # A function, because mypy takes a property to be what it was found to be before.
    assert caller.machine.state is state


def span(event: TurnStep) -> tuple[int, int]:
    due = check_due(event)
    return due.started_at, due.stopped_at


def kinds(events: list[TurnStep]) -> list[type[TurnStep]]:
    return [type(event) for event in events]


# A turn.


def test_a_turn() -> None:
    caller = Caller()
    assert caller.be_silent(100) == []
    assert caller.speak(TO_START - 1) == []
    check_state(caller, TurnState.LISTENING)
    assert caller.speak() == [SpeechStarted(at=107 * HOP, speech_at=100 * HOP)]
    check_state(caller, TurnState.USER_SPEAKING)
    assert caller.speak(20) == []
    assert caller.be_silent(TO_PAUSE - 1) == []
    stopped, due = caller.be_silent()
    assert stopped == SpeechStopped(at=143 * HOP)
    assert span(due) == (100 * HOP - PRE_ROLL, 143 * HOP)
    check_state(caller, TurnState.REPLYING)
    assert caller.machine.reply_finished(1) == [ReplyEnded(at=143 * HOP, reply=1)]
    check_state(caller, TurnState.LISTENING)


def test_the_thresholds_are_exceeded_and_fallen_below() -> None:
    # 0.2 s are 3200 samples, 0.1 s are 1600, 0.6 s are 9600.
    machine = TurnMachine(RATE)

    def push(count: int, probability: float) -> list[TurnStep]:
        return machine.push(numbered(machine.now, machine.now + count), probability)

    assert push(3200, 0.5) == []
    assert push(1, 0.5) == [SpeechStarted(at=3201, speech_at=0)]
    assert push(9600 - 1600, 0.49) == []
    assert kinds(push(1, 0.49)) == [SpeechStopped, ReplyDue]


def test_speech_that_has_left_the_window_does_not_count() -> None:
    machine = TurnMachine(RATE, pre_roll_s=0)
    machine.push(numbered(0, 3100), 1.0)
    assert machine.push(numbered(3100, 9499), 0.0) == []
    assert machine.push(numbered(9499, 12700), 1.0) == [SpeechStarted(at=12700, speech_at=9499)]


def test_thresholds_that_are_almost_the_window() -> None:
    machine = TurnMachine(RATE, AlgoOptions(0.6, 0.59999))
    assert kinds(machine.push(numbered(0, 9600), 1.0)) == [SpeechStarted]


def test_an_utterance_begins_with_the_stream_at_the_earliest() -> None:
    caller = Caller()
    caller.be_silent(3)
    assert caller.say().started_at == 0


def test_the_second_utterance_begins_where_the_first_ended() -> None:
    caller = Caller()
    first = caller.say()
    caller.machine.reply_finished(1)
    caller.be_silent(2)
    second = caller.say()
    assert second.started_at == first.stopped_at
    caller.machine.reply_finished(2)
    caller.be_silent(10)
    third = caller.say()
    assert third.started_at == second.stopped_at + 10 * HOP - PRE_ROLL


def test_the_pre_roll_can_be_set() -> None:
    caller = Caller(pre_roll_s=0)
    caller.be_silent(10)
    assert caller.say().started_at == 10 * HOP


def test_scattered_speech_is_not_lost() -> None:
    caller = Caller(pre_roll_s=0)
    events = [event for _ in range(9) for event in caller.be_silent() + caller.speak()]
    # The window holds every other hop of 18: more than 0.2 s with the seventh.
    assert events == [SpeechStarted(at=14 * HOP, speech_at=1 * HOP)]


def test_a_decision_counts_for_one_utterance() -> None:
    caller = Caller()
    caller.say()
    caller.machine.reply_finished(1)
    # Some of the old speech is still within 0.6 s; all of the threshold has to be new.
    assert caller.speak(TO_START - 1) == []
    assert kinds(caller.speak()) == [SpeechStarted]


def test_a_pause_threshold_above_the_starting_threshold() -> None:
    # As people write it: https://github.com/gradio-app/fastrtc has users with 1.2, 0.2, 0.4.
    caller = Caller(AlgoOptions(1.2, 0.2, 0.4))
    assert kinds(caller.speak(TO_START)) == [SpeechStarted]
    assert caller.speak(60) == []
    # Less than 0.4 s of 1.2 s.
    assert caller.be_silent(25) == []
    assert kinds(caller.be_silent()) == [SpeechStopped, ReplyDue]
    caller.machine.reply_finished(1)
    # Less speech than the threshold is an utterance too; it ends when the window moves off it.
    assert kinds(caller.speak(8)) == [SpeechStarted]
    assert caller.be_silent(29) == []
    assert kinds(caller.be_silent()) == [SpeechStopped, ReplyDue]


# Over a reply.


def test_barge_in() -> None:
    caller = Caller()
    caller.say()
    caller.be_silent(20)
    began = caller.machine.now
    candidate = caller.barge_in()
    assert candidate == InterruptionCandidate(at=began + TO_INTERRUPT * HOP, reply=1)
    # The threshold and one hop: the rest of 300 ms is for the playout.
    assert (candidate.at - began) / RATE <= 0.1 + HOP / RATE
    check_state(caller, TurnState.INTERRUPTING)
    assert caller.machine.confirm(candidate) == [Interrupted(at=candidate.at, reply=1)]
    check_state(caller, TurnState.USER_SPEAKING)
    caller.speak(10)
    _, due = caller.be_silent(TO_PAUSE)
    assert check_due(due).reply == 2
    assert span(due)[0] == began - PRE_ROLL


def test_barge_in_without_a_judge_interrupts_at_once() -> None:
    caller = Caller(judged=False)
    caller.say()
    caller.be_silent(20)
    began = caller.machine.now
    at = began + TO_INTERRUPT * HOP
    assert caller.speak(TO_INTERRUPT) == [SpeechStarted(at, began), Interrupted(at, reply=1)]
    assert caller.machine.candidate is None
    check_state(caller, TurnState.USER_SPEAKING)
    _, due = caller.be_silent(TO_PAUSE)
    assert check_due(due).reply == 2
    assert span(due)[0] == began - PRE_ROLL


def test_interrupting_at_a_pause_without_a_judge() -> None:
    caller = Caller(interrupt_on="pause", judged=False)
    caller.say()
    caller.be_silent(20)
    assert kinds(caller.speak(30)) == [SpeechStarted]
    assert kinds(caller.be_silent(TO_PAUSE)) == [Interrupted, SpeechStopped, ReplyDue]
    check_state(caller, TurnState.REPLYING)


def test_a_rejected_candidate_was_nothing() -> None:
    caller = Caller()
    caller.say()
    caller.be_silent(20)
    candidate = caller.barge_in()
    assert caller.machine.reject(candidate) == [
        CandidateRejected(candidate.at, reply=1),
        SpeechStopped(candidate.at),
    ]
    check_state(caller, TurnState.REPLYING)
    assert caller.be_silent(100) == []
    caller.machine.reply_finished(1)
    check_state(caller, TurnState.LISTENING)
    assert caller.say().started_at == candidate.at + 100 * HOP - PRE_ROLL


def test_who_goes_on_after_a_rejection_is_a_candidate_again() -> None:
    caller = Caller()
    caller.say()
    caller.be_silent(20)
    first = caller.barge_in()
    caller.machine.reject(first)
    second = caller.barge_in()
    assert second.at == first.at + TO_INTERRUPT * HOP
    assert kinds(caller.machine.confirm(second)) == [Interrupted]
    # What was rejected was not given out, so it may be the pre-roll.
    caller.be_silent(TO_PAUSE - 1)
    assert span(caller.be_silent()[-1])[0] == first.at - PRE_ROLL


@pytest.mark.parametrize("confirmed", [True, False])
def test_a_candidate_that_paused_before_it_was_judged(confirmed: bool) -> None:
    caller = Caller()
    caller.say()
    caller.be_silent(20)
    candidate = caller.barge_in()
    assert (caller.speak(), caller.machine.user_paused) == ([], False)
    assert caller.be_silent(TO_PAUSE + 5) == []
    assert (caller.be_silent(), caller.machine.user_paused) == ([], True)
    began, now = candidate.at - TO_INTERRUPT * HOP - PRE_ROLL, caller.machine.now
    assert np.array_equal(caller.machine.heard(), numbered(began, now))
    if confirmed:
        interrupted, stopped, due = caller.machine.confirm(candidate)
        assert (interrupted, stopped) == (Interrupted(now, reply=1), SpeechStopped(now))
        assert span(due) == (began, now)
    else:
        assert kinds(caller.machine.reject(candidate)) == [CandidateRejected, SpeechStopped]
    check_state(caller, TurnState.REPLYING)
    assert not caller.machine.user_paused
    assert caller.machine.heard().shape == (1, 0)


def test_a_candidate_that_paused_and_went_on_before_it_was_judged() -> None:
    caller = Caller()
    caller.say()
    candidate = caller.barge_in()
    caller.be_silent(TO_PAUSE + 5)
    assert caller.speak(10) == []
    assert not caller.machine.user_paused
    assert kinds(caller.machine.confirm(candidate)) == [Interrupted]
    assert kinds(caller.be_silent(TO_PAUSE)) == [SpeechStopped, ReplyDue]


def test_interrupting_at_a_pause() -> None:
    caller = Caller(interrupt_on="pause")
    caller.say()
    caller.be_silent(20)
    began = caller.machine.now
    assert kinds(caller.speak(30)) == [SpeechStarted]
    check_state(caller, TurnState.REPLYING)
    assert caller.machine.heard().size
    [candidate] = caller.be_silent(TO_PAUSE)
    assert isinstance(candidate, InterruptionCandidate)
    interrupted, stopped, due = caller.machine.confirm(candidate)
    assert isinstance(interrupted, Interrupted)
    assert isinstance(stopped, SpeechStopped)
    assert span(due) == (began - PRE_ROLL, candidate.at)
    check_state(caller, TurnState.REPLYING)


def test_speech_over_a_reply_that_ends_is_the_next_utterance() -> None:
    caller = Caller(interrupt_on="pause")
    caller.say()
    caller.be_silent(20)
    began = caller.machine.now
    caller.speak(20)
    assert kinds(caller.machine.reply_finished(1)) == [ReplyEnded]
    check_state(caller, TurnState.USER_SPEAKING)
    caller.speak(20)
    stopped, due = caller.be_silent(TO_PAUSE)
    assert isinstance(stopped, SpeechStopped)
    assert span(due)[0] == began - PRE_ROLL


def test_a_reply_that_ends_before_its_candidate_is_judged() -> None:
    caller = Caller()
    caller.say()
    candidate = caller.barge_in()
    assert kinds(caller.machine.reply_finished(1)) == [ReplyEnded]
    check_state(caller, TurnState.USER_SPEAKING)
    # The judge is late, whatever it says.
    assert caller.machine.reject(candidate) == []
    assert caller.machine.confirm(candidate) == []
    assert kinds(caller.be_silent(TO_PAUSE)) == [SpeechStopped, ReplyDue]


def test_a_reply_that_ends_when_its_candidate_has_paused() -> None:
    caller = Caller(interrupt_on="pause")
    caller.say()
    caller.speak(20)
    caller.be_silent(TO_PAUSE)
    check_state(caller, TurnState.INTERRUPTING)
    assert kinds(caller.machine.reply_finished(1)) == [ReplyEnded, SpeechStopped, ReplyDue]


def test_no_interruption_where_it_is_not_wanted() -> None:
    caller = Caller(can_interrupt=False)
    caller.say()
    assert caller.speak(100) == []
    check_state(caller, TurnState.REPLYING)
    assert caller.machine.buffered < PRE_ROLL + HOP
    ended = caller.machine.now
    caller.machine.reply_finished(1)
    # Whoever talks on is found anew; what of it counts comes after the reply.
    assert caller.speak(TO_START) == [SpeechStarted(ended + TO_START * HOP, ended)]
    _, due = caller.be_silent(TO_PAUSE)
    assert span(due)[0] == ended - PRE_ROLL


def test_the_end_of_an_interrupted_reply_may_be_told_late() -> None:
    caller = Caller()
    caller.say()
    caller.machine.confirm(caller.barge_in())
    assert caller.machine.reply_finished(1) == []
    check_state(caller, TurnState.USER_SPEAKING)
    caller.be_silent(TO_PAUSE)
    assert caller.machine.reply_finished(1) == []
    check_state(caller, TurnState.REPLYING)
    assert kinds(caller.machine.reply_finished(2)) == [ReplyEnded]
    check_state(caller, TurnState.LISTENING)
    assert caller.machine.reply_finished(2) == []


# Utterances without an end.


def test_a_long_utterance_is_given_out_in_parts() -> None:
    caller = Caller(AlgoOptions(max_continuous_speech_s=1.0))
    caller.be_silent(20)
    began = 20 * HOP - PRE_ROLL
    started, first = caller.speak(30)
    assert isinstance(started, SpeechStarted)
    assert span(first) == (began, began + RATE)
    assert caller.machine.heard().size
    # It is no barge-in: the user has talked all along. The next part interrupts.
    interrupted, second = caller.speak(30)
    assert isinstance(interrupted, Interrupted)
    assert span(second) == (began + RATE, began + 2 * RATE)
    caller.speak(5)
    [candidate] = caller.be_silent(TO_PAUSE)
    assert isinstance(candidate, InterruptionCandidate)
    interrupted, stopped, third = caller.machine.confirm(candidate)
    assert (interrupted, stopped) == (Interrupted(candidate.at, 2), SpeechStopped(candidate.at))
    assert span(third) == (began + 2 * RATE, candidate.at)


def test_nothing_said_after_the_cut_is_no_utterance() -> None:
    caller = Caller(AlgoOptions(max_continuous_speech_s=1.0))
    assert kinds(caller.speak(32)) == [SpeechStarted, ReplyDue]
    assert kinds(caller.be_silent(100)) == [SpeechStopped]
    check_state(caller, TurnState.REPLYING)


def test_nothing_said_after_the_cut_and_the_reply_is_over() -> None:
    caller = Caller(AlgoOptions(max_continuous_speech_s=1.0))
    caller.speak(32)
    caller.machine.reply_finished(1)
    check_state(caller, TurnState.USER_SPEAKING)
    assert kinds(caller.be_silent(100)) == [SpeechStopped]
    check_state(caller, TurnState.LISTENING)


def test_who_talks_for_so_long_does_interrupt() -> None:
    caller = Caller(AlgoOptions(max_continuous_speech_s=1.0))
    caller.say(10)
    candidate = caller.barge_in()
    assert kinds(caller.speak(30)) == [Interrupted, ReplyDue]
    assert caller.machine.reject(candidate) == []


def test_a_long_utterance_where_replies_cannot_be_interrupted() -> None:
    caller = Caller(AlgoOptions(max_continuous_speech_s=1.0), can_interrupt=False)
    assert kinds(caller.speak(100)) == [SpeechStarted, SpeechStopped, ReplyDue]
    assert not caller.machine.heard().size


def test_a_hop_longer_than_an_utterance_may_be() -> None:
    machine = TurnMachine(RATE, AlgoOptions(max_continuous_speech_s=1.0))
    events = machine.push(numbered(0, 40000), 1.0)
    assert kinds(events) == [SpeechStarted, ReplyDue, Interrupted, ReplyDue]
    spans = [span(event) for event in events if isinstance(event, ReplyDue)]
    assert spans == [(0, 16000), (16000, 32000)]


def test_fastrtc_gave_out_more_than_it_got() -> None:
    # D8: 16,960 samples in, 41,920 out.
    caller = Caller(AlgoOptions(max_continuous_speech_s=0.35))
    parts = [e.utterance for e in caller.speak(16960 // HOP + 1) if isinstance(e, ReplyDue)]
    assert len(parts) == 3
    assert np.array_equal(np.concatenate(parts, axis=1), numbered(0, 3 * 5600))


# Responses that are asked for, and replies that are not.


def test_a_response_without_an_utterance() -> None:
    caller = Caller()
    caller.be_silent(10)
    [due] = caller.machine.trigger_response()
    assert check_due(due).utterance.shape == (1, 0)
    check_state(caller, TurnState.REPLYING)
    caller.machine.reply_finished(1)
    # The pre-roll of what comes next is not cut off by it.
    assert caller.say().started_at == 10 * HOP - PRE_ROLL


def test_a_response_to_what_was_said_so_far() -> None:
    caller = Caller()
    caller.speak(20)
    [due] = caller.machine.trigger_response()
    assert span(due) == (0, 20 * HOP)
    # Another press of the button, and the last syllable: neither is an interruption.
    assert caller.speak(2) == []
    assert caller.machine.trigger_response() == []
    assert kinds(caller.be_silent(TO_PAUSE)) == [SpeechStopped]
    assert caller.machine.trigger_response() == []
    check_state(caller, TurnState.REPLYING)


def test_a_response_to_a_candidate_that_paused() -> None:
    caller = Caller()
    caller.say()
    caller.barge_in()
    caller.be_silent(TO_PAUSE + 5)
    assert kinds(caller.machine.trigger_response()) == [Interrupted, ReplyDue]
    assert not caller.machine.user_paused
    assert kinds(caller.machine.reply_finished(2)) == [ReplyEnded]
    assert kinds(caller.be_silent()) == [SpeechStopped]


def test_a_response_to_what_was_said_over_a_reply() -> None:
    caller = Caller()
    caller.say()
    candidate = caller.barge_in()
    assert kinds(caller.machine.trigger_response()) == [Interrupted, ReplyDue]
    assert caller.machine.confirm(candidate) == []


def test_a_greeting() -> None:
    caller = Caller()
    assert caller.machine.reply_started() == []
    assert (caller.machine.reply, caller.machine.state) == (1, TurnState.REPLYING)
    with pytest.raises(InvalidTransition, match="ReplyDue is not possible in the state 'replying'"):
        caller.machine.reply_started()
    assert caller.machine.confirm(caller.barge_in()) == [Interrupted(TO_INTERRUPT * HOP, reply=1)]


def test_a_greeting_to_someone_who_talks() -> None:
    caller = Caller()
    caller.speak(10)
    assert caller.machine.reply_started() == []
    assert caller.speak(20) == []
    [candidate] = caller.be_silent(TO_PAUSE)
    assert isinstance(candidate, InterruptionCandidate)
    due = caller.machine.confirm(candidate)[-1]
    assert span(due) == (0, candidate.at)


def test_a_greeting_that_cannot_be_interrupted() -> None:
    caller = Caller(can_interrupt=False)
    caller.speak(10)
    assert kinds(caller.machine.reply_started()) == [SpeechStopped]
    assert caller.speak(20) == []


# Another rule.


class FastRTCChunks:
    """A subclass that overrides ``determine_pause`` only: it is given the audio since the last
    decision, and may say True."""

    def __init__(self, determine_pause: Callable[[Int16Array], bool | None]) -> None:
        self.determine_pause = determine_pause
        self.reset()

    def reset(self) -> None:
        self.buffer = np.empty((1, 0), np.int16)
        self.verdict = Verdict.SILENCE

    @property
    def lookback(self) -> int:
        return self.buffer.shape[1]

    def push(self, samples: Int16Array, probability: float, over_reply: bool = False) -> Verdict:
        self.buffer = np.concatenate([self.buffer, samples], axis=1)
        if self.determine_pause(self.buffer[0]):
            self.verdict = Verdict.PAUSE
        return self.verdict


def test_a_rule_that_only_knows_pauses() -> None:
    rule = FastRTCChunks(lambda audio: len(audio) >= 10 * HOP)
    caller = Caller(rule=rule, pre_roll_s=0)
    assert caller.be_silent(9) == []
    started, stopped, due = caller.be_silent()
    assert started == SpeechStarted(at=10 * HOP, speech_at=0)
    assert stopped == SpeechStopped(at=10 * HOP)
    assert span(due) == (0, 10 * HOP)
    caller.machine.reply_finished(1)
    assert span(caller.be_silent(10)[-1]) == (10 * HOP, 20 * HOP)


class Switch:
    """On and off with each hop, and no pause that it would tell of."""

    lookback = HOP

    def reset(self) -> None: ...

    def push(self, samples: Int16Array, probability: float, over_reply: bool = False) -> Verdict:
        return Verdict.SPEECH if probability > 0.5 else Verdict.SILENCE


def test_a_rule_that_falls_silent_without_a_pause() -> None:
    caller = Caller(rule=Switch(), pre_roll_s=0)
    assert kinds(caller.speak() + caller.be_silent()) == [SpeechStarted, SpeechStopped, ReplyDue]


def test_an_utterance_shorter_than_the_window() -> None:
    # Only with another rule; after a cut it is still an utterance of its own.
    caller = Caller(AlgoOptions(max_continuous_speech_s=1.0), rule=Switch(), pre_roll_s=0)
    assert kinds(caller.speak(32) + caller.be_silent()) == [SpeechStarted, ReplyDue, SpeechStopped]
    caller.machine.reply_finished(1)
    assert kinds(caller.speak() + caller.be_silent()) == [SpeechStarted, SpeechStopped, ReplyDue]


def test_a_rule_that_looks_back_too_far() -> None:
    class FarBack(Switch):
        lookback = 10**6

        def reset(self) -> None:
            self.lookback = 0

        def push(
            self, samples: Int16Array, probability: float, over_reply: bool = False
        ) -> Verdict:
            verdict = super().push(samples, probability)
            self.lookback = 10**6 * (verdict is Verdict.SPEECH)
            return verdict

    caller = Caller(rule=FarBack())
    caller.be_silent(100)
    kept = caller.machine.now - caller.machine.buffered
    assert kept > 0
    assert caller.speak() == [SpeechStarted(at=101 * HOP, speech_at=kept)]
    assert span(caller.be_silent()[1]) == (kept, 102 * HOP)


# Memory, and what is refused.


def test_silence_takes_no_memory() -> None:
    caller = Caller()
    most = 0
    for _ in range(200):
        # Never enough to start: one hop of four.
        caller.speak()
        caller.be_silent(3)
        most = max(most, caller.machine.buffered)
    assert most <= PRE_ROLL + 9600 + 2 * HOP


def test_speech_without_end_takes_bounded_memory() -> None:
    machine = TurnMachine(8000)
    due = None
    for seconds in range(1, 302):
        for event in machine.push(np.zeros((1, 8000), np.int16), 1.0):
            if isinstance(event, ReplyDue):
                due = event, seconds
        assert machine.buffered <= LONGEST_UTTERANCE_S * 8000 + 8000
    assert due is not None
    assert due[0].utterance.shape == (1, 300 * 8000)
    assert due[1] == 300


def test_the_caller_may_use_its_buffer_again() -> None:
    machine = TurnMachine(RATE)
    buffer = np.empty((1, HOP), np.int16)
    for number in range(20):
        buffer[:] = number
        machine.push(buffer, 1.0)
    assert np.array_equal(machine.heard()[0], np.repeat(np.arange(20, dtype=np.int16), HOP))


@pytest.mark.parametrize(
    ("samples", "probability", "error", "message"),
    [
        (np.zeros((2, 512), np.int16), 0.5, UnsupportedFormat, r"shape \(1, n\)"),
        (np.zeros(512, np.int16), 0.5, UnsupportedFormat, r"shape \(1, n\)"),
        (np.zeros((1, 512), np.float32), 0.5, UnsupportedFormat, "float32"),
        (np.zeros((1, 0), np.int16), 0.5, UnsupportedFormat, "at least 1 sample"),
        (np.zeros((1, 512), np.int16), 1.01, ValueError, "from 0 to 1; got 1.01"),
        (np.zeros((1, 512), np.int16), -0.01, ValueError, "from 0 to 1"),
        (np.zeros((1, 512), np.int16), math.nan, ValueError, "got nan"),
    ],
)
def test_what_is_no_hop_changes_nothing(
    samples: Any, probability: float, error: type[Exception], message: str
) -> None:
    machine = TurnMachine(RATE)
    with pytest.raises(error, match=message):
        machine.push(samples, probability)
    assert machine.now == machine.buffered == 0


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("audio_chunk_duration", 0, "a number above 0 s; got 0"),
        ("audio_chunk_duration", -0.6, "above 0 s"),
        ("audio_chunk_duration", math.inf, "got inf"),
        ("audio_chunk_duration", math.nan, "got nan"),
        ("started_talking_threshold", -0.1, "at least 0 s; got -0.1"),
        ("started_talking_threshold", 0.6, r"below audio_chunk_duration \(0.6 s\); got 0.6"),
        ("started_talking_threshold", math.nan, "got nan"),
        ("speech_threshold", 0, "above 0 s"),
        ("speech_threshold", 0.7, r"at most audio_chunk_duration \(0.6 s\); got 0.7"),
        ("speech_threshold", math.nan, "got nan"),
        ("max_continuous_speech_s", 0, "above 0; got 0"),
        ("max_continuous_speech_s", math.nan, "got nan"),
        ("interrupt_threshold", 0.6, r"below audio_chunk_duration \(0.6 s\); got 0.6"),
        ("interrupt_threshold", -0.1, "at least 0 s; got -0.1"),
    ],
)
def test_options_out_of_range(option: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{option} must be .*{message}"):
        AlgoOptions(**{option: value})


def test_options_have_fastrtcs_names_order_and_defaults() -> None:
    assert AlgoOptions() == AlgoOptions(0.6, 0.2, 0.1, math.inf)
    assert AlgoOptions(1, 0, 1, 6).max_continuous_speech_s == 6


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"sample_rate": 16010}, ValueError, "multiple of 50"),
        ({"sample_rate": "16000"}, TypeError, "must be an int"),
        ({"interrupt_on": "never"}, ValueError, "one of 'speech', 'pause'; got 'never'"),
        ({"pre_roll_s": -1}, ValueError, "a number at least 0 s; got -1"),
        ({"pre_roll_s": math.inf}, ValueError, "got inf"),
        ({"pre_roll_s": math.nan}, ValueError, "got nan"),
    ],
)
def test_settings_out_of_range(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TurnMachine(**{"sample_rate": RATE, **settings})


def test_every_state_is_in_the_table_and_can_be_left() -> None:
    assert set(TRANSITIONS) == set(TurnState)
    reached = {state for row in TRANSITIONS.values() for state in row.values()}
    assert reached == set(TurnState)


@pytest.mark.parametrize(
    ("options", "hops"),
    [
        (AlgoOptions(), 4),
        (AlgoOptions(started_talking_threshold=0.4), 7),
        (AlgoOptions(interrupt_threshold=0.2), 7),
        (AlgoOptions(interrupt_threshold=0), 1),
    ],
)
def test_how_much_speech_interrupts(options: AlgoOptions, hops: int) -> None:
    caller = Caller(options)
    caller.machine.reply_started()
    assert kinds(caller.speak(hops)) == [SpeechStarted, InterruptionCandidate]
    caller = Caller(options, interrupt_on="pause")
    caller.machine.reply_started()
    usual = math.floor(options.started_talking_threshold / (HOP / RATE)) + 1
    assert kinds(caller.speak(usual)) == [SpeechStarted]
