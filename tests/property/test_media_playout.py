"""Playout under any sequence of pushes, pulls, pauses and flushes."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fastrtc_anyio.media import Int16Array, PlayoutBuffer

RATE = 8000
FRAME = RATE // 50
FADE = RATE // 200
LIMIT = 0.1


class Playout(RuleBasedStateMachine):
    """Every sample pushed has a value of its own, so that it is known again when it is pulled."""

    def __init__(self) -> None:
        super().__init__()
        self.playout = PlayoutBuffer(RATE, 2, LIMIT)
        self.queue: Int16Array = np.empty((2, 0), np.int16)
        self.tail: Int16Array = np.empty((2, 0), np.int16)
        self.next_value = 0
        self.sounding = False  # the last pull ended in real samples
        self.faded_out = False  # a pause did that, and nothing was played since
        self.reply_samples = 0
        self.silent_pulls = 0
        self.grown = False

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
        flushed, generation = self.playout.flushed_samples, self.playout.generation
        played = self.playout.flush()
        assert played.samples == self.reply_samples
        assert played.seconds == self.reply_samples / RATE
        assert self.playout.generation == generation + 1
        if self.sounding:
            self.tail = self.queue[:, :FADE]
            kept = self.tail.shape[1]
        else:
            kept = 0
        assert self.playout.flushed_samples - flushed == self.queue.shape[1] - kept
        assert self.playout.buffered_samples == self.tail.shape[1]
        assert not self.playout.paused
        self.queue = self.queue[:, :0]
        self.sounding = self.faded_out = self.grown = False
        self.reply_samples = self.silent_pulls = 0

    @rule()
    def pull(self) -> None:
        before, underruns = self.playout.played_samples, self.playout.underruns
        frame = self.playout.pull()
        played = self.playout.played_samples - before
        assert frame.shape == (2, FRAME)
        assert frame.dtype == np.int16
        assert not frame[:, played:].any()
        starved = False
        if self.tail.size:
            assert played == self.tail.shape[1]
            check_fade(frame[:, :played], self.tail)
            self.tail = self.tail[:, :0]
        elif self.playout.paused:
            wanted = self.queue[:, :FADE] if self.sounding else self.queue[:, :0]
            assert played == wanted.shape[1]
            check_fade(frame[:, :played], wanted)
            starved = self.sounding and played == 0
            self.faded_out |= played > 0
            self.consume(played)
            self.sounding = False
        else:
            starved = self.pull_playing(frame, played)
        assert self.playout.underruns - underruns == starved

    def pull_playing(self, frame: Int16Array, played: int) -> bool:
        """Check a pull that might play; returns whether it must have been an underrun."""
        queued = self.queue.shape[1]
        may_start = queued >= 2 * FRAME or self.sounding or self.faded_out or self.silent_pulls > 0
        if queued >= FRAME:
            assert played == (FRAME if may_start else 0)
        elif queued and (self.sounding or (self.silent_pulls and not self.grown)):
            assert played == queued
        else:
            assert played == 0
        starved = self.sounding and played < FRAME
        wanted = self.queue[:, :played]
        if played and self.faded_out:
            fade = min(played, FADE)
            check_fade(frame[:, :fade][:, ::-1], wanted[:, :fade][:, ::-1])
            assert np.array_equal(frame[:, fade:played], wanted[:, fade:])
        else:
            assert np.array_equal(frame[:, :played], wanted)
        if played:
            self.faded_out = False
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
        playout = self.playout
        assert playout.buffered_samples == self.queue.shape[1] + self.tail.shape[1]
        assert (
            playout.pushed_samples
            == playout.played_samples + playout.flushed_samples + playout.buffered_samples
        )
        assert playout.pushed_samples == self.next_value
        assert playout.buffered_seconds == playout.buffered_samples / RATE
        assert playout.has_room == (playout.buffered_samples < LIMIT * RATE)
        assert playout.drained == (playout.buffered_samples == 0)


def check_fade(frame: Int16Array, samples: Int16Array) -> None:
    """Gains fall from 1 to 0 without a step that could be heard."""
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
TestPlayout.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
