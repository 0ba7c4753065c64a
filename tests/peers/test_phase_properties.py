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
        choice.changes(pull, last, last)
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
    assert not any(choice.changes(n * FRAME + 0.015, 1.0, 1.0) for n in range(1000))


def pull_with_margin(choice: PhaseChoice, number: int, age: float) -> bool:
    """Pull a frame that came ``age`` seconds before, and return whether the phase moves.

    Later pushes, which no pull has needed so far, hide what an empty queue would show.
    """
    pull = FRAME * number
    return choice.changes(pull, pull - (0.001 if number % 2 else 0.012), pull - age)


@given(st.lists(st.floats(0, 0.02), min_size=1, max_size=20), st.integers(0, 4))
def test_margin_that_one_frame_needs_is_kept(ages: list[float], moves: int) -> None:
    """One of each 100 frames comes less than 10 ms before its pull: it would be late."""
    choice = PhaseChoice()
    choice.moves = moves
    for number in range(2000):
        age = 0.009 if number % 100 == 0 else ages[number % len(ages)] + 0.0108
        assert not pull_with_margin(choice, number, age)


@given(st.lists(st.floats(0.0108, 0.03), min_size=20, max_size=40), st.integers(0, 3))
def test_margin_that_no_frame_needs_is_removed(ages: list[float], moves: int) -> None:
    choice = PhaseChoice()
    choice.moves = moves
    for number in range(3000):
        if pull_with_margin(
            choice, number, 0.019 if number % 10 == 0 else ages[number % len(ages)]
        ):
            assert number >= (100 << moves) - 1
            return
    raise AssertionError


def test_few_late_frames_prove_nothing() -> None:
    """Losses delay frames by 20 ms, and seldom: the next one may come later."""
    choice = PhaseChoice()
    for number in range(10_000):
        pull = FRAME * number
        age = 0.012 if number % 2500 == 0 else 0.025
        assert not choice.changes(pull, pull - (0.001 if number % 2 else 0.012), pull - age)
