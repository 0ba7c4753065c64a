"""Concealment by repetition: levels, seams, and the way back to real audio."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastrtc_anyio._media.conceal import CONCEALED_SECONDS, FADE_IN_SECONDS, Concealer
from fastrtc_anyio._media.frames import INT16_MAX, INT16_MIN, Int16Array
from fastrtc_anyio.testing import tone
from fastrtc_anyio.testing.strategies import pcm
from tests.kit.loss import read_speech

RATE = 8_000
FRAME = RATE // 50
LIMIT = round(CONCEALED_SECONDS * RATE)


def steps(samples: Int16Array) -> NDArray[np.int32]:
    """Return the size of each step from a sample to the next."""
    return np.abs(np.diff(samples.astype(np.int32), axis=1))


def play(concealer: Concealer, sound: Int16Array, lost: set[int], size: int = FRAME) -> Int16Array:
    """Return the audio that is played for a sound if some of its frames are lost."""
    pieces = [
        concealer.conceal(size)
        if i in lost
        else concealer.receive(sound[:, i * size : (i + 1) * size])
        for i in range(sound.shape[1] // size)
    ]
    return np.concatenate(pieces, axis=1)


@given(st.lists(pcm(2), max_size=6), st.lists(st.integers(1, 900), min_size=1, max_size=6))
def test_any_audio_is_concealed_by_audio_of_the_length_asked_for(
    heard: list[Int16Array], counts: list[int]
) -> None:
    concealer = Concealer(RATE, 2)
    for samples in heard:
        assert concealer.receive(samples).shape == samples.shape
    for count in counts:
        concealed = concealer.conceal(count)
        assert concealed.shape == (2, count)
        assert concealed.dtype == np.int16


@given(pcm(1), st.integers(1, 200))
def test_audio_without_losses_is_unchanged(samples: Int16Array, size: int) -> None:
    concealer = Concealer(RATE, 1)
    for start in range(0, samples.shape[1], size):
        piece = samples[:, start : start + size]
        assert concealer.receive(piece) is piece


@pytest.mark.parametrize("frequency", [80, 110, 200, 440, 1000, 3000])
@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_lost_part_of_a_tone_is_not_heard(frequency: int, rate: int) -> None:
    """A period is continued to within a twentieth of the amplitude for 10 ms, with no click."""
    sound = tone(frequency, rate, 0.4)
    heard = play(Concealer(rate, 1), sound, {10}, rate // 50)
    begin = 10 * rate // 50
    error = np.abs(heard.astype(int) - sound)[0]
    assert error[begin : begin + rate // 100].max() < 8191 * (0.05 + frequency / rate)
    assert steps(heard).max() < steps(sound).max() * 1.2 + 100


@given(st.integers(2, 180), st.integers(1, 12))
def test_speech_has_no_click_where_frames_were_lost(first: int, count: int) -> None:
    """No step at a seam is larger than the largest in the speech around it."""
    sound = read_speech()
    size = 320
    lost = set(range(first, first + count))
    heard = play(Concealer(16_000, 1), sound, lost, size)
    begin, end = first * size, (first + count) * size
    around = sound[:, max(0, begin - 1600) : end + 1600]
    for seam in (begin, end):
        jump = steps(heard[:, seam - 1 : seam + 2]).max()
        assert jump <= steps(around).max() * 1.2 + 50


@given(st.integers(1, 200))
def test_concealed_audio_fades_to_exact_silence(size: int) -> None:
    concealer = Concealer(RATE, 1)
    concealer.receive(tone(200, RATE, 0.1, amplitude=1.0))
    pieces = [concealer.conceal(size) for _ in range(LIMIT // size + 3)]
    sound = np.concatenate(pieces, axis=1)[0]
    assert not sound[LIMIT:].any()
    levels = [np.abs(sound[i : i + RATE // 100]).max() for i in range(0, LIMIT, RATE // 100)]
    assert levels[0] > 30_000
    assert levels == sorted(levels, reverse=True)


@given(st.data())
def test_pieces_of_any_size_are_the_same_audio(data: st.DataObject) -> None:
    sound = tone(150, RATE, 0.1)
    whole, parts = Concealer(RATE, 1), Concealer(RATE, 1)
    whole.receive(sound)
    parts.receive(sound)
    expected = whole.conceal(600)
    sizes = data.draw(st.lists(st.integers(1, 300), min_size=1))
    heard = np.concatenate([parts.conceal(size) for size in sizes], axis=1)[:, :600]
    np.testing.assert_array_equal(heard, expected[:, : heard.shape[1]])


def test_channels_stay_apart_and_in_phase() -> None:
    left = tone(200, RATE, 0.2)
    sound = np.concatenate([left, -left // 2])
    concealer = Concealer(RATE, 2)
    heard = play(concealer, sound, {4, 5})
    assert np.abs(heard[1] + heard[0] // 2).max() <= 3


def test_extreme_samples_do_not_wrap() -> None:
    square = np.where(np.arange(800) % 80 < 40, INT16_MAX, INT16_MIN).astype(np.int16)[np.newaxis]
    heard = play(Concealer(RATE, 1), square, {2, 3})
    assert (np.sign(heard) == np.sign(square)).all()


def test_real_audio_fades_in_after_silence() -> None:
    concealer = Concealer(RATE, 1)
    loud = np.full((1, FRAME), 20_000, np.int16)
    concealer.receive(loud)
    concealer.skip()
    heard = concealer.receive(loud)
    count = round(FADE_IN_SECONDS * RATE)
    assert steps(heard).max() <= 20_000 / count
    assert (heard[:, count:] == loud[:, count:]).all()
    assert (concealer.receive(loud) == loud).all()


def test_nothing_heard_is_concealed_by_silence() -> None:
    assert not Concealer(RATE, 1).conceal(100).any()
