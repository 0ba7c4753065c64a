"""Playout under any sequence of pushes, pulls, pauses and flushes."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._media.playout import PlayoutBuffer

RATE = 8000
FRAME = RATE // 50
FADE = RATE // 200
LIMIT = 0.1
MS = RATE // 1000


class Playout(RuleBasedStateMachine):
    """Model of a playout buffer. Every sample pushed has a distinct value."""

    live = False

    def __init__(self) -> None:
        super().__init__()
        self.playout = PlayoutBuffer(RATE, 2, LIMIT, live=self.live)
        self.queue: Int16Array = np.empty((2, 0), np.int16)
        self.tail: Int16Array = np.empty((2, 0), np.int16)  # that a flush left to be played
        self.kept = 0  # samples of it that were queued
        self.next_value = 0
        self.sounding = False  # the last pull ended in real samples
        self.faded_out = False  # a pause faded out, and nothing was played since
        self.last: Int16Array = np.empty((2, 0), np.int16)  # end of the sound being played
        self.cut_off = False  # an underrun cut the sound off, and nothing was played since
        self.reply_samples = 0
        self.silent_pulls = 0
        self.grown = False
        self.steady_pulls = 0  # pulls of a full frame with no sender waiting

    @rule(count=st.one_of(st.integers(0, 3 * FRAME), st.just(FRAME), st.just(50 * FRAME)))
    def push(self, count: int) -> None:
        values = (np.arange(self.next_value, self.next_value + count) % 20000 + 10000).astype(
            np.int16
        )
        self.next_value += count
        samples = np.stack([values, -values])
        self.playout.push(samples)
        self.queue = np.concatenate([self.queue, samples], axis=1)
        self.grown |= count > 0
        samples[:] = 1  # what is queued is a copy

    @rule()
    def pause(self) -> None:
        self.playout.pause()
        assert self.playout.paused

    @rule()
    def resume(self) -> None:
        self.playout.resume()
        assert not self.playout.paused

    @rule()
    def flush(self) -> None:
        flushed, position = self.playout.statistics().flushed, self.playout.position
        played = self.playout.flush()
        assert played.samples == self.reply_samples
        assert played.seconds == self.reply_samples / RATE
        assert self.playout.position == position
        kept = self.kept
        if self.sounding:
            kept = min(FADE, self.queue.shape[1])
            mirrored = np.concatenate([self.last, self.queue[:, :kept]], axis=1)[:, ::-1]
            self.tail = np.concatenate([self.queue[:, :kept], mirrored], axis=1)[:, :FADE]
        self.kept = kept
        left = kept if self.sounding else 0
        assert self.playout.statistics().flushed - flushed == self.queue.shape[1] - left
        assert self.playout.buffered_samples == kept
        assert not self.playout.paused
        self.queue = self.queue[:, :0]
        self.sounding = self.faded_out = self.cut_off = self.grown = False
        self.reply_samples = self.silent_pulls = self.steady_pulls = 0

    @rule(held_back=st.booleans())
    def pull(self, held_back: bool = False) -> None:
        before, position = self.playout.statistics(), self.playout.position
        frame = self.playout.pull(held_back=held_back)
        after = self.playout.statistics()
        played = after.played - before.played
        assert played == self.playout.pulled
        assert self.playout.position - position == (0 if self.tail.size else played)
        assert frame.shape == (2, FRAME)
        assert frame.dtype == np.int16
        self.trim(after.trimmed - before.trimmed)
        starved = False
        if self.tail.size:
            assert played == self.kept
            check_fade(frame[:, :FADE], self.tail)
            assert not frame[:, FADE:].any()
            self.tail, self.kept = self.tail[:, :0], 0
            self.last = self.last[:, :0]
            return
        if self.playout.paused:
            wanted = self.queue[:, :FADE] if self.sounding else self.queue[:, :0]
            assert played == wanted.shape[1]
            check_fade(frame[:, :played], wanted)
            starved = self.sounding and played == 0
            self.cut_off |= self.live and starved and bool(self.last[:, -1:].any())
            self.faded_out |= played > 0
            self.consume(played)
            self.sounding = False
        else:
            starved = self.pull_playing(frame, played)
        assert after.underruns - before.underruns == starved
        self.check_end(frame, played)
        self.steady_pulls = self.steady_pulls + 1 if self.sounding and not held_back else 0

    def check_end(self, frame: Int16Array, played: int) -> None:
        """Check the rest of a frame: silence, or the faded mirror image of a sound cut off."""
        if self.sounding:
            self.last = frame[:, -FADE:].copy()
            return
        if self.cut_off and self.last.shape[1]:
            count = min(FADE, FRAME - played, self.last.shape[1])
            mirrored = self.last[:, ::-1][:, :count]  # may have been faded itself
            gains = 0.5 * (1 + np.cos(np.pi * np.arange(1, count + 1) / max(count, 1)))
            assert np.array_equal(frame[:, played : played + count], np.rint(mirrored * gains))
            played += count
        self.last = self.last[:, :0]
        assert not frame[:, played:].any()

    def trim(self, count: int) -> None:
        if count:
            assert self.live
            assert self.steady_pulls >= 33
            assert self.queue.shape[1] - count >= FRAME
            kept = self.queue[:, count:].copy()
            gains = 0.5 * (1 + np.cos(np.pi * np.arange(1, FADE + 1) / FADE))
            across = self.queue[:, :FADE] * gains + kept[:, :FADE] * (1 - gains)
            kept[:, :FADE] = np.rint(across)
            self.queue = kept
            self.steady_pulls = 0

    def pull_playing(self, frame: Int16Array, played: int) -> bool:
        """Check a pull while not paused; return whether it must be an underrun."""
        queued = self.queue.shape[1]
        if queued >= FRAME:
            assert played == FRAME
        elif queued and (self.sounding or (self.silent_pulls and not self.grown)):
            assert played == queued
        else:
            assert played == 0
        starved = self.sounding and played < FRAME
        wanted = self.queue[:, :played]
        if played and (self.faded_out or self.cut_off):
            fade = min(played, FADE)
            check_fade(frame[:, :fade][:, ::-1], wanted[:, :fade][:, ::-1])
            assert np.array_equal(frame[:, fade:played], wanted[:, fade:])
        else:
            assert np.array_equal(frame[:, :played], wanted)
        if played:
            self.faded_out = self.cut_off = False
            self.last = np.concatenate([self.last, frame[:, :played]], axis=1)[:, -FADE:]
        sounded = bool(self.last[:, -1:].any())
        self.cut_off |= self.live and sounded and played < FRAME
        self.consume(played)
        self.sounding = played == FRAME
        self.silent_pulls = self.silent_pulls + 1 if queued and not played else 0
        self.grown = False
        return starved

    def consume(self, played: int) -> None:
        self.queue = self.queue[:, played:]
        self.reply_samples += played

    @precondition(lambda self: not self.playout.paused)
    @rule()
    def play_out(self) -> None:
        for _ in range(self.playout.buffered_samples // FRAME + 5):
            self.pull()
        assert self.playout.drained

    @invariant()
    def every_sample_is_accounted_for(self) -> None:
        playout, counted = self.playout, self.playout.statistics()
        assert playout.buffered_samples == self.queue.shape[1] + self.kept
        assert counted.buffered == playout.buffered_samples
        assert counted.latency == playout.buffered_seconds
        assert counted.bytes == counted.sent * 4
        assert counted.sent == counted.played + counted.flushed + counted.trimmed + counted.buffered
        assert counted.sent == self.next_value
        assert playout.buffered_seconds == playout.buffered_samples / RATE
        assert playout.has_room == (playout.buffered_samples < LIMIT * RATE)
        assert playout.drained == (playout.buffered_samples == 0)


class LivePlayout(Playout):
    live = True

    @rule(chunk=st.sampled_from([1, 2, 3]), pulls=st.integers(30, 80), jitter=st.booleans())
    def run_in_real_time(self, chunk: int, pulls: int, jitter: bool) -> None:
        for tick in range(pulls):
            if tick % chunk == 0:
                self.push(chunk * FRAME - (tick % 2 if jitter else 0))
            self.pull()
            self.every_sample_is_accounted_for()


def check_fade(frame: Int16Array, samples: Int16Array) -> None:
    """Check that the gains fall from 1 to 0 without an audible step."""
    assert frame.shape[1] <= FADE
    if frame.shape[1] == 0:
        return
    gains = frame / samples
    assert np.all(np.diff(gains, axis=1) <= 1e-3)
    assert np.all((gains >= 0) & (gains <= 1))
    assert not frame[:, -1].any()
    if frame.shape[1] == FADE:
        assert np.all(gains[:, 0] > 0.99)
        assert np.all(np.abs(np.diff(gains, axis=1)) < 0.05)


TestPlayout = Playout.TestCase
TestPlayout.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestLivePlayout = LivePlayout.TestCase
TestLivePlayout.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


def numbered(playout: PlayoutBuffer, count: int) -> Int16Array:
    first = playout.statistics().sent
    values: Int16Array = (np.arange(first, first + count) % 30000 + 1).astype(np.int16)
    return values.reshape(1, -1)


@settings(max_examples=100, deadline=None)
@given(
    chunks=st.lists(st.tuples(st.integers(150, 5000), st.integers(0, 250)), min_size=1, max_size=15)
)
def test_chunks_of_150_ms_at_any_time_lose_nothing(chunks: list[tuple[int, int]]) -> None:
    playout = PlayoutBuffer(RATE, 1, 30.0, live=True)
    output, pushed = list[Int16Array](), list[Int16Array]()
    for length, pulls in chunks:
        pushed.append(numbered(playout, length * MS))
        pushed[-1][:, -1] = 0  # a sound that ends in 0 needs no fade
        playout.push(pushed[-1])
        output += [playout.pull() for _ in range(pulls)]
    output += [playout.pull() for _ in range(playout.buffered_samples // FRAME + 3)]
    heard = np.concatenate(output, axis=1)
    assert playout.statistics().trimmed == 0
    wanted = np.concatenate(pushed, axis=1)
    assert np.array_equal(heard[heard != 0], wanted[wanted != 0])


@settings(max_examples=100, deadline=None)
@given(
    limit_seconds=st.floats(0.05, 2.0),
    chunks=st.lists(st.sampled_from([10, 20, 60, 100, 500, 3000]), min_size=1, max_size=4),
    work=st.lists(st.floats(0.0, 0.95), min_size=1, max_size=5),
)
def test_sender_waiting_for_room_loses_nothing(
    limit_seconds: float, chunks: list[int], work: list[float]
) -> None:
    playout = PlayoutBuffer(RATE, 1, limit_seconds, live=True)
    ready = 0.0
    sent = 0
    for now in range(0, 10000, 20):
        while ready <= now and playout.has_room:
            chunk = chunks[sent % len(chunks)]
            playout.push(numbered(playout, chunk * MS))
            # A waiting sender continues once the pull before this one has made room.
            ready = max(ready, now - 20.0) + chunk * work[sent % len(work)]
            sent += 1
        playout.pull(held_back=ready <= now)
    assert playout.statistics().trimmed == 0


@settings(max_examples=100, deadline=None)
@given(
    lead=st.integers(60, 1000),
    chunk=st.sampled_from([10, 20, 40, 60]),
    frequency=st.floats(50.0, 1000.0),
    amplitude=st.integers(100, 32767),
)
def test_trim_of_a_sine_does_not_click(
    lead: int, chunk: int, frequency: float, amplitude: int
) -> None:
    playout = PlayoutBuffer(RATE, 1, 30.0, live=True)
    omega = 2 * math.pi * frequency / RATE

    def sine(milliseconds: int) -> Int16Array:
        first = playout.statistics().sent
        phases = omega * np.arange(first, first + milliseconds * MS).reshape(1, -1)
        wave: Int16Array = np.rint(amplitude * np.sin(phases)).astype(np.int16)
        return wave

    playout.push(sine(lead + chunk))
    output = []
    ahead = 0
    for _ in range(100):
        while ahead < 20:
            playout.push(sine(chunk))
            ahead += chunk
        ahead -= 20
        output.append(playout.pull())
    assert playout.statistics().trimmed > 0
    assert playout.statistics().underruns == 0
    # The slope of the sine, plus two sines of opposite sign at the steepest point of the fade.
    steepest = amplitude * omega + 2 * amplitude * math.pi / (2 * FADE) + 2
    steps = np.abs(np.diff(np.concatenate(output, axis=1)[0].astype(np.int32)))
    assert steps.max() <= steepest
