"""A generator function as a handler: what it yields is played until it is exhausted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from fastrtc_anyio.functions import FunctionHandler
from fastrtc_anyio.groups import contained

from .drive import Drive, wait_for_inputs
from .emissions import Emission, picture_order, read_audio_emission, read_video_emission

__all__ = ["play_generator"]

M = TypeVar("M")

_EXHAUSTED = object()


async def play_generator(drive: Drive[FunctionHandler]) -> None:
    """Run the generator once for this session, then end it."""
    handler = drive.handler
    await wait_for_inputs(drive)
    order = picture_order(handler.video_format)
    if drive.session.media.video:
        await _play(
            drive, lambda value: read_video_emission(value, handler.source, order), drive.show
        )
    else:
        await _play(drive, lambda value: read_audio_emission(value, handler.source), drive.play)
    await drive.end()


async def _play(
    drive: Drive[FunctionHandler],
    read: Callable[[object], Emission[M]],
    deliver: Callable[[Emission[M]], Awaitable[None]],
) -> None:
    handler, calls = drive.handler, drive.calls
    generator: Any = handler.callable(*handler.inputs)
    if handler.is_async:
        # Advanced and closed by this task alone.
        with contained(handler.source):
            async with aclosing(generator):
                async for value in generator:
                    await deliver(await calls.read(read, handler.source, value))
        return

    def step() -> Emission[M] | None:
        value = next(generator, _EXHAUSTED)
        return None if value is _EXHAUSTED else read(value)

    try:
        while (emission := await calls.function(handler.source, step)) is not None:
            await deliver(emission)
    finally:
        # It may be running this moment, and only its own thread can close it.
        calls.afterwards(handler.source, generator.close)
