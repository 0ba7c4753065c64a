"""Conversion of a stream to one format: nothing to convert, and a frame for every frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._media.convert import AudioConverter
from fastrtc_anyio._media.frames import AudioFrame, Int16Array
from fastrtc_anyio.testing import tone, tone_snr
from fastrtc_anyio.testing.strategies import sample_rates

CODEC_RATES = (8_000, 16_000, 24_000, 48_000)


@pytest.mark.parametrize("primed", [False, True])
def test_frame_in_the_wanted_format_is_returned_as_it_is(primed: bool) -> None:
    convert = AudioConverter(24_000, 2, primed=primed)
    samples = np.zeros((2, 480), np.int16)
    assert convert(AudioFrame(24_000, samples)) is samples


@given(st.sampled_from(CODEC_RATES), sample_rates(), st.sampled_from([1, 2]), st.integers(1, 5))
def test_primed_converter_returns_a_frame_for_every_frame(
    from_rate: int, to_rate: int, channels: int, count: int
) -> None:
    convert = AudioConverter(to_rate, channels, primed=True)
    for _ in range(count):
        frame = AudioFrame(from_rate, np.zeros((1, from_rate // 50), np.int16))
        assert convert(frame).shape == (channels, to_rate // 50)


@pytest.mark.parametrize("from_rate", CODEC_RATES)
@pytest.mark.parametrize("to_rate", [8_000, 22_050, 44_100, 48_000])
def test_priming_delays_the_sound_by_the_look_ahead_alone(from_rate: int, to_rate: int) -> None:
    sound = tone(440, from_rate, 0.4)
    converters = AudioConverter(to_rate, 1), AudioConverter(to_rate, 1, primed=True)
    parts: list[list[Int16Array]] = [[], []]
    size = from_rate // 50
    for begin in range(0, sound.shape[1], size):
        for part, convert in zip(parts, converters, strict=True):
            part.append(convert(AudioFrame(from_rate, sound[:, begin : begin + size])))
    plain, primed = (np.concatenate(part, axis=1)[0] for part in parts)
    missing = primed.size - plain.size
    assert (missing > 0) == (from_rate != to_rate)
    assert missing <= 0.0032 * to_rate
    assert tone_snr(primed[to_rate // 50 :], 440, to_rate) > 60
    if to_rate % from_rate == 0 or from_rate % to_rate == 0:
        assert np.array_equal(primed[missing:], plain)


def test_change_of_the_rate_loses_and_adds_nothing() -> None:
    """Also if a converter was primed for the first rate."""
    convert = AudioConverter(24_000, 1, primed=True)
    rates = [48_000] * 5 + [8_000] * 5 + [48_000] * 5
    counts = [
        convert(AudioFrame(rate, np.ones((1, rate // 50), np.int16))).shape[1] for rate in rates
    ]
    assert counts[:5] == [480] * 5
    assert sum(counts) + convert.flush().shape[1] == pytest.approx(15 * 480, abs=75)
