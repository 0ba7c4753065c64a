"""The step that an event loop is running, seen from another thread.

A step is one callback of asyncio, or one task of trio from one checkpoint to the next. Neither
library tells another thread which step runs. Each runs it in one of its functions, whose frame
has the step's object as a local variable. This module is the only one that knows these names. It
finds nothing in a loop that runs its steps in C, such as uvloop's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Running:
    """The step that a thread with an event loop was running when it was sampled.

    Keep none of it: frames keep the objects of their functions alive.
    """

    step: Step
    innermost: FrameType
    runner: FrameType
    """The frame of the loop's function that runs steps."""

    def frames(self) -> list[tuple[FrameType, int]]:
        """Return the step's frames with their lines, outermost first."""
        frames = []
        frame: FrameType | None = self.innermost
        while frame is not None and frame is not self.runner:
            frames.append((frame, frame.f_lineno))
            frame = frame.f_back
        # A function in C has no frame: the line that calls it stands for it.
        return frames[::-1] or [(self.runner, self.runner.f_lineno)]


def find_running(innermost: FrameType | None) -> Running | None:
    """Return what runs in the innermost frame of a thread; None if no step does."""
    inner, frame, runner = None, innermost, None
    while frame is not None:
        runner = _RUNNERS.get(frame.f_code.co_name)
        if runner is not None and frame.f_globals.get("__name__") == runner.module:
            break
        inner, frame = frame, frame.f_back
    if innermost is None or frame is None or runner is None:
        return None
    # One function of trio's runs all steps, and waits for events in between.
    if runner.runs_all and (inner is None or not inner.f_code.co_flags & _COROUTINE):
        return None
    step = runner.read(frame)
    return None if step is None else Running(step, innermost, frame)


def _read_asyncio(frame: FrameType) -> Step | None:
    # The frame of a step that has ended keeps nothing alive: it clears its variable. A handle does
    # not identify a step, as that of a socket runs again.
    context = getattr(frame.f_locals.get("self"), "_context", None)
    return Step(frame, context) if isinstance(context, Context) else None


def _read_trio(frame: FrameType) -> Step | None:
    task = frame.f_locals.get("task")
    context, points = (getattr(task, name, None) for name in ("context", "_schedule_points"))
    return Step((ref(task), points), context) if isinstance(context, Context) else None


class _Runner(NamedTuple):
    """A function of a library that runs steps."""

    module: str
    read: Callable[[FrameType], Step | None]
    runs_all: bool
    """Whether one call runs all steps."""


_RUNNERS = {
    "_run": _Runner("asyncio.events", _read_asyncio, runs_all=False),
    "unrolled_run": _Runner("trio._core._run", _read_trio, runs_all=True),
}
"""By the names of the functions."""
