"""Latency of echo calls over bad networks, and of their recovery, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.kit.echo_line import PACKET, Line, call

GRID = 10.0
END = 24_000.0

phases = st.sampled_from([3.0, 13.0])
seeds = st.integers(0, 1000)
lives = st.sampled_from([None, True])


@settings(max_examples=25, deadline=None)
@given(jitter=st.floats(0, 50), phase=phases, seed=seeds, live=lives)
@example(0.0, 3.0, 0, None)
@example(30.0, 13.0, 1, None)
def test_latency_exceeds_the_jitter_by_less_than_two_frames(
    jitter: float, phase: float, seed: int, live: bool | None
) -> None:
    heard = call(Line(jitter=jitter, phase=phase, live=live), END, seed)
    # At most a point of the grid, and the next pull.
    assert heard.latency(4000, END) <= jitter + GRID + PACKET + 2
    assert heard.gaps(4000, END) <= 6


@pytest.mark.parametrize("jitter", [10.0, 30.0])
def test_latency_exceeds_the_jitter_by_8_ms_on_average(jitter: float) -> None:
    """The packets of calls come at any time between the points of the grid, 5 ms on average."""
    calls = [call(Line(jitter=jitter, phase=3.0 + 10 * (n % 2)), END, n) for n in range(40)]
    assert mean(heard.latency(8000, END) for heard in calls) <= jitter + 10
    assert mean(heard.gaps(8000, END) for heard in calls) <= 0.3


@settings(max_examples=15, deadline=None)
@given(jitter=st.floats(0, 50), phase=phases, seed=seeds, live=lives)
def test_latency_follows_the_end_of_jitter(
    jitter: float, phase: float, seed: int, live: bool | None
) -> None:
    steady = call(Line(phase=phase, live=live), 2000, seed)
    heard = call(Line(jitter=jitter, phase=phase, live=live, until=8000), 80_000, seed)
    assert heard.latency(78_000, 80_000) <= steady.latency(1000, 2000) + 10
    assert heard.gaps(78_000, 80_000) == 0


DISTURBANCES = {
    "lost packet": Line(lost=(8000.0,)),
    "outage": Line(outages=((8000.0, 9000.0),)),
    "stalled output": Line(stalls=((8000.0, 8500.0),)),
    "blocked handler": Line(blocked=((8000.0, 8500.0),)),
}


@pytest.mark.parametrize("live", [None, True])
@pytest.mark.parametrize("name", DISTURBANCES)
@pytest.mark.parametrize("jitter", [0.0, 5.0, 10.0])
def test_latency_10_s_after_a_disturbance_is_that_before(
    name: str, jitter: float, live: bool | None
) -> None:
    for seed in range(5):
        line = replace(DISTURBANCES[name], jitter=jitter, phase=3.0 + 10 * (seed % 2), live=live)
        heard = call(line, END, seed)
        assert heard.latency(19_000, END) <= heard.latency(4000, 8000) + 10
        assert heard.gaps(11_000, END) <= 2


@pytest.mark.parametrize("live", [None, True])
@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.parametrize("until", [100.0, 500.0, 1500.0])
def test_stall_at_the_start_leaves_no_delay(until: float, reads: bool, live: bool | None) -> None:
    stall = ((0.0, until),)
    heard = call(Line(live=live, stalls=stall, blocked=() if reads else stall), 8000)
    usual = call(Line(live=live), 8000)
    assert heard.latency(until + 1500, 8000) <= usual.latency(until + 1500, 8000) + 10
