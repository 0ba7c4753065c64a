"""Functions as handlers."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

from fastrtc_anyio._core.user_code import is_generator_function
from fastrtc_anyio._media.media_plan import Modality
from fastrtc_anyio._media.video import VideoFormat

from .base import StreamHandlerBase
from .emit_types import client_inputs

__all__ = ["FunctionHandler", "VideoStreamHandler", "positional_arguments"]


def positional_arguments(function: Callable[..., object]) -> tuple[int, int]:
    """Return how many positional arguments a function requires and takes."""
    parameters = inspect.signature(function).parameters.values()
    positional = [
        parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    required = sum(parameter.default is parameter.empty for parameter in positional)
    unlimited = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    return required, sys.maxsize if unlimited else len(positional)


class FunctionHandler(StreamHandlerBase):
    """A function as the handler of one session. All sessions share the function itself.

    Attributes:
        generates: whether it is a generator function.
        modalities: modalities of the streams that it can serve.
    """

    modalities: tuple[Modality, ...] = ("video",)

    def __init__(self, callable: Callable[..., object], fps: float = 30) -> None:
        if not isinstance(callable, Callable):  # type: ignore[arg-type]
            raise TypeError(f"the handler must be a function; got {callable!r}")
        # The highest rate, so that audio of any rate is resampled once, and not down first.
        super().__init__(output_sample_rate=48_000, fps=fps)
        self.callable = callable
        self.generates: bool = is_generator_function(callable)

    @property
    def source(self) -> str:
        """Name of the function in errors."""
        name = getattr(self.callable, "__qualname__", None)
        return name if isinstance(name, str) else type(self.callable).__qualname__

    @property
    def inputs(self) -> tuple[object, ...]:
        """The client's latest input, as arguments; empty before the first."""
        return client_inputs(self.latest_args)

    @property
    def needs_args(self) -> bool:
        """Whether the function has required parameters for the client's input."""
        own = 0 if self.generates else 1  # the first argument of a filter is the picture
        return positional_arguments(self.callable)[0] > own


class VideoStreamHandler(FunctionHandler):
    """A function as a video handler: a filter or a generator function.

    A filter ``frame, *inputs -> frame`` receives the client's latest picture (uint8, bgr24, shape
    ``(height, width, 3)``) and the client's inputs, and returns the picture to show: see
    ``VideoEmitType``. A plain function runs on a thread of the session. While it runs, newer
    pictures replace older ones: a slow function skips pictures and never sees old ones.
    ``session.statistics().video_in.dropped`` counts the skipped pictures.

    A generator function ``*inputs -> frames`` serves clients that only receive. It is called once
    per session, and the session ends once its last picture has been shown.

    Args:
        callable: the function, method or object with ``__call__``; plain or async.
        fps: maximum frame rate of outgoing video in Hz.
        skip_frames: has no effect. FastRTC chooses between a growing queue and skipping; here,
            pictures are always skipped.
        video_format: format of the pictures passed to the function; see
            :class:`StreamHandlerBase`.
    """

    def __init__(
        self,
        callable: Callable[..., object],
        fps: float = 30,
        skip_frames: bool = False,
        video_format: VideoFormat = "bgr24",
    ) -> None:
        super().__init__(callable, fps)
        self.skip_frames = skip_frames
        self.video_format: VideoFormat = video_format

    def copy(self) -> VideoStreamHandler:
        return VideoStreamHandler(self.callable, self.fps, self.skip_frames, self.video_format)
