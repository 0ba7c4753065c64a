"""Frames: formats accepted, and error messages for the others."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fastrtc_anyio._media.frames import (
    FRAME_MS,
    FRAMES_PER_SECOND,
    AudioFrame,
    as_int16,
    check_sample_rate,
    float32_to_int16,
    int16_to_float32,
    mix_channels,
    split_frame,
)
from fastrtc_anyio.errors import UnsupportedFormat


def test_audio_frame_is_a_rate_and_array_tuple() -> None:
    frame = AudioFrame(24000, np.zeros((2, 480), np.int16))
    rate, samples = frame
    assert isinstance(frame, tuple)
    assert (rate, samples.shape) == (24000, (2, 480))
    assert frame.channels == 2
    assert frame.duration == 0.02
    assert FRAME_MS * FRAMES_PER_SECOND == 1000


def test_importing_media_does_not_load_pyav() -> None:
    code = (
        "import sys, numpy as np;"
        "from fastrtc_anyio._media import convert, encode, playout, read, reorder;"
        "frame = read.read_audio((16000, np.zeros((1, 320), np.int16)));"
        "convert.AudioConverter(8000, 1)(frame);"
        "encode.create_encoder('pcmu', 8000, 1).encode(np.zeros((1, 160), np.int16));"
        "print('av' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000, 44100, 48000, 48000.0, np.int64(8000)])
def test_sample_rates_accepted(rate: object) -> None:
    checked = check_sample_rate(rate)
    assert checked == rate
    assert type(checked) is int


@pytest.mark.parametrize("rate", [11025, 0, -48000, 7950, 48050, 96000, 16001])
def test_sample_rates_rejected(rate: int) -> None:
    with pytest.raises(ValueError, match=rf"output_sample_rate.*multiple of 50.*got {rate}$"):
        check_sample_rate(rate, "output_sample_rate")


@pytest.mark.parametrize(
    "rate", [True, np.True_, 44100.5, float("nan"), float("inf"), "48000", None]
)
def test_sample_rates_of_the_wrong_type(rate: object) -> None:
    with pytest.raises(TypeError, match="sample_rate must be an int"):
        check_sample_rate(rate)


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((7,), (1, 7)), ((0,), (1, 0)), ((1, 7), (1, 7)), ((2, 7), (2, 7)), ((2, 2), (2, 2))],
)
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_shapes_accepted(shape: tuple[int, ...], wanted: tuple[int, int], dtype: Any) -> None:
    samples = as_int16(np.zeros(shape, dtype))
    assert samples.shape == wanted
    assert samples.dtype == np.int16
    assert samples.flags.c_contiguous


@pytest.mark.parametrize(
    ("samples", "got"),
    [
        (np.zeros((3, 4), np.int16), r"int16 array of shape \(3, 4\)"),
        (np.zeros((0, 4), np.int16), r"int16 array of shape \(0, 4\)"),
        (np.zeros((960, 1), np.int16), r"int16 array of shape \(960, 1\)"),
        (np.zeros((1, 1, 4), np.int16), r"int16 array of shape \(1, 1, 4\)"),
        (np.zeros((), np.float32), r"float32 array of shape \(\)"),
        (np.zeros((1, 4), np.float64), "float64"),
        (np.zeros((1, 4), np.int32), "int32"),
        (np.zeros((1, 4), np.uint16), "uint16"),
        (np.zeros((1, 4), ">i2"), ">i2"),
        (np.zeros(4, object), "object"),
        ([0, 1], r"\[0, 1\]"),
        (None, "None"),
    ],
)
def test_unsupported_samples_are_rejected_and_shown(samples: Any, got: str) -> None:
    with pytest.raises(UnsupportedFormat, match=f"samples must be an int16 or float.*; got {got}"):
        as_int16(samples)


def test_column_view_becomes_contiguous() -> None:
    interleaved = np.arange(8, dtype=np.int16).reshape(4, 2)
    planar = as_int16(interleaved.T)
    assert planar.flags.c_contiguous
    assert planar.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_float_conversion_rejects_other_types_and_what_is_not_finite() -> None:
    wrong: Any = np.zeros((1, 2), np.float64)
    with pytest.raises(UnsupportedFormat, match="samples must be float32; got float64"):
        float32_to_int16(wrong)
    for value, got in [(np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "-inf")]:
        samples = np.zeros((2, 70_000), np.float32)
        samples[1, -1] = value
        with pytest.raises(UnsupportedFormat, match=f"finite numbers; got {got}$"):
            float32_to_int16(samples)
    with pytest.raises(UnsupportedFormat, match="samples must be int16; got float64"):
        int16_to_float32(wrong)


def test_float_conversion_saturates() -> None:
    largest = np.finfo(np.float32).max
    samples = np.array([1, -1, 1.5, -1.5, largest, -largest, -0.0], np.float32)
    assert float32_to_int16(samples).tolist() == [32767, -32768] * 3 + [0]


def test_mixing_rejects_other_channel_counts() -> None:
    with pytest.raises(UnsupportedFormat, match="got 3"):
        mix_channels(np.zeros((1, 4), np.int16), 3)
    with pytest.raises(UnsupportedFormat, match=r"got int16 array of shape \(4,\)"):
        mix_channels(np.zeros(4, np.int16), 1)


@pytest.mark.parametrize("size", [0, 1, 799, 800, 801, 190_000])
def test_long_frame_is_split_into_pieces_of_100_ms(size: int) -> None:
    samples = np.arange(size, dtype=np.int16).reshape(1, -1)
    pieces = list(split_frame(AudioFrame(8000, samples)))
    assert all(piece.duration <= 0.1 for piece in pieces)
    assert np.array_equal(np.concatenate([piece.samples for piece in pieces], axis=1), samples)
