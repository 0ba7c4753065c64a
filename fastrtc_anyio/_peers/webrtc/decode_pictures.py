"""Incoming pictures: which of them are decoded, and the decoder's frames as pictures."""

from __future__ import annotations

from av import VideoFrame as AvVideoFrame

from fastrtc_anyio._media.picture_headers import MalformedPicture, find_sizes
from fastrtc_anyio._media.video import MAX_SIDE, VideoFrame
from fastrtc_anyio._peers.discards import Discards
from fastrtc_anyio.limits import RequestLimits

_QUEUE = 30
"""Maximum pictures that wait for the decoder: one second of video."""
_REFERENCES = 5
"""Pictures of the maximum size that a decoder may keep, as in level 5.1 (H.264 A.3.1)."""
_UNSPECIFIED = 2
_COLOR_SPACES = frozenset({0, 1, _UNSPECIFIED, 4, 5, 6, 7, 9})
"""Matrix coefficients (H.264 E.2.1) that FFmpeg converts."""


class PictureTap:
    """Decides which encoded pictures are decoded. Runs on the portal's loop.

    Args:
        limits: have the maximum size of a picture.
        discards: counts the pictures that are discarded.
    """

    def __init__(self, limits: RequestLimits, discards: Discards) -> None:
        self._pixels = limits.picture_pixels
        self._discards = discards

    def admit(self, codec: str, data: bytes, waiting: int) -> bool:
        """Return whether a picture is to be decoded.

        Args:
            codec: name of the codec.
            data: the encoded picture.
            waiting: number of pictures that wait for the decoder.
        """
        if waiting >= _QUEUE:
            self._discards.count("video", "a client sends pictures faster than they are decoded")
            return False
        try:
            sizes = find_sizes(codec, data)
        except MalformedPicture as exc:
            self._discards.count("video", "the header of a picture is malformed", exc)
            return False
        for width, height, references in sizes:
            pixels = width * height
            if (
                not 0 < pixels <= self._pixels
                or max(width, height) > MAX_SIDE  # a handler could not return it
                or pixels * references > _REFERENCES * self._pixels
            ):
                self._discards.count(
                    "video",
                    "a picture is too large (RequestLimits.picture_pixels)",
                    f"{width} x {height} pixels, {references} references",
                )
                return False
        return True


def as_picture(frame: AvVideoFrame) -> VideoFrame:
    """Return a frame of the decoder as a picture that every conversion accepts.

    FFmpeg refuses to convert a frame whose stream states another color space than those it has
    coefficients for. Handlers, and the encoder of what they pass on, would fail.
    """
    if frame.colorspace not in _COLOR_SPACES:
        frame.colorspace = _UNSPECIFIED
    return VideoFrame(frame, frame.time)
