"""Playout, case by case."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._media.playout import Played, PlayoutBuffer
from fastrtc_anyio._media.statistics import AudioOutStatistics
from fastrtc_anyio.errors import UnsupportedFormat

RATE = 8000
FRAME = RATE // 50
FADE = RATE // 200


def ramp(first: int, count: int) -> Int16Array:
    return np.arange(first, first + count, dtype=np.int16).reshape(1, -1)


def playing(frames: int = 10) -> PlayoutBuffer:
    """Return a buffer of 1, 2, 3, ... after the pull of its first frame."""
    playout = PlayoutBuffer(RATE, 1, 30.0)
    playout.push(ramp(1, frames * FRAME))
    assert np.array_equal(playout.pull(), ramp(1, FRAME))
    return playout


def test_empty_buffer_returns_silence() -> None:
    playout = PlayoutBuffer(48000, 2, 0.2)
    for _ in range(5):
        frame = playout.pull()
        assert frame.shape == (2, 960)
        assert frame.dtype == np.int16
        assert not frame.any()
    assert playout.drained
    assert playout.statistics() == AudioOutStatistics()


def test_first_frame_is_played_by_the_next_pull() -> None:
    playout = PlayoutBuffer(RATE, 1, 1.0)
    playout.push(ramp(1, FRAME))
    assert np.array_equal(playout.pull(), ramp(1, FRAME))
    assert not playout.pull().any()
    assert playout.statistics().underruns == 1
    playout.push(ramp(1, 2 * FRAME))
    assert np.array_equal(playout.pull(), ramp(1, FRAME))
    assert np.array_equal(playout.pull(), ramp(1 + FRAME, FRAME))


def test_late_frame_becomes_the_margin() -> None:
    playout = PlayoutBuffer(RATE, 1, 1.0)
    for tick in range(101):
        # From frame 10 on, every third frame is late by a pull.
        late = tick > 10 and tick % 3 == 0
        if not late:
            playout.push(ramp(1, FRAME * (2 if tick > 11 and tick % 3 == 1 else 1)))
        playout.pull()
    assert playout.statistics().underruns == 1
    assert playout.buffered_samples == FRAME


def test_end_of_utterance_is_padded() -> None:
    playout = playing(frames=1 + 1)
    playout.push(ramp(1 + 2 * FRAME, 50))
    playout.pull()
    frame = playout.pull()
    assert playout.statistics().underruns == 1
    assert np.array_equal(frame[:, :50], ramp(1 + 2 * FRAME, 50))
    assert not frame[:, 50:].any()
    assert playout.drained


def test_growing_partial_frame_waits() -> None:
    playout = PlayoutBuffer(RATE, 1, 1.0)
    for step in range(3):
        playout.push(ramp(1 + 50 * step, 50))
        assert not playout.pull().any()
    playout.push(ramp(151, 50))
    assert np.array_equal(playout.pull(), ramp(1, FRAME))


def test_partial_frame_plays_once_it_stops_growing() -> None:
    playout = PlayoutBuffer(RATE, 1, 1.0)
    playout.push(ramp(1, 50))
    assert not playout.pull().any()
    playout.push(ramp(51, 10))
    assert not playout.pull().any()
    assert np.array_equal(playout.pull()[:, :60], ramp(1, 60))


def test_pause_without_samples_to_fade_counts_an_underrun() -> None:
    playout = playing(frames=2)
    playout.pull()
    playout.pause()
    assert not playout.pull().any()
    assert not playout.pull().any()
    assert playout.statistics().underruns == 1


def test_source_jitter_of_a_frame_leaves_no_gap() -> None:
    playout = PlayoutBuffer(RATE, 1, 1.0)
    output: list[Int16Array] = []
    for tick in range(100):
        # Frames arrive in pairs, every other tick.
        if tick % 2 == 0:
            playout.push(ramp(1 + tick * FRAME, 2 * FRAME))
        output.append(playout.pull())
    assert np.array_equal(np.concatenate(output, axis=1), ramp(1, 100 * FRAME))
    assert playout.statistics().underruns == 0


def test_flush_fades_the_sound_and_drops_older_samples() -> None:
    playout = playing()
    assert playout.flush() == Played(FRAME, 0.02)
    assert playout.position == FRAME
    playout.push(np.full((1, 2 * FRAME), 7, np.int16))
    faded = playout.pull()
    assert faded[0, 0] == pytest.approx(1 + FRAME, abs=2)
    assert faded[0, FADE - 1] == 0
    assert not faded[:, FADE:].any()
    assert np.array_equal(playout.pull(), np.full((1, FRAME), 7))
    # The fade belongs to the reply that was flushed, not to this one.
    assert playout.flush() == Played(FRAME, 0.02)
    assert playout.statistics().played == 2 * FRAME + FADE


def test_flush_before_playout_drops_everything() -> None:
    playout = PlayoutBuffer(RATE, 1, 1.0)
    playout.push(ramp(1, 500))
    assert playout.flush() == Played(0, 0.0)
    assert playout.drained
    assert playout.statistics().flushed == 500
    assert not playout.pull().any()


def test_second_flush_keeps_the_fade() -> None:
    playout = playing()
    playout.flush()
    playout.push(ramp(1, 1000))
    assert playout.flush() == Played(0, 0.0)
    frame = playout.pull()
    assert frame[0, 0] > FRAME // 2
    assert playout.drained


def test_pause_and_resume_lose_nothing() -> None:
    playout = playing()
    playout.pause()
    playout.pause()
    faded = playout.pull()
    assert faded[0, 0] == pytest.approx(1 + FRAME, abs=2)
    assert not faded[:, FADE - 1 :].any()
    played = playout.statistics().played
    for _ in range(20):
        assert not playout.pull().any()
    assert playout.statistics().played == played == FRAME + FADE
    playout.resume()
    playout.resume()
    again = playout.pull()
    first = 1 + FRAME + FADE
    assert again[0, 0] == 0
    assert np.all(again[:, :FADE] <= ramp(first, FADE))
    assert np.array_equal(again[:, FADE:], ramp(first + FADE, FRAME - FADE))
    assert np.array_equal(playout.pull(), ramp(first + FRAME, FRAME))
    assert playout.statistics().underruns == 0


def test_resume_starts_with_one_frame() -> None:
    playout = playing(frames=3)
    playout.pause()
    playout.pull()
    assert playout.buffered_samples == 2 * FRAME - FADE
    playout.resume()
    assert playout.pull()[0, -1] == FRAME + FADE + FRAME


def test_pause_and_resume_between_pulls_is_inaudible() -> None:
    playout = playing()
    playout.pause()
    playout.resume()
    assert np.array_equal(playout.pull(), ramp(1 + FRAME, FRAME))


def test_flush_ends_a_pause() -> None:
    playout = playing()
    playout.pause()
    playout.pull()
    assert playout.flush().samples == FRAME + FADE
    assert not playout.paused
    assert playout.drained
    playout.push(ramp(1, 2 * FRAME))
    # A new reply, so no fade-in.
    assert np.array_equal(playout.pull(), ramp(1, FRAME))


def test_flush_right_after_pause_still_fades() -> None:
    playout = playing()
    playout.pause()
    playout.flush()
    assert playout.buffered_samples == FADE
    assert playout.pull()[0, 0] > FRAME // 2


def test_chunk_of_any_size_is_admitted_while_there_is_room() -> None:
    playout = PlayoutBuffer(RATE, 1, 0.2)
    room = [playout.has_room]
    playout.push(np.ones((1, 30 * RATE), np.int16))
    room.append(playout.has_room)
    assert playout.buffered_seconds == 30.0
    for _ in range(30 * 50 - 10):
        playout.pull()
    room.append(playout.has_room)
    playout.pull()
    room.append(playout.has_room)
    assert room == [True, False, False, True]


def test_pulling_from_a_long_chunk_copies_only_a_frame() -> None:
    playout = PlayoutBuffer(48000, 2, 30.0)
    playout.push(np.ones((2, 30 * 48000), np.int16))
    playout.pull()
    tracemalloc.start()
    try:
        for _ in range(100):
            playout.pull()
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_pulled_frame_is_a_copy() -> None:
    playout = PlayoutBuffer(RATE, 1, 1.0)
    playout.push(ramp(1, 2 * FRAME))
    playout.pull()[:] = 9
    assert np.array_equal(playout.pull(), ramp(1 + FRAME, FRAME))


def test_frames_of_silence_are_one_read_only_array() -> None:
    playout = PlayoutBuffer(RATE, 1, 1.0)
    assert playout.pull() is playout.silence
    assert not playout.silence.flags.writeable
    playout.push(ramp(1, FRAME))
    playout.pull()
    assert playout.pull() is playout.pull() is playout.silence
    playout.pause()
    assert playout.pull() is playout.silence


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(160, np.int16),
        np.zeros((1, 160), np.int16),
        np.zeros((2, 160), np.float32),
    ],
)
def test_unsupported_formats_are_rejected(samples: Any) -> None:
    with pytest.raises(UnsupportedFormat, match=r"int16 array of shape \(2, n\); got"):
        PlayoutBuffer(RATE, 2, 1.0).push(samples)


def test_invalid_options_are_rejected() -> None:
    with pytest.raises(ValueError, match="multiple of 50"):
        PlayoutBuffer(11025, 1, 1.0)
    with pytest.raises(ValueError, match="limit_seconds must be a number above 0"):
        PlayoutBuffer(8000, 1, 0.0)
    with pytest.raises(UnsupportedFormat, match="got 3"):
        PlayoutBuffer(8000, 3, 1.0)


# Live playout. Times and depths are in milliseconds.

MS = RATE // 1000
Arrivals = list[tuple[float, int]]


class Run(NamedTuple):
    """Result of a source: depth after each pull, times of trims, and the audio played."""

    playout: PlayoutBuffer
    depths: list[float]
    trims: list[float]
    output: Int16Array

    def usual(self, start: float, end: float) -> float:
        return float(np.mean(self.depths[int(start / 20) : int(end / 20)]))


def run(arrivals: Arrivals, until: float, *, phase: float = 7.0, live: bool = True) -> Run:
    """Push each chunk, given by its arrival and duration; pull every 20 ms."""
    playout = PlayoutBuffer(RATE, 1, 30.0, live=live)
    depths, trims, output = [], [], []
    coming = iter(sorted(arrivals, key=lambda arrival: arrival[0]))
    following = next(coming, None)
    for now in np.arange(phase, until, 20.0).tolist():
        while following is not None and following[0] <= now:
            playout.push(ramp(1 + playout.statistics().sent % 30000, following[1] * MS))
            following = next(coming, None)
        before = playout.statistics().trimmed
        output.append(playout.pull())
        depths.append(playout.buffered_samples / MS)
        if playout.statistics().trimmed > before:
            trims.append(now)
    return Run(playout, depths, trims, np.concatenate(output, axis=1))


def echo(
    until: float,
    chunk: int = 20,
    jitter: float = 0.0,
    seed: int = 0,
    stalls: Sequence[tuple[float, float]] = (),
    spacing: float = 0.0,
    pace: float = 1.0,
) -> Arrivals:
    """Yield chunks in real time. During a stall they wait, then arrive ``spacing`` apart."""
    rng = random.Random(seed)
    arrivals: Arrivals = []
    last = 0.0
    for due in np.arange(50.0, until, chunk / pace).tolist():
        now = due + rng.uniform(-jitter, jitter)
        for start, end in stalls:
            if start <= now < end:
                now = end
        backlog = any(end <= last < end + spacing * 100 for _, end in stalls)
        last = max(now, last + spacing if backlog else last)
        arrivals.append((last, chunk))
    return arrivals


def test_standing_delay_is_trimmed_only_if_live() -> None:
    arrivals = echo(10000, stalls=[(4000, 4800)])
    stale = run(arrivals, 10000, live=False)
    assert (stale.playout.statistics().trimmed, min(stale.depths[300:])) == (0, 780)
    fresh = run(arrivals, 10000)
    assert fresh.depths[-1] == fresh.depths[190] == 0
    assert fresh.playout.statistics().trimmed == 780 * MS
    assert len(fresh.trims) == 1
    assert fresh.trims[0] - 4800 <= 700


@pytest.mark.parametrize("stall", [100, 300, 800, 3000])
@pytest.mark.parametrize("chunk", [10, 20, 60])
def test_steady_echo_recovers_within_700_ms_of_a_stall(chunk: int, stall: int) -> None:
    for offset in range(0, 60, 7):
        start = 4000 + offset
        result = run(echo(10000, chunk, stalls=[(start, start + stall)]), 10000)
        usual = result.usual(2000, 4000)
        assert result.usual(start + stall + 700, 10000) <= usual + 40
        assert len(result.trims) <= 1


@pytest.mark.parametrize("spacing", [0, 2])
@pytest.mark.parametrize("stall", [100, 300, 800])
@pytest.mark.parametrize("chunk", [20, 60])
def test_echo_with_jitter_recovers_within_2_s_of_a_stall(
    chunk: int, stall: int, spacing: float
) -> None:
    for seed in range(8):
        stalls = [(4000.0 + seed, 4000.0 + seed + stall)]
        arrivals = echo(10000, chunk, 20.0, seed, stalls, spacing)
        result = run(arrivals, 10000, phase=2.5 * seed)
        assert result.usual(6000 + seed + stall, 10000) <= result.usual(2000, 4000) + 40


def test_repeated_stalls_are_trimmed_without_raising_the_margin() -> None:
    stalls = [(start, start + 800.0) for start in range(4000, 34000, 3000)]
    result = run(echo(37000, jitter=10.0, stalls=stalls), 37000)
    assert len(result.trims) == len(stalls)
    assert result.usual(35600, 36900) <= result.usual(2000, 4000) + 20


def test_second_stall_before_the_first_trim() -> None:
    result = run(echo(10000, stalls=[(4000, 4800), (5100, 5700)]), 10000)
    assert result.usual(7700, 10000) == 0


@pytest.mark.parametrize("spacing", [2, 5])
@pytest.mark.parametrize("stall", [300, 800])
def test_trim_waits_for_a_backlog_that_arrives_over_time(stall: int, spacing: float) -> None:
    for offset in range(0, 20, 3):
        start = 4000 + offset
        arrivals = echo(10000, stalls=[(start, start + stall)], spacing=spacing)
        result = run(arrivals, 10000)
        assert result.usual(start + stall + 1000, 10000) <= result.usual(2000, 4000) + 20


def test_slow_backlog_is_trimmed_after_it_has_arrived() -> None:
    # 10 ms per chunk of 20: the backlog of 0.8 s has arrived after another 0.8 s.
    result = run(echo(10000, stalls=[(4000, 4800)], spacing=10.0), 10000)
    assert result.usual(5600 + 1500, 10000) <= result.usual(2000, 4000) + 40


@pytest.mark.parametrize("jitter", [0, 5, 20])
@pytest.mark.parametrize("chunk", [10, 20, 40, 60])
def test_margin_of_a_minute_with_jitter_is_found_in_few_trims(chunk: int, jitter: int) -> None:
    for seed in range(2):
        result = run(echo(60000, chunk, jitter, seed), 60000, phase=6.5 * seed)
        assert len(result.trims) <= 3
        assert result.playout.statistics().underruns <= 8


@pytest.mark.parametrize("late", [40, 60])
@pytest.mark.parametrize("every", [1000, 3000])
def test_jitter_that_needs_a_margin_raises_it(every: int, late: int) -> None:
    stalls = [(start, float(start + late)) for start in range(2000, 60000, every)]
    result = run(echo(60000, jitter=10.0, stalls=stalls), 60000)
    assert len(result.trims) <= 4
    assert all(now < 20000 for now in result.trims)


def test_unneeded_margin_is_lowered() -> None:
    late = [(start, start + 60.0) for start in range(2000, 20000, 3000)]
    # Silence ten seconds after the trim, and too short for a stall.
    rare = [(start, start + 120.0) for start in range(33000, 120000, 13000)]
    result = run(echo(130000, jitter=5.0, stalls=[*late, *rare]), 130000)
    assert result.usual(17000, 20000) > 20
    assert result.usual(60000, 129000) < 30


def test_fast_source_clock_adds_no_delay() -> None:
    result = run(echo(60000, jitter=5.0, pace=1.002), 60000)
    # 120 ms more than real time have arrived.
    assert max(result.depths) <= 40
    assert len(result.trims) <= 20


# Live playout: a source that works ahead loses nothing.


def at_the_door(
    chunks: Iterator[int], until: float, limit_seconds: float, *, work: float = 0.0
) -> PlayoutBuffer:
    """Run a sender that makes a chunk in ``work`` times its duration, then waits for room."""
    playout = PlayoutBuffer(RATE, 1, limit_seconds, live=True)
    ready, pending = 0.0, next(chunks, 0)
    for now in np.arange(0.0, until, 20.0).tolist():
        while pending and ready <= now and playout.has_room:
            playout.push(ramp(1, pending * MS))
            ready, pending = max(ready, now - 20.0) + work * pending, next(chunks, 0)
        playout.pull(held_back=bool(pending) and ready <= now)
    return playout


def test_long_chunk_is_not_trimmed() -> None:
    result = run([(0.0, 10000), (12000.0, 10000)], 25000)
    assert result.trims == []
    assert result.playout.statistics().played == 20000 * MS


@pytest.mark.parametrize("limit_seconds", [0.2, 1.0, 30.0])
@pytest.mark.parametrize("chunk", [20, 100, 3000])
@pytest.mark.parametrize("work", [0.0, 0.5, 0.95])
def test_sender_waiting_for_room_is_not_trimmed(
    chunk: int, limit_seconds: float, work: float
) -> None:
    total = 30000 // chunk
    playout = at_the_door(iter([chunk] * total), 65000, limit_seconds, work=work)
    assert playout.statistics().trimmed == 0
    assert playout.drained
    assert playout.statistics().played == total * chunk * MS


@pytest.mark.parametrize("chunk", [10, 20, 100])
@pytest.mark.parametrize("burst", [200, 1000, 3000])
def test_bursts_are_not_trimmed(burst: int, chunk: int) -> None:
    arrivals = [
        (start + 0.1 * k, chunk)
        for start in np.arange(0.0, 20000.0, burst * 0.9).tolist()
        for k in range(burst // chunk)
    ]
    assert run(arrivals, 25000).trims == []


@pytest.mark.parametrize("pace", [1.05, 1.1, 1.2, 1.5, 3.0])
@pytest.mark.parametrize("chunk", [20, 60, 85])
def test_source_faster_than_real_time_is_not_trimmed(chunk: int, pace: float) -> None:
    for phase in (0, 7, 14):
        result = run(echo(20000, chunk, pace=pace), 20000, phase=phase)
        assert result.playout.statistics().trimmed == 0


def test_one_waiting_sender_in_a_window_prevents_a_trim() -> None:
    playout = PlayoutBuffer(RATE, 1, 30.0, live=True)
    playout.push(ramp(1, 20 * FRAME))
    for tick in range(200):
        playout.push(ramp(1, FRAME))
        playout.pull(held_back=tick % 25 == 0)
    assert playout.statistics().trimmed == 0
    for _ in range(100):
        playout.push(ramp(1, FRAME))
        playout.pull()
    assert playout.statistics().trimmed == 20 * FRAME


# Live playout: pauses, flushes and the trim itself.


def delayed(frames: int = 20, pulls: int = 33) -> PlayoutBuffer:
    """Return a buffer of 1, 2, 3, ... just before its delay is trimmed."""
    playout = PlayoutBuffer(RATE, 1, 30.0, live=True)
    playout.push(ramp(1, frames * FRAME))
    for _ in range(pulls):
        real_time(playout)
    assert playout.statistics().trimmed == 0
    return playout


def real_time(playout: PlayoutBuffer) -> Int16Array:
    playout.push(ramp(1 + playout.statistics().sent % 30000, FRAME))
    return playout.pull()


def test_trim_crossfades_and_continues_in_order() -> None:
    playout = delayed()
    dropped = 20 * FRAME
    before, after = 1 + 33 * FRAME, 1 + 33 * FRAME + dropped
    cut = real_time(playout)
    assert playout.statistics().trimmed == dropped
    assert playout.drained
    assert cut[0, 0] == pytest.approx(before, abs=0.01 * dropped)
    assert cut[0, FADE - 1] == after + FADE - 1
    assert np.all(np.diff(cut[0]) > 0)
    assert np.array_equal(cut[:, FADE:], ramp(after + FADE, FRAME - FADE))
    assert np.array_equal(real_time(playout), ramp(after + FRAME, FRAME))
    assert playout.statistics().sent == playout.statistics().played + dropped


def test_trim_ends_in_the_middle_of_a_chunk() -> None:
    playout = PlayoutBuffer(RATE, 1, 30.0, live=True)
    playout.push(ramp(1, 5 * FRAME + 30))
    output = []
    for tick in range(36):
        if tick % 2 == 0:
            playout.push(ramp(1 + playout.statistics().sent, 2 * FRAME))
        output.append(playout.pull())
    assert playout.statistics().trimmed == 5 * FRAME + 30
    assert playout.drained
    rest = np.concatenate(output, axis=1)
    assert rest[0, -1] == playout.statistics().sent
    assert np.all(np.diff(rest[0]) > 0)


def test_trim_waits_for_the_frame_behind_it() -> None:
    playout = delayed(frames=1, pulls=66)
    playout.pull()
    assert playout.statistics().trimmed == 0
    assert playout.statistics().underruns == 0


def test_paused_buffer_is_not_trimmed() -> None:
    playout = delayed()
    playout.pause()
    for _ in range(100):
        real_time(playout)
    assert playout.statistics().trimmed == 0
    playout.resume()
    # Audio that a source in real time has added during the pause is a delay, too.
    for _ in range(33):
        real_time(playout)
    assert playout.statistics().trimmed == 0
    real_time(playout)
    assert playout.drained


def late(playout: PlayoutBuffer, frames: int) -> None:
    """Run in real time, with some frames late by a pull."""
    for _ in range(frames):
        playout.pull()
    playout.push(ramp(1 + playout.statistics().sent % 30000, frames * FRAME))
    for _ in range(68):
        real_time(playout)


def test_only_silence_after_a_trim_raises_the_margin() -> None:
    playout = delayed()
    real_time(playout)
    assert playout.drained
    late(playout, 2)
    assert playout.statistics().underruns == 1
    # The queue held two frames, and a margin of one was kept.
    assert playout.statistics().trimmed == (20 + 1) * FRAME
    assert playout.buffered_samples == FRAME
    late(playout, 1)
    assert playout.statistics().underruns == 1
    late(playout, 3)
    assert playout.statistics().underruns == 2
    assert playout.statistics().trimmed == (20 + 2) * FRAME
    assert playout.buffered_samples == 2 * FRAME


def test_playout_drops_a_margin_that_is_not_needed() -> None:
    playout = delayed()
    real_time(playout)
    late(playout, 1)
    assert playout.buffered_samples == FRAME
    for _ in range(2200):
        real_time(playout)
    assert playout.drained
    assert playout.statistics().underruns == 1


def test_flush_starts_a_new_window() -> None:
    playout = delayed()
    playout.flush()
    playout.push(ramp(1, 20 * FRAME))
    # The first pull plays the fade after the flush.
    for _ in range(34):
        real_time(playout)
    assert playout.statistics().trimmed == 0
    real_time(playout)
    assert playout.statistics().trimmed == 21 * FRAME


def test_flush_of_an_empty_queue_starts_a_new_window() -> None:
    playout = PlayoutBuffer(RATE, 1, 30.0, live=True)
    playout.push(ramp(1, 20 * FRAME))
    for _ in range(20):
        playout.pull()
    assert playout.flush().samples == 20 * FRAME
    playout.pull()  # the end of the sound
    playout.push(ramp(1, 20 * FRAME))
    for _ in range(33):
        real_time(playout)
    assert playout.statistics().trimmed == 0
    real_time(playout)
    assert playout.statistics().trimmed == 20 * FRAME


def test_trimmed_samples_count_as_neither_played_nor_flushed() -> None:
    playout = delayed()
    real_time(playout)
    assert playout.flush().samples == 34 * FRAME
    playout.pull()
    assert playout.drained
    assert playout.statistics().sent == (
        playout.statistics().played + playout.statistics().flushed + playout.statistics().trimmed
    )
