"""Refuse new sessions while the event loops have no time for them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import anyio
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.pace import SMOOTHING, LoopPace
from fastrtc_anyio.errors import Overloaded
from fastrtc_anyio.observability.observer import LoopLoad

BUSY_LIMIT = 0.85
"""Share of the time for which the loops may compute together, since they share the interpreter's
lock. Above it, frames are late at every peak."""
_EASED = 0.8
"""Sessions are admitted again below this part of both limits."""
_NEW_SESSION = 0.02
"""Share of the time to expect of a session that was admitted a moment ago, at least."""
_LARGE_SESSION = 0.3
"""Share of the time to expect of one more session, at most: one session at work may keep a loop
busy for a moment."""
_UNKNOWN_SESSION = 0.05
"""Share of the time to allow for a session whose load is not known. Most need less."""
_STEP = 2
"""Sessions that are admitted at once while the load of no other is known."""
_PATIENCE = 3.0
"""Seconds for which a session waits for time. Connecting costs more than a call: a burst of
sessions that the server can carry exceeds the limits for a moment."""
_POLL = 0.05
_RETRY_SECONDS = 5.0


class LoadGauge:
    """Compares the lag and the load of event loops with their limits.

    The first session of a service is always admitted: refusing it would help no other.

    Args:
        limit: seconds by which the loops may be late; None to admit every session.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, limit: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._paces: tuple[LoopPace, ...] = ()
        self._is_overloaded = False
        self._new = 0.0
        self._new_at = -math.inf

    async def measure(self, portal: LoopPace) -> None:
        """Measure the calling loop until cancelled, beside the loop that ``portal`` describes."""
        host = LoopPace()
        self.compare(host, portal)
        while True:
            due = host.tick(self._clock(), time.thread_time())
            await anyio.sleep(max(due - self._clock(), 0))

    def compare(self, *paces: LoopPace) -> None:
        """Compare these loops from now on."""
        self._paces = paces
        self._is_overloaded = False

    def measure_loops(self) -> dict[str, LoopLoad]:
        """Return the load of the host's loop and of the portal's. Thread-safe."""
        now = self._clock()
        return {
            name: LoopLoad(pace.lag(now), pace.busy)
            for name, pace in zip(("host", "portal"), self._paces, strict=False)
        }

    def check(self, active: int) -> None:
        """Check that there is time for one more session; ``active`` sessions are running.

        Raises:
            Overloaded: a loop is too late or too busy.
        """
        if self._limit is None or not self._paces:
            return
        lag, busy = self._expect_load(active)
        overloaded = self._exceeds(lag, busy)
        if overloaded and not self._is_overloaded:
            text = "overloaded: %d sessions, %.0f ms late, %.0f %% busy; new ones must wait"
            logger.warning(text, active, 1000 * lag, 100 * busy, event="server.overloaded")
        self._is_overloaded = overloaded
        if overloaded and active:
            text = "the server has too much load for a further session; try again later"
            raise Overloaded(text, retry_after=_RETRY_SECONDS)

    def is_overloaded(self, active: int) -> bool:
        """Whether one more session would exceed the limits. Changes nothing, and logs nothing."""
        return self._limit is not None and self._exceeds(*self._expect_load(active))

    def _expect_load(self, active: int) -> tuple[float, float]:
        """Return the lag of the loops, and their load with one more session."""
        now = self._clock()
        lag = max((pace.lag(now) for pace in self._paces), default=0.0)
        return lag, self._busy + self._expect(active, now) if self._paces else 0.0

    def _exceeds(self, lag: float, busy: float) -> bool:
        assert self._limit is not None
        eased = _EASED if self._is_overloaded else 1.0
        return lag > eased * self._limit or busy > eased * BUSY_LIMIT

    async def wait(self, count_active: Callable[[], int], *, in_steps: bool) -> None:
        """Wait until there is time for one more session, for 3 s at most.

        With ``in_steps``, also wait until the load of most sessions is known: the next step is at
        least 2 sessions, and at most as many as there are.

        Raises:
            Overloaded: as for :meth:`check`.
        """
        await checkpoint()
        due = anyio.current_time() + _PATIENCE
        while True:
            active = count_active()
            try:
                self.check(active)
            except Overloaded:
                if anyio.current_time() >= due:
                    raise
            else:
                if not in_steps or self._is_known(active):
                    return
            await anyio.sleep(_POLL)

    def _is_known(self, active: int) -> bool:
        """Whether enough sessions have a known load that one more cannot be too much."""
        if self._limit is None or not self._paces:
            return True
        new = self._count_new(self._clock()) + 1
        expected = self._busy + new * _UNKNOWN_SESSION
        return new <= max(_STEP, active + 1 - new) or expected <= BUSY_LIMIT

    @property
    def _busy(self) -> float:
        """The share of the time for which the loops compute together."""
        return sum(pace.busy for pace in self._paces)

    def note_session(self) -> None:
        """Note that a session was admitted, whose load is still to come."""
        now = self._clock()
        self._new = self._count_new(now) + 1
        self._new_at = now

    def _count_new(self, now: float) -> float:
        """Return the number of sessions whose load the averages do not show yet."""
        return self._new * math.exp(-(now - self._new_at) / SMOOTHING)

    def _expect(self, active: int, now: float) -> float:
        """Return the load to come from new sessions and one more: as much as from the others."""
        new = self._count_new(now)
        known = active - new
        # While most sessions are new, the load is that of their beginning.
        each = max(self._busy / known if known > active / 2 else 0.0, _NEW_SESSION)
        return new * each + min(each, _LARGE_SESSION)
