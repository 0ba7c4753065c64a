"""Video of a handler with ``video_receive`` and ``video_emit``, or of a filter function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

import anyio
from anyio import EndOfStream, current_time

from fastrtc_anyio._media.video import VideoFormat, VideoFrame
from fastrtc_anyio.handlers import (
    AsyncAudioVideoStreamHandler,
    AsyncStreamHandler,
    AudioVideoStreamHandler,
    VideoStreamHandler,
)

from .calls import Calls
from .emissions import picture_order, read_video_emission
from .run import HandlerRun, wait_for_inputs

R = TypeVar("R")


async def receive_video(
    run: HandlerRun[AudioVideoStreamHandler | AsyncAudioVideoStreamHandler],
) -> None:
    """Pass the client's pictures to ``video_receive``, in the handler's format."""
    handler = run.handler
    call = _PictureCall(
        run.calls,
        run.calls.source("video_receive"),
        handler.video_receive,
        handler.video_format,
        not isinstance(handler, AsyncStreamHandler),
        lambda _: None,
    )
    async for frame in run.session.video_in:
        await call(frame)


async def emit_video(
    run: HandlerRun[AudioVideoStreamHandler | AsyncAudioVideoStreamHandler],
) -> None:
    """Call ``video_emit`` at the handler's frame rate at most, and show its pictures."""
    source, order = run.calls.source("video_emit"), picture_order(run.handler.video_format)
    read = partial(read_video_emission, source=source, order=order)
    pause = 1 / run.handler.fps
    while True:
        emission = await run.calls.call_and_convert(read, source, run.handler.video_emit)
        await run.show(emission)
        if emission.media is None or not run.session.media.video_out:
            await anyio.sleep(pause)


async def apply_function(run: HandlerRun[VideoStreamHandler]) -> None:
    """Pass each of the client's pictures to the function, and show its result.

    The conversions run on the function's thread, too. While it works, and until the transport
    requests a picture, newer pictures replace older ones: the picture shown is as new as possible.
    """
    handler = run.handler
    order = picture_order(handler.video_format)
    call = _PictureCall(
        run.calls,
        handler.source,
        handler.callable,
        handler.video_format,
        not handler.is_async,
        partial(read_video_emission, source=handler.source, order=order),
    )
    await wait_for_inputs(run)
    # Estimate of the seconds that one picture takes. It rises at once and falls slowly, because a
    # picture that is late is worse than one that waits.
    work = 0.0
    while True:
        await run.wait_picture_wanted(min(work, 1 / handler.fps))
        try:
            frame = await run.session.video_in.receive()
        except EndOfStream:
            return
        began = current_time()
        emission = await call(frame, *handler.inputs)
        work = max(current_time() - began, 0.9 * work)
        await run.show(emission)


class _PictureCall(Generic[R]):
    """Calls a function with pictures, whose conversion takes milliseconds, off the event loop.

    Args:
        calls: calls of the handler's code.
        source: name of the function in errors.
        function: the function.
        video_format: format of the pictures that it takes.
        on_thread: whether it runs on a thread, which then converts as well.
        read: checks and converts its result.
    """

    def __init__(
        self,
        calls: Calls,
        source: str,
        function: Callable[..., object],
        video_format: VideoFormat,
        on_thread: bool,
        read: Callable[[object], R],
    ) -> None:
        self._calls = calls
        self._source = source
        self._function = function
        self._format = video_format
        self._on_thread = on_thread
        self._read = read

    async def __call__(self, frame: VideoFrame, *inputs: object) -> R:
        calls, source, function = self._calls, self._source, self._function
        if self._on_thread:
            return await calls.call_and_convert(
                self._read, source, lambda: function(frame.to(self._format), *inputs)
            )
        if frame.is_native and self._format != "frame":
            picture: object = await calls.function(f"{source} (conversion)", frame.to, self._format)
        else:
            picture = frame.to(self._format)
        return await calls.call_and_convert(self._read, source, function, picture, *inputs)
