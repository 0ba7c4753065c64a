"""Measurements of an event loop: how late it runs, and how busy it is."""

from __future__ import annotations

import math

TICK = 0.1
"""Seconds between two measurements."""
_SMOOTHING = 1.0
"""Time constant of the averages, in seconds: one short stall is no overload."""


class LoopPace:
    """Moving averages of an event loop, which calls :meth:`tick` every `TICK` seconds.

    Times are in seconds: ``now`` of a monotonic clock, ``cpu`` of the loop's thread. Any thread may
    read the averages.
    """

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._due = 0.0
        self._lag = 0.0
        self._busy = 0.0

    def tick(self, now: float, cpu: float) -> float:
        """Measure, and return the time of the next tick."""
        if self._last is not None:
            elapsed = now - self._last[0]
            if elapsed <= 0:
                return self._due
            busy = (cpu - self._last[1]) / elapsed
            self._lag = self.lag(now)
            self._busy += _weight(elapsed) * (busy - self._busy)
        self._last = now, cpu
        self._due = now + TICK
        return self._due

    def lag(self, now: float) -> float:
        """Return the average seconds by which the loop is late, a stall that lasts included."""
        if self._last is None:
            return 0.0
        late = max(now - self._due, 0.0)
        return self._lag + _weight(now - self._last[0]) * (late - self._lag)

    @property
    def busy(self) -> float:
        """The average share of the time for which the loop's thread computes: 0 to 1."""
        return self._busy


def _weight(elapsed: float) -> float:
    return 1 - math.exp(-max(elapsed, 0.0) / _SMOOTHING)
