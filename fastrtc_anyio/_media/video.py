"""The library's form of pictures, and conversions from and to other forms.

Decoders produce frames of FFmpeg, mostly yuv420p, and encoders consume them; handlers use arrays. A
`VideoFrame` holds either and converts on request only, so a picture that is dropped or passed on
unseen costs nothing. Arrays are uint8 bgr24 inside the library. `as_video_frame` checks and
converts the pictures of handlers.

numpy converts between arrays, so that a call in memory never loads PyAV. FFmpeg converts from and
to yuv420p by its fast paths: a flat colour comes back with an error of 2 of 256 levels on average,
and 5 at most. Its exact paths stay within 2 and take ten times as long.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args, overload

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._core.options import check_choice, short_repr
from fastrtc_anyio.errors import UnsupportedFormat

if TYPE_CHECKING:
    import av

ArrayFormat: TypeAlias = Literal["bgr24", "rgb24", "gray", "float32"]
"""Formats of `VideoFrame.to_ndarray`."""
PictureOrder: TypeAlias = Literal["bgr24", "rgb24"]
"""Order of the channels of an array."""
VideoFormat: TypeAlias = Literal["bgr24", "rgb24", "gray", "float32", "frame"]
"""Formats of `VideoFrame.to`: those of arrays, and "frame" for PyAV's frame."""
Picture: TypeAlias = NDArray[np.uint8]
"""uint8, shape ``(height, width, 3)``, or ``(height, width)`` if gray."""

MAX_SIDE = 8192
"""Pixels: the width of 8K video. A longer side is probably a mistake, such as swapped axes."""

# Luma of BT.601 2.5.1 (0.114, 0.587, 0.299) in 256ths, in the order of bgr24. They add up to 256,
# so that gray is unchanged, and the sum with its rounding fits 16 bits.
_LUMA_BGR = (29, 150, 77)


class VideoFrame:
    """One picture: an array or a frame of PyAV, converted on request only.

    Immutable by convention: do not modify a picture after you have passed it on. Tasks may then
    share the frame, and several threads may convert it at once.

    Args:
        picture: uint8, shape ``(height, width, 3)``, bgr24; or a frame of PyAV. Neither copied nor
            checked: `as_video_frame` does both.
        timestamp: seconds on the sender's media clock, None if unknown.
    """

    __slots__ = ("_checked", "_picture", "_timestamp")

    def __init__(self, picture: Picture | av.VideoFrame, timestamp: float | None = None) -> None:
        self._checked = False
        self._picture = picture
        self._timestamp = timestamp

    @property
    def width(self) -> int:
        """Width in pixels."""
        picture = self._picture
        return int(picture.shape[1]) if isinstance(picture, np.ndarray) else picture.width

    @property
    def height(self) -> int:
        """Height in pixels."""
        picture = self._picture
        return int(picture.shape[0]) if isinstance(picture, np.ndarray) else picture.height

    @property
    def timestamp(self) -> float | None:
        """Seconds on the sender's media clock, None if unknown."""
        return self._timestamp

    @property
    def is_native(self) -> bool:
        """Whether the picture is a frame of PyAV. `to_ndarray` then takes milliseconds."""
        return not isinstance(self._picture, np.ndarray)

    def to_ndarray(self, format: ArrayFormat = "bgr24") -> NDArray[Any]:
        """Return the picture as a new array.

        Args:
            format: one of

                * ``"bgr24"``, ``"rgb24"``: uint8, shape ``(height, width, 3)``;
                * ``"gray"``: uint8, shape ``(height, width)``, the luma of BT.601, 0 to 255;
                * ``"float32"``: float32, shape ``(height, width, 3)``, in bgr order, 0 to 1.

        Returns:
            A new writable C-contiguous array.

        Raises:
            ValueError: ``format`` is not one of these.
        """
        check_choice("format", format, get_args(ArrayFormat))
        picture = self._picture
        if not isinstance(picture, np.ndarray):
            if format != "float32":
                return _from_native(picture, format)
            picture = _from_native(picture, "bgr24")
        match format:
            case "bgr24":
                return np.array(picture, order="C")
            case "rgb24":
                return _swap_ends(picture)
            case "gray":
                return _to_gray(picture)
            case "float32":
                return np.divide(picture, np.float32(255), dtype=np.float32, order="C")

    def to_av(self) -> av.VideoFrame:
        """Return the picture as a frame of PyAV with even sides.

        If a side is odd, the last column or row is repeated: H.264 encoders reject odd sides in
        yuv420p, and FFmpeg misplaces the colours there.

        Returns:
            The native frame itself if its sides are even. It is shared: do not modify it.
            Otherwise a new frame in bgr24, without a timestamp or a time base.
        """
        from av import VideoFrame as AvVideoFrame

        picture = _even_sides(self._picture)
        if isinstance(picture, np.ndarray):
            return AvVideoFrame.from_ndarray(picture, "bgr24")
        return picture

    @overload
    def to(self, format: ArrayFormat) -> NDArray[Any]: ...

    @overload
    def to(self, format: Literal["frame"]) -> av.VideoFrame: ...

    @overload
    def to(self, format: VideoFormat) -> NDArray[Any] | av.VideoFrame: ...

    def to(self, format: VideoFormat) -> NDArray[Any] | av.VideoFrame:
        """Return the picture in a format: `to_av` for ``"frame"``, else `to_ndarray`."""
        return self.to_av() if format == "frame" else self.to_ndarray(format)

    def __repr__(self) -> str:
        kind = "native" if self.is_native else "array"
        return f"<VideoFrame {self.width}x{self.height} {kind} timestamp={self.timestamp}>"


def view_av(frame: VideoFrame) -> av.VideoFrame:
    """Return the picture as `VideoFrame.to_av` does, sharing the memory of an array."""
    from av import VideoFrame as AvVideoFrame

    picture = _even_sides(frame._picture)
    if isinstance(picture, np.ndarray):
        return AvVideoFrame.from_numpy_buffer(np.ascontiguousarray(picture), "bgr24")
    return picture


def as_video_frame(picture: object, order: PictureOrder = "bgr24") -> VideoFrame:
    """Check a picture of a handler and convert it to the library's form.

    A picture is checked once: a `VideoFrame` that this function has returned passes at once.

    Args:
        picture: one of

            * an array, uint8 or float32 (0 to 1; values outside saturate, they never wrap), shape
              ``(height, width, 3)`` in ``order``, or ``(height, width)`` gray. It is copied, so
              the handler may reuse its buffer;
            * a frame of PyAV in any usual pixel format, which is not copied;
            * a `VideoFrame`, which is returned unchanged.
        order: order of the channels of an array.

    Returns:
        The frame. Its timestamp is that of the `VideoFrame` given, else None.

    Raises:
        UnsupportedFormat: anything else, NaN, an infinity, or a side of 0 or more than 8192 pixels.
        ValueError: ``order`` is neither bgr24 nor rgb24.
    """
    check_choice("order", order, get_args(PictureOrder))
    if isinstance(picture, VideoFrame):
        if not picture._checked:
            _check_held(picture._picture)
        frame = picture
    elif isinstance(picture, np.ndarray):
        _check_array(picture)
        # asarray: a matrix or a masked array has the same values but other operators.
        frame = VideoFrame(_to_bgr24(np.asarray(picture), order))
    else:
        frame = VideoFrame(_native(picture))
    frame._checked = True  # a picture the driver has read is not checked again by its stream
    return frame


def _check_held(picture: object) -> None:
    """Check the picture inside a `VideoFrame` that was not made by this module."""
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise UnsupportedFormat(
                "a VideoFrame must hold a uint8 array of shape (height, width, 3); "
                f"got {short_repr(picture)}"
            )
        _check_sides(picture.shape[1], picture.shape[0])
    else:
        _native(picture)


def _native(picture: object) -> av.VideoFrame:
    """Check that a picture is a usable frame of PyAV, and return it."""
    # Without importing PyAV: a caller with a frame of PyAV has imported it.
    kind: type[av.VideoFrame] | None = getattr(
        sys.modules.get("av.video.frame"), "VideoFrame", None
    )
    if kind is None or not isinstance(picture, kind):
        raise UnsupportedFormat(
            f"a picture must be a numpy array or a VideoFrame; got {short_repr(picture)}"
        )
    layout = picture.format
    # FFmpeg 8 converts all formats allowed here. It rejects some others, and yaf32le aborts the
    # process.
    known = not (layout.is_big_endian or layout.is_bit_stream) and all(
        component.bits <= 16 for component in layout.components
    )
    if not known:
        raise UnsupportedFormat(
            "a picture must have a little-endian format of up to 16 bits per component; "
            f"got {layout.name}"
        )
    _check_sides(picture.width, picture.height)
    return picture


def _check_array(picture: NDArray[Any]) -> None:
    shape = picture.shape
    known = picture.dtype == np.uint8 or picture.dtype == np.float32
    if not known or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
        raise UnsupportedFormat(
            "a picture must be a uint8 or float32 array of shape (height, width, 3) or "
            f"(height, width); got {short_repr(picture)}"
        )
    _check_sides(shape[1], shape[0])


def _check_sides(width: int, height: int) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise UnsupportedFormat(
            f"the sides of a picture must be from 1 to {MAX_SIDE} pixels; got {width} x {height}"
        )


def _to_bgr24(picture: NDArray[Any], order: PictureOrder) -> Picture:
    levels = _from_float32(picture) if picture.dtype == np.float32 else picture
    if levels.ndim == 2:
        return _stack(levels, levels, levels)
    if order == "rgb24":
        return _swap_ends(levels)
    return levels if levels is not picture else np.array(levels, order="C")


def _even_sides(picture: Picture | av.VideoFrame) -> Picture | av.VideoFrame:
    """Return the picture itself, or an array in which an odd last column or row is repeated."""
    if not isinstance(picture, np.ndarray):
        if picture.width % 2 == 0 and picture.height % 2 == 0:
            return picture
        picture = _from_native(picture, "bgr24")
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return picture


def _from_native(picture: av.VideoFrame, format: str) -> Picture:
    from av.video.reformatter import VideoReformatter

    # A new reformatter: the one that a frame keeps is not thread-safe. And one thread: starting a
    # thread per core, PyAV's default, takes longer than the conversion.
    converted = VideoReformatter().reformat(picture, format=format, threads=1)
    # A view of FFmpeg's rows, which may be padded.
    lines: NDArray[Any] = converted.to_ndarray()
    return np.array(lines, order="C") if converted is picture else np.ascontiguousarray(lines)


def _stack(first: Picture, second: Picture, third: Picture) -> Picture:
    # Channel by channel, numpy's inner loop runs over a row instead of three values: a quarter of
    # the time of `picture[..., ::-1]` or a broadcast.
    stacked = np.empty((*first.shape, 3), np.uint8)
    stacked[..., 0] = first
    stacked[..., 1] = second
    stacked[..., 2] = third
    return stacked


def _swap_ends(picture: Picture) -> Picture:
    """Convert bgr24 to rgb24 or back."""
    return _stack(picture[..., 2], picture[..., 1], picture[..., 0])


def _to_gray(picture: Picture) -> Picture:
    luma = np.full(picture.shape[:2], 128, np.uint16)
    for channel, weight in enumerate(_LUMA_BGR):
        luma += picture[..., channel] * np.uint16(weight)
    luma >>= 8
    return luma.astype(np.uint8)


def _from_float32(picture: NDArray[np.float32]) -> Picture:
    finite = np.isfinite(picture)
    if not finite.all():
        got = "NaN" if np.isnan(picture).any() else str(picture[~finite][0])
        raise UnsupportedFormat(f"a float32 picture must have values from 0 to 1; got {got}")
    # Clipped before scaling: the largest float32 values would overflow in the product.
    levels = np.clip(picture, 0.0, 1.0, order="C")
    levels *= 255
    return np.rint(levels, out=levels).astype(np.uint8)
