"""Averages of an event loop's lag and load, and admission by them."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio import Overloaded
from fastrtc_anyio._core.pace import TICK, LoopPace
from fastrtc_anyio._sessions.load import LoadGauge


class Loop:
    """A loop with a simulated clock, late by ``lag`` and busy for a share of the time."""

    def __init__(self) -> None:
        self.now = self.cpu = 0.0
        self.pace = LoopPace()
        self.due = self.pace.tick(0, 0)

    def run(self, seconds: float, lag: float = 0.0, busy: float = 0.1) -> None:
        end = self.now + seconds
        while self.now < end:
            before, self.now = self.now, self.due + lag
            self.cpu += busy * (self.now - before)
            self.due = self.pace.tick(self.now, self.cpu)


def gauge(loop: Loop, limit: float | None = 0.1) -> LoadGauge:
    made = LoadGauge(limit, lambda: loop.now)
    made.compare(loop.pace)
    return made


def is_admitted(load: LoadGauge, active: int = 1) -> bool:
    try:
        load.check(active)
    except Overloaded:
        return False
    return True


def test_steady_lag_and_load_are_measured() -> None:
    loop = Loop()
    loop.run(10, lag=0.02, busy=0.4)
    assert 0.05 < loop.pace.lag(loop.now) < 0.08
    assert loop.pace.busy == pytest.approx(0.4, abs=0.01)
    for _ in range(5):
        loop.run(2 * TICK)
        loop.run(TICK, lag=0.07)
    assert loop.pace.lag(loop.now) == pytest.approx(0.07, abs=0.015)


def test_second_stall_is_an_overload_and_a_single_one_is_not() -> None:
    loop = Loop()
    load = gauge(loop)
    loop.run(5)
    loop.run(TICK, lag=0.3)
    assert is_admitted(load)
    loop.now += 0.3  # the loop does not even measure
    assert not is_admitted(load)
    loop.run(2)
    assert is_admitted(load)


def test_load_of_both_loops_counts() -> None:
    one, other = Loop(), Loop()
    load = LoadGauge(0.1, lambda: one.now)
    load.compare(one.pace, other.pace)
    for loop in (one, other):
        loop.run(5, busy=0.35)
    assert is_admitted(load, active=10)
    other.run(5, busy=0.5)
    one.run(5, busy=0.4)
    assert not is_admitted(load, active=10)


@pytest.mark.parametrize(("lag", "busy"), [(0.04, 0.1), (0.0, 0.95)])
def test_overload_refuses_until_it_has_eased(
    lag: float, busy: float, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop()
    load = gauge(loop)
    loop.run(5, lag=lag, busy=busy)
    for _ in range(3):
        assert not is_admitted(load, active=10)
    loop.run(5, lag=0.025 if lag else 0.0, busy=0.1 if lag else 0.75)
    assert not is_admitted(load, active=10), "below the limit, not yet eased"
    loop.run(5, lag=0.02 if lag else 0.0, busy=0.1 if lag else 0.6)
    assert is_admitted(load, active=10)
    loop.run(5, lag=0.025 if lag else 0.0, busy=0.1 if lag else 0.75)
    assert is_admitted(load, active=10)
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


def test_first_session_is_always_admitted() -> None:
    loop = Loop()
    loop.run(5, lag=2, busy=1)
    load = gauge(loop)
    assert is_admitted(load, active=0)
    with pytest.raises(Overloaded, match="too much load") as caught:
        load.check(1)
    assert (caught.value.status_hint, caught.value.retry_after) == (503, 5)


def test_none_admits_every_session() -> None:
    loop = Loop()
    loop.run(5, lag=2, busy=1)
    assert is_admitted(gauge(loop, None))
    assert is_admitted(LoadGauge(0.1))  # not measured


def test_burst_of_sessions_is_refused_before_its_load_shows() -> None:
    loop = Loop()
    load = gauge(loop)
    loop.run(5, busy=0.2)
    admitted = 0
    while is_admitted(load, active=10 + admitted):
        load.note_session()
        admitted += 1
    assert 20 < admitted < 60
    loop.run(2, busy=0.2)
    assert is_admitted(load, active=10 + admitted)


async def test_burst_of_sessions_is_admitted_in_steps() -> None:
    loop = Loop()
    loop.run(5, busy=0.3)
    load = LoadGauge(0.1, anyio.current_time)
    loop.pace._due += anyio.current_time() + 100  # this loop is not late
    load.compare(loop.pace)
    admitted: list[float] = []
    began = anyio.current_time()

    async def connect() -> None:
        await load.wait(lambda: len(admitted), in_steps=True)
        load.note_session()
        admitted.append(anyio.current_time() - began)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(connect)
    assert admitted[10] < 0.01 < admitted[11], "5 % are allowed for each"
    assert admitted[11] < admitted[-1] < 3


def test_new_sessions_are_expected_to_need_as_much_as_the_others() -> None:
    loop = Loop()
    load = gauge(loop)
    loop.run(5, busy=0.6)
    assert is_admitted(load, active=6)  # 10 % each
    load.note_session()
    assert is_admitted(load, active=7)
    load.note_session()
    assert not is_admitted(load, active=8)


def test_further_session_is_refused_if_its_load_exceeds_the_limit() -> None:
    loop = Loop()
    load = gauge(loop)
    loop.run(5, busy=0.75)
    assert not is_admitted(load, active=3)
    loop.run(5, busy=0.5)
    assert not is_admitted(load, active=2), "not yet eased"
    assert is_admitted(load, active=10)


def test_one_session_at_work_leaves_room_for_another() -> None:
    loop = Loop()
    load = gauge(loop)
    loop.run(5, busy=0.5)
    assert is_admitted(load, active=1)


async def test_session_waits_while_a_burst_keeps_the_loops_busy() -> None:
    loop = Loop()
    load = LoadGauge(0.1, anyio.current_time)
    loop.pace._due += anyio.current_time() + 100  # this loop is not late
    load.compare(loop.pace)
    loop.pace._busy = 0.9
    began = anyio.current_time()

    async def ease() -> None:
        await anyio.sleep(1)
        loop.pace._busy = 0.2

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ease)
        await load.wait(lambda: 10, in_steps=False)
    assert 1 <= anyio.current_time() - began < 1.2
    loop.pace._busy = 0.9
    began = anyio.current_time()
    with pytest.raises(Overloaded):
        await load.wait(lambda: 10, in_steps=False)
    assert 3 <= anyio.current_time() - began < 3.2


@given(st.lists(st.tuples(st.floats(0.001, 5), st.floats(0, 2)), max_size=50))
def test_averages_stay_within_what_was_measured(steps: list[tuple[float, float]]) -> None:
    pace, now, cpu = LoopPace(), 0.0, 0.0
    due, worst = pace.tick(now, cpu), 0.0
    for wait, busy in steps:
        now += wait
        cpu += busy * wait
        worst = max(worst, now - due)
        assert 0 <= pace.lag(now) <= 4 * worst + 1e-9
        due = pace.tick(now, cpu)
        assert due > now
        assert 0 <= pace.busy <= 2 + 1e-9


def test_clock_that_stands_still_changes_nothing() -> None:
    pace = LoopPace()
    due: Any = pace.tick(1, 0)
    assert pace.tick(1, 5) == due
    assert pace.busy == 0
