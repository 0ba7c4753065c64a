"""Choice of the phase at which audio is sent, for sources with different pace and jitter."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._peers.webrtc.phase import PhaseChoice
from fastrtc_anyio._peers.webrtc.ticks import PERIOD

FRAME = 2 * PERIOD


def simulate(pushes: Callable[[int], float], seconds: float) -> tuple[list[float], int]:
    """Return the seconds from pushes to the next pull in the last second, and the moves."""
    choice = PhaseChoice()
    times = sorted(FRAME * n + pushes(n) for n in range(int(seconds / FRAME)))
    ages: list[tuple[float, float]] = []
    last = 0.0
    for number in range(1, int(seconds / FRAME)):
        pull = FRAME * number - PERIOD * choice.moves
        while times and times[0] <= pull:
            last = times.pop(0)
            ages.append((pull, pull - last))
        choice.changes(pull, last)
    return [age for when, age in ages if when > seconds - 1], choice.moves


@given(st.floats(0, FRAME, exclude_max=True))
def test_steady_source_is_pulled_within_half_a_frame(offset: float) -> None:
    ages, moves = simulate(lambda n: offset, 10)
    assert max(ages) <= PERIOD + 0.001
    assert moves <= 1


@given(st.floats(-0.001, 0.001), st.integers(0, 1000))
def test_source_around_the_pull_moves_once(offset: float, seed: int) -> None:
    """Pushes that come sometimes before and sometimes after a pull would cause gaps."""
    chance = random.Random(seed)
    ages, moves = simulate(lambda n: offset + chance.uniform(-0.0015, 0.0015), 20)
    assert moves == 1
    assert max(ages) < 0.013


def test_source_with_much_jitter_does_not_move() -> None:
    chance = random.Random(1)
    _, moves = simulate(lambda n: chance.uniform(0, 0.06), 60)
    assert moves == 0


def test_source_of_another_pace_moves_four_times() -> None:
    _, moves = simulate(lambda n: -n * FRAME * 0.002, 600)  # 10 ms in 5 s
    assert moves == 4


def test_source_without_new_pushes_does_not_move() -> None:
    choice = PhaseChoice()
    assert not any(choice.changes(n * FRAME + 0.015, 1.0) for n in range(1000))
