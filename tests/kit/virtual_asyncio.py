"""An asyncio event loop on virtual time: it jumps to the next timer whenever no task can run.

It is the counterpart of ``trio.testing.MockClock``.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any


class _JumpingSelector(selectors.DefaultSelector):
    now = 0.0
    threads = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self.threads:
            # Time stands still while a thread works: wait for its wake-up, not for timers.
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """``asyncio.SelectorEventLoop`` on virtual time, in seconds."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def stall(self, seconds: float) -> None:
        """Let time pass while no task runs, as when a native call keeps the interpreter."""
        self._jumping.now += seconds

    def hold(self, name: str) -> AbstractContextManager[object]:
        """Hold the clock while a thread works; the interface of ``hold_virtual_clock``."""
        return self._hold()

    @contextmanager
    def _hold(self) -> Generator[None, None, None]:
        self._jumping.threads += 1
        try:
            yield
        finally:
            self._jumping.threads -= 1
