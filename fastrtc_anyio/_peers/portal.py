"""The thread with the asyncio loop on which aiortc runs, and the only way to call it.

aiortc needs asyncio. It runs on a loop in a separate thread under both backends: one code path, and
user code cannot stall ICE, RTCP or pacing.

Rules for two event loops that call each other:

* Neither thread blocks on the other. Everything crosses by posting a function.
* A call that needs a result suspends its host task on an event.
* Work that must not be cancelled (closing a connection) runs as a task on the portal's loop; the
  host only waits for it.

By default one portal serves the whole process. Its first user starts it, its last user stops it.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.pace import LoopPace
from fastrtc_anyio._core.steps import Steps
from fastrtc_anyio._core.turns import take_turns

_PORTAL_WORKERS = max(2, os.cpu_count() or 2)
"""One for each core, as its work is computation. At least two."""

T = TypeVar("T")


class Portal:
    """An asyncio event loop in a daemon thread.

    Args:
        name: name of the thread.
        workers: number of threads in the loop's executor; None for asyncio's default.
    """

    def __init__(self, name: str = "fastrtc-portal", workers: int | None = None) -> None:
        self._name = name
        self._workers = workers
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._users = 0
        self._lock = threading.Lock()
        self.pace = LoopPace()
        """Measurements of the loop, while the portal runs."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop. Only ``call_soon_threadsafe`` may be called from other threads."""
        if self._loop is None:
            raise RuntimeError("the portal is not running: enter open_portal() first")
        return self._loop

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Schedule ``function(*args)`` on the portal's loop. Thread-safe."""
        self.loop.call_soon_threadsafe(function, *args)

    async def call(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        *args: object,
        give_up_after: float = math.inf,
    ) -> T:
        """Await ``function(*args)`` on the portal's loop and return its result.

        Exceptions of the coroutine pass unchanged.

        Raises:
            RuntimeError: the coroutine was cancelled on its own loop.

        Cancellation:
            Cancels the coroutine and waits until it has ended, up to ``give_up_after`` seconds.
            Under trio, the result of a coroutine that completed meanwhile is returned. Coroutines
            of aiortc swallow cancellation, so they must not be passed directly.
        """
        await checkpoint()
        loop, host, done = self.loop, Host(), anyio.Event()
        task: asyncio.Task[T] | None = None

        def start() -> None:
            nonlocal task
            task = loop.create_task(function(*args))
            task.add_done_callback(lambda _task: host.post(done.set))

        def cancel() -> None:  # never before start(): the loop keeps the order
            if task is not None:
                task.cancel()

        loop.call_soon_threadsafe(start)
        try:
            await done.wait()
        except BaseException:
            loop.call_soon_threadsafe(cancel)
            with anyio.move_on_after(give_up_after, shield=True) as wait:
                await done.wait()
            if wait.cancelled_caught:
                logger.error(
                    "%s did not end after its cancellation; abandoned",
                    _name(function),
                    event="portal.task_abandoned",
                )
                raise
            # exception() marks the exception as retrieved. asyncio would log it otherwise.
            completed = task and not task.cancelled() and task.exception() is None
            if task is not None and completed and host.asyncio_loop is None:
                # Return the result: it may be a resource that the caller has to release. trio
                # raises Cancelled again at the caller's next checkpoint. asyncio delivers a
                # cancellation only once, so there it has to be raised here.
                return task.result()
            raise
        assert task is not None
        if task.cancelled():
            raise RuntimeError(f"{_name(function)} was cancelled on its own event loop")
        return task.result()

    @staticmethod
    async def take_turns(steps: Steps[T]) -> T:
        """Run a computation on the portal's loop, which serves other connections between steps."""
        # Not anyio's checkpoint: here the library of the context may be the host's.
        return await take_turns(steps, partial(asyncio.sleep, 0))

    def start(self) -> None:
        """Count one more user, and start the thread for the first.

        Blocks until the thread has started, which takes a fraction of a millisecond.
        """
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            loop = asyncio.new_event_loop()
            # aiortc encodes video and aioice resolves names on the loop's executor. User code has
            # no access to this one, so it cannot occupy its threads.
            executor = ThreadPoolExecutor(self._workers, thread_name_prefix=self._name)
            loop.set_default_executor(executor)
            self._loop = loop
            self.pace = LoopPace()
            loop.call_soon(_measure, loop, self.pace)
            self._thread = threading.Thread(
                target=_run, args=(loop, executor), name=self._name, daemon=True
            )
            self._thread.start()

    async def stop(self) -> None:
        """Count one user less; after the last, stop the loop and wait until its thread has ended.

        Cancellation:
            Ends the wait. The thread still ends.
        """
        with self._lock:
            self._users -= 1
            last = self._users == 0
            loop, thread = self._loop, self._thread
            if last:
                self._loop = self._thread = None
        if not last:
            await checkpoint()
            return
        assert loop is not None
        assert thread is not None
        host, ended = Host(), anyio.Event()

        def join() -> None:
            thread.join()
            host.post(ended.set)

        loop.call_soon_threadsafe(loop.stop)
        # join() blocks, and must not block the host's loop, so a second thread calls it.
        threading.Thread(target=join, name=f"{self._name}-join", daemon=True).start()
        await ended.wait()


def _name(function: object) -> str:
    return getattr(function, "__qualname__", repr(function))


def _run(loop: asyncio.AbstractEventLoop, executor: ThreadPoolExecutor) -> None:
    asyncio.set_event_loop(loop)
    try:
        while not _run_until_stopped(loop):
            pass
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=1))
        loop.run_until_complete(loop.shutdown_asyncgens())
        executor.shutdown(wait=False, cancel_futures=True)
        asyncio.set_event_loop(None)
        loop.close()


def _measure(loop: asyncio.AbstractEventLoop, pace: LoopPace) -> None:
    """Measure the pace of a loop, again and again until the loop is closed."""
    now = time.monotonic()
    loop.call_later(pace.tick(now, time.thread_time()) - now, _measure, loop, pace)


def _run_until_stopped(loop: asyncio.AbstractEventLoop) -> bool:
    """Return False if code on the loop called ``sys.exit()``: it ends itself, not the others."""
    try:
        loop.run_forever()
    except (SystemExit, KeyboardInterrupt) as exc:
        logger.error(
            "%r was raised on the thread of asyncio code; the thread goes on",
            exc,
            event="portal.exit_ignored",
        )
        return False
    return True


_process_portal = Portal(workers=_PORTAL_WORKERS)


@asynccontextmanager
async def open_portal(portal: Portal | None = None) -> AsyncGenerator[Portal, None]:
    """Keep a portal running while the block runs: ``portal``, or the process's default portal."""
    portal = portal if portal is not None else _process_portal
    portal.start()
    try:
        yield portal
    finally:
        with CancelScope(shield=True):
            await portal.stop()
