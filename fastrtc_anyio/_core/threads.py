"""Threads, and the way back from them to the event loop.

Synchronous user code runs on daemon threads of a session's own. anyio's worker threads would not
do: they are not daemons, so one handler blocked for ever in ``queue.get()`` keeps the whole
process from exiting; and they are shared, so a few such handlers starve everybody else's.

A thread cannot be killed. When a session ends, its threads are given a limited time to come back
and are then abandoned: the result is dropped, and the process can still exit.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, copy_context
from functools import partial
from queue import SimpleQueue
from typing import TypeVar, cast

import anyio
from anyio.lowlevel import checkpoint

from .host import Host

__all__ = ["Worker", "hold_virtual_clock", "run_sync"]

logger = logging.getLogger("fastrtc_anyio")

T = TypeVar("T")

hold_virtual_clock: ContextVar[Callable[[str], AbstractContextManager[object]]] = ContextVar(
    "hold_virtual_clock", default=lambda _name: nullcontext()
)
"""Entered with the method's name for as long as a thread works for the current task. The seam
through which a virtual clock is held back: it must not jump while real work is being done."""


class Worker:
    """One daemon thread that makes one call after the other.

    The thread starts with the first call. A call that is cancelled is abandoned: its result, when
    it comes, is dropped, an error logged, and :attr:`busy` stays true until then.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._host = Host()
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pending = 0
        self._ended = anyio.Event()

    @property
    def busy(self) -> bool:
        """Whether the thread is inside a call, abandoned or not."""
        return self._pending > 0

    @property
    def alive(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None and not self._ended.is_set()

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Call ``function(*args)`` on the thread and return what it returns.

        The caller's context variables are visible there.

        Raises:
            RuntimeError: if an earlier call has not returned yet. Calls never overlap.

        Cancellation:
            The wait ends at once; the call goes on without it.
        """
        await checkpoint()
        if self.busy:
            raise RuntimeError(f"{self._name} is still busy with an earlier call")
        self._pending += 1
        done = anyio.Event()
        outcome: list[tuple[bool, object]] = []
        waiting = True
        context = copy_context()

        def work() -> None:
            try:
                outcome.append((True, context.run(function, *args)))
            except BaseException as exc:  # handed to the awaiting task, which raises it
                outcome.append((False, exc))
            self._host.post(finished)

        def finished() -> None:
            self._pending -= 1
            done.set()
            if not waiting and not outcome[0][0]:
                error = cast(BaseException, outcome[0][1])
                logger.error("%s failed when it had been given up", self._name, exc_info=error)

        self._put(work)
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
        """Have the thread call ``function``, which must not raise, when it is free. It sees the
        caller's context variables."""
        self._put(partial(copy_context().run, function))

    async def finish(self, function: Callable[[], None]) -> None:
        """:meth:`post`, and wait until the call has returned.

        Cancellation:
            The wait ends at once; the call will be made without it.
        """
        done = anyio.Event()

        def work() -> None:
            function()
            self._host.post(finished)

        def finished() -> None:
            self._pending -= 1
            done.set()

        self._pending += 1
        self.post(work)
        await checkpoint()
        with hold_virtual_clock.get()(self._name):
            await done.wait()

    def end(self) -> None:
        """Have the thread end when it is free."""
        self._calls.put(None)

    async def aclose(self) -> None:
        """End the thread and wait until it has ended.

        Cancellation:
            The wait ends at once, and the thread as soon as the call it is inside returns.
        """
        self.end()
        await checkpoint()
        if self._thread is not None:
            with hold_virtual_clock.get()(self._name):
                await self._ended.wait()

    def _put(self, call: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(call)

    def _loop(self) -> None:
        try:
            while True:
                call = self._calls.get()
                if call is None:
                    break
                call()
                del call  # an idle thread keeps nobody's objects alive
        finally:
            self._host.post(self._ended.set)


async def run_sync(function: Callable[..., T], *args: object) -> T:
    """Run a plain function on a thread: a model, a file, anything that takes its time.

    Like ``anyio.to_thread.run_sync``, with three differences that a real-time handler needs: a
    call is never queued behind other people's, the thread keeps no process from exiting, and the
    virtual clock of a test waits for it.

    Raises:
        What ``function`` raises.

    Cancellation:
        The wait ends at once; the call goes on without it, and its result is dropped.
    """
    worker = Worker(getattr(function, "__qualname__", repr(function)))
    try:
        return await worker.run(function, *args)
    finally:
        worker.end()
