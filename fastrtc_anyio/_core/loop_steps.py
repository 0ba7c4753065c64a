"""The step that an event loop is running, seen from another thread.

A step is one callback of asyncio, or one task of trio from one checkpoint to the next. Neither
library tells another thread which step runs. Both run it in a function of their own, whose frame
has the step's object as a local variable. This module is the only one that knows these names. It
finds nothing in a loop that runs its steps in C, such as uvloop's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import Context
from functools import partial
from types import FrameType
from typing import NamedTuple
from weakref import ref

__all__ = ["Running", "Step", "find_running"]

_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE


class Step(NamedTuple):
    """One step of a loop."""

    token: object
    """Equal for two samples of the same step, and no others."""
    context: Context


class Running(NamedTuple):
    """What a thread with an event loop was running when it was sampled.

    Keep none of it but `key`: frames keep the objects of their functions alive.
    """

    key: int
    """Equal for two samples of the same step, and for some others."""
    frames: list[tuple[FrameType, int]]
    """The step's frames with their lines, outermost first."""
    read_step: Callable[[], Step | None]


def find_running(frame: FrameType | None) -> Running | None:
    """Return what runs in the innermost frame of a thread; None if no step does."""
    frames: list[tuple[FrameType, int]] = []
    while frame is not None:
        read = _RUNNERS.get((frame.f_code.co_name, frame.f_globals.get("__name__", "")))
        if read is not None:
            return _make_running(frame, frames[::-1], read)
        frames.append((frame, frame.f_lineno))
        frame = frame.f_back
    return None


def _make_running(
    runner: FrameType,
    frames: list[tuple[FrameType, int]],
    read: Callable[[FrameType], Step | None],
) -> Running | None:
    if read is _read_asyncio:
        return Running(id(runner), frames, partial(read, runner))
    # One function of trio runs all steps, and waits for events in between.
    if not frames or not frames[0][0].f_code.co_flags & _COROUTINE:
        return None
    return Running(id(frames[0][0]), frames, partial(read, runner))


def _read_asyncio(frame: FrameType) -> Step | None:
    # The frame of a step that has ended keeps nothing alive: it clears its variable. A handle does
    # not identify a step, as that of a socket runs again.
    context = getattr(frame.f_locals.get("self"), "_context", None)
    return Step(frame, context) if isinstance(context, Context) else None


def _read_trio(frame: FrameType) -> Step | None:
    task = frame.f_locals.get("task")
    context, points = (getattr(task, name, None) for name in ("context", "_schedule_points"))
    return Step((ref(task), points), context) if isinstance(context, Context) else None


_RUNNERS: dict[tuple[str, str], Callable[[FrameType], Step | None]] = {
    ("_run", "asyncio.events"): _read_asyncio,
    ("unrolled_run", "trio._core._run"): _read_trio,
}
"""By the name and the module of the function that runs a step."""
