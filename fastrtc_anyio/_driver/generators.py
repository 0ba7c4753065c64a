"""Generators: what they yield is played until they are exhausted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.user_code import user_code
from fastrtc_anyio._media.frames import FRAMES_PER_SECOND
from fastrtc_anyio.errors import HandlerContractError
from fastrtc_anyio.functions import FunctionHandler

from .calls import Calls
from .emissions import Emission, picture_order, read_audio_emission, read_video_emission
from .run import HandlerRun, wait_for_inputs

__all__ = ["play_generator", "run_generator"]

M = TypeVar("M")

_EXHAUSTED = object()


async def play_generator(run: HandlerRun[FunctionHandler]) -> None:
    """Run the generator once for this session, then end it."""
    handler, calls = run.handler, run.calls
    source = handler.source
    await wait_for_inputs(run)
    generator = handler.callable(*handler.inputs)
    if run.session.media.video:
        order = picture_order(handler.video_format)
        await run_generator(
            calls, source, generator, lambda value: read_video_emission(value, source, order),
            run.show,
        )  # fmt: skip
    else:
        await run_generator(
            calls, source, generator, lambda value: read_audio_emission(value, source), run.play
        )
    await run.end()


async def run_generator(
    calls: Calls,
    source: str,
    generator: object,
    read: Callable[[object], Emission[M]],
    deliver: Callable[[Emission[M]], Awaitable[None]],
) -> None:
    """Advance a generator, plain or async, and deliver what it yields.

    It is advanced and closed by this task alone; a plain one, by a thread that this task has for
    the time.

    Args:
        calls: of the handler it belongs to.
        source: whose code it is, for errors.
        generator: what the user's function returned.
        read: checks what is yielded.
        deliver: plays it.

    Raises:
        HandlerContractError: it is no generator.
        Whatever the generator raises.

    Cancellation:
        Closes the generator: its ``finally`` blocks run. A plain one that is inside a call is
        closed by its thread when that returns, which is waited for a second at most.
    """
    if isinstance(generator, AsyncIterator):
        with user_code(source):
            async with _closing(generator):
                async for value in generator:
                    emission = await calls.convert(read, source, value)
                    await deliver(emission)
                    await _pace(emission)
    elif isinstance(generator, Iterator):
        await _run_plain(calls, source, generator, read, deliver)
    else:
        raise HandlerContractError(
            f"{source} must be a generator function, plain or async: one that yields; calling it "
            f"gave {generator!r}"
        )


async def _run_plain(
    calls: Calls,
    source: str,
    generator: Iterator[Any],
    read: Callable[[object], Emission[M]],
    deliver: Callable[[Emission[M]], Awaitable[None]],
) -> None:
    def step() -> Emission[M] | None:
        value = next(generator, _EXHAUSTED)
        return None if value is _EXHAUSTED else read(value)

    close = getattr(generator, "close", lambda: None)
    async with calls.borrow_thread(source, at_end=close) as worker:
        while True:
            with user_code(source):
                emission = await worker.run(step)
            if emission is None:
                return
            await deliver(emission)
            await _pace(emission)


async def _pace(emission: Emission[Any]) -> None:
    """Who gives nothing is asked again 20 ms later; who gives no media lets others run as well."""
    if emission == Emission():
        await anyio.sleep(1 / FRAMES_PER_SECOND)
    else:
        await checkpoint()


def _closing(generator: AsyncIterator[Any]) -> AbstractAsyncContextManager[object]:
    return aclosing(generator) if isinstance(generator, AsyncGenerator) else nullcontext()
