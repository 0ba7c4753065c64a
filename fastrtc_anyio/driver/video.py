"""A handler's video: what it receives, and what it emits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from anyio import EndOfStream, current_time

from fastrtc_anyio.functions import VideoStreamHandler
from fastrtc_anyio.handlers import AsyncStreamHandler, StreamHandlerBase
from fastrtc_anyio.media.video import VideoFormat, VideoFrame

from .drive import Drive
from .emissions import picture_order, read_video_emission

__all__ = ["apply_function", "emit_video", "receive_video"]


async def receive_video(drive: Drive[StreamHandlerBase]) -> None:
    """Give the client's pictures to ``video_receive``, in the format the handler asks for."""
    video_format = drive.handler.video_format
    method: Callable[[Any], Any] = drive.handler.video_receive  # type: ignore[attr-defined]
    source = drive.calls.source("video_receive")
    on_thread = not isinstance(drive.handler, AsyncStreamHandler)
    async for frame in drive.session.video_in:
        await _call(drive, source, method, frame, video_format, on_thread, ())


async def emit_video(drive: Drive[StreamHandlerBase]) -> None:
    """Call ``video_emit`` at the handler's frame rate at most, and show what it gives."""
    source, order = drive.calls.source("video_emit"), picture_order(drive.handler.video_format)
    pause = 1 / drive.handler.fps
    while True:
        emission = read_video_emission(await drive.calls.method("video_emit"), source, order)
        await drive.show(emission)
        if emission.media is None or not drive.session.media.video_out:
            await anyio.sleep(pause)


async def apply_function(drive: Drive[VideoStreamHandler]) -> None:
    """Give each of the client's pictures to the function, and show what it makes of it.

    The function's thread has the conversion of the picture too. While it works, and until a picture
    is wanted, newer ones replace each other: what is shown is as new as it can be.
    """
    handler = drive.handler
    source, order = handler.source, picture_order(handler.video_format)
    if handler.needs_args and not handler.args_set.is_set():
        await handler.wait_for_args()
    work = 0.0  # seconds it takes; less is believed slowly, more at once
    while True:
        await drive.wait_picture_wanted(min(work, 1 / handler.fps))
        try:
            frame = await drive.session.video_in.receive()
        except EndOfStream:
            return
        began = current_time()
        result = await _call(
            drive,
            source,
            handler.callable,
            frame,
            handler.video_format,
            not handler.is_async,
            handler.inputs,
        )
        emission = read_video_emission(result, source, order)
        work = max(current_time() - began, 0.9 * work)
        await drive.show(emission)


async def _call(
    drive: Drive[Any],
    source: str,
    function: Callable[..., Any],
    frame: VideoFrame,
    video_format: VideoFormat,
    on_thread: bool,
    inputs: tuple[Any, ...],
) -> Any:
    if on_thread:
        return await drive.calls.function(source, lambda: function(frame.to(video_format), *inputs))
    if frame.is_native and video_format != "frame":
        # A conversion of colours takes milliseconds: not on the event loop.
        picture = await drive.calls.function(f"{source} (conversion)", frame.to, video_format)
    else:
        picture = frame.to(video_format)
    return await drive.calls.function(source, function, picture, *inputs)
