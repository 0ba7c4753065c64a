"""Wait for another thread, process or task."""

from __future__ import annotations

from collections.abc import Callable

import anyio

SECONDS = 20.0
"""Deadline for something that takes a fraction of a second on an idle machine."""
POLL = 0.01


async def wait_until(
    condition: Callable[[], object], what: str = "the condition", *, seconds: float = SECONDS
) -> None:
    """Poll ``condition`` until it holds.

    Raises:
        AssertionError: it does not hold within ``seconds``; the message names ``what``.
    """
    with anyio.move_on_after(seconds):
        while not condition():
            await anyio.sleep(POLL)
        return
    raise AssertionError(f"{what}: not within {seconds:g} s")
