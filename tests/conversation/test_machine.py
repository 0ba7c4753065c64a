"""The turn machine, one situation per test. Times are samples at 16 kHz; hops are Silero's 512."""

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
# Hops to more than 0.2 s of speech, to more than 0.1 s during a reply, and of silence to less than
# 0.1 s of speech in 0.6 s.
TO_START = 7
TO_INTERRUPT = 4
TO_PAUSE = 16
PRE_ROLL = 4800


def numbered(begin: int, end: int) -> Int16Array:
    """Make input in which each sample holds its place."""
    return (np.arange(begin, end) % 60000 - 30000).astype(np.int16).reshape(1, -1)


class Caller:
    """A user who speaks and is silent for whole hops."""

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
        """Push an utterance outside a reply and return its `ReplyDue`."""
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
    """Check that the utterance is the slice of the input that it claims to be."""
    assert isinstance(event, ReplyDue)
    assert np.array_equal(event.utterance, numbered(event.started_at, event.stopped_at))
    assert event.utterance.flags.c_contiguous
    return event


def check_state(caller: Caller, state: TurnState) -> None:
    # A function, because mypy does not forget the narrowed type of a property.
    assert caller.machine.state is state


def span(event: TurnStep) -> tuple[int, int]:
    due = check_due(event)
    return due.started_at, due.stopped_at


def kinds(events: list[TurnStep]) -> list[type[TurnStep]]:
    return [type(event) for event in events]


# Turns.


def test_pause_after_speech_makes_a_reply_due() -> None:
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


def test_thresholds_are_exact_to_the_sample() -> None:
    # 0.2 s are 3200 samples, 0.1 s are 1600, 0.6 s are 9600.
    machine = TurnMachine(RATE)

    def push(count: int, probability: float) -> list[TurnStep]:
        return machine.push(numbered(machine.now, machine.now + count), probability)

    assert push(3200, 0.5) == []
    assert push(1, 0.5) == [SpeechStarted(at=3201, speech_at=0)]
    assert push(9600 - 1600, 0.49) == []
    assert kinds(push(1, 0.49)) == [SpeechStopped, ReplyDue]


def test_speech_outside_the_window_does_not_count() -> None:
    machine = TurnMachine(RATE, pre_roll_s=0)
    machine.push(numbered(0, 3100), 1.0)
    assert machine.push(numbered(3100, 9499), 0.0) == []
    assert machine.push(numbered(9499, 12700), 1.0) == [SpeechStarted(at=12700, speech_at=9499)]


def test_start_threshold_that_rounds_to_the_window_is_reachable() -> None:
    machine = TurnMachine(RATE, AlgoOptions(0.6, 0.59999))
    assert kinds(machine.push(numbered(0, 9600), 1.0)) == [SpeechStarted]


def test_pre_roll_stops_at_the_beginning_of_the_input() -> None:
    caller = Caller()
    caller.be_silent(3)
    assert caller.say().started_at == 0


def test_pre_roll_stops_at_the_end_of_the_previous_utterance() -> None:
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


def test_pre_roll_setting() -> None:
    caller = Caller(pre_roll_s=0)
    caller.be_silent(10)
    assert caller.say().started_at == 10 * HOP


def test_scattered_speech_adds_up_within_the_window() -> None:
    caller = Caller(pre_roll_s=0)
    events = [event for _ in range(9) for event in caller.be_silent() + caller.speak()]
    # The window holds 18 hops, every other one speech: the seventh makes more than 0.2 s.
    assert events == [SpeechStarted(at=14 * HOP, speech_at=1 * HOP)]


def test_speech_of_one_utterance_does_not_start_the_next() -> None:
    caller = Caller()
    caller.say()
    caller.machine.reply_finished(1)
    # Some speech of the first utterance is still in the window and must not count.
    assert caller.speak(TO_START - 1) == []
    assert kinds(caller.speak()) == [SpeechStarted]


def test_pause_threshold_above_the_start_threshold() -> None:
    # A setting from discussions of https://github.com/gradio-app/fastrtc: 1.2, 0.2, 0.4.
    caller = Caller(AlgoOptions(1.2, 0.2, 0.4))
    assert kinds(caller.speak(TO_START)) == [SpeechStarted]
    assert caller.speak(60) == []
    # Less than 0.4 s of speech in 1.2 s.
    assert caller.be_silent(25) == []
    assert kinds(caller.be_silent()) == [SpeechStopped, ReplyDue]
    caller.machine.reply_finished(1)
    # An utterance may hold less speech than the pause threshold. It ends when it leaves the window.
    assert kinds(caller.speak(8)) == [SpeechStarted]
    assert caller.be_silent(29) == []
    assert kinds(caller.be_silent()) == [SpeechStopped, ReplyDue]


# Speech during a reply.


def test_speech_over_a_reply_is_a_candidate_within_one_hop_of_the_threshold() -> None:
    caller = Caller()
    caller.say()
    caller.be_silent(20)
    began = caller.machine.now
    candidate = caller.barge_in()
    assert candidate == InterruptionCandidate(at=began + TO_INTERRUPT * HOP, reply=1)
    # The threshold and one hop. The rest of the promised 300 ms belongs to playout.
    assert (candidate.at - began) / RATE <= 0.1 + HOP / RATE
    check_state(caller, TurnState.INTERRUPTING)
    assert caller.machine.confirm(candidate) == [Interrupted(at=candidate.at, reply=1)]
    check_state(caller, TurnState.USER_SPEAKING)
    caller.speak(10)
    _, due = caller.be_silent(TO_PAUSE)
    assert check_due(due).reply == 2
    assert span(due)[0] == began - PRE_ROLL


def test_speech_over_a_reply_without_a_judge_interrupts_at_once() -> None:
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


def test_interrupt_on_pause_without_a_judge() -> None:
    caller = Caller(interrupt_on="pause", judged=False)
    caller.say()
    caller.be_silent(20)
    assert kinds(caller.speak(30)) == [SpeechStarted]
    assert kinds(caller.be_silent(TO_PAUSE)) == [Interrupted, SpeechStopped, ReplyDue]
    check_state(caller, TurnState.REPLYING)


def test_rejected_candidate_is_not_part_of_an_utterance() -> None:
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


def test_continued_speech_after_a_rejection_is_another_candidate() -> None:
    caller = Caller()
    caller.say()
    caller.be_silent(20)
    first = caller.barge_in()
    caller.machine.reject(first)
    second = caller.barge_in()
    assert second.at == first.at + TO_INTERRUPT * HOP
    assert kinds(caller.machine.confirm(second)) == [Interrupted]
    # Rejected speech belongs to no utterance, so it may become the pre-roll.
    caller.be_silent(TO_PAUSE - 1)
    assert span(caller.be_silent()[-1])[0] == first.at - PRE_ROLL


@pytest.mark.parametrize("confirmed", [True, False])
def test_user_pauses_before_the_decision(confirmed: bool) -> None:
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


def test_user_pauses_and_continues_before_the_decision() -> None:
    caller = Caller()
    caller.say()
    candidate = caller.barge_in()
    caller.be_silent(TO_PAUSE + 5)
    assert caller.speak(10) == []
    assert not caller.machine.user_paused
    assert kinds(caller.machine.confirm(candidate)) == [Interrupted]
    assert kinds(caller.be_silent(TO_PAUSE)) == [SpeechStopped, ReplyDue]


def test_interrupt_on_pause() -> None:
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


def test_speech_continues_after_the_end_of_a_reply() -> None:
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


def test_reply_ends_before_the_decision() -> None:
    caller = Caller()
    caller.say()
    candidate = caller.barge_in()
    assert kinds(caller.machine.reply_finished(1)) == [ReplyEnded]
    check_state(caller, TurnState.USER_SPEAKING)
    # Either decision is late.
    assert caller.machine.reject(candidate) == []
    assert caller.machine.confirm(candidate) == []
    assert kinds(caller.be_silent(TO_PAUSE)) == [SpeechStopped, ReplyDue]


def test_reply_ends_after_the_user_paused() -> None:
    caller = Caller(interrupt_on="pause")
    caller.say()
    caller.speak(20)
    caller.be_silent(TO_PAUSE)
    check_state(caller, TurnState.INTERRUPTING)
    assert kinds(caller.machine.reply_finished(1)) == [ReplyEnded, SpeechStopped, ReplyDue]


def test_can_interrupt_false_ignores_speech_during_a_reply() -> None:
    caller = Caller(can_interrupt=False)
    caller.say()
    assert caller.speak(100) == []
    check_state(caller, TurnState.REPLYING)
    assert caller.machine.buffered < PRE_ROLL + HOP
    ended = caller.machine.now
    caller.machine.reply_finished(1)
    # Continued speech is detected from the end of the reply on.
    assert caller.speak(TO_START) == [SpeechStarted(ended + TO_START * HOP, ended)]
    _, due = caller.be_silent(TO_PAUSE)
    assert span(due)[0] == ended - PRE_ROLL


def test_late_report_of_an_interrupted_reply_has_no_effect() -> None:
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


# Utterances of maximum length.


def test_long_utterance_is_cut_at_the_maximum_length() -> None:
    caller = Caller(AlgoOptions(max_continuous_speech_s=1.0))
    caller.be_silent(20)
    began = 20 * HOP - PRE_ROLL
    started, first = caller.speak(30)
    assert isinstance(started, SpeechStarted)
    assert span(first) == (began, began + RATE)
    assert caller.machine.heard().size
    # Speech from before the reply is not a barge-in. The next cut interrupts the reply.
    interrupted, second = caller.speak(30)
    assert isinstance(interrupted, Interrupted)
    assert span(second) == (began + RATE, began + 2 * RATE)
    caller.speak(5)
    [candidate] = caller.be_silent(TO_PAUSE)
    assert isinstance(candidate, InterruptionCandidate)
    interrupted, stopped, third = caller.machine.confirm(candidate)
    assert (interrupted, stopped) == (Interrupted(candidate.at, 2), SpeechStopped(candidate.at))
    assert span(third) == (began + 2 * RATE, candidate.at)


def test_silence_after_a_cut_makes_no_reply_due() -> None:
    caller = Caller(AlgoOptions(max_continuous_speech_s=1.0))
    assert kinds(caller.speak(32)) == [SpeechStarted, ReplyDue]
    assert kinds(caller.be_silent(100)) == [SpeechStopped]
    check_state(caller, TurnState.REPLYING)


def test_silence_after_a_cut_and_after_the_reply_makes_no_reply_due() -> None:
    caller = Caller(AlgoOptions(max_continuous_speech_s=1.0))
    caller.speak(32)
    caller.machine.reply_finished(1)
    check_state(caller, TurnState.USER_SPEAKING)
    assert kinds(caller.be_silent(100)) == [SpeechStopped]
    check_state(caller, TurnState.LISTENING)


def test_candidate_of_maximum_length_interrupts_without_a_decision() -> None:
    caller = Caller(AlgoOptions(max_continuous_speech_s=1.0))
    caller.say(10)
    candidate = caller.barge_in()
    assert kinds(caller.speak(30)) == [Interrupted, ReplyDue]
    assert caller.machine.reject(candidate) == []


def test_long_utterance_ends_at_the_cut_if_replies_cannot_be_interrupted() -> None:
    caller = Caller(AlgoOptions(max_continuous_speech_s=1.0), can_interrupt=False)
    assert kinds(caller.speak(100)) == [SpeechStarted, SpeechStopped, ReplyDue]
    assert not caller.machine.heard().size


def test_hop_longer_than_the_maximum_utterance_is_cut_repeatedly() -> None:
    machine = TurnMachine(RATE, AlgoOptions(max_continuous_speech_s=1.0))
    events = machine.push(numbered(0, 40000), 1.0)
    assert kinds(events) == [SpeechStarted, ReplyDue, Interrupted, ReplyDue]
    spans = [span(event) for event in events if isinstance(event, ReplyDue)]
    assert spans == [(0, 16000), (16000, 32000)]


def test_cut_utterances_do_not_overlap() -> None:
    # FastRTC returned 41,920 samples for 16,960 samples of input (D8).
    caller = Caller(AlgoOptions(max_continuous_speech_s=0.35))
    parts = [e.utterance for e in caller.speak(16960 // HOP + 1) if isinstance(e, ReplyDue)]
    assert len(parts) == 3
    assert np.array_equal(np.concatenate(parts, axis=1), numbered(0, 3 * 5600))


# Triggered responses and greetings.


def test_triggered_response_during_silence_gets_an_empty_utterance() -> None:
    caller = Caller()
    caller.be_silent(10)
    [due] = caller.machine.trigger_response()
    assert check_due(due).utterance.shape == (1, 0)
    check_state(caller, TurnState.REPLYING)
    caller.machine.reply_finished(1)
    # The empty utterance does not shorten the pre-roll of the next one.
    assert caller.say().started_at == 10 * HOP - PRE_ROLL


def test_triggered_response_gets_the_utterance_in_progress() -> None:
    caller = Caller()
    caller.speak(20)
    [due] = caller.machine.trigger_response()
    assert span(due) == (0, 20 * HOP)
    # Neither the last syllable nor a second press of the button interrupts the reply.
    assert caller.speak(2) == []
    assert caller.machine.trigger_response() == []
    assert kinds(caller.be_silent(TO_PAUSE)) == [SpeechStopped]
    assert caller.machine.trigger_response() == []
    check_state(caller, TurnState.REPLYING)


def test_triggered_response_confirms_a_candidate_after_a_pause() -> None:
    caller = Caller()
    caller.say()
    caller.barge_in()
    caller.be_silent(TO_PAUSE + 5)
    assert kinds(caller.machine.trigger_response()) == [Interrupted, ReplyDue]
    assert not caller.machine.user_paused
    assert kinds(caller.machine.reply_finished(2)) == [ReplyEnded]
    assert kinds(caller.be_silent()) == [SpeechStopped]


def test_triggered_response_confirms_a_candidate() -> None:
    caller = Caller()
    caller.say()
    candidate = caller.barge_in()
    assert kinds(caller.machine.trigger_response()) == [Interrupted, ReplyDue]
    assert caller.machine.confirm(candidate) == []


def test_greeting_can_be_interrupted() -> None:
    caller = Caller()
    assert caller.machine.reply_started() == []
    assert (caller.machine.reply, caller.machine.state) == (1, TurnState.REPLYING)
    with pytest.raises(InvalidTransition, match="ReplyDue is not possible in the state 'replying'"):
        caller.machine.reply_started()
    assert caller.machine.confirm(caller.barge_in()) == [Interrupted(TO_INTERRUPT * HOP, reply=1)]


def test_greeting_during_speech_is_interrupted_at_the_pause() -> None:
    caller = Caller()
    caller.speak(10)
    assert caller.machine.reply_started() == []
    assert caller.speak(20) == []
    [candidate] = caller.be_silent(TO_PAUSE)
    assert isinstance(candidate, InterruptionCandidate)
    due = caller.machine.confirm(candidate)[-1]
    assert span(due) == (0, candidate.at)


def test_greeting_ends_speech_if_replies_cannot_be_interrupted() -> None:
    caller = Caller(can_interrupt=False)
    caller.speak(10)
    assert kinds(caller.machine.reply_started()) == [SpeechStopped]
    assert caller.speak(20) == []


# Other rules.


class FastRTCChunks:
    """A rule that never reports speech, only pauses, as a subclass of FastRTC's handler may."""

    silence = None

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


def test_rule_that_reports_only_pauses() -> None:
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
    """A rule that reports speech or silence for each hop, and never a pause."""

    lookback = HOP
    silence = None

    def reset(self) -> None: ...

    def push(self, samples: Int16Array, probability: float, over_reply: bool = False) -> Verdict:
        return Verdict.SPEECH if probability > 0.5 else Verdict.SILENCE


def test_rule_that_reports_silence_instead_of_a_pause() -> None:
    caller = Caller(rule=Switch(), pre_roll_s=0)
    assert kinds(caller.speak() + caller.be_silent()) == [SpeechStarted, SpeechStopped, ReplyDue]


def test_utterance_shorter_than_the_window_with_another_rule() -> None:
    # `SlidingWindow` finds none. Speech after a cut must be longer than the window.
    caller = Caller(AlgoOptions(max_continuous_speech_s=1.0), rule=Switch(), pre_roll_s=0)
    assert kinds(caller.speak(32) + caller.be_silent()) == [SpeechStarted, ReplyDue, SpeechStopped]
    caller.machine.reply_finished(1)
    assert kinds(caller.speak() + caller.be_silent()) == [SpeechStarted, SpeechStopped, ReplyDue]


def test_lookback_beyond_the_buffer_is_limited_to_it() -> None:
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


# Memory and validation.


def test_buffer_is_bounded_during_silence() -> None:
    caller = Caller()
    most = 0
    for _ in range(200):
        # One hop in four is too little to start an utterance.
        caller.speak()
        caller.be_silent(3)
        most = max(most, caller.machine.buffered)
    assert most <= PRE_ROLL + 9600 + 2 * HOP


def test_buffer_is_bounded_during_endless_speech() -> None:
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


def test_push_copies_the_samples() -> None:
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
def test_invalid_hop_is_refused_and_changes_nothing(
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
def test_algo_options_out_of_range_are_refused(option: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{option} must be .*{message}"):
        AlgoOptions(**{option: value})


def test_algo_options_have_fastrtcs_names_order_and_defaults() -> None:
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
def test_machine_settings_out_of_range_are_refused(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TurnMachine(**{"sample_rate": RATE, **settings})


def test_every_state_has_transitions_and_can_be_reached() -> None:
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
def test_interrupt_threshold_replaces_the_start_threshold_during_a_reply(
    options: AlgoOptions, hops: int
) -> None:
    caller = Caller(options)
    caller.machine.reply_started()
    assert kinds(caller.speak(hops)) == [SpeechStarted, InterruptionCandidate]
    caller = Caller(options, interrupt_on="pause")
    caller.machine.reply_started()
    usual = math.floor(options.started_talking_threshold / (HOP / RATE)) + 1
    assert kinds(caller.speak(usual)) == [SpeechStarted]
