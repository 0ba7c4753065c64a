"""Stacks of tasks that wait, of threads and of exceptions."""

from __future__ import annotations

import gc
import heapq
import sys
from collections import Counter
from collections.abc import Generator, Iterable
from inspect import isasyncgen, iscoroutine
from itertools import islice
from operator import itemgetter
from traceback import StackSummary
from types import CodeType, FrameType

import anyio

from .session_log import Thread

__all__ = [
    "awaiting_frames",
    "choose_tasks",
    "describe_subtasks",
    "describe_threads",
    "extract_stack",
    "find_tasks",
    "forget_frames",
    "task_stack",
    "thread_stack",
]

_MAX_LOGGED = 20
"""Tasks or threads with their stacks in a log record. Reading a stack takes 0.1 ms."""
_LIBRARIES = {"anyio", "asyncio", "threading", "trio"}
_MODULES = {"fastrtc_anyio._core.threads"}
"""Packages and modules whose functions run tasks and threads."""


def find_tasks(task_id: int) -> list[anyio.TaskInfo]:
    """Return a task and all tasks below it, except the current one."""
    running = anyio.get_running_tasks()
    current = anyio.get_current_task().id
    parents = {task.id: task.parent_id for task in running}

    def is_below(task: anyio.TaskInfo) -> bool:
        parent: int | None = task.id
        while parent is not None and parent != task_id:
            parent = parents.get(parent)
        return parent == task_id

    return [task for task in running if task.id != current and is_below(task)]


def describe_subtasks(task_id: int) -> str:
    """Return the stacks of the innermost tasks below a task, except the current one."""
    tasks = find_tasks(task_id)
    waiting = {task.parent_id for task in tasks}
    innermost = [task for task in tasks if task.id not in waiting]
    shown = choose_tasks(innermost, _MAX_LOGGED)
    text = _format((str(task.name), task_stack(task)) for task in shown)
    more = len(innermost) - len(shown)
    return f"{text}\n... ({more} more tasks)" if more else text


def choose_tasks(tasks: Iterable[anyio.TaskInfo], limit: int) -> list[anyio.TaskInfo]:
    """Return a limited number of tasks: the first of each name before the second of any."""
    counts = Counter[str | None]()
    ranked = []
    for task in tasks:
        ranked.append((counts[task.name], task))
        counts[task.name] += 1
    return [task for _, task in heapq.nsmallest(limit, ranked, key=itemgetter(0))]


def describe_threads(threads: Iterable[Thread], idle: CodeType) -> str:
    """Return the stacks of some threads that are inside a call: see :func:`thread_stack`."""
    stacks = ((thread.name, thread_stack(thread, idle)) for thread in list(threads))
    return _format(islice(((name, stack) for name, stack in stacks if stack), _MAX_LOGGED))


def _format(stacks: Iterable[tuple[str, StackSummary]]) -> str:
    return "\n".join(f"{name}\n{''.join(stack.format()).rstrip()}" for name, stack in stacks)


def task_stack(task: anyio.TaskInfo) -> StackSummary:
    """Return the stack of a task that waits, outermost first."""
    return _extract([(frame, frame.f_lineno) for frame in awaiting_frames(task.coro)])


def thread_stack(thread: Thread, idle: CodeType) -> StackSummary:
    """Return the stack of a thread, outermost first; empty if it does not run.

    Also empty if its innermost function is ``idle``, in which it waits for work.
    """
    frame = sys._current_frames().get(thread.ident or 0)
    frames: list[tuple[FrameType, int]] = []
    if frame is not None and frame.f_code is idle:
        frame = None
    while frame is not None:
        frames.append((frame, frame.f_lineno))
        frame = frame.f_back
    return _extract(frames[::-1])


def _extract(frames: list[tuple[FrameType, int]]) -> StackSummary:
    """Return a stack without the functions of event loops and threads at its ends."""
    own = [place for place, (frame, _) in enumerate(frames) if not _is_plumbing(frame)]
    return extract_stack(frames[own[0] : own[-1] + 1] if own else frames)


def _is_plumbing(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__"))
    return module.partition(".")[0] in _LIBRARIES or module in _MODULES


def extract_stack(frames: Iterable[tuple[FrameType, int]]) -> StackSummary:
    """Return the stack of frames and the lines that they have reached."""
    return StackSummary.extract(iter(frames))


def awaiting_frames(coro: object) -> Generator[FrameType, None, None]:
    """Yield the frames of a waiting coroutine, outermost first.

    It is trio's ``Task.iter_await_frames``, for coroutines of any event loop.
    """
    seen = set[int]()  # an awaitable of the application may refer to what awaits it
    while coro is not None and id(coro) not in seen:
        seen.add(id(coro))
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
    which passed one of its methods would otherwise wait for the garbage collector.
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
