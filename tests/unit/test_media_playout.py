"""Playout, case by case."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from fastrtc_anyio.errors import UnsupportedFormat
from fastrtc_anyio.media import Int16Array, Played, PlayoutBuffer

RATE = 8000
FRAME = RATE // 50
FADE = RATE // 200


def ramp(first: int, count: int) -> Int16Array:
    return np.arange(first, first + count, dtype=np.int16).reshape(1, -1)


def playing(frames: int = 10) -> PlayoutBuffer:
    """A buffer of 1, 2, 3, ... of which the first frame was pulled."""
    playout = PlayoutBuffer(RATE, 1, 30.0)
    playout.push(ramp(1, frames * FRAME))
    assert np.array_equal(playout.pull(), ramp(1, FRAME))
    return playout


def test_an_empty_buffer_gives_silence_for_ever() -> None:
    playout = PlayoutBuffer(48000, 2, 0.2)
    for _ in range(5):
        frame = playout.pull()
        assert frame.shape == (2, 960)
        assert frame.dtype == np.int16
        assert not frame.any()
    assert playout.drained
    assert (playout.played_samples, playout.underruns) == (0, 0)


def test_one_frame_waits_one_pull_and_two_frames_start_at_once() -> None:
    playout = PlayoutBuffer(RATE, 1, 1.0)
    playout.push(ramp(1, FRAME))
    assert not playout.pull().any()
    assert np.array_equal(playout.pull(), ramp(1, FRAME))
    assert not playout.pull().any()
    assert playout.underruns == 1
    playout.push(ramp(1, 2 * FRAME))
    assert np.array_equal(playout.pull(), ramp(1, FRAME))
    assert np.array_equal(playout.pull(), ramp(1 + FRAME, FRAME))


def test_the_end_of_an_utterance_is_played_padded() -> None:
    playout = playing(frames=1 + 1)
    playout.push(ramp(1 + 2 * FRAME, 50))
    playout.pull()
    frame = playout.pull()
    assert playout.underruns == 1
    assert np.array_equal(frame[:, :50], ramp(1 + 2 * FRAME, 50))
    assert not frame[:, 50:].any()
    assert playout.drained


def test_a_partial_frame_that_grows_is_not_padded() -> None:
    playout = PlayoutBuffer(RATE, 1, 1.0)
    for step in range(3):
        playout.push(ramp(1 + 50 * step, 50))
        assert not playout.pull().any()
    playout.push(ramp(151, 50))
    assert np.array_equal(playout.pull(), ramp(1, FRAME))


def test_a_partial_frame_that_grew_is_played_once_it_stops_growing() -> None:
    playout = PlayoutBuffer(RATE, 1, 1.0)
    playout.push(ramp(1, 50))
    assert not playout.pull().any()
    playout.push(ramp(51, 10))
    assert not playout.pull().any()
    assert np.array_equal(playout.pull()[:, :60], ramp(1, 60))


def test_a_flush_begins_the_wait_anew() -> None:
    playout = PlayoutBuffer(RATE, 1, 1.0)
    for _ in range(2):
        playout.push(ramp(1, FRAME))
        assert not playout.pull().any()
        playout.flush()


def test_a_pause_that_finds_nothing_to_fade_was_an_underrun() -> None:
    playout = playing(frames=2)
    playout.pull()
    playout.pause()
    assert not playout.pull().any()
    assert not playout.pull().any()
    assert playout.underruns == 1


def test_a_source_with_jitter_of_a_frame_plays_without_a_gap() -> None:
    playout = PlayoutBuffer(RATE, 1, 1.0)
    output: list[Int16Array] = []
    for tick in range(100):
        # Frames come in pairs, every other tick.
        if tick % 2 == 0:
            playout.push(ramp(1 + tick * FRAME, 2 * FRAME))
        output.append(playout.pull())
    assert np.array_equal(np.concatenate(output, axis=1), ramp(1, 100 * FRAME))
    assert playout.underruns == 0


def test_flush_fades_what_is_sounding_and_nothing_older_is_heard() -> None:
    playout = playing()
    assert playout.flush() == Played(FRAME, 0.02)
    assert playout.generation == 1
    playout.push(np.full((1, 2 * FRAME), 7, np.int16))
    faded = playout.pull()
    assert faded[0, 0] == pytest.approx(1 + FRAME, abs=2)
    assert faded[0, FADE - 1] == 0
    assert not faded[:, FADE:].any()
    assert np.array_equal(playout.pull(), np.full((1, FRAME), 7))
    # The fade belongs to the reply that was flushed, not to this one.
    assert playout.flush() == Played(FRAME, 0.02)
    assert playout.played_samples == 2 * FRAME + FADE


def test_flush_before_anything_sounds_drops_everything() -> None:
    playout = PlayoutBuffer(RATE, 1, 1.0)
    playout.push(ramp(1, 500))
    assert playout.flush() == Played(0, 0.0)
    assert playout.drained
    assert playout.flushed_samples == 500
    assert not playout.pull().any()


def test_a_second_flush_does_not_cut_the_fade_short() -> None:
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
    played = playout.played_samples
    for _ in range(20):
        assert not playout.pull().any()
    assert playout.played_samples == played == FRAME + FADE
    playout.resume()
    playout.resume()
    again = playout.pull()
    first = 1 + FRAME + FADE
    assert again[0, 0] == 0
    assert np.all(again[:, :FADE] <= ramp(first, FADE))
    assert np.array_equal(again[:, FADE:], ramp(first + FADE, FRAME - FADE))
    assert np.array_equal(playout.pull(), ramp(first + FRAME, FRAME))
    assert playout.underruns == 0


def test_resuming_needs_no_second_frame_to_start() -> None:
    playout = playing(frames=3)
    playout.pause()
    playout.pull()
    assert playout.buffered_samples == 2 * FRAME - FADE
    playout.resume()
    assert playout.pull()[0, -1] == FRAME + FADE + FRAME


def test_pause_and_resume_between_two_pulls_is_not_heard() -> None:
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


def test_one_chunk_of_any_size_is_admitted_while_there_is_room() -> None:
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


def test_what_was_pulled_is_the_callers() -> None:
    playout = PlayoutBuffer(RATE, 1, 1.0)
    silence = playout.pull()
    silence[:] = 9
    assert not playout.pull().any()


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(160, np.int16),
        np.zeros((1, 160), np.int16),
        np.zeros((2, 160), np.float32),
    ],
)
def test_wrong_formats(samples: Any) -> None:
    with pytest.raises(UnsupportedFormat, match=r"int16 samples of shape \(2, n\), got"):
        PlayoutBuffer(RATE, 2, 1.0).push(samples)


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="multiple of 50"):
        PlayoutBuffer(11025, 1, 1.0)
    with pytest.raises(ValueError, match="limit_seconds must be positive"):
        PlayoutBuffer(8000, 1, 0.0)
    with pytest.raises(UnsupportedFormat, match="got 3"):
        PlayoutBuffer(8000, 3, 1.0)
