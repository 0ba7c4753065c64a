"""What a picture is in this library, and the conversions a handler may ask for.

Pictures come from a decoder as FFmpeg's frames, mostly yuv420p, and leave for an encoder as such;
handlers want arrays. A `VideoFrame` is either, and converts only when it is asked: a picture that
is dropped, or that is passed on unseen, costs nothing. Arrays are uint8 bgr24 inside the library;
what a handler gives comes in through one door, `as_video_frame`.

From array to array numpy converts, so that a call in memory never loads PyAV. From and to FFmpeg's
yuv420p its fast paths do: of 256 levels, a flat colour comes back 2 off on average and 5 at worst.
The exact paths are within 2, and take ten times as long.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard, overload

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio.errors import UnsupportedFormat

if TYPE_CHECKING:
    import av

ArrayFormat: TypeAlias = Literal["bgr24", "rgb24", "gray", "float32"]
"""What `VideoFrame.to_ndarray` makes."""
PictureOrder: TypeAlias = Literal["bgr24", "rgb24"]
"""Order of the channels of an array."""
VideoFormat: TypeAlias = Literal["bgr24", "rgb24", "gray", "float32", "frame"]
"""What `VideoFrame.to` makes: arrays, or with "frame" PyAV's frame."""
Picture: TypeAlias = NDArray[np.uint8]
"""uint8, shape ``(height, width, 3)``, or ``(height, width)`` where it is gray."""

MAX_SIDE = 8192
"""Pixels. 8K video ends here; a longer side is rather a mistake, such as swapped axes."""

# Luma of BT.601 2.5.1 (0.114, 0.587, 0.299) in 256ths, in the order of bgr24. They add up to 256,
# so that gray stays as it is, and the sum with its rounding fits 16 bits.
_LUMA_BGR = (29, 150, 77)


class VideoFrame:
    """One picture: an array, or as FFmpeg has it; converted only when asked.

    Immutable by convention: whoever gives the picture away changes it no more. The frame may then
    be shared by tasks, and converted on several threads at once.

    Args:
        picture: uint8, shape ``(height, width, 3)``, bgr24; or a frame of PyAV's. Neither copied
            nor checked: `as_video_frame` does both.
        timestamp: Seconds on the sender's media clock, None if unknown.
    """

    __slots__ = ("_checked", "_picture", "_timestamp")

    def __init__(self, picture: Picture | av.VideoFrame, timestamp: float | None = None) -> None:
        self._checked = False
        self._picture = picture
        self._timestamp = timestamp

    @property
    def width(self) -> int:
        """Pixels in a row."""
        picture = self._picture
        return int(picture.shape[1]) if isinstance(picture, np.ndarray) else picture.width

    @property
    def height(self) -> int:
        """Rows."""
        picture = self._picture
        return int(picture.shape[0]) if isinstance(picture, np.ndarray) else picture.height

    @property
    def timestamp(self) -> float | None:
        """Seconds on the sender's media clock, None if unknown."""
        return self._timestamp

    @property
    def is_native(self) -> bool:
        """Whether FFmpeg holds the picture; then `to_ndarray` is real work, worth a thread."""
        return not isinstance(self._picture, np.ndarray)

    def to_ndarray(self, format: ArrayFormat = "bgr24") -> NDArray[Any]:
        """The picture as an array of the caller's own.

        Args:
            format: One of

                * ``"bgr24"``, ``"rgb24"``: uint8, shape ``(height, width, 3)``;
                * ``"gray"``: uint8, shape ``(height, width)``, the luma of BT.601, 0 to 255;
                * ``"float32"``: float32, shape ``(height, width, 3)``, in bgr order, 0 to 1.

        Returns:
            A new writable C-contiguous array.

        Raises:
            ValueError: if ``format`` is none of these.
        """
        if format not in ("bgr24", "rgb24", "gray", "float32"):
            raise ValueError(f"format must be bgr24, rgb24, gray or float32, got {format!r}")
        picture = self._picture
        if isinstance(picture, np.ndarray):
            return _convert(picture, format)
        if format == "float32":
            return _to_float32(_from_native(picture, "bgr24"))
        return _from_native(picture, format)

    def to_av(self) -> av.VideoFrame:
        """The picture as PyAV has it, with even sides.

        Where a side is odd, the last column or row is there twice: an H.264 encoder refuses odd
        sides in yuv420p, and FFmpeg places the colours of one a little off.

        Returns:
            The native frame itself where there is one with even sides: it is shared, and not to be
            changed. Else a new one in bgr24, without a time stamp or a time base.
        """
        picture = self._picture
        if not isinstance(picture, np.ndarray):
            if picture.width % 2 == 0 and picture.height % 2 == 0:
                return picture
            picture = _from_native(picture, "bgr24")
        from av import VideoFrame as AvVideoFrame

        return AvVideoFrame.from_ndarray(_with_even_sides(picture), "bgr24")

    @overload
    def to(self, format: ArrayFormat) -> NDArray[Any]: ...

    @overload
    def to(self, format: Literal["frame"]) -> av.VideoFrame: ...

    @overload
    def to(self, format: VideoFormat) -> NDArray[Any] | av.VideoFrame: ...

    def to(self, format: VideoFormat) -> NDArray[Any] | av.VideoFrame:
        """The picture in a format given by name: `to_av` for ``"frame"``, else `to_ndarray`."""
        return self.to_av() if format == "frame" else self.to_ndarray(format)

    def __repr__(self) -> str:
        kind = "native" if self.is_native else "array"
        return f"<VideoFrame {self.width}x{self.height} {kind} timestamp={self.timestamp}>"


def as_video_frame(picture: object, order: PictureOrder = "bgr24") -> VideoFrame:
    """Bring a picture from a handler into the library's form: the one door for them.

    Args:
        picture: One of

            * an array, uint8 or float32 (0 to 1; values outside saturate, they never wrap), shape
              ``(height, width, 3)`` in ``order``, or ``(height, width)`` gray. It is copied: a
              handler may use its buffer again;
            * a frame of PyAV's, in any usual pixel format, which is not copied;
            * a `VideoFrame`, which is returned as it is.
        order: How the colours of an array are ordered; nothing to a picture that is no array.

    Returns:
        The frame. Its time stamp is None, but that of a `VideoFrame` stays.

    Raises:
        UnsupportedFormat: for anything else, NaN, or a side of 0 or more than 8192 pixels; names
            what was got and wanted.
        ValueError: if ``order`` is neither bgr24 nor rgb24.
    """
    if order not in ("bgr24", "rgb24"):
        raise ValueError(f"order must be bgr24 or rgb24, got {order!r}")
    if isinstance(picture, VideoFrame):
        if not picture._checked:
            _check_held(picture._picture)
        frame = picture
    elif isinstance(picture, np.ndarray):
        _check_array(picture)
        # asarray: of a matrix or a masked array only the values matter.
        frame = VideoFrame(_to_bgr24(np.asarray(picture), order))
    else:
        frame = VideoFrame(_native(picture))
    frame._checked = True  # a picture the driver has read is not checked again by its stream
    return frame


def _is_native(picture: object) -> TypeGuard[av.VideoFrame]:
    # Asked without loading PyAV: who has none of its frames has perhaps not imported it.
    kind = getattr(sys.modules.get("av.video.frame"), "VideoFrame", None)
    return kind is not None and isinstance(picture, kind)


def _check_held(picture: object) -> None:
    """Refuse what a `VideoFrame` that somebody else made should not hold."""
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise UnsupportedFormat(
                "expected a VideoFrame of uint8, shape (height, width, 3), "
                f"got one of {picture.dtype}, shape {picture.shape}"
            )
        _check_sides(picture.shape[1], picture.shape[0])
    else:
        _native(picture)


def _native(picture: object) -> av.VideoFrame:
    """The picture, if it is a frame of PyAV's that can be used."""
    if not _is_native(picture):
        raise UnsupportedFormat(
            f"expected a picture as a numpy array or a VideoFrame, got {type(picture).__name__}"
        )
    layout = picture.format
    # FFmpeg 8 converts all of these. Of the others it refuses some, and yaf32le aborts the process.
    known = not (layout.is_big_endian or layout.is_bit_stream) and all(
        component.bits <= 16 for component in layout.components
    )
    if not known:
        raise UnsupportedFormat(
            "expected a frame in a little-endian format of at most 16 bits a component, "
            f"got one in {layout.name}"
        )
    _check_sides(picture.width, picture.height)
    return picture


def _check_array(picture: NDArray[Any]) -> None:
    shape = picture.shape
    known = picture.dtype == np.uint8 or picture.dtype == np.float32
    if not known or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
        raise UnsupportedFormat(
            "expected a picture of uint8 or float32, shape (height, width, 3) or (height, width), "
            f"got {picture.dtype} of shape {shape}"
        )
    _check_sides(shape[1], shape[0])


def _check_sides(width: int, height: int) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise UnsupportedFormat(
            f"expected a picture with sides from 1 to {MAX_SIDE} pixels, got {width} x {height}"
        )


def _to_bgr24(picture: NDArray[Any], order: PictureOrder) -> Picture:
    levels = _from_float32(picture) if picture.dtype == np.float32 else picture
    if levels.ndim == 2:
        return _stack(levels, levels, levels)
    if order == "rgb24":
        return _swap_ends(levels)
    return levels if levels is not picture else np.array(levels, order="C")


def _convert(picture: Picture, format: ArrayFormat) -> NDArray[Any]:
    if format == "bgr24":
        return np.array(picture, order="C")
    if format == "rgb24":
        return _swap_ends(picture)
    return _to_gray(picture) if format == "gray" else _to_float32(picture)


def _from_native(picture: av.VideoFrame, format: str) -> Picture:
    from av.video.reformatter import VideoReformatter

    # One for each call: the one that a frame keeps is not for two threads at once. And one thread:
    # to start one for each core, PyAV's default, takes longer than the conversion.
    converted = VideoReformatter().reformat(picture, format=format, threads=1)
    # A view of FFmpeg's lines, which may be padded.
    lines: NDArray[Any] = converted.to_ndarray()
    return np.array(lines, order="C") if converted is picture else np.ascontiguousarray(lines)


def _with_even_sides(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return picture
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _stack(first: Picture, second: Picture, third: Picture) -> Picture:
    # Channel by channel, numpy's inner loop is a row long and not three steps: a quarter of the
    # time of `picture[..., ::-1]` or a broadcast.
    stacked = np.empty((*first.shape, 3), np.uint8)
    stacked[..., 0] = first
    stacked[..., 1] = second
    stacked[..., 2] = third
    return stacked


def _swap_ends(picture: Picture) -> Picture:
    """bgr24 to rgb24, or back."""
    return _stack(picture[..., 2], picture[..., 1], picture[..., 0])


def _to_gray(picture: Picture) -> Picture:
    luma = np.full(picture.shape[:2], 128, np.uint16)
    for channel, weight in enumerate(_LUMA_BGR):
        luma += picture[..., channel] * np.uint16(weight)
    luma >>= 8
    return luma.astype(np.uint8)


def _to_float32(picture: Picture) -> NDArray[np.float32]:
    return np.divide(picture, np.float32(255), dtype=np.float32, order="C")


def _from_float32(picture: NDArray[np.float32]) -> Picture:
    if np.isnan(picture).any():
        raise UnsupportedFormat("expected float32 from 0 to 1, got NaN")
    # Clipped before it is scaled: the largest float32 values would overflow in the product.
    levels = np.clip(picture, 0.0, 1.0, order="C")
    levels *= 255
    return np.rint(levels, out=levels).astype(np.uint8)
