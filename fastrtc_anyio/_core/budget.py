"""A budget that refills: how much a client may cause."""

from __future__ import annotations


class Budget:
    """An amount that refills at a rate per second, up to a burst. It is full at first.

    Args:
        rate: amount per second.
        burst: the largest amount; by default that of one second.
    """

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self._rate = rate
        self._burst = rate if burst is None else burst
        self._left = self._burst
        self._refilled: float | None = None

    def refill(self, now: float) -> float:
        """Return the amount that may be spent. ``now`` is in seconds."""
        before, self._refilled = self._refilled, now
        if before is not None and now > before:
            left = self._left + (now - before) * self._rate
            self._left = left if left < self._burst else self._burst
        return self._left

    def spend(self, amount: float, now: float) -> None:
        """Spend an amount, even if less is left."""
        self._left = self.refill(now) - amount

    def take(self, now: float, *, reserve: float = 0.0) -> bool:
        """Spend 1 and return True if that leaves the reserve; else return False."""
        if self.refill(now) < 1 + reserve:
            return False
        self._left -= 1
        return True
