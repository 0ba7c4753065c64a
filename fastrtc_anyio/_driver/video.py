"""Video of a handler with ``video_receive`` and ``video_emit``, or of a filter function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio
from anyio import EndOfStream, current_time

from fastrtc_anyio._core.user_code import is_coroutine_function
from fastrtc_anyio._media.video import VideoFrame
from fastrtc_anyio.handlers import (
    AsyncAudioVideoStreamHandler,
    AudioVideoStreamHandler,
    StreamHandlerBase,
    VideoStreamHandler,
)

from .emissions import read_video_emission
from .run import HandlerRun, wait_for_inputs

R = TypeVar("R")


async def receive_video(
    run: HandlerRun[AudioVideoStreamHandler | AsyncAudioVideoStreamHandler],
) -> None:
    """Pass the client's pictures to ``video_receive``, in the handler's format."""
    source = run.calls.source("video_receive")
    call = _picture_call(run, source, run.handler.video_receive, lambda _: None)
    async for frame in run.session.video_in:
        await call(frame)


async def emit_video(
    run: HandlerRun[AudioVideoStreamHandler | AsyncAudioVideoStreamHandler],
) -> None:
    """Call ``video_emit`` at the handler's frame rate at most, and show its pictures."""
    handler = run.handler
    source = run.calls.source("video_emit")
    read = partial(read_video_emission, source=source, video_format=handler.video_format)
    while True:
        emission = await run.calls.call_and_convert(read, source, handler.video_emit)
        await run.show(emission)
        if emission.media is None or not run.session.media.video_out:
            await anyio.sleep(1 / handler.fps)


async def apply_function(run: HandlerRun[VideoStreamHandler]) -> None:
    """Pass each of the client's pictures to the function, and show its result.

    The conversions run on the function's thread, too. While it works, and until the transport
    requests a picture, newer pictures replace older ones: the picture shown is as new as possible.
    """
    handler = run.handler
    source = handler.source
    read = partial(read_video_emission, source=source, video_format=handler.video_format)
    call = _picture_call(run, source, handler.callable, read)
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


def _picture_call(
    run: HandlerRun[StreamHandlerBase],
    source: str,
    function: Callable[..., object],
    read: Callable[[object], R],
) -> Callable[..., Awaitable[R]]:
    """Return a call of ``function`` with a picture, whose conversion takes milliseconds.

    Neither the picture nor the result, which ``read`` checks, is converted on the event loop.
    """
    calls, video_format = run.calls, run.handler.video_format
    on_thread = not is_coroutine_function(function)

    async def call(frame: VideoFrame, *inputs: object) -> R:
        if on_thread:
            return await calls.call_and_convert(
                read, source, lambda: function(frame.to(video_format), *inputs)
            )
        if frame.is_native and video_format != "frame":
            picture: object = await calls.function(f"{source} (conversion)", frame.to, video_format)
        else:
            picture = frame.to(video_format)
        return await calls.call_and_convert(read, source, function, picture, *inputs)

    return call
