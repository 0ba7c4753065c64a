"""Settings of outgoing video."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from av import CodecContext, Packet
from av import VideoFrame as AvVideoFrame

from fastrtc_anyio import VideoOptions
from fastrtc_anyio._media.video_encode import create_video_encoder


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"codec": "VP9"}, ValueError, "codec must be one of None, 'VP8', 'H264'; got 'VP9'"),
        ({"bitrate": 1000}, ValueError, "bitrate must be an int at least 50000"),
        ({"bitrate": 1e6}, TypeError, "bitrate must be an int"),
        (
            {"keyframe_interval": 0},
            ValueError,
            "keyframe_interval must be a number at least 0.1 and at most 3600",
        ),
        ({"keyframe_interval": "2"}, TypeError, "keyframe_interval must be a number"),
        ({"speed": 5}, ValueError, "speed must be an int at least 0 and at most 4; got 5"),
        ({"speed": None}, TypeError, "speed must be an int"),
        ({"threads": 0}, ValueError, "threads must be an int at least 1 and at most 16; got 0"),
        ({"threads": 1.5}, TypeError, "threads must be an int"),
    ],
)
def test_invalid_settings_are_refused(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        VideoOptions(**options)


def moving_picture(number: int) -> AvVideoFrame:
    y, x = np.mgrid[0:240, 0:320]
    luma = 128 + 60 * np.sin((x + 3 * number) / 20) + 50 * np.cos(y / 15)
    picture = np.stack([luma, luma * 0.8, 250 - luma], axis=2).clip(0, 255).astype(np.uint8)
    return AvVideoFrame.from_ndarray(picture, "bgr24").reformat(format="yuv420p")


@pytest.mark.parametrize("codec", ["VP8", "H264"])
@pytest.mark.parametrize("speed", range(5))
def test_each_speed_encodes_at_once_and_within_the_bitrate(codec: str, speed: int) -> None:
    encoder = create_video_encoder(codec, 320, 240, 500_000, speed, threads=1)
    decoder: Any = CodecContext.create("libvpx" if codec == "VP8" else "h264", "r")
    size, errors = 0, []
    for number in range(60):
        frame = moving_picture(number)
        frame.pts, frame.time_base = number * 3000, Fraction(1, 90_000)
        data = b"".join(bytes(packet) for packet in encoder.encode(frame))
        assert data
        size += len(data)
        for decoded in decoder.decode(Packet(data)):
            difference = decoded.to_ndarray().astype(float) - frame.to_ndarray()
            errors.append(np.sqrt((difference**2).mean()))
    assert len(errors) >= 59
    assert 8 * size / 2 < 700_000
    assert np.mean(errors[10:]) < 4
