"""Functions as handlers: a filter for video, a generator of audio or video."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ._core.user_code import called, is_coroutine_function, is_generator
from ._media.media_plan import Modality
from ._media.video import VideoFormat
from .handlers import StreamHandlerBase

__all__ = [
    "FunctionHandler",
    "GeneratorHandler",
    "VideoStreamHandler",
]


class FunctionHandler(StreamHandlerBase):
    """One session's use of a function that all sessions share. The function itself is not touched.

    Attributes:
        callable: the function.
        generates: whether it is a generator function.
        is_async: whether it is a coroutine function or an async generator function.
        modalities: of the streams it can serve.
    """

    modalities: tuple[Modality, ...] = ("video",)

    def __init__(self, callable: Callable[..., Any], fps: float) -> None:
        if not isinstance(callable, Callable):  # type: ignore[arg-type]
            raise TypeError(f"the handler must be a function; got {callable!r}")
        # What is yielded at another rate is resampled once, not to a lower rate first.
        super().__init__(output_sample_rate=48_000, fps=fps)
        self.callable = callable
        self.generates = is_generator(callable)
        self.is_async = is_coroutine_function(callable) or called(
            callable, inspect.isasyncgenfunction
        )

    @property
    def source(self) -> str:
        """What the function is called in errors."""
        name = getattr(self.callable, "__qualname__", None)
        return name if isinstance(name, str) else type(self.callable).__qualname__

    @property
    def inputs(self) -> tuple[Any, ...]:
        """The client's input, to be passed on; empty before there is any."""
        args = self.latest_args
        return tuple(args[1:] if args[:1] == ["__webrtc_value__"] else args)

    @property
    def needs_args(self) -> bool:
        """Whether the function cannot be called before there is input."""
        required = 0 if self.generates else -1  # a filter's first argument is the picture
        for parameter in inspect.signature(self.callable).parameters.values():
            required += parameter.default is parameter.empty and parameter.kind in (
                parameter.POSITIONAL_ONLY,
                parameter.POSITIONAL_OR_KEYWORD,
            )
        return required > 0


class VideoStreamHandler(FunctionHandler):
    """A function as a handler of video: a filter, or a generator.

    A filter ``frame, *inputs -> frame`` is given the client's latest picture (uint8, bgr24, shape
    ``(height, width, 3)``) and the inputs that were set, and returns what to show: see
    ``VideoEmitType``. A plain function runs on a thread of the session's own. While it works, newer
    pictures replace each other: a slow function sees fewer pictures, never old ones, and
    ``session.statistics().video_in.dropped`` counts the others.

    A generator function ``*inputs -> frames`` is for clients that only receive; see
    :class:`GeneratorHandler`.

    Args:
        callable: the function, method or object with ``__call__``; plain or asynchronous.
        fps: pictures a second that are sent at most.
        skip_frames: FastRTC's choice between a growing queue and skipping; here pictures are always
            skipped, and this changes nothing.
        video_format: what the function is given; see :class:`StreamHandlerBase`.
    """

    def __init__(
        self,
        callable: Callable[..., Any],
        fps: float = 30,
        skip_frames: bool = False,
        video_format: VideoFormat = "bgr24",
    ) -> None:
        super().__init__(callable, fps)
        self.skip_frames = skip_frames
        self.video_format = video_format

    def copy(self) -> VideoStreamHandler:
        return VideoStreamHandler(self.callable, self.fps, self.skip_frames, self.video_format)


class GeneratorHandler(FunctionHandler):
    """A generator function ``*inputs -> frames`` as a handler for clients that only receive.

    It is called once for each session. When it is exhausted, and what it gave has been played, the
    session ends.

    Args:
        callable: a generator function or an async one; yields what ``emit`` or ``video_emit`` may
            return.
        fps: pictures a second that are sent at most.
    """

    modalities = ("audio", "video")

    def __init__(self, callable: Callable[..., Any], fps: float = 30) -> None:
        super().__init__(callable, fps)

    def copy(self) -> GeneratorHandler:
        return GeneratorHandler(self.callable, self.fps)
