"""Long computations on an event loop, which serves others between their steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from anyio.lowlevel import checkpoint

from .steps import Steps

T = TypeVar("T")


async def take_turns(steps: Steps[T], pause: Callable[[], Awaitable[object]] = checkpoint) -> T:
    """Run a computation, and ``await pause()`` before each step."""
    while True:
        await pause()
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
