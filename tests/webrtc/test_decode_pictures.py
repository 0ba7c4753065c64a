"""Checks of encoded pictures before they are decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from av import VideoFrame as AvVideoFrame

from fastrtc_anyio._peers.discards import Discards
from fastrtc_anyio._peers.webrtc.decode_pictures import PictureTap, as_picture
from fastrtc_anyio._peers.webrtc.picture_encoder import PictureConverter
from fastrtc_anyio.limits import RequestLimits


def vp8_key_frame(width: int, height: int) -> bytes:
    sides = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return b"\x10\0\0\x9d\x01\x2a" + sides + bytes(50)


@pytest.mark.parametrize(
    ("width", "height", "admitted"),
    [
        (4096, 2304, True),
        (2304, 4096, True),
        (4097, 2304, False),
        (16_383, 16_383, False),
        (8192, 16, True),
        (16, 8194, False),
        (0, 480, False),
        (0x4000 | 640, 0x8000 | 480, True),  # with bits for scaling
    ],
)
def test_picture_above_the_limit_is_not_decoded(width: int, height: int, admitted: bool) -> None:
    discards = Discards()
    tap = PictureTap(RequestLimits(), discards)
    assert tap.admit("VP8", vp8_key_frame(width, height), 0) is admitted
    assert discards.statistics().video == (not admitted)


def test_many_references_of_large_pictures_are_not_decoded() -> None:
    # Baseline, level 5.1, 4096 x 2304, with 5 and with 6 references: codes 00110 and 00111.
    for references, admitted in ((5, True), (6, False)):
        bits = f"{66:08b}{0:08b}{51:08b}" + "1" + "1" + "1" + "1" + f"{references + 1:05b}" + "0"
        bits += f"{256:017b}" + f"{144:015b}" + "1" + "1"
        bits += "0" * (-len(bits) % 8)
        data = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
        tap = PictureTap(RequestLimits(), Discards())
        assert tap.admit("H264", b"\0\0\0\1\x67" + data, 0) is admitted


def test_pictures_beyond_30_waiting_ones_are_discarded() -> None:
    discards = Discards()
    tap = PictureTap(RequestLimits(), discards)
    assert tap.admit("VP8", b"\x11", 29)
    assert not tap.admit("VP8", b"\x11", 30)
    assert discards.statistics().video == 1


def test_malformed_header_is_discarded() -> None:
    discards = Discards()
    tap = PictureTap(RequestLimits(), discards)
    assert not tap.admit("VP8", b"\x10" + bytes(20), 0)
    assert discards.statistics().video == 1


FORMATS: list[Any] = ["bgr24", "rgb24", "gray", "float32"]


@pytest.mark.parametrize("layout", ["yuv420p", "yuvj420p", "yuv444p", "gray", "yuv420p10le"])
@pytest.mark.parametrize("color_space", range(18))
def test_picture_with_any_color_space_is_converted(layout: str, color_space: int) -> None:
    """A client's H.264 stream states it (H.264 E.2.1)."""
    red = np.full((48, 64, 3), (0, 0, 255), np.uint8)
    frame = AvVideoFrame.from_ndarray(red, "bgr24").reformat(format=layout)
    frame.colorspace = color_space
    picture = as_picture(frame)
    for wanted in FORMATS:
        assert picture.to_ndarray(wanted).shape[:2] == (48, 64)
    assert PictureConverter().convert(picture).format.name == "yuv420p"
