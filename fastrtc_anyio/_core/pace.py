"""Measurements of an event loop: how late it runs, and how busy it is."""

from __future__ import annotations

import heapq
import math
from collections import deque

TICK = 0.1
"""Seconds between two measurements."""
SMOOTHING = 0.5
"""Time constant of the load, in seconds."""
_REMEMBERED = 10
"""Measurements of the lag that count: those of the last second."""
_PEAK = 4
"""Usual ratio of the peaks to the average."""


class LoopPace:
    """Measurements of an event loop, which calls :meth:`tick` every `TICK` seconds.

    Times are in seconds: ``now`` of a monotonic clock, ``cpu`` of the loop's thread. Any thread may
    read the results.
    """

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._due = 0.0
        self._lags = deque([0.0], maxlen=_REMEMBERED)
        self._busy = 0.0

    def tick(self, now: float, cpu: float) -> float:
        """Measure, and return the time of the next tick."""
        if self._last is not None:
            elapsed = now - self._last[0]
            if elapsed <= 0:
                return self._due
            self._lags.append(max(now - self._due, 0.0))
            busy = (cpu - self._last[1]) / elapsed
            self._busy += (1 - math.exp(-elapsed / SMOOTHING)) * (busy - self._busy)
        self._last = now, cpu
        self._due = now + TICK
        return self._due

    def lag(self, now: float) -> float:
        """Return the seconds by which the loop was late in the last second, or is late now.

        The second worst measurement, as a single stall is not an overload, or four times the
        average: frames of 20 ms suffer more from a loop that is a little late all the time.
        """
        if self._last is None:
            return 0.0
        late = max(now - self._due, 0.0)
        lags = [*list(self._lags), late]
        worst, second = heapq.nlargest(2, lags)
        # A stall that lasts takes the place of the measurements of the last second.
        lasting = late - _REMEMBERED * TICK
        return max(second, lasting, _PEAK * (sum(lags) - worst) / len(lags))

    @property
    def busy(self) -> float:
        """The average share of the time for which the loop's thread computes: 0 to 1."""
        return self._busy
