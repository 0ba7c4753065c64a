"""Pictures: each format, pictures that are rejected, and the round trip through a codec."""

from __future__ import annotations

import subprocess
import sys
import threading
from fractions import Fraction
from typing import Any

import av
import av.video.format
import numpy as np
import pytest
from aiortc.codecs.h264 import H264Decoder, H264Encoder, h264_depayload
from aiortc.codecs.vpx import Vp8Decoder, Vp8Encoder, vp8_depayload
from aiortc.jitterbuffer import JitterFrame
from numpy.typing import NDArray

from fastrtc_anyio._media.video import MAX_SIDE, ArrayFormat, VideoFrame, as_video_frame
from fastrtc_anyio.errors import UnsupportedFormat

ARRAY_FORMATS: tuple[ArrayFormat, ...] = ("bgr24", "rgb24", "gray", "float32")

# Blue, green and red of bgr24.
BLUE, GREEN, RED = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def flat(color: tuple[int, int, int], width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    return np.full((height, width, 3), color, np.uint8)


def slopes(width: int, height: int) -> NDArray[np.uint8]:
    """Return a smooth picture without repeated parts."""
    y, x = np.mgrid[0:height, 0:width]
    blue, green = x * 255 // width, y * 255 // height
    return np.stack([blue, green, (blue + green) // 2], axis=2).astype(np.uint8)


def yuv(picture: NDArray[np.uint8]) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(picture, "bgr24").reformat(format="yuv420p")


def errors(got: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.int64]:
    off: NDArray[np.int64] = np.abs(got.astype(np.int64) - wanted)
    return off


# The formats, of both kinds of frame.


def test_bgr24_array() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(VideoFrame(picture).to_ndarray(), picture)
    assert errors(VideoFrame(yuv(flat(BLUE))).to_ndarray("bgr24"), np.array(BLUE)).max() <= 5


def test_rgb24_array() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(VideoFrame(picture).to_ndarray("rgb24"), picture[..., ::-1])
    assert errors(VideoFrame(yuv(flat(BLUE))).to_ndarray("rgb24"), np.array(RED)).max() <= 5


@pytest.mark.parametrize(("color", "luma"), [(BLUE, 29), (GREEN, 149), (RED, 77), ((9, 9, 9), 9)])
def test_gray_array(color: tuple[int, int, int], luma: int) -> None:
    for frame in (VideoFrame(flat(color)), VideoFrame(yuv(flat(color)))):
        gray = frame.to_ndarray("gray")
        assert gray.shape == (48, 64)
        assert gray.dtype == np.uint8
        assert errors(gray, np.array(luma)).max() <= 1


def test_float32_array() -> None:
    picture = np.array([[BLUE, (0, 51, 204)]], np.uint8)
    got = VideoFrame(picture).to_ndarray("float32")
    assert got.dtype == np.float32
    assert np.allclose(got, np.array([[[1, 0, 0], [0, 0.2, 0.8]]]))
    native = VideoFrame(yuv(flat(RED))).to_ndarray("float32")
    assert native.dtype == np.float32
    assert np.allclose(native[20, 20], [0, 0, 1], atol=5 / 255)


def test_native_frame() -> None:
    native = yuv(flat(RED))
    assert VideoFrame(native).to("frame") is native
    made = VideoFrame(flat(RED)).to("frame")
    assert isinstance(made, av.VideoFrame)
    assert (made.format.name, made.width, made.height) == ("bgr24", 64, 48)
    assert np.array_equal(made.to_ndarray(), flat(RED))


@pytest.mark.parametrize("format", ARRAY_FORMATS)
@pytest.mark.parametrize("native", ["", "yuv420p", "bgr24", "rgb24", "gray"])
def test_returned_arrays_are_copies(format: ArrayFormat, native: str) -> None:
    picture = slopes(64, 48)
    held = av.VideoFrame.from_ndarray(picture, "bgr24").reformat(format=native) if native else None
    frame = VideoFrame(held or picture.copy())
    first = frame.to(format)
    assert first.flags.c_contiguous
    assert first.flags.writeable
    kept = first.copy()
    first[:] = 0
    assert np.array_equal(frame.to_ndarray(format), kept)


def test_unknown_formats_are_rejected() -> None:
    wrong: Any = "yuv420p"
    with pytest.raises(ValueError, match=r"format must be one of 'bgr24'.*; got 'yuv420p'"):
        VideoFrame(flat(RED)).to(wrong)
    with pytest.raises(ValueError, match="order must be one of 'bgr24', 'rgb24'; got 'yuv420p'"):
        as_video_frame(flat(RED), wrong)


@pytest.mark.parametrize("native", [False, True])
def test_frame_attributes(native: bool) -> None:
    picture = slopes(64, 48)
    frame = VideoFrame(yuv(picture) if native else picture, timestamp=1.5)
    assert (frame.width, frame.height) == (64, 48)
    assert frame.timestamp == 1.5
    assert frame.is_native is native
    assert "64x48" in repr(frame)


# Native frames.


@pytest.mark.parametrize("size", [(322, 240), (318, 2), (641, 481), (1, 1), (3, 5), (2, 7)])
def test_padded_rows_and_odd_sides_do_not_shear(size: tuple[int, int]) -> None:
    picture = slopes(*size)
    native = yuv(picture)
    assert native.planes[0].line_size > size[0]
    got = VideoFrame(native).to_ndarray()
    assert got.shape == picture.shape
    assert got.flags.c_contiguous
    # A picture this small has steep slopes, which subsampled colours cannot follow.
    assert errors(got, picture).max() <= 6 or min(size) < 8
    assert (
        errors(VideoFrame(native).to_ndarray("gray"), VideoFrame(picture).to_ndarray("gray")).max()
        <= 3
    )


def test_flat_colors_survive_yuv420p() -> None:
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    tiles = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(72, 81, 3)
    picture = tiles.repeat(8, axis=0).repeat(8, axis=1)
    encoded = VideoFrame(picture).to_av().reformat(format="yuv420p")
    off = errors(VideoFrame(encoded).to_ndarray()[4::8, 4::8], tiles)
    assert off.max() <= 5
    assert (off <= 4).mean() > 0.999
    assert off.mean() < 2.5


def test_color_space_is_honoured() -> None:
    """H.264 of cameras and files is often BT.709, or of full range."""
    for space, full, wanted in (("bt601", 0, 76), ("bt709", 0, 90), ("bt601", 1, 81)):
        native = av.VideoFrame(64, 48, "yuv420p")
        native.colorspace = 1 if space == "bt709" else 5
        native.color_range = 2 if full else 1
        for plane, level in zip(native.planes, (81, 90, 240), strict=True):
            plane.update(bytes([level]) * plane.buffer_size)
        gray = VideoFrame(native).to_ndarray("gray")
        assert errors(gray, np.array(wanted)).max() <= 1


def test_frame_converts_on_several_threads_at_once() -> None:
    frame = VideoFrame(yuv(slopes(322, 240)))
    wanted = {format: frame.to_ndarray(format) for format in ARRAY_FORMATS}
    wrong = []

    def convert() -> None:
        for _ in range(30):
            for format in ARRAY_FORMATS:
                if not np.array_equal(frame.to_ndarray(format), wanted[format]):
                    wrong.append(format)

    threads = [threading.Thread(target=convert) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Odd sides, and the round trip through a codec.


@pytest.mark.parametrize("size", [(641, 480), (640, 481), (1, 1), (3, 5)])
@pytest.mark.parametrize("native", [False, True])
def test_odd_sides_become_even(size: tuple[int, int], native: bool) -> None:
    width, height = size
    picture = slopes(*size)
    frame = VideoFrame(yuv(picture) if native else picture)
    held = frame.to_ndarray()
    made = frame.to_av().to_ndarray(format="bgr24")
    assert made.shape == (height + height % 2, width + width % 2, 3)
    assert np.array_equal(made[:height, :width], held)
    assert np.array_equal(made[:height, -1], held[:, -1])
    assert np.array_equal(made[-1, :width], held[-1])


@pytest.mark.parametrize("size", [(320, 240), (321, 241), (2, 2), (1, 1)])
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_any_size_passes_a_codec(codec: str, native: bool, size: tuple[int, int]) -> None:
    coders: dict[str, Any] = {
        "vp8": (Vp8Encoder(), Vp8Decoder(), vp8_depayload),
        "h264": (H264Encoder(), H264Decoder(), h264_depayload),
    }
    encoder, decoder, depayload = coders[codec]
    encoder.target_bitrate = 2_000_000
    width, height = size
    picture = slopes(width, height)
    frame = VideoFrame(yuv(picture) if native else picture)
    came: list[Any] = []
    for number in range(4):
        sent = frame.to_av()
        sent.pts, sent.time_base = number * 3000, Fraction(1, 90000)
        payloads, timestamp = encoder.encode(sent, force_keyframe=number == 0)
        data = b"".join(depayload(payload) for payload in payloads)
        came += decoder.decode(JitterFrame(data=data, timestamp=timestamp))
    got = VideoFrame(came[-1]).to_ndarray()
    assert got.shape == (height + height % 2, width + width % 2, 3)
    if width > 2:
        off = errors(got[:height, :width], picture)
        assert off.mean() < 6
        assert off[:, -1].mean() < 10
        assert off[-1].mean() < 10


# as_video_frame.


def test_video_frame_is_returned_unchanged() -> None:
    frame = VideoFrame(flat(RED), timestamp=2.0)
    assert as_video_frame(frame) is frame
    native = yuv(flat(RED))
    assert as_video_frame(native).to_av() is native
    assert as_video_frame(VideoFrame(native)).is_native


def test_array_is_copied() -> None:
    for buffer in (flat(RED), flat(RED)[..., 0].copy(), np.ones((4, 6, 3), np.float32)):
        frame = as_video_frame(buffer)
        before = frame.to_ndarray()
        buffer[:] = 0
        buffer[0, 0] = 1
        assert np.array_equal(frame.to_ndarray(), before)


def test_channel_order_of_arrays() -> None:
    assert as_video_frame(flat(RED), "rgb24").to_ndarray()[0, 0].tolist() == [255, 0, 0]
    scaled = flat(RED).astype(np.float32) / 255
    assert as_video_frame(scaled, "rgb24").to_ndarray()[0, 0].tolist() == [255, 0, 0]


def test_floats_are_clipped_and_never_wrap() -> None:
    largest = np.finfo(np.float32).max
    values = np.array([[0, 1, -0.1, 1.1, 256 / 255, largest, -largest]], np.float32)
    got = as_video_frame(values).to_ndarray("gray")
    assert got.tolist() == [[0, 255, 0, 255, 255, 255, 0]]


def test_masked_arrays_are_read_as_plain_arrays() -> None:
    masked = np.ma.masked_array(flat(RED), mask=True)
    held = as_video_frame(masked).to_ndarray()
    assert type(held) is np.ndarray
    assert np.array_equal(held, flat(RED))


@pytest.mark.parametrize(
    ("picture", "got"),
    [
        (np.zeros((4, 6, 3), np.float64), r"float64 array of shape \(4, 6, 3\)"),
        (np.zeros((4, 6, 3), np.float16), "float16"),
        (np.zeros((4, 6, 3), np.int16), "int16"),
        (np.zeros((4, 6, 3), np.int8), "int8"),
        (np.zeros((4, 6), bool), "bool"),
        (np.zeros((4, 6, 3), ">f4"), ">f4"),
        (np.zeros((4, 6), object), "object"),
        (np.zeros((4, 6, 4), np.uint8), r"\(4, 6, 4\)"),
        (np.zeros((4, 6, 1), np.uint8), r"\(4, 6, 1\)"),
        (np.zeros((3, 4, 6), np.uint8), r"\(3, 4, 6\)"),
        (np.zeros((1, 4, 6, 3), np.uint8), r"\(1, 4, 6, 3\)"),
        (np.zeros(12, np.uint8), r"\(12,\)"),
        (np.zeros((), np.uint8), r"\(\)"),
        (np.zeros((0, 6, 3), np.uint8), "6 x 0"),
        (np.zeros((4, 0), np.float32), "0 x 4"),
        (np.zeros((1, MAX_SIDE + 1), np.uint8), "8193 x 1"),
        (np.full((4, 6), np.nan, np.float32), "NaN"),
        (np.full((4, 6), -np.inf, np.float32), "-inf"),
        ([[1, 2], [3, 4]], r"\[\[1, 2\], \[3, 4\]\]"),
        (None, "None"),
        (b"png", "b'png'"),
        (av.AudioFrame(), "AudioFrame"),
        (av.VideoFrame(), "0 x 0"),
        (av.VideoFrame(MAX_SIDE + 2, 2, "gray"), "8194 x 2"),
        (av.VideoFrame(4, 6, "rgb96le"), "rgb96le"),
        (VideoFrame(np.zeros((0, 6, 3), np.uint8)), "6 x 0"),
        (VideoFrame(av.VideoFrame()), "0 x 0"),
    ],
)
def test_unsupported_pictures_are_rejected_and_shown(picture: object, got: str) -> None:
    with pytest.raises(UnsupportedFormat, match=f"picture must .*; got .*{got}"):
        as_video_frame(picture)


def test_video_frame_with_unsupported_content_is_rejected() -> None:
    wrong: Any
    for wrong in (np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3), np.float32), [[1]], None):
        with pytest.raises(UnsupportedFormat):
            as_video_frame(VideoFrame(wrong))


def test_every_pixel_format_converts_or_is_rejected() -> None:
    """FFmpeg rejects some formats, and one aborts the process."""
    formats: Any = av.video.format  # the stubs lack the names
    taken = set()
    for name in sorted(formats.names):
        try:
            native = av.VideoFrame(16, 16, name)
        except ValueError:
            continue  # a hardware format
        try:
            frame = as_video_frame(native)
        except UnsupportedFormat:
            continue
        for format in ARRAY_FORMATS:
            frame.to_ndarray(format)
        frame.to_av().reformat(format="yuv420p")
        taken.add(name)
    assert taken >= {"yuv420p", "yuvj420p", "nv12", "yuyv422", "yuv444p", "yuv420p10le", "p010le"}
    assert taken >= {"bgr24", "rgb24", "bgra", "rgba", "gray", "pal8", "gbrp"}


def test_arrays_do_not_load_pyav() -> None:
    code = (
        "import sys, numpy as np; from fastrtc_anyio._media.video import as_video_frame;"
        "frame = as_video_frame(np.ones((3, 5), np.float32));"
        "[frame.to(name) for name in ('bgr24', 'rgb24', 'gray', 'float32')];"
        "as_video_frame(frame);"
        "print('av' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
