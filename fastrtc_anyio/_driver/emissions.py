"""What ``emit`` and its like return, checked and taken apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np

from fastrtc_anyio._media.frames import AudioFrame
from fastrtc_anyio._media.video import VideoFormat, VideoFrame, as_video_frame
from fastrtc_anyio.errors import HandlerContractError, UnsupportedFormat
from fastrtc_anyio.handlers import CloseStream
from fastrtc_anyio.outputs import AdditionalOutputs
from fastrtc_anyio.streams import describe, read_audio

__all__ = ["Emission", "picture_order", "read_audio_emission", "read_video_emission"]

M = TypeVar("M")


@dataclass(frozen=True)
class Emission(Generic[M]):
    """What one call gave, taken apart."""

    media: M | None = None
    outputs: AdditionalOutputs | None = None
    close: CloseStream | None = None


def read_audio_emission(value: object, source: str) -> Emission[AudioFrame]:
    """Check and take apart what ``emit`` returned.

    Args:
        value: see ``EmitType``. Audio without samples is nothing.
        source: the handler and method, for the error.

    Raises:
        HandlerContractError: it is not an ``EmitType``; says what it is.
    """

    def read(audio: object) -> AudioFrame | None:
        if not isinstance(audio, tuple):
            raise UnsupportedFormat(
                "wanted (rate, samples), (rate, samples, layout), AdditionalOutputs, CloseStream, "
                f"None, or a pair of audio and one of these; got {describe(audio)}"
            )
        frame = read_audio(audio)
        return frame if frame.samples.size else None

    return _read(value, source, read)


def read_video_emission(
    value: object, source: str, order: Literal["bgr24", "rgb24"] = "bgr24"
) -> Emission[VideoFrame]:
    """Check and take apart what ``video_emit`` returned.

    Args:
        value: see ``VideoEmitType``.
        source: the handler and method, for the error.
        order: of an array's channels.

    Raises:
        HandlerContractError: it is not a ``VideoEmitType``; says what it is.
    """
    return _read(value, source, lambda picture: as_video_frame(picture, order))


def picture_order(video_format: VideoFormat) -> Literal["bgr24", "rgb24"]:
    """The order of the channels a handler emits: that of what it receives."""
    return "rgb24" if video_format == "rgb24" else "bgr24"


def _read(value: object, source: str, read: Callable[[object], M | None]) -> Emission[M]:
    try:
        match value:
            case None:
                return Emission()
            case AdditionalOutputs():
                return Emission(outputs=value)
            case CloseStream():
                return Emission(close=value)
            case np.ndarray():  # to numpy 2.5 it is a sequence, too, even one without a length
                return Emission(read(value))
            case (media, AdditionalOutputs() as outputs):
                return Emission(None if media is None else read(media), outputs=outputs)
            case (media, CloseStream() as close):
                return Emission(None if media is None else read(media), close=close)
            case _:
                return Emission(read(value))
    except UnsupportedFormat as exc:
        raise HandlerContractError(f"{source}: {exc}") from exc
