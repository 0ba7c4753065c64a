"""Calls of a handler's methods and functions, plain or async.

Plain functions run on threads of the session, one thread per function name, so that calls of one
function never overlap. All calls go through :class:`~fastrtc_anyio._user_code.user_code`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar, cast

import anyio
import numpy as np
from anyio import CancelScope, create_task_group

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.threads import Worker
from fastrtc_anyio._core.user_code import is_coroutine_function
from fastrtc_anyio._user_code import user_code
from fastrtc_anyio.handlers import AsyncStreamHandler, StreamHandlerBase

_GRACE = 0.2
"""Seconds that idle threads have to end, even after the deadline."""
_UNWINDING = 1.0
"""Seconds that a thread has to return from user code whose result is no longer needed."""
_LARGE = 500_000
"""Size in bytes of a picture whose conversion takes more than a millisecond."""

R = TypeVar("R")


class Calls:
    """Calls of one handler's methods and functions.

    All methods of an async handler run on the event loop, plain ones too.
    """

    def __init__(self, handler: StreamHandlerBase) -> None:
        self._handler = handler
        self._runs_on_loop = isinstance(handler, AsyncStreamHandler)
        self._workers: dict[str, Worker] = {}
        # Borrowed threads: returned, or abandoned inside a call.
        self._idle: list[Worker] = []
        self._abandoned: list[Worker] = []

    def source(self, name: str) -> str:
        """Return the name of a method for errors."""
        return f"{type(self._handler).__name__}.{name}"

    async def method(self, name: str, *args: object) -> object:
        """Call a method of the handler."""
        return await self.bind(name)(*args)

    def bind(self, name: str) -> Callable[..., Awaitable[object]]:
        """Return a function that calls a method of the handler: for calls at every frame."""
        source, method = self.source(name), getattr(self._handler, name)
        contained = user_code(source)

        async def call(*args: object) -> object:
            try:  # cheaper than the context manager
                return await method(*args)
            except BaseException as exc:
                contained.check(exc)
                raise

        async def call_plain(*args: object) -> object:
            with contained:
                return method(*args)

        async def call_on_thread(*args: object) -> object:
            return await self._call(source, method, False, args)

        if is_coroutine_function(method):
            return call
        return call_plain if self._runs_on_loop else call_on_thread

    async def function(
        self, source: str, function: Callable[..., R | Awaitable[R]], *args: object
    ) -> R:
        """Call a function: a plain one on the thread named ``source``."""
        return await self._call(source, function, is_coroutine_function(function), args)

    async def call_and_convert(
        self,
        convert: Callable[[object], R],
        source: str,
        function: Callable[..., object],
        *args: object,
    ) -> R:
        """Call a function, then check and convert its result: on the thread of a plain function,
        or with :meth:`convert`."""
        if not is_coroutine_function(function):
            return await self._call(source, lambda: convert(function(*args)), False, ())
        return await self.convert(convert, source, await self._call(source, function, True, args))

    async def convert(self, convert: Callable[[object], R], source: str, value: object) -> R:
        """Check and convert a value from user code: on the event loop, or on a thread if large."""
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, np.ndarray) and item.nbytes > _LARGE:
                return await self._call(f"{source} (conversion)", convert, False, (value,))
        return convert(value)

    async def _call(
        self,
        source: str,
        function: Callable[..., R | Awaitable[R]],
        is_async: bool,
        args: tuple[object, ...],
    ) -> R:
        with user_code(source):
            if is_async:
                return await cast("Callable[..., Awaitable[R]]", function)(*args)
            if source not in self._workers:
                self._workers[source] = Worker(source)
            return await self._workers[source].run(cast("Callable[..., R]", function), *args)

    async def call_on_spare_thread(
        self, source: str, function: Callable[..., object], *args: object
    ) -> object:
        """Call a function of which an earlier call may still run on an abandoned thread."""
        if is_coroutine_function(function):
            return await self.function(source, function, *args)
        async with self.borrow_thread(source) as worker:
            with user_code(source):
                return await worker.run(function, *args)

    @asynccontextmanager
    async def borrow_thread(
        self, source: str, at_end: Callable[[], object] | None = None
    ) -> AsyncGenerator[Worker, None]:
        """Borrow a thread for exclusive use: an idle one, or a new one.

        At the end of the block, or as soon after that as the thread is free, the thread calls
        ``at_end``, which is awaited for up to 1 s. Errors of ``at_end`` are logged.
        """
        worker = self._idle.pop() if self._idle else Worker(source)
        try:
            yield worker
        finally:
            if at_end is not None:
                await self._finish(worker, source, at_end)
            if worker.busy:
                worker.end()
                self._abandoned = [*(left for left in self._abandoned if left.alive), worker]
            else:
                self._idle.append(worker)

    async def _finish(self, worker: Worker, source: str, at_end: Callable[[], object]) -> None:
        def end() -> None:
            try:
                at_end()
            except BaseException:  # its block has ended, so no caller can receive it
                logger.exception("%s failed at the end", source, event="handler.cleanup_failed")

        with (
            CancelScope(deadline=anyio.current_time() + _UNWINDING, shield=True),
            suppress(TimeoutError),  # a virtual clock limits its wait for threads
        ):
            await worker.finish(end)

    async def join(self, deadline: float) -> int:
        """Wait for the threads until ``deadline``, and return how many are still running."""
        workers = [*self._workers.values(), *self._idle, *self._abandoned]
        with CancelScope(deadline=max(deadline, anyio.current_time() + _GRACE)):
            async with create_task_group() as tg:
                for worker in workers:
                    tg.start_soon(_close, worker)
        return sum(worker.alive for worker in workers)


async def _close(worker: Worker) -> None:
    with suppress(TimeoutError):  # a virtual clock limits its wait for threads
        await worker.aclose()
