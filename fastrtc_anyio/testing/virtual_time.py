"""Stop trio's virtual clock while threads work.

The clock jumps to the next deadline whenever every task waits, including tasks that wait for a
thread. Hours of virtual time would pass while a synchronous handler computes.
``fastrtc_anyio._core.threads.hold_virtual_clock`` reports such waits, and the clock then stops.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import trio
import trio.testing

from fastrtc_anyio._core.threads import hold_virtual_clock

__all__ = ["THREAD_LIMIT", "virtual_time"]

THREAD_LIMIT = 30.0
"""Default for the maximum seconds of real time that a thread may work: enough to load a model."""
_CHECK_S = 0.1
"""Seconds of real time between two checks of that limit."""


@contextmanager
def virtual_time(
    clock: trio.testing.MockClock, thread_limit: float = THREAD_LIMIT
) -> Generator[None, None, None]:
    """Let the clock jump whenever all tasks wait, except while a thread works for one of them.

    Blocks may be nested or overlap. Enter the block in the main task, before other tasks start.

    Args:
        clock: the clock of the run.
        thread_limit: maximum seconds of real time for one call on a thread. Overlapping blocks use
            the largest.

    Raises:
        TimeoutError: a call on a thread exceeded ``thread_limit``. It is raised in the waiting task
            and names the called method.
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

    @contextmanager
    def hold(self, name: str) -> Generator[None, None, None]:
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
                f"{name} did not return within {self.thread_limit:g} s of real time, during which "
                "the virtual clock stands still; pass a longer thread_limit= to open_call() if it "
                "works that long, and do not let it wait for other tasks"
            )

    async def watch(self) -> None:
        """Cancel tasks that wait too long in real time: the virtual clock has stopped."""
        with self.watching:
            while True:
                await self._some.wait()
                await trio.to_thread.run_sync(time.sleep, _CHECK_S, abandon_on_cancel=True)
                too_long = time.monotonic() - self.thread_limit
                for scope, since in self._working.items():
                    if since < too_long:
                        scope.cancel()
                if not self._working:
                    self._some = trio.Event()


_held_clocks: WeakKeyDictionary[trio.testing.MockClock, _HeldClock] = WeakKeyDictionary()
