"""The tasks and callbacks that aiortc and aioice start for one connection.

Both start tasks without keeping a reference. The failure of one is not noticed, may have ``stop()``
wait for ever, and is only reported by the garbage collector: "Task exception was never retrieved".
Here each task belongs to a connection, by a context variable that tasks and callbacks inherit. Its
failure ends that connection with a reason, and :meth:`ConnectionTasks.cancel` ends the rest.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar
from weakref import WeakSet

from fastrtc_anyio._core.log import logger

from .task_internals import HANDLED, SWALLOWING

T = TypeVar("T")

_owner: ContextVar[ConnectionTasks | None] = ContextVar("connection_tasks", default=None)
_watched: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
"""Loops with the task factory and the exception handler of this module."""


class ConnectionTasks:
    """The tasks of one connection. Must be used on the portal's loop.

    Args:
        on_failure: called with the name of a task or callback that failed, and the exception.
    """

    def __init__(self, on_failure: Callable[[str, BaseException], None]) -> None:
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, function: Callable[..., T], *args: object) -> T:
        """Return ``function(*args)``. The tasks that it starts belong to the connection."""
        context = copy_context()
        context.run(_owner.set, self)
        _watch(asyncio.get_running_loop())
        return context.run(function, *args)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task of the connection, whose failure is reported."""

        def create() -> asyncio.Task[T]:
            return asyncio.get_running_loop().create_task(coroutine)

        return self.run(create)

    def start_apart(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task that the caller awaits. It is neither watched nor cancelled here."""
        task = self.start(coroutine)
        task.remove_done_callback(self._finish)
        self._tasks.discard(task)
        return task

    def add(self, task: asyncio.Task[Any]) -> None:
        """Watch a task until it ends."""
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    async def cancel(self) -> None:
        """Cancel the tasks, and wait until they have ended."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def fail(self, name: str, error: BaseException) -> None:
        """Report the failure of a task or callback."""
        if isinstance(error, ConnectionError):  # how aiortc tells a task that the transport ended
            logger.debug("%s ended: %r", name, error, event="webrtc.task_ended")
        else:
            self._on_failure(name, error)

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        # exception() marks it as retrieved.
        if not task.cancelled() and (error := task.exception()) is not None:
            name = name_of(task)
            if name not in HANDLED:
                self.fail(name, error)


def name_of(task: asyncio.Task[Any]) -> str:
    """Return the qualified name of a task's coroutine."""
    return getattr(task.get_coro(), "__qualname__", "a task")


def _watch(loop: asyncio.AbstractEventLoop) -> None:
    """Find the connection of each task and of each failure on a loop. Idempotent."""
    if loop in _watched:
        return
    _watched.add(loop)
    former: Any = loop.get_task_factory() or _make_task

    def make_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = former(loop, coro, **options)
        context: Context | None = options.get("context")
        owner = _owner.get() if context is None else context.get(_owner)
        if owner is not None:
            owner.add(task)
        return task

    loop.set_task_factory(make_task)
    loop.set_exception_handler(_handle)


def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **options)


def _handle(loop: asyncio.AbstractEventLoop, details: dict[str, Any]) -> None:
    """Report to its connection what asyncio would log."""
    error = details.get("exception")
    owner = _find_owner(details)
    if owner is None:
        loop.default_exception_handler(details)
    elif error is None or "future" in details:
        # A future whose error came after the task that waited for it had ended.
        logger.debug("asyncio: %s: %r", details.get("message"), error, event="asyncio.error")
    else:
        owner.fail(str(details.get("message", "a callback")), error)


def _find_owner(details: dict[str, Any]) -> ConnectionTasks | None:
    owner = _owner.get()
    for key in ("handle", "task", "future"):
        # Public as get_context() from Python 3.12 on, and only for some.
        context = getattr(details.get(key), "_context", None)
        if owner is None and isinstance(context, Context):
            owner = context.get(_owner)
    return owner


class _Reports(logging.Filter):
    """Reports the exceptions that aiortc logs and swallows to their connections."""

    def filter(self, record: logging.LogRecord) -> bool:
        owner, error = _owner.get(), sys.exc_info()[1]
        if owner is None or error is None or "Traceback" not in str(record.msg):
            return True
        task = asyncio.current_task()
        owner.fail("a task" if task is None else name_of(task), error)
        return False


for _name in SWALLOWING:
    logging.getLogger(_name).addFilter(_Reports())
