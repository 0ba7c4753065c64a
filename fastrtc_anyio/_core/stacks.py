"""Stacks of tasks that wait, and of exceptions."""

from __future__ import annotations

import gc
from collections.abc import Generator
from inspect import isasyncgen, iscoroutine
from traceback import StackSummary
from types import FrameType

import anyio


def describe_subtasks(task_id: int) -> str:
    """Return the stacks of the innermost tasks below a task, except the current one."""
    running = anyio.get_running_tasks()
    current = anyio.get_current_task().id
    parents = {task.id: task.parent_id for task in running}

    def is_below(task: anyio.TaskInfo) -> bool:
        parent: int | None = task.id
        while parent is not None and parent != task_id:
            parent = parents.get(parent)
        return parent == task_id

    others = [task for task in running if task.id != current]
    waiting = {task.parent_id for task in others}
    innermost = [task for task in others if task.id not in waiting and is_below(task)]
    return "\n".join(f"{task.name}\n{_format(task.coro)}" for task in innermost)


def _format(coro: object) -> str:
    frames = ((frame, frame.f_lineno) for frame in awaiting_frames(coro))
    return "".join(StackSummary.extract(frames).format()).rstrip()


def awaiting_frames(coro: object) -> Generator[FrameType, None, None]:
    """Yield the frames of a waiting coroutine, outermost first.

    It is trio's ``Task.iter_await_frames``, for coroutines of any event loop.
    """
    while coro is not None:
        for kind, awaits in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame = getattr(coro, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                coro = getattr(coro, awaits)
                break
        else:
            # The awaitable of asend() does not reference its generator (CPython #76991), nor do the
            # iterators of __await__. The garbage collector knows the reference.
            referents = gc.get_referents(coro)
            coro = next((x for x in referents if isasyncgen(x) or iscoroutine(x)), None)


def forget_frames(error: BaseException) -> None:
    """Remove the tracebacks of an exception and of those that it refers to.

    A traceback keeps the variables of all its functions alive. An object that keeps an exception
    which passed one of its own methods would otherwise wait for the garbage collector.
    """
    rest, seen = [error], set[int]()
    while rest:
        one = rest.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = None
        rest += [other for other in (one.__cause__, one.__context__) if other is not None]
        if isinstance(one, BaseExceptionGroup):
            rest += one.exceptions
