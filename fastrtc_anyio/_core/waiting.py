"""Waiting with a limit."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio import CancelScope

_IDLE_STEPS = 20
"""Comparisons of the counters within the limit, which is thus kept to a twentieth."""


async def is_set_by(event: anyio.Event, deadline: float) -> bool:
    """Wait for an event until ``deadline``, and return whether it is set."""
    if not event.is_set():
        with CancelScope(deadline=deadline):
            await event.wait()
    return event.is_set()


async def wait_idle(count: Callable[[], object], limit: float) -> None:
    """Wait until ``count`` has returned equal values for ``limit`` seconds.

    Comparing counters occasionally is cheaper than reading a clock for each frame.
    """
    seen, still = count(), 0
    while still < _IDLE_STEPS:
        await anyio.sleep(limit / _IDLE_STEPS)
        counted = count()
        still = still + 1 if counted == seen else 0
        seen = counted
