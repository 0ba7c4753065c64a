"""Properties of the level filter: background voices do not count, the speaker's does."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.conversation.foreground import Foreground
from fastrtc_anyio.conversation.pause_rules import AlgoOptions, SlidingWindow, Verdict

RATE = 16_000
HOP = 512


def hop(level_db: float) -> Int16Array:
    """Make a square wave with this power in dB relative to full scale."""
    amplitude = round(32768 * 10 ** (level_db / 20))
    return np.where(np.arange(HOP) % 2, amplitude, -amplitude).astype(np.int16)[np.newaxis]


def verdicts(rule: SlidingWindow, level_db: float, seconds: float) -> list[Verdict]:
    return [rule.push(hop(level_db), 1.0) for _ in range(round(seconds * RATE / HOP))]


def window(background_db: float = 12) -> SlidingWindow:
    return SlidingWindow(RATE, AlgoOptions(), background_db=background_db)


@settings(max_examples=30)
@given(st.floats(-40, -6), st.floats(13, 25))
def test_background_voices_do_not_prolong_a_turn(speaker: float, below: float) -> None:
    rule = window()
    assert verdicts(rule, speaker, 2)[-1] is Verdict.SPEECH
    found = verdicts(rule, speaker - below, 1)
    # 0.5 s of the window, and 0.2 s of hold for a soft syllable.
    assert found.index(Verdict.PAUSE) * HOP / RATE <= 0.7 + 2 * HOP / RATE
    rule.reset()
    # Background voices do not begin a turn either, until the memory has faded.
    assert set(verdicts(rule, speaker - below, 3)) == {Verdict.SILENCE}
    assert Verdict.SPEECH in verdicts(rule, speaker - below, 20)


@given(st.floats(-40, -6), st.floats(0, 7.5))
def test_softer_speaker_is_not_background(speaker: float, below: float) -> None:
    rule = window()
    verdicts(rule, speaker, 2)
    assert set(verdicts(rule, speaker - below, 2)) == {Verdict.SPEECH}
    rule.reset()
    assert verdicts(rule, speaker - below, 1)[-1] is Verdict.SPEECH


@given(st.floats(-40, -6), st.floats(0, 50))
def test_infinite_background_db_accepts_all_voices(speaker: float, below: float) -> None:
    rule = window(math.inf)
    verdicts(rule, speaker, 2)
    assert set(verdicts(rule, speaker - below, 2)) == {Verdict.SPEECH}


@given(st.lists(st.integers(-8, 0), min_size=4, max_size=40), st.integers(13, 30))
def test_soft_syllables_cause_no_pause(syllables: list[int], soft: int) -> None:
    """One hop in four may have any lower level."""
    rule = window()
    verdicts(rule, -20, 1)
    for level in syllables:
        assert {rule.push(hop(-20 + level), 1.0) for _ in range(3)} == {Verdict.SPEECH}
        assert rule.push(hop(-20 - soft), 1.0) is Verdict.SPEECH


def test_digital_silence_counts_as_speech_if_the_model_says_so() -> None:
    foreground = Foreground(RATE, 12, HOP * 10)
    foreground.push(np.zeros((1, HOP), np.int16), True)
    assert foreground.may_begin
    assert foreground.continues
    foreground.push(hop(-20), True)
    foreground.push(np.zeros((1, HOP), np.int16), True)
    assert foreground.continues
