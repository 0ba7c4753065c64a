"""A generator function as a handler: what it yields is played until it is exhausted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from typing import Any

from fastrtc_anyio.functions import FunctionHandler
from fastrtc_anyio.groups import contained

from .drive import Drive
from .emissions import picture_order, read_audio_emission, read_video_emission

__all__ = ["play_generator"]

_EXHAUSTED = object()


async def play_generator(drive: Drive[FunctionHandler]) -> None:
    """Run the generator once for this session, then end it."""
    handler = drive.handler
    if handler.needs_args and not handler.args_set.is_set():
        await handler.wait_for_args()
    if handler.is_async:
        await _play_async(drive)
    else:
        await _play_plain(drive)
    await drive.end()


async def _play_async(drive: Drive[FunctionHandler]) -> None:
    handler = drive.handler
    generator: AsyncGenerator[Any, None] = handler.callable(*handler.inputs)
    # Advanced and closed by this task alone.
    with contained(handler.source):
        async with aclosing(generator):
            async for value in generator:
                await _deliver(drive, value)


async def _play_plain(drive: Drive[FunctionHandler]) -> None:
    handler, calls = drive.handler, drive.calls
    generator: Generator[Any, None, None] = handler.callable(*handler.inputs)
    try:
        while (
            value := await calls.function(handler.source, next, generator, _EXHAUSTED)
        ) is not _EXHAUSTED:
            await _deliver(drive, value)
    finally:
        # It may be running this moment, and only its own thread can close it.
        calls.afterwards(handler.source, generator.close)


async def _deliver(drive: Drive[FunctionHandler], value: object) -> None:
    source = drive.handler.source
    if drive.session.media.video:
        order = picture_order(drive.handler.video_format)
        await drive.show(read_video_emission(value, source, order))
    else:
        await drive.play(read_audio_emission(value, source))
