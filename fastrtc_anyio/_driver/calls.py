"""Calling a handler's methods, of either colour."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, cast, get_args

import anyio
import numpy as np
from anyio import CancelScope, create_task_group

from fastrtc_anyio._core.threads import Worker
from fastrtc_anyio._core.user_code import is_coroutine_function, user_code
from fastrtc_anyio._media.video import VideoFormat
from fastrtc_anyio.conversation.handlers import ReplyOnPause
from fastrtc_anyio.errors import HandlerContractError
from fastrtc_anyio.handlers import (
    AsyncAudioVideoStreamHandler,
    AsyncStreamHandler,
    AudioVideoStreamHandler,
    StreamHandler,
    StreamHandlerBase,
)

__all__ = ["Calls", "check_handler"]

logger = logging.getLogger("fastrtc_anyio")

_GRACE = 0.2
_UNWINDING = 1.0
"""Seconds that a thread has to come back from user code that is no longer wanted."""
_LARGE = 500_000

R = TypeVar("R")


def check_handler(handler: StreamHandlerBase) -> None:
    """Refuse methods of the wrong kind before a session starts.

    Raises:
        HandlerContractError: a coroutine function where a plain one belongs, or the reverse.
    """
    if not hasattr(handler, "expected_layout"):
        raise HandlerContractError(
            f"{type(handler).__name__}.__init__ must call super().__init__() first"
        )
    is_async = isinstance(handler, AsyncStreamHandler)
    names = [] if isinstance(handler, ReplyOnPause) else ["start_up"]
    if isinstance(handler, StreamHandler | AsyncStreamHandler):
        names += ["receive", "emit"]
    if isinstance(handler, AudioVideoStreamHandler | AsyncAudioVideoStreamHandler):
        names += ["video_receive", "video_emit"]
    for name in names:
        if inspect.iscoroutinefunction(getattr(handler, name)) != is_async:
            base, kind = (
                ("AsyncStreamHandler", "a coroutine function (async def)")
                if is_async
                else ("StreamHandler", "a plain function (def)")
            )
            raise HandlerContractError(
                f"{type(handler).__name__} is {base}'s kind: its {name} must be {kind}"
            )
    if handler.video_format not in get_args(VideoFormat):
        raise HandlerContractError(
            f"{type(handler).__name__}.video_format must be one of {get_args(VideoFormat)}; "
            f"got {handler.video_format!r}"
        )
    if inspect.iscoroutinefunction(handler.trigger_response):
        raise HandlerContractError(
            f"{type(handler).__name__}.trigger_response must be a plain function (def): it is "
            "called on any thread"
        )


class Calls:
    """Calls to one handler. Plain functions run on threads, one for each name; no two calls of
    the same name overlap."""

    def __init__(self, handler: StreamHandlerBase) -> None:
        self._handler = handler
        # An async handler lives on the event loop, whole: its plain methods too.
        self._lives_on_loop = isinstance(handler, AsyncStreamHandler)
        self._methods: dict[str, tuple[str, Callable[..., Any], bool]] = {}
        self._workers: dict[str, Worker] = {}
        # Of those that were lent: free again, or left inside a call they do not come back from.
        self._idle: list[Worker] = []
        self._left: list[Worker] = []

    def source(self, name: str) -> str:
        """What a method is called in errors."""
        return f"{type(self._handler).__name__}.{name}"

    async def method(self, name: str, *args: object) -> Any:
        """Call one of the handler's methods."""
        source, method, is_async = self._method(name)
        if self._lives_on_loop and not is_async:
            with user_code(source):
                return method(*args)
        return await self._call(source, method, is_async, args)

    async def function(self, source: str, function: Callable[..., Any], *args: object) -> Any:
        """Call a function: await a coroutine function, run any other on the thread ``source``."""
        return await self._call(source, function, is_coroutine_function(function), args)

    async def call_and_convert(
        self, read: Callable[[Any], R], source: str, function: Callable[..., Any], *args: object
    ) -> R:
        """Call a function, and have what it returned checked and converted by ``read``: on the
        function's own thread, or if that is the event loop, on another if it is much."""
        if not is_coroutine_function(function):
            return cast(R, await self.function(source, lambda: read(function(*args))))
        return await self.convert(read, source, await self._call(source, function, True, args))

    async def convert(self, read: Callable[[Any], R], source: str, value: object) -> R:
        """Check and convert what user code gave on the event loop; on a thread if it is much."""
        if not _is_large(value):
            return read(value)
        return cast(R, await self.function(f"{source} (conversion)", read, value))

    async def _call(
        self, source: str, function: Callable[..., Any], is_async: bool, args: tuple[object, ...]
    ) -> Any:
        with user_code(source):
            if is_async:
                return await function(*args)
            return await self._worker(source).run(function, *args)

    def _method(self, name: str) -> tuple[str, Callable[..., Any], bool]:
        """A method, found once: some are called for every frame."""
        if name not in self._methods:
            method = getattr(self._handler, name)
            self._methods[name] = (self.source(name), method, inspect.iscoroutinefunction(method))
        return self._methods[name]

    async def call_on_spare_thread(
        self, source: str, function: Callable[..., Any], *args: object
    ) -> Any:
        """Like :meth:`function`, where an earlier call may not have come back yet."""
        if is_coroutine_function(function):
            return await self.function(source, function, *args)
        async with self.borrow_thread(source) as worker:
            with user_code(source):
                return await worker.run(function, *args)

    @asynccontextmanager
    async def borrow_thread(
        self, source: str, at_end: Callable[[], object] | None = None
    ) -> AsyncGenerator[Worker, None]:
        """A thread to have for oneself: an idle one if there is, else a new one.

        Args:
            source: what it is for.
            at_end: called on the thread when the block is left, or as soon after that as the
                thread is free. Its errors are logged. It is waited for a second at most.
        """
        worker = self._idle.pop() if self._idle else Worker(source)
        try:
            yield worker
        finally:
            if at_end is not None:
                await self._finish(worker, source, at_end)
            if worker.busy:
                worker.end()
                self._left = [*(left for left in self._left if left.alive), worker]
            else:
                self._idle.append(worker)

    async def _finish(self, worker: Worker, source: str, at_end: Callable[[], object]) -> None:
        def end() -> None:
            try:
                at_end()
            except BaseException:  # what it belonged to is over, nobody is left to raise it to
                logger.exception("%s failed at the end", source)

        with (
            CancelScope(deadline=anyio.current_time() + _UNWINDING, shield=True),
            suppress(TimeoutError),  # a virtual clock does not wait for threads without end
        ):
            await worker.finish(end)

    async def join(self, deadline: float) -> int:
        """Wait for the threads until ``deadline``.

        Returns:
            How many were still inside the handler then.
        """
        workers = [*self._workers.values(), *self._idle, *self._left]
        # Those that are idle end in a moment, however late it is.
        with CancelScope(deadline=max(deadline, anyio.current_time() + _GRACE)):
            async with create_task_group() as tg:
                for worker in workers:
                    tg.start_soon(_close, worker)
        return sum(worker.alive for worker in workers)

    def _worker(self, source: str) -> Worker:
        if source not in self._workers:
            self._workers[source] = Worker(source)
        return self._workers[source]


def _is_large(value: object) -> bool:
    """Whether it is, or holds, a picture that takes more than a millisecond to convert."""
    values = value if isinstance(value, tuple) else (value,)
    return any(isinstance(item, np.ndarray) and item.nbytes > _LARGE for item in values)


async def _close(worker: Worker) -> None:
    with suppress(TimeoutError):  # a virtual clock does not wait for threads without end
        await worker.aclose()
