"""Daemon threads for synchronous user code.

Each session has its own threads. anyio's worker threads are unsuitable: they are not daemons, so a
handler that blocks forever in ``queue.get()`` would keep the process from exiting; and they are
shared, so a few such handlers would starve all other sessions.

Python cannot kill a thread. At the end of a session, its threads get a limited time to finish and
are then abandoned: their results are dropped, and the process can still exit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, copy_context
from functools import partial
from queue import SimpleQueue
from types import CodeType
from typing import TypeVar, cast

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from .host import Host
from .log import logger
from .options import short_repr
from .session_log import current_log
from .user_code import is_coroutine_function

T = TypeVar("T")

hold_virtual_clock: ContextVar[Callable[[str], AbstractContextManager[object]]] = ContextVar(
    "hold_virtual_clock", default=lambda _name: nullcontext()
)
"""Factory of a context manager that is entered while a thread works for the current task. Its
argument is the name of the called function. Tests use it to stop a virtual clock during real
work."""


class Worker:
    """One daemon thread for calls that never overlap.

    The thread starts with the first call. A cancelled call is abandoned: it continues, :attr:`busy`
    stays true until it returns, its result is dropped and its error is logged.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._host = Host()
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pending = 0
        self._ended = anyio.Event()
        self._log = current_log.get()

    @property
    def busy(self) -> bool:
        """Whether a call has not returned yet, abandoned or not."""
        return self._pending > 0

    @property
    def alive(self) -> bool:
        """Whether the thread has started and not ended."""
        return self._thread is not None and not self._ended.is_set()

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Return ``function(*args)``, called on the thread with the caller's context variables.

        Raises:
            RuntimeError: an earlier call has not returned yet.

        Cancellation:
            Abandons the call. A call that the thread has not begun is not made.
        """
        await checkpoint_if_cancelled()
        if self.busy:
            raise RuntimeError(f"{self._name} is still busy with an earlier call")
        self._pending += 1
        done = anyio.Event()
        outcome: list[tuple[bool, object]] = []
        waiting = True
        context = copy_context()

        def work() -> None:
            try:
                # A new thread may start later than the caller is cancelled: without the check, a
                # handler's start_up could run after its shutdown.
                outcome.append((True, context.run(function, *args) if waiting else None))
            except KeyboardInterrupt as exc:
                error = RuntimeError("KeyboardInterrupt was raised on a thread: it is no Ctrl-C")
                error.__cause__ = exc
                outcome.append((False, error))
            except BaseException as exc:  # the awaiting task raises it
                outcome.append((False, exc))
            self._host.post(finished)

        def finished() -> None:
            self._pending -= 1
            done.set()
            if not waiting and not outcome[0][0]:
                error = cast(BaseException, outcome[0][1])
                text = "%s failed after it was abandoned"
                context.run(
                    logger.error, text, self._name, exc_info=error, event="handler.failed_late"
                )

        try:
            self._put(work)
        except BaseException:
            self._pending -= 1
            raise
        with hold_virtual_clock.get()(self._name):
            try:
                await done.wait()
            finally:
                waiting = done.is_set()
        succeeded, value = outcome.pop()
        if succeeded:
            return cast(T, value)
        try:
            raise cast(BaseException, value)
        finally:
            del value  # no reference cycle through the traceback

    def post(self, function: Callable[[], None]) -> None:
        """Queue ``function``, which must not raise, with the caller's context variables."""
        self._put(partial(copy_context().run, function))

    async def finish(self, function: Callable[[], None]) -> None:
        """Queue ``function`` as :meth:`post` does, and wait until it has returned.

        Cancellation:
            Ends the wait; the call is still made.
        """
        done = anyio.Event()

        def work() -> None:
            function()
            self._host.post(finished)

        def finished() -> None:
            self._pending -= 1
            done.set()

        self.post(work)
        self._pending += 1
        await checkpoint()
        with hold_virtual_clock.get()(self._name):
            await done.wait()

    def end(self) -> None:
        """End the thread after the queued calls."""
        self._calls.put(None)

    async def aclose(self) -> None:
        """End the thread after the queued calls, and wait until it has ended.

        Cancellation:
            Ends the wait; the thread still ends.
        """
        self.end()
        await checkpoint()
        if self._thread is not None:
            with hold_virtual_clock.get()(self._name):
                await self._ended.wait()

    def _put(self, call: Callable[[], None]) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
            thread.start()  # it may raise RuntimeError: the process is out of threads
            self._thread = thread
            if self._log is not None:
                self._log.threads.add(thread)
        self._calls.put(call)

    def _loop(self) -> None:
        try:
            while True:
                call = self._calls.get()
                if call is None:
                    break
                call()
                del call  # an idle thread must not keep objects alive
        finally:
            self._host.post(self._ended.set)


IDLE: CodeType = Worker._loop.__code__
"""The function in which the thread of a worker waits for calls."""


async def run_sync(function: Callable[..., T], *args: object) -> T:
    """Run a synchronous function on a thread, such as a model or file access.

    Unlike with ``anyio.to_thread.run_sync``, the call never waits for other calls, the thread does
    not keep the process from exiting, and the virtual clock of a test stops for it.

    Raises:
        TypeError: ``function`` is not a synchronous function.
        Exception: ``function`` raised it.

    Cancellation:
        Abandons the call; its result is dropped.
    """
    given: object = function
    if not callable(given) or is_coroutine_function(given):
        raise TypeError(f"function must be a synchronous function; got {short_repr(given)}")
    worker = Worker(getattr(function, "__qualname__", repr(function)))
    try:
        return await worker.run(function, *args)
    finally:
        worker.end()
