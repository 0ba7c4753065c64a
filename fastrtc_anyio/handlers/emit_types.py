"""Values that handlers exchange with a session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio.outputs import AdditionalOutputs

__all__ = [
    "AudioEmitType",
    "CloseStream",
    "EmitType",
    "Layout",
    "VideoEmitType",
    "WebRTCData",
    "client_inputs",
    "latest_args",
]

_MARKER = "__webrtc_value__"
"""FastRTC puts this in front of inputs other than a :class:`WebRTCData`."""


class CloseStream:
    """Emit this to end the session once all queued media have been played.

    Args:
        msg: message for the client.
    """

    def __init__(self, msg: str = "Stream closed") -> None:
        self.msg: str = str(msg)


@dataclass
class WebRTCData:
    """Input of a client: text, audio, or both."""

    webrtc_id: str
    textbox: str = ""
    audio: tuple[int, NDArray[Any]] | None = None


Layout: TypeAlias = Literal["mono", "stereo"]
Samples: TypeAlias = NDArray[np.int16] | NDArray[np.float32]
AudioEmitType: TypeAlias = tuple[int, Samples] | tuple[int, Samples, Layout]
EmitType: TypeAlias = (
    AudioEmitType
    | AdditionalOutputs
    | CloseStream
    | tuple[AudioEmitType, AdditionalOutputs]
    | tuple[AudioEmitType, CloseStream]
    | None
)
VideoEmitType: TypeAlias = (
    NDArray[Any]
    | AdditionalOutputs
    | CloseStream
    | tuple[NDArray[Any], AdditionalOutputs]
    | tuple[NDArray[Any], CloseStream]
    | None
)


def latest_args(inputs: list[object]) -> list[object]:
    """Make ``latest_args`` of a client's inputs, in FastRTC's form."""
    as_is = bool(inputs) and isinstance(inputs[0], WebRTCData)
    return list(inputs) if as_is else [_MARKER, *inputs]


def client_inputs(args: list[object]) -> tuple[object, ...]:
    """Return the inputs in ``latest_args``, for a function's arguments."""
    return tuple(args[1:] if args[:1] == [_MARKER] else args)
