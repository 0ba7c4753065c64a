"""Values that ``emit`` and similar functions return, checked and taken apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio._media.frames import AudioFrame
from fastrtc_anyio._media.read import CheckedAudio, read_audio, read_frame
from fastrtc_anyio._media.video import PictureOrder, VideoFormat, VideoFrame, as_video_frame
from fastrtc_anyio.errors import HandlerContractError, UnsupportedFormat
from fastrtc_anyio.handlers import CloseStream
from fastrtc_anyio.outputs import AdditionalOutputs

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)


class Emission(NamedTuple, Generic[M_co]):
    """The parts of one value."""

    media: M_co | None = None
    outputs: AdditionalOutputs | None = None
    close: CloseStream | None = None


def read_audio_frame(value: object) -> CheckedAudio | None:
    """Return ``value`` if it is nothing but audio in the library's form, and short; else None.

    Most values of ``emit`` have this form. :func:`read_audio_emission` takes longer.
    """
    if type(value) is not tuple or len(value) != 2:
        return None
    return read_frame(*value)


def read_audio_emission(value: object, source: str) -> Emission[AudioFrame]:
    """Check and take apart an ``EmitType``. Audio without samples counts as None.

    Raises:
        HandlerContractError: ``source``, a method of the handler, returned something else.
    """

    def read(audio: object) -> AudioFrame | None:
        if not isinstance(audio, tuple):
            raise UnsupportedFormat(
                "the value must be (rate, samples), (rate, samples, layout), AdditionalOutputs, "
                "CloseStream, None, or audio in a pair with AdditionalOutputs or CloseStream; "
                f"got {short_repr(audio)}"
            )
        frame = read_audio(audio)
        return frame if frame.samples.size else None

    return _read(value, source, read)


def read_video_emission(
    value: object, source: str, video_format: VideoFormat = "bgr24"
) -> Emission[VideoFrame]:
    """Check and take apart a ``VideoEmitType``. The channels of an array have the order of
    ``video_format``.

    Raises:
        HandlerContractError: ``source``, a method of the handler, returned something else.
    """
    order: PictureOrder = "rgb24" if video_format == "rgb24" else "bgr24"
    return _read(value, source, lambda picture: as_video_frame(picture, order))


def _read(value: object, source: str, read: Callable[[object], M | None]) -> Emission[M]:
    try:
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], np.ndarray):
            return Emission(read(value))  # audio, usually
        match value:
            case None:
                return Emission()
            case AdditionalOutputs():
                return Emission(outputs=value)
            case CloseStream():
                return Emission(close=value)
            case np.ndarray():  # numpy 2.5 registers it as a Sequence, which the pairs below match
                return Emission(read(value))
            case (media, AdditionalOutputs() as outputs):
                return Emission(None if media is None else read(media), outputs=outputs)
            case (media, CloseStream() as close):
                return Emission(None if media is None else read(media), close=close)
            case _:
                return Emission(read(value))
    except UnsupportedFormat as exc:
        raise HandlerContractError(f"{source}: {exc}") from exc
