"""Frames: conversions are exact and never wrap."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastrtc_anyio._media.frames import (
    Int16Array,
    as_int16,
    float32_to_int16,
    int16_to_float32,
    mix_channels,
)

pcm = hnp.arrays(
    np.int16,
    st.tuples(st.sampled_from([1, 2]), st.integers(0, 50)),
    elements=st.integers(-32768, 32767),
)
floats = hnp.arrays(
    np.float32,
    st.tuples(st.sampled_from([1, 2]), st.integers(0, 50)),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def test_int16_to_float32_and_back_is_exact_for_every_value() -> None:
    every = np.arange(-32768, 32768).astype(np.int16).reshape(2, -1)
    assert np.array_equal(float32_to_int16(int16_to_float32(every)), every)


@given(floats)
def test_float32_becomes_the_nearest_int16_and_saturates(samples: np.ndarray) -> None:
    got = float32_to_int16(samples)
    wanted = np.clip(np.rint(samples.astype(np.float64) * 2**15), -(2**15), 2**15 - 1)
    assert got.flags.c_contiguous
    assert got.shape == samples.shape
    assert np.array_equal(got, wanted)
    assert np.array_equal(as_int16(samples), got)


@given(pcm)
def test_as_int16_keeps_values(samples: Int16Array) -> None:
    assert as_int16(samples) is samples
    assert np.array_equal(as_int16(samples[0]), samples[:1])
    assert np.array_equal(as_int16(int16_to_float32(samples)), samples)


@given(pcm)
def test_mixing_mono_to_stereo_and_back_is_exact(samples: Int16Array) -> None:
    channels = samples.shape[0]
    assert mix_channels(samples, channels) is samples
    mono = mix_channels(samples, 1)
    stereo = mix_channels(mono, 2)
    assert mono.dtype == stereo.dtype == np.int16
    assert np.array_equal(mono[0], np.floor(samples.astype(float).mean(axis=0)))
    assert np.array_equal(stereo, np.concatenate([mono, mono]))
    assert np.array_equal(mix_channels(stereo, 1), mono)
