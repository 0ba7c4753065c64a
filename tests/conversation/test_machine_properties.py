"""Properties of the turn machine with any audio: utterances contain every sample once, pauses are
detected within one hop, and any order of speech, replies and interruptions is consistent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._media.resample import Rechunker
from fastrtc_anyio.conversation.machine import TurnMachine
from fastrtc_anyio.conversation.pause_rules import AlgoOptions
from fastrtc_anyio.conversation.turn_table import (
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
from fastrtc_anyio.errors import InvalidTransition
from fastrtc_anyio.testing.strategies import chunkings

RATE = 8000
# Length in samples, and whether the hop is speech.
Hop = tuple[int, bool]


def numbered(count: int) -> Int16Array:
    """Make input in which each sample holds its place."""
    return (np.arange(count) % 60000 - 30000).astype(np.int16).reshape(1, -1)


def seconds(samples: int) -> float:
    return samples / RATE


def total(hops: Iterable[Hop]) -> int:
    return sum(count for count, _ in hops)


@st.composite
def options(draw: st.DrawFn) -> AlgoOptions:
    """Make thresholds in FastRTC's sense: less speech ends an utterance than starts it."""
    window = draw(st.integers(2, 600))
    started = draw(st.integers(0, window - 1))
    paused = draw(st.integers(1, started + 1))
    return AlgoOptions(seconds(window), seconds(started), seconds(paused))


def hop_lists(max_size: int = 60) -> st.SearchStrategy[list[Hop]]:
    """Make runs of speech and silence, with hops of different lengths."""
    run = st.tuples(st.integers(1, 8), st.integers(1, 300), st.booleans())
    runs = st.lists(run, max_size=max_size // 4)
    return runs.map(lambda rs: [(size, speech) for n, size, speech in rs for _ in range(n)])


def push_all(machine: TurnMachine, hops: list[Hop]) -> list[TurnStep]:
    """Push hops, with each reply ending as soon as it is due."""
    audio = numbered(total(hops))
    events: list[TurnStep] = []
    for count, speech in hops:
        hop = audio[:, machine.now : machine.now + count]
        waiting = machine.push(hop, 1.0 if speech else 0.0)
        while waiting:
            event = waiting.pop(0)
            events.append(event)
            if isinstance(event, ReplyDue):
                steps = machine.reply_finished(event.reply)
                waiting += [step for step in steps if not isinstance(step, ReplyEnded)]
    return events


def of_kind(events: list[TurnStep], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def check_utterances(dues: list[ReplyDue], audio: Int16Array) -> None:
    """Check that utterances are slices of the input, disjoint and in order."""
    for due in dues:
        assert np.array_equal(due.utterance, audio[:, due.started_at : due.stopped_at])
        assert due.utterance.shape == (1, due.stopped_at - due.started_at)
    spans = [(due.started_at, due.stopped_at) for due in dues if due.started_at < due.stopped_at]
    assert all(first[1] <= second[0] for first, second in pairwise(spans))


def check_alternation(events: list[TurnStep]) -> None:
    edges = [type(e) for e in events if isinstance(e, SpeechStarted | SpeechStopped)]
    assert edges == [SpeechStarted, SpeechStopped] * (len(edges) // 2) + edges[len(edges) & ~1 :]
    assert edges[len(edges) & ~1 :] in ([], [SpeechStarted])


# The oracle applies the thresholds sample by sample. The machine must report each crossing in the
# hop that contains it.


def first_met(met: NDArray[np.bool_], after: int) -> int | None:
    """Find the first sample count above ``after`` at which a condition holds."""
    places = np.flatnonzero(met[after + 1 :])
    return int(places[0]) + after + 1 if places.size else None


def oracle(
    hops: list[Hop], window: int, started: int, paused: int
) -> list[tuple[int, int, int, int | None, int | None]]:
    """Compute, per utterance: start crossed, reported, first speech, pause crossed, reported."""
    ends = np.cumsum([count for count, _ in hops])
    speech = np.repeat([speech for _, speech in hops], [count for count, _ in hops]).astype(int)
    begin_of_hop = np.repeat(ends - [count for count, _ in hops], [count for count, _ in hops])
    found: list[tuple[int, int, int, int | None, int | None]] = []
    while True:
        # inside[t]: speech among the last `window` of the first t samples.
        sums = np.concatenate([[0], np.cumsum(speech)])
        inside = sums - np.concatenate([np.zeros(window, int), sums])[: len(sums)]
        start = first_met(inside > started, 0)
        if start is None:
            return found
        start_found = int(ends[np.searchsorted(ends, start)])
        recent = np.arange(max(0, start_found - window), start_found)
        first_speech = int(begin_of_hop[recent[speech[recent] == 1][0]])
        pause = first_met(inside < paused, start_found)
        if pause is None:
            found.append((start, start_found, first_speech, None, None))
            return found
        pause_found = int(ends[np.searchsorted(ends, pause)])
        found.append((start, start_found, first_speech, pause, pause_found))
        speech[:pause_found] = 0


@given(
    hops=hop_lists(),
    window=st.integers(2, 600),
    data=st.data(),
    pre_roll=st.integers(0, 400),
)
@settings(max_examples=300, deadline=None)
def test_speech_and_pauses_are_detected_in_the_hop_that_crosses_the_threshold(
    hops: list[Hop], window: int, data: st.DataObject, pre_roll: int
) -> None:
    started = data.draw(st.integers(0, window - 1))
    paused = data.draw(st.integers(1, started + 1))
    machine = TurnMachine(
        RATE,
        AlgoOptions(seconds(window), seconds(started), seconds(paused)),
        pre_roll_s=seconds(pre_roll),
    )
    events = push_all(machine, hops)
    expected: list[Any] = []
    given_out = 0
    ends = list(np.cumsum([count for count, _ in hops]))
    sizes = dict(zip(ends, (count for count, _ in hops), strict=True))
    for start, start_found, first_speech, pause, pause_found in oracle(
        hops, window, started, paused
    ):
        assert 0 <= start_found - start < sizes[start_found]
        expected.append(SpeechStarted(start_found, first_speech))
        if pause is None or pause_found is None:
            break
        assert 0 <= pause_found - pause < sizes[pause_found]
        expected.append(SpeechStopped(pause_found))
        # The speech and the pre-roll, without samples of earlier utterances.
        expected.append((max(first_speech - pre_roll, given_out, 0), pause_found))
        given_out = pause_found
    assert [
        (e.started_at, e.stopped_at) if isinstance(e, ReplyDue) else e for e in events
    ] == expected
    check_utterances(of_kind(events, ReplyDue), numbered(total(hops)))


@given(hops=hop_lists(), longest=st.integers(1, 3000), algo=options(), pre_roll=st.integers(0, 400))
@settings(max_examples=200, deadline=None)
def test_cut_utterances_contain_every_sample_once(
    hops: list[Hop], longest: int, algo: AlgoOptions, pre_roll: int
) -> None:
    window = round(algo.audio_chunk_duration * RATE)
    whole = push_all(TurnMachine(RATE, algo, pre_roll_s=seconds(pre_roll)), hops)
    algo = replace(algo, max_continuous_speech_s=seconds(longest))
    events = push_all(TurnMachine(RATE, algo, pre_roll_s=seconds(pre_roll)), hops)
    check_utterances(of_kind(events, ReplyDue), numbered(total(hops)))
    # The maximum length does not change where speech starts and stops.
    edges = SpeechStarted | SpeechStopped
    assert [e for e in events if isinstance(e, edges)] == [e for e in whole if isinstance(e, edges)]
    stretches: list[list[ReplyDue]] = []
    for event in events:
        if isinstance(event, SpeechStarted):
            stretches.append([])
        elif isinstance(event, ReplyDue):
            stretches[-1].append(event)
    for utterance, parts in zip(of_kind(whole, ReplyDue), stretches, strict=False):
        # The parts are contiguous, and all but the last have the maximum length. A dropped end of
        # the previous stretch may have become the pre-roll.
        assert parts[0].started_at <= utterance.started_at
        assert all(a.stopped_at == b.started_at for a, b in pairwise(parts))
        lengths = [part.utterance.shape[1] for part in parts]
        assert lengths[:-1] == [longest] * (len(parts) - 1)
        assert lengths[-1] <= longest
        # Only an end that is too short for an utterance may be missing.
        missing = utterance.stopped_at - parts[-1].stopped_at
        assert missing == 0 or (0 < missing <= window and lengths[-1] == longest)


# Framing.


def plain(event: TurnStep) -> Any:
    """Turn a step into a value that can be compared."""
    if isinstance(event, ReplyDue):
        return event.reply, event.started_at, event.stopped_at, event.utterance.tobytes()
    return event


def loudness(hop: Int16Array) -> float:
    """Compute a probability from a single hop."""
    return float(np.abs(hop.astype(int)).mean() / 32768)


@given(data=st.data(), hop=st.integers(1, 200), algo=options())
@settings(max_examples=100, deadline=None)
def test_framing_does_not_change_the_steps(
    data: st.DataObject, hop: int, algo: AlgoOptions
) -> None:
    runs = data.draw(st.lists(st.tuples(st.integers(1, 900), st.booleans()), max_size=12))
    loud = np.repeat([speech for _, speech in runs], [n for n, _ in runs])
    noise = np.random.default_rng(1).choice([-30000, 30000], loud.size)
    audio = np.where(loud, noise, noise // 100).astype(np.int16).reshape(1, -1)

    judged = data.draw(st.booleans())

    def hear(chunks: list[int]) -> list[Any]:
        machine, rechunker = TurnMachine(RATE, algo, judged=judged), Rechunker(hop, 1)
        heard: list[Any] = []
        begin = 0
        for size in chunks:
            for samples in rechunker.push(audio[:, begin : begin + size]):
                for event in machine.push(samples, loudness(samples)):
                    # The replies never end, so all later speech is speech over a reply.
                    if isinstance(event, InterruptionCandidate):
                        heard += map(plain, machine.confirm(event))
                    heard.append(plain(event))
            begin += size
        return heard

    assert hear(data.draw(chunkings(loud.size))) == hear([loud.size] if loud.size else [])


@given(
    hops=hop_lists(),
    algo=options(),
    longest=st.integers(1, 3000),
    interrupt_on=st.sampled_from(["speech", "pause"]),
    can_interrupt=st.booleans(),
    ends=st.lists(st.integers(0, 40), max_size=10),
)
@settings(max_examples=200, deadline=None)
def test_without_a_judge_steps_equal_those_with_a_judge_that_confirms_at_once(
    hops: list[Hop],
    algo: AlgoOptions,
    longest: int,
    interrupt_on: Literal["speech", "pause"],
    can_interrupt: bool,
    ends: list[int],
) -> None:
    audio = numbered(total(hops))
    algo = replace(algo, max_continuous_speech_s=seconds(longest))

    def hear(judged: bool) -> list[Any]:
        machine = TurnMachine(
            RATE, algo, judged=judged, interrupt_on=interrupt_on, can_interrupt=can_interrupt
        )
        heard: list[Any] = []

        def take(steps: list[TurnStep]) -> None:
            for step in steps:
                if isinstance(step, InterruptionCandidate):
                    assert judged
                    take(machine.confirm(step))
                else:
                    heard.append(plain(step))

        for number, (count, speech) in enumerate(hops):
            take(machine.push(audio[:, machine.now : machine.now + count], float(speech)))
            if number in ends:
                take(machine.reply_finished(machine.reply))
        return heard

    assert hear(judged=False) == hear(judged=True)


# Comparison with FastRTC, which judges consecutive chunks.


def fastrtc_pause(hops: list[Hop], algo: AlgoOptions) -> int | None:
    """Compute the sample at which FastRTC's ``determine_pause`` first returns True.

    It collects audio until it has ``audio_chunk_duration``, judges that, and begins anew.
    """
    now = held = speech_held = 0
    started = False
    for count, speech in hops:
        now += count
        held += count
        speech_held += count * speech
        if held / RATE >= algo.audio_chunk_duration:
            duration = speech_held / RATE
            started = started or duration > algo.started_talking_threshold
            if started and duration < algo.speech_threshold:
                return now
            held = speech_held = 0
    return None


def first_pause(hops: list[Hop], algo: AlgoOptions) -> int | None:
    return next(
        (event.at for event in of_kind(push_all(TurnMachine(RATE, algo), hops), SpeechStopped)),
        None,
    )


HOP = 256  # 32 ms
PHASES = range(19)  # a chunk of 0.6 s is 19 hops


@pytest.mark.parametrize("phase", PHASES)
def test_fastrtc_detects_a_pause_no_earlier(phase: int) -> None:
    algo = AlgoOptions()
    hops = [(HOP, False)] * phase + [(HOP, True)] * 40 + [(HOP, False)] * 60
    ours, theirs = first_pause(hops, algo), fastrtc_pause(hops, algo)
    assert ours is not None
    assert theirs is not None
    spoken = HOP * (phase + 40)
    # The options require half a second of silence.
    assert 0.5 <= (ours - spoken) / RATE <= 0.5 + HOP / RATE
    assert ours <= theirs


def test_fastrtc_detects_a_pause_up_to_one_chunk_later() -> None:
    algo = AlgoOptions()
    late = []
    for phase in PHASES:
        hops = [(HOP, False)] * phase + [(HOP, True)] * 40 + [(HOP, False)] * 60
        ours, theirs = first_pause(hops, algo), fastrtc_pause(hops, algo)
        assert ours is not None
        assert theirs is not None
        late.append((theirs - ours) / RATE)
    # 0 to 18 hops, with equal frequency.
    assert sorted(late) == pytest.approx([n * HOP / RATE for n in range(19)])
    assert max(late) > 0.57


@given(silence=st.integers(0, 40), speech=st.integers(20, 80), size=st.integers(20, 400))
@settings(max_examples=100, deadline=None)
def test_single_utterance_ends_no_later_than_in_fastrtc(
    silence: int, speech: int, size: int
) -> None:
    algo = AlgoOptions()
    assume(speech * size > 1.2 * RATE)
    hops = [(size, False)] * silence + [(size, True)] * speech
    hops += [(size, False)] * (2 * RATE // size)
    ours, theirs = first_pause(hops, algo), fastrtc_pause(hops, algo)
    assert ours is not None
    assert theirs is not None
    assert 0 <= theirs - ours <= 0.6 * RATE + size


# Any order of calls.


class Conversation(RuleBasedStateMachine):
    """A user who speaks, and a driver that replies and judges, in any order."""

    @initialize(
        algo=options(),
        can_interrupt=st.booleans(),
        interrupt_on=st.sampled_from(["speech", "pause"]),
        judged=st.booleans(),
        pre_roll=st.integers(0, 300),
    )
    def start(
        self,
        algo: AlgoOptions,
        can_interrupt: bool,
        interrupt_on: Literal["speech", "pause"],
        judged: bool,
        pre_roll: int,
    ) -> None:
        self.judged = judged
        self.can_interrupt = can_interrupt
        self.window = round(algo.audio_chunk_duration * RATE)
        self.pre_roll = pre_roll
        self.machine = TurnMachine(
            RATE,
            replace(algo, max_continuous_speech_s=seconds(2000)),
            can_interrupt=can_interrupt,
            interrupt_on=interrupt_on,
            judged=judged,
            pre_roll_s=seconds(pre_roll),
        )
        self.audio = np.empty((1, 0), np.int16)
        self.events: list[TurnStep] = []
        self.dues: list[ReplyDue] = []
        # The driver's view: the active reply, and the candidate that awaits a decision.
        self.playing: int | None = None
        self.candidate: InterruptionCandidate | None = None
        self.over: list[int] = []
        self.decided: list[InterruptionCandidate] = []

    def take(self, events: list[TurnStep]) -> None:
        self.events += events
        for event in events:
            match event:
                case ReplyDue():
                    assert self.playing is None
                    self.playing = event.reply
                    self.dues.append(event)
                case Interrupted():
                    assert self.can_interrupt
                    assert event.reply == self.playing
                    self.over.append(event.reply)
                    self.playing = None
                    self.drop_candidate()
                case InterruptionCandidate():
                    assert self.judged
                    assert self.candidate is None
                    assert event.reply == self.playing
                    self.candidate = event
                case _:
                    pass

    def drop_candidate(self) -> None:
        if self.candidate is not None:
            self.decided.append(self.candidate)
            self.candidate = None

    @rule(
        size=st.integers(1, 300),
        count=st.integers(1, 12),
        probability=st.sampled_from([0.0, 0.49, 0.5, 1.0]),
    )
    def push_hops(self, size: int, count: int, probability: float) -> None:
        for _ in range(count):
            begin = self.audio.shape[1]
            self.audio = numbered(begin + size)
            was_deaf = not self.can_interrupt and self.playing is not None
            events = self.machine.push(self.audio[:, begin:], probability)
            assert not (was_deaf and events)
            self.take(events)
            bound = self.pre_roll + self.window + 2 * 300
            assert self.machine.buffered <= (2300 if self.user_speaking else bound)

    @precondition(lambda self: self.playing is not None)
    @rule()
    def play_out_the_reply(self) -> None:
        assert self.playing is not None
        reply, self.playing = self.playing, None
        self.over.append(reply)
        self.drop_candidate()
        ended, *steps = self.machine.reply_finished(reply)
        assert ended == ReplyEnded(self.machine.now, reply)
        self.take(steps)

    @precondition(lambda self: self.playing is None)
    @rule()
    def a_greeting(self) -> None:
        events = self.machine.reply_started()
        self.playing = self.machine.reply
        self.take(events)

    @precondition(lambda self: self.playing is not None)
    @rule()
    def greet_during_a_reply(self) -> None:
        state = self.machine.state
        with pytest.raises(InvalidTransition):
            self.machine.reply_started()
        assert self.machine.state is state

    @precondition(lambda self: self.candidate is not None)
    @rule()
    def confirm_the_candidate(self) -> None:
        assert self.candidate is not None
        events = self.machine.confirm(self.candidate)
        assert isinstance(events[0], Interrupted)
        self.take(events)

    @precondition(lambda self: self.candidate is not None)
    @rule()
    def reject_the_candidate(self) -> None:
        assert self.candidate is not None
        candidate = self.candidate
        self.drop_candidate()
        rejected, stopped = self.machine.reject(candidate)
        assert rejected == CandidateRejected(self.machine.now, candidate.reply)
        self.take([stopped])
        assert not self.user_speaking
        assert not self.machine.heard().size
        assert self.machine.state is TurnState.REPLYING

    @rule()
    def repeat_late_reports(self) -> None:
        for reply in self.over:
            assert self.machine.reply_finished(reply) == []
        for candidate in self.decided:
            assert self.machine.confirm(candidate) == []
            assert self.machine.reject(candidate) == []

    @rule()
    def trigger_a_response(self) -> None:
        replies = self.playing is not None
        said = self.machine.heard()
        events = self.machine.trigger_response()
        if not replies or events:
            due = of_kind(events, ReplyDue)[0]
            assert np.array_equal(due.utterance, said)
        self.take(events)

    @invariant()
    def utterances_are_disjoint_slices_of_the_input(self) -> None:
        check_utterances(self.dues[-2:], self.audio)
        check_alternation(self.events)

    @property
    def user_speaking(self) -> bool:
        started = len(of_kind(self.events, SpeechStarted))
        return started > len(of_kind(self.events, SpeechStopped))

    @invariant()
    def state_matches_the_steps(self) -> None:
        speaking = self.user_speaking
        if self.playing is None:
            expected = TurnState.USER_SPEAKING if speaking else TurnState.LISTENING
        else:
            expected = TurnState.INTERRUPTING if self.candidate else TurnState.REPLYING
        assert self.machine.state is expected

    @invariant()
    def utterance_in_progress_ends_with_the_input(self) -> None:
        heard = self.machine.heard()
        assert np.array_equal(heard, self.audio[:, self.audio.shape[1] - heard.shape[1] :])
        assert bool(heard.size) <= self.user_speaking


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
