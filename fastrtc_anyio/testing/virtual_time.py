"""Trio's virtual clock, and threads.

The clock jumps to the next deadline whenever every task waits. A task that waits for a thread looks
just the same, so hours of virtual time would pass while a plain handler computes. The seam in
:mod:`fastrtc_anyio._core.threads` tells us when that is so, and the clock then stands still.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from weakref import WeakKeyDictionary

import trio
import trio.testing

from fastrtc_anyio._core.threads import hold_virtual_clock

__all__ = ["THREAD_LIMIT", "virtual_time"]

THREAD_LIMIT = 1.0
"""Seconds of real time a thread may work before the test is told that it hangs, by default."""


@contextmanager
def virtual_time(
    clock: trio.testing.MockClock, thread_limit: float = THREAD_LIMIT
) -> Generator[None, None, None]:
    """Let the clock jump whenever all tasks wait, but never while a thread works for one.

    Blocks may be nested, or overlap: the clock is shared.

    Args:
        clock: the one the run was started with. Enter this in the main task, before others start.
        thread_limit: seconds of real time that a thread may work at a time. Of blocks that overlap,
            the largest counts.

    Raises:
        TimeoutError: in the task whose thread did not come back within ``thread_limit``; names the
            method.
    """
    held = _held_clocks.get(clock)
    if held is None:
        held = _held_clocks[clock] = _HeldClock(clock)
        clock.autojump_threshold = 0.0
        trio.lowlevel.spawn_system_task(held.watch)
    held.users += 1
    held.thread_limit = max(held.thread_limit, thread_limit)
    token = hold_virtual_clock.set(held.hold)
    try:
        yield
    finally:
        hold_virtual_clock.reset(token)
        held.users -= 1
        if not held.users:
            del _held_clocks[clock]
            held.watching.cancel()
            clock.autojump_threshold = held.before


class _HeldClock:
    def __init__(self, clock: trio.testing.MockClock) -> None:
        self.users = 0
        self.thread_limit = 0.0
        self.before = clock.autojump_threshold
        self.watching = trio.CancelScope()
        self._clock = clock
        self._working: dict[trio.CancelScope, float] = {}
        self._some = trio.Event()

    def hold(self, name: str) -> AbstractContextManager[object]:
        return self._hold(name)

    @contextmanager
    def _hold(self, name: str) -> Generator[None, None, None]:
        scope = trio.CancelScope()
        self._working[scope] = time.monotonic()
        self._clock.autojump_threshold = math.inf
        self._some.set()
        try:
            with scope:
                yield
        finally:
            del self._working[scope]
            if not self._working:
                self._clock.autojump_threshold = 0.0
        if scope.cancelled_caught:
            raise TimeoutError(
                f"{name} did not come back within {self.thread_limit:g} s of real time: a plain "
                "method that blocks cannot be tested on a virtual clock"
            )

    async def watch(self) -> None:
        """Cancel whoever waits too long. On the real clock, since the other one stands still."""
        with self.watching:
            while True:
                await self._some.wait()
                await trio.to_thread.run_sync(time.sleep, THREAD_LIMIT / 10, abandon_on_cancel=True)
                too_long = time.monotonic() - self.thread_limit
                for scope, since in self._working.items():
                    if since < too_long:
                        scope.cancel()
                if not self._working:
                    self._some = trio.Event()


_held_clocks: WeakKeyDictionary[trio.testing.MockClock, _HeldClock] = WeakKeyDictionary()
