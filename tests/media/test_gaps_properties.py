"""Gaps in a client's audio: silence of their true length, produced once, and bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._media.frames import AudioFrame
from fastrtc_anyio._media.gaps import GRACE_S, LONGEST_GAP_S, GapFiller

RATE = 8000
FRAME = AudioFrame(RATE, np.ones((1, RATE // 50), np.int16))
STEP = 0.02


def read_in_real_time(gaps: GapFiller, start: float, end: float, step: float = STEP) -> float:
    """Read silence at each time that it is due, and return its seconds."""
    seconds = 0.0
    while (due := gaps.due()) is not None and due <= end:
        while (frame := gaps.fill(max(due, start))) is not None:
            assert not frame.samples.any()
            seconds += frame.duration
    return seconds


@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.floats(-0.1, 0.1), st.booleans()), min_size=1, max_size=8
    )
)
def test_gap_on_the_clients_clock_has_its_true_length(
    gaps: list[tuple[float, float, bool]],
) -> None:
    """Real-time readers and others get the same total for any jitter of the arrivals."""
    filler = GapFiller()
    filler.arrive(0.0, FRAME, None)
    sent = silence = longest_surplus = 0.0
    for gap, jitter, in_real_time in gaps:
        arrived = filler._arrived
        now = max(arrived, sent + STEP + gap + jitter)
        if in_real_time:
            silence += read_in_real_time(filler, arrived, now)
        sent += gap + STEP
        silence += filler.arrive(now, FRAME, gap)
        longest_surplus = max(longest_surplus, filler._surplus)
    total = sum(gap for gap, _, _ in gaps)
    assert silence == pytest.approx(total + filler._surplus, abs=1e-6)
    assert longest_surplus <= 0.3  # the range of the jitter, and whole frames


@given(elapsed=st.floats(0, 50), duration=st.sampled_from([0.01, 0.02, 0.1, 0.5]))
def test_gap_without_timestamps_is_measured_by_elapsed_time(
    elapsed: float, duration: float
) -> None:
    frame = AudioFrame(RATE, np.ones((1, int(RATE * duration)), np.int16))
    filler = GapFiller()
    filler.arrive(0.0, frame, None)
    silence = filler.arrive(elapsed + duration, frame, None)
    if elapsed <= GRACE_S - 1e-9:
        assert silence == 0
    elif elapsed >= GRACE_S + 1e-9:
        assert silence == pytest.approx(elapsed, abs=duration / 2 + 1e-9)
        assert round(silence / duration, 6) % 1 == 0


@given(st.lists(st.floats(0, 0.199), min_size=10, max_size=200))
def test_jitter_does_not_count_as_a_gap(jitter: list[float]) -> None:
    filler = GapFiller()
    arrivals = np.maximum.accumulate([i * STEP + late for i, late in enumerate(jitter)])
    assert sum(filler.arrive(float(now), FRAME, None) for now in arrivals) == 0


@given(outage=st.floats(0.3, 5), gap=st.floats(1, 5))
def test_backlog_after_an_outage_is_deducted_from_the_next_gap(outage: float, gap: float) -> None:
    """A stalled TCP connection delivers all audio, only later."""
    filler = GapFiller()
    filler.arrive(0.0, FRAME, None)
    silence = sum(filler.arrive(outage, FRAME, None) for _ in range(int(outage / STEP)))
    assert silence == pytest.approx(outage, abs=2 * STEP)
    silence += filler.arrive(outage + gap + STEP, FRAME, None)
    assert silence == pytest.approx(max(gap, outage), abs=4 * STEP)


def test_message_is_awaited_for_as_long_as_the_client_takes_to_record_it() -> None:
    long = AudioFrame(RATE, np.ones((1, 3 * RATE), np.int16))
    filler = GapFiller()
    filler.arrive(0.0, long, None)
    assert filler.due() == pytest.approx(1.0 + GRACE_S)  # perhaps a recording sent at once
    filler.arrive(3.0, long, None)
    assert filler.due() == pytest.approx(3.0 + 3.0 + GRACE_S)


def test_silence_in_real_time_begins_after_the_grace_and_ends_after_the_longest_gap() -> None:
    filler = GapFiller()
    assert filler.due() is None
    filler.arrive(10.0, FRAME, None)
    assert filler.due() == pytest.approx(10.0 + STEP + GRACE_S)
    assert filler.fill(10.2) is None
    assert read_in_real_time(filler, 10.0, 1000.0) == pytest.approx(LONGEST_GAP_S)
    assert filler.due() is None
    assert filler.arrive(100.0, FRAME, 89.98) == 0
    assert filler.skipped == pytest.approx(89.98 - LONGEST_GAP_S)


def test_slow_reader_skips_silence_beyond_its_bound() -> None:
    filler = GapFiller()
    filler.arrive(0.0, FRAME, 0.0)
    assert filler.fill(5.0, earliest=4.0) is not None
    assert filler.skipped == pytest.approx(4.0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=100))
def test_forged_timestamps_cannot_outrun_elapsed_time(gaps: list[float]) -> None:
    filler = GapFiller()
    filler.arrive(0.0, FRAME, None)
    silence = sum(filler.arrive((i + 1) * STEP, FRAME, gap) for i, gap in enumerate(gaps))
    assert silence <= 10 + len(gaps) * STEP + 1e-6


def test_concealed_audio_in_a_filled_gap_is_absorbed() -> None:
    filler = GapFiller()
    filler.arrive(0.0, FRAME, 0.0)
    assert not filler.absorb(STEP)
    filled = read_in_real_time(filler, 0.0, 1.0)
    assert filler.absorb(STEP)
    assert filler.absorb(STEP)
    silence = filler.arrive(1.02, FRAME, 1.0 - 2 * STEP)
    assert filled + silence == pytest.approx(1.0)
