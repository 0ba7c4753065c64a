"""A handler's video: what it receives, and what it emits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
from anyio import EndOfStream, current_time

from fastrtc_anyio._media.video import VideoFormat, VideoFrame
from fastrtc_anyio.functions import VideoStreamHandler
from fastrtc_anyio.handlers import AsyncStreamHandler, StreamHandlerBase

from .emissions import picture_order, read_video_emission
from .run import HandlerRun, wait_for_inputs

R = TypeVar("R")

__all__ = ["apply_function", "emit_video", "receive_video"]


async def receive_video(run: HandlerRun[StreamHandlerBase]) -> None:
    """Give the client's pictures to ``video_receive``, in the format the handler asks for."""
    video_format = run.handler.video_format
    method: Callable[[Any], Any] = run.handler.video_receive  # type: ignore[attr-defined]
    source = run.calls.source("video_receive")
    on_thread = not isinstance(run.handler, AsyncStreamHandler)
    async for frame in run.session.video_in:
        await _call(run, source, method, frame, video_format, on_thread, (), lambda _: None)


async def emit_video(run: HandlerRun[StreamHandlerBase]) -> None:
    """Call ``video_emit`` at the handler's frame rate at most, and show what it gives."""
    source, order = run.calls.source("video_emit"), picture_order(run.handler.video_format)
    method: Callable[[], Any] = run.handler.video_emit  # type: ignore[attr-defined]
    pause = 1 / run.handler.fps
    while True:
        emission = await run.calls.call_and_convert(
            lambda value: read_video_emission(value, source, order), source, method
        )
        await run.show(emission)
        if emission.media is None or not run.session.media.video_out:
            await anyio.sleep(pause)


async def apply_function(run: HandlerRun[VideoStreamHandler]) -> None:
    """Give each of the client's pictures to the function, and show what it makes of it.

    The function's thread has the conversion of the picture too. While it works, and until a picture
    is wanted, newer ones replace each other: what is shown is as new as it can be.
    """
    handler = run.handler
    source, order = handler.source, picture_order(handler.video_format)
    await wait_for_inputs(run)
    work = 0.0  # seconds it takes; less is believed slowly, more at once
    while True:
        await run.wait_picture_wanted(min(work, 1 / handler.fps))
        try:
            frame = await run.session.video_in.receive()
        except EndOfStream:
            return
        began = current_time()
        emission = await _call(
            run,
            source,
            handler.callable,
            frame,
            handler.video_format,
            not handler.is_async,
            handler.inputs,
            lambda value: read_video_emission(value, source, order),
        )
        work = max(current_time() - began, 0.9 * work)
        await run.show(emission)


async def _call(
    run: HandlerRun[Any],
    source: str,
    function: Callable[..., Any],
    frame: VideoFrame,
    video_format: VideoFormat,
    on_thread: bool,
    inputs: tuple[Any, ...],
    read: Callable[[Any], R],
) -> R:
    """Call a function with a picture. Converting it takes milliseconds: not on the event loop."""
    calls = run.calls
    if on_thread:
        return await calls.call_and_convert(
            read, source, lambda: function(frame.to(video_format), *inputs)
        )
    if frame.is_native and video_format != "frame":
        picture = await calls.function(f"{source} (conversion)", frame.to, video_format)
    else:
        picture = frame.to(video_format)
    return await calls.call_and_convert(read, source, function, picture, *inputs)
