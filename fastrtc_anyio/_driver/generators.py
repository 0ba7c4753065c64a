"""Generators of the application: their values are played until they are exhausted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from functools import partial
from typing import TypeVar

import anyio
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio._media.frames import FRAMES_PER_SECOND
from fastrtc_anyio._user_code import user_code
from fastrtc_anyio.errors import HandlerContractError
from fastrtc_anyio.handlers.functions import FunctionHandler

from .calls import Calls
from .emissions import Emission, read_audio_emission, read_video_emission
from .run import HandlerRun, wait_for_inputs

M = TypeVar("M")

_EXHAUSTED = object()


class GeneratorHandler(FunctionHandler):
    """A generator function ``*inputs -> frames`` as a handler for clients that only receive.

    It yields the values that ``emit`` or ``video_emit`` may return. The session ends once the
    generator is exhausted and its media have been played.
    """

    modalities = ("audio", "video")

    def copy(self) -> GeneratorHandler:
        return GeneratorHandler(self.callable, self.fps)


async def play_generator(run: HandlerRun[FunctionHandler]) -> None:
    """Run the generator of a session once, then end the session."""
    handler, calls = run.handler, run.calls
    source = handler.source
    await wait_for_inputs(run)
    generator = handler.callable(*handler.inputs)
    if run.session.media.video:
        show = partial(read_video_emission, source=source, video_format=handler.video_format)
        await run_generator(calls, source, generator, show, run.show)
    else:
        play = partial(read_audio_emission, source=source)
        await run_generator(calls, source, generator, play, run.play)
    await run.end()


async def run_generator(
    calls: Calls,
    source: str,
    generator: object,
    read: Callable[[object], Emission[M]],
    deliver: Callable[[Emission[M]], Awaitable[None]],
) -> None:
    """Advance a generator, plain or async, and deliver its values.

    ``read`` checks a value and ``deliver`` plays it. Only this task advances and closes the
    generator: a plain one, on a thread borrowed for it.

    Cancellation:
        Closes the generator, so its ``finally`` blocks run. The thread of a plain generator that is
        inside a call closes it once the call returns, which is awaited for up to 1 s.
    """
    if isinstance(generator, AsyncIterator):
        closing: AbstractAsyncContextManager[object] = (
            aclosing(generator) if isinstance(generator, AsyncGenerator) else nullcontext()
        )
        with user_code(source):
            async with closing:
                async for value in generator:
                    emission = await calls.convert(read, source, value)
                    await deliver(emission)
                    await _pace(emission)
    elif isinstance(generator, Iterator):
        await _run_plain(calls, source, generator, read, deliver)
    else:
        raise HandlerContractError(
            f"{source} must be a generator function, plain or async: one that yields; calling it "
            f"gave {short_repr(generator)}"
        )


async def _run_plain(
    calls: Calls,
    source: str,
    generator: Iterator[object],
    read: Callable[[object], Emission[M]],
    deliver: Callable[[Emission[M]], Awaitable[None]],
) -> None:
    def step() -> Emission[M] | None:
        # With a default, because StopIteration cannot pass through a coroutine (PEP 479).
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


async def _pace(emission: Emission[M]) -> None:
    """Wait 20 ms after an empty value; otherwise only yield to the event loop."""
    if emission == Emission():
        await anyio.sleep(1 / FRAMES_PER_SECOND)
    else:
        await checkpoint()
