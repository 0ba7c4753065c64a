"""Does a budget allow its burst and its rate, and no more?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._core.budget import Budget


@given(st.lists(st.floats(0, 2), max_size=200), st.integers(1, 20), st.integers(1, 20))
def test_no_more_than_the_burst_and_the_rate_is_spent(
    waits: list[float], rate: int, burst: int
) -> None:
    budget, now, taken = Budget(rate, burst), 0.0, 0
    for wait in waits:
        now += wait
        left = budget.refill(now)
        assert 0 <= left <= burst
        took = budget.take(now)
        assert took == (left >= 1)
        taken += took
        assert taken <= burst + rate * now + 1e-6


def test_reserve_is_kept_for_other_uses() -> None:
    budget = Budget(10)
    assert [budget.take(0.0, reserve=8) for _ in range(3)] == [True, True, False]
    assert budget.take(0.0)


def test_overdraft_is_paid_back_first() -> None:
    budget = Budget(10)
    budget.spend(25, 0.0)
    assert not budget.take(1.0)
    assert budget.refill(2.0) == pytest.approx(5)


def test_clock_that_goes_back_changes_nothing() -> None:
    budget = Budget(10)
    budget.spend(4, 5.0)
    assert budget.refill(3.0) == 6
