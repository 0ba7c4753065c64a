"""Spaces between pieces of work that a client causes at will."""

from __future__ import annotations

import math

from anyio import current_time, sleep

_PAUSE = 0.01
_FAST = 0.05


class Spacing:
    """Pauses for 10 ms after each ``batch`` of work that came within 50 ms.

    A thread that computes gives the interpreter's lock away every 5 ms only, and the portal's loop
    needs the lock several times for each frame of each call. Without pauses, a burst of small
    messages leaves gaps in all calls, although each message is cheap.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._count = 0
        self._began = -math.inf

    async def wait(self) -> None:
        """Count a piece of work, and pause after a burst. The end of a batch is a checkpoint."""
        if self._count == 0:
            self._began = current_time()
        self._count += 1
        if self._count < self._batch:
            return
        self._count = 0
        await sleep(_PAUSE if current_time() - self._began < _FAST else 0)
