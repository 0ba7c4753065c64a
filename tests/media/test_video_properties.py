"""Pictures: any array is converted or rejected, and conversions lose no more than they must."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fastrtc_anyio._media.video import VideoFrame, as_video_frame
from fastrtc_anyio.errors import UnsupportedFormat

sides = st.integers(1, 12)
shapes = st.one_of(st.tuples(sides, sides), st.tuples(sides, sides, st.just(3)))
pictures = hnp.arrays(np.uint8, shapes)
colored = hnp.arrays(np.uint8, st.tuples(sides, sides, st.just(3)))
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
floats = hnp.arrays(np.float32, shapes, elements=finite)
anything = hnp.arrays(
    st.one_of(
        st.sampled_from([np.uint8, np.float32]),
        hnp.scalar_dtypes(),
        hnp.byte_string_dtypes(),
        hnp.array_dtypes(),
    ),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


def as_bgr(picture: NDArray[Any]) -> NDArray[Any]:
    return np.stack([picture] * 3, axis=2) if picture.ndim == 2 else picture


@given(anything)
def test_any_array_is_converted_or_rejected(picture: NDArray[Any]) -> None:
    try:
        frame = as_video_frame(picture)
    except UnsupportedFormat:
        return
    assert picture.dtype in (np.uint8, np.float32)
    assert (frame.height, frame.width) == picture.shape[:2]
    assert frame.to_ndarray().shape == (*picture.shape[:2], 3)
    assert frame.to_ndarray().dtype == np.uint8


@given(pictures, st.booleans(), st.booleans())
def test_uint8_round_trip_is_exact(picture: NDArray[np.uint8], upside: bool, turned: bool) -> None:
    if upside:
        picture = picture[::-1]
    if turned:
        picture = picture.swapaxes(0, 1)
    frame = as_video_frame(picture)
    wanted = as_bgr(picture)
    assert np.array_equal(frame.to_ndarray("bgr24"), wanted)
    assert np.array_equal(frame.to_ndarray("rgb24"), wanted[..., ::-1])
    assert np.array_equal(as_video_frame(picture, "rgb24").to_ndarray("rgb24"), wanted)
    # The other formats convert back to it.
    assert np.array_equal(as_video_frame(frame.to_ndarray("float32")).to_ndarray(), wanted)
    assert np.array_equal(as_video_frame(frame.to_ndarray("rgb24"), "rgb24").to_ndarray(), wanted)
    if picture.ndim == 2:
        assert np.array_equal(frame.to_ndarray("gray"), picture)


@given(pictures, st.booleans(), st.booleans())
def test_view_converts_like_a_copy(picture: NDArray[np.uint8], upside: bool, turned: bool) -> None:
    wanted = as_bgr(picture)
    view = wanted[::-1] if upside else wanted
    view = view.swapaxes(0, 1) if turned else view
    for format in ("bgr24", "rgb24", "gray", "float32"):
        got = VideoFrame(view).to(format)
        assert got.flags.c_contiguous
        assert np.array_equal(got, VideoFrame(view.copy()).to(format))


@given(floats)
def test_float32_becomes_the_nearest_level_and_saturates(picture: NDArray[np.float32]) -> None:
    got = as_video_frame(picture).to_ndarray()
    exact = np.clip(as_bgr(picture).astype(np.float64), 0, 1) * 255
    assert np.abs(got - exact).max() <= 0.5 + 1e-4


@given(colored)
def test_gray_is_the_luma_of_bt601(picture: NDArray[np.uint8]) -> None:
    luma = picture @ np.array([0.114, 0.587, 0.299])
    assert np.abs(VideoFrame(picture).to_ndarray("gray") - luma).max() < 1.3


@given(colored)
def test_frame_of_pyav_has_the_same_pixels(picture: NDArray[np.uint8]) -> None:
    height, width = picture.shape[:2]
    made = VideoFrame(picture).to_av()
    assert made.width == width + width % 2
    assert made.height == height + height % 2
    back = as_video_frame(made).to_ndarray()
    assert np.array_equal(back[:height, :width], picture)
