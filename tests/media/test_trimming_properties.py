"""Only an echo, or a source that keeps pace with its input, ever loses a sample in playout.

Handlers of any kind read input in virtual time and push audio whose samples are numbered: each has
to be played once, and in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastrtc_anyio._media.frames import AudioFrame, Int16Array
from fastrtc_anyio._media.input_lead import InputLead
from fastrtc_anyio._media.playout import PlayoutBuffer

RATE = 8000
FRAME = RATE // 50
FADE = RATE // 200
END = 500
"""Frames of input."""


class Handler:
    """A handler between its input and playout; times are numbers of frames."""

    def __init__(self) -> None:
        self.lead = InputLead()
        self.playout = PlayoutBuffer(RATE, 1, 60.0, input_lead=self.lead)
        self.played: list[Int16Array] = []
        self.pushed: list[Int16Array] = []
        self.held: deque[Int16Array] = deque()
        """Input that was read and not repeated."""
        self._input = np.random.default_rng(1)

    def read(self, now: float) -> None:
        samples = self._input.integers(-9000, 9000, (1, FRAME)).astype(np.int16)
        self.lead.read(now / 50, AudioFrame(RATE, samples))
        self.held.append(samples)

    def push(self, samples: Int16Array) -> None:
        self.pushed.append(samples)
        self.playout.push(samples)

    def repeat(self, chunk: int, gain: float = 1.0) -> None:
        """Push the input held, in chunks of some frames; a part of a chunk stays."""
        while len(self.held) >= chunk:
            frames = [self.held.popleft() for _ in range(chunk)]
            self.push((np.concatenate(frames, axis=1) * gain).astype(np.int16))

    def speak(self, samples: int, chunk: int) -> None:
        """Push audio of another content, in chunks of some samples."""
        number = sum(part.shape[1] for part in self.pushed)
        for start in range(number, number + samples, chunk):
            end = min(start + chunk, number + samples)
            values = (np.arange(start, end) % 9000 + 1).astype(np.int16)
            self.push(values.reshape(1, -1))

    def pull(self) -> None:
        frame = self.playout.pull()
        if self.playout.pulled:
            self.played.append(frame[:, : self.playout.pulled])

    def run(
        self, act: Callable[[Handler, int], None], end: int = END, reads: Sequence[int] = ()
    ) -> None:
        """Act after each read. ``reads`` are the numbers of frames read at a time, 1 at the end."""
        for now in range(end):
            for _ in range(reads[now] if now < len(reads) else 1):
                self.read(now)
            act(self, now)
            self.pull()
        while not self.playout.drained:
            self.pull()

    def assert_complete(self) -> None:
        counters = self.playout.statistics()
        assert counters.trimmed == 0
        sent, heard = (np.concatenate(parts, axis=1) for parts in (self.pushed, self.played))
        assert sent.shape == heard.shape
        # The sound behind an underrun is faded in.
        assert np.count_nonzero(sent != heard) <= FADE * counters.underruns


@dataclass(frozen=True)
class Reply:
    """Audio of another content.

    Attributes:
        rest: frames before it.
        ahead: samples pushed at once.
        paced: samples pushed behind them, frame by frame.
        speed: how much faster than real time.
        chunk: samples of each push.
    """

    rest: int
    ahead: int
    paced: int
    speed: float
    chunk: int


replies = st.builds(
    Reply,
    rest=st.integers(0, 90),
    ahead=st.integers(1, 3 * RATE),
    paced=st.integers(0, 2 * RATE),
    speed=st.sampled_from([0.5, 0.99, 1.0, 1.01, 1.5, 2.0, 4.0]),
    chunk=st.sampled_from([80, FRAME, 240, 3 * FRAME, 1111, RATE]),
)


def speaks(first: int, replies: Sequence[Reply]) -> Callable[[Handler, int], None]:
    """Return a handler that sends nothing before a frame, and then one reply after another."""
    pushes: dict[int, list[tuple[int, int]]] = {}
    now = float(first)
    for reply in replies:
        now += reply.rest
        pushes.setdefault(int(now), []).append((reply.ahead, reply.chunk))
        step = max(1, round(FRAME * reply.speed))
        for start in range(0, reply.paced, step):
            pushes.setdefault(int(now), []).append((min(step, reply.paced - start), reply.chunk))
            now += 1

    def act(handler: Handler, now: int) -> None:
        for samples, chunk in pushes.get(now, []):
            handler.speak(samples, chunk)

    return act


late = st.integers(18, 150)
"""Frames of input before a first reply: such a source does not keep pace."""


@settings(max_examples=60)
@given(first=late, after=st.lists(replies, min_size=1, max_size=5))
@example(49, [Reply(0, 49 * FRAME, 0, 1.0, RATE), Reply(11, 0, 2 * RATE, 2.0, 2 * FRAME)])
@example(49, [Reply(0, 49 * FRAME, 4 * RATE, 1.0, FRAME)])
def test_late_replies_lose_nothing(first: int, after: list[Reply]) -> None:
    handler = Handler()
    handler.run(speaks(first, after))
    handler.assert_complete()


@settings(max_examples=30)
@given(ahead=st.integers(100, 3 * RATE), after=st.lists(replies, max_size=4))
def test_replies_of_a_source_that_has_sent_more_than_it_read_lose_nothing(
    ahead: int, after: list[Reply]
) -> None:
    handler = Handler()
    handler.run(speaks(0, [Reply(0, ahead + FRAME, 0, 1.0, RATE), *after]))
    handler.assert_complete()


@settings(max_examples=40)
@given(
    repeated=st.integers(1, 200),
    chunk=st.integers(1, 60),
    gain=st.sampled_from([1.0, 0.5]),
    stall=st.integers(0, 60),
    ahead=st.integers(RATE // 2, 3 * RATE),
    after=st.lists(replies, max_size=4),
)
def test_replies_behind_an_echo_lose_nothing(
    repeated: int, chunk: int, gain: float, stall: int, ahead: int, after: list[Reply]
) -> None:
    """All samples from the reply on are played, even if a part of the echo has been trimmed."""
    handler = Handler()
    begins = repeated + stall
    reply = speaks(begins, [Reply(0, ahead + (stall + chunk) * FRAME, 0, 1.0, RATE), *after])
    sent = 0

    def act(handler: Handler, now: int) -> None:
        nonlocal sent
        if now < repeated:
            handler.repeat(chunk, gain)
        if now == begins:
            sent = sum(part.shape[1] for part in handler.pushed)
        reply(handler, now)

    handler.run(act)
    spoken = np.concatenate(handler.pushed, axis=1)[:, sent:]
    heard = np.concatenate(handler.played, axis=1)[:, -spoken.shape[1] :]
    assert np.count_nonzero(spoken != heard) <= FADE * handler.playout.statistics().underruns


@settings(max_examples=30)
@given(
    sentences=st.lists(st.tuples(st.integers(18, 95), st.integers(0, 90)), min_size=1, max_size=3),
    after=st.lists(replies, min_size=1, max_size=3),
)
def test_repeated_sentences_and_replies_lose_nothing(
    sentences: list[tuple[int, int]], after: list[Reply]
) -> None:
    """A parrot repeats whole sentences of its input, as blocks, and then speaks itself."""
    blocks = dict[int, int]()
    now = 0
    for length, rest in sentences:
        now += length
        blocks[now] = length
        now += rest
    begins = now + 1
    reply = speaks(begins, after)

    def act(handler: Handler, now: int) -> None:
        if length := blocks.get(now):
            while len(handler.held) > length:
                handler.held.popleft()
            handler.repeat(length)
        reply(handler, now)

    handler = Handler()
    handler.run(act)
    handler.assert_complete()


bursts = st.lists(st.tuples(st.integers(5, 100), st.integers(3, 60)), min_size=1, max_size=3)


@settings(max_examples=60)
@given(
    first=late,
    after=st.lists(replies, min_size=1, max_size=5),
    bursts=bursts,
)
def test_bursts_of_input_cost_late_replies_nothing(
    first: int, after: list[Reply], bursts: list[tuple[int, int]]
) -> None:
    reads: list[int] = []
    for steady, outage in bursts:
        reads += [1] * steady + [0] * outage + [outage + 1]
    handler = Handler()
    handler.run(speaks(first, after), reads=reads)
    handler.assert_complete()


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("stall", [25, 50, 90])
def test_stall_of_an_echo_is_trimmed_and_nothing_else(chunk: int, stall: int) -> None:
    handler = Handler()

    def act(handler: Handler, now: int) -> None:
        if not 150 <= now < 150 + stall:
            handler.repeat(chunk)

    handler.run(act)
    assert handler.playout.statistics().trimmed >= (stall - chunk) * FRAME


@pytest.mark.parametrize("stall", [25, 50])
def test_stall_of_a_source_that_does_not_repeat_the_samples_costs_nothing(stall: int) -> None:
    handler = Handler()

    def act(handler: Handler, now: int) -> None:
        if not 150 <= now < 150 + stall:
            handler.repeat(1, 0.5)

    handler.run(act)
    assert handler.playout.statistics().trimmed == 0
