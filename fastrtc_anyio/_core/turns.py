"""Long computations on the host's loop, which serves others between their steps."""

from __future__ import annotations

from typing import TypeVar

from anyio.lowlevel import checkpoint

from .steps import Steps

T = TypeVar("T")


async def take_turns(steps: Steps[T]) -> T:
    """Run a computation on the host's loop, with a checkpoint before each step."""
    while True:
        await checkpoint()
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
