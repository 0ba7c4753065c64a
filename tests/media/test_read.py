"""Audio values of the handler API: accepted forms, and a single check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrtc_anyio._media import read
from fastrtc_anyio._media.frames import AudioFrame
from fastrtc_anyio._media.read import CheckedAudio, read_audio
from fastrtc_anyio._media.video import VideoFrame, as_video_frame
from fastrtc_anyio.errors import UnsupportedFormat

SAMPLES = np.full((1, 480), 1000, np.int16)
STEREO = np.zeros((2, 480), np.int16)


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        ((24_000, SAMPLES), (1, 480)),
        ([24_000, SAMPLES[0]], (1, 480)),
        ((np.int64(24_000), SAMPLES, "mono"), (1, 480)),
        ((24_000.0, SAMPLES), (1, 480)),
        ((np.float32(24_000), SAMPLES), (1, 480)),
        ((24_000, STEREO.astype(np.float32), "stereo"), (2, 480)),
        (AudioFrame(24_000, STEREO), (2, 480)),
    ],
)
def test_audio_is_read(value: Any, shape: tuple[int, int]) -> None:
    rate, samples = read_audio(value)
    assert (rate, type(rate)) == (24_000, int)
    assert samples.shape == shape
    assert samples.dtype == np.int16


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (SAMPLES, r"audio must be \(rate, samples\) .*; got int16 array of shape \(1, 480\)"),
        ((24_000, SAMPLES, "quad"), "layout being .*'quad'"),
        ((24_000, SAMPLES, "stereo"), r'"stereo" must have shape \(2, n\); got \(1, 480\)'),
        ((24_000, STEREO, "mono"), r'"mono" must have shape \(n,\) or \(1, n\); got \(2, 480\)'),
        ((24_000.5, SAMPLES), "rate must be an int from 1000 to 384000 Hz; got 24000.5"),
        ((999, SAMPLES), "got 999"),
    ],
)
def test_other_values_are_rejected(value: Any, message: str) -> None:
    with pytest.raises(UnsupportedFormat, match=message):
        read_audio(value)


def test_audio_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = read_audio((24_000, SAMPLES.astype(np.float32)))
    monkeypatch.setattr(read, "as_int16", None)
    assert isinstance(frame, CheckedAudio)
    assert read_audio(frame) is frame


def test_picture_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = as_video_frame(VideoFrame(np.zeros((2, 2, 3), np.uint8)))
    monkeypatch.setattr("fastrtc_anyio._media.video._check_held", None)
    assert as_video_frame(frame) is frame
