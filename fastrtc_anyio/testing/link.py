"""Network emulation: loss in bursts, delay, jitter and outages.

The emulation neither waits nor reads a clock: the time of sending is an argument, and the result is
the time of arrival. The same seed and times give the same results on every run and machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from random import Random

from fastrtc_anyio._core.options import check_number, short_repr

__all__ = ["EmulatedLink", "LinkFaults"]


@dataclass(frozen=True, repr=False)
class LinkFaults:
    """Faults of one direction of a call. The default is a perfect network.

    Raises:
        TypeError: a value is not a number, or not an int where one is required.
        ValueError: a value is out of range.
    """

    loss: float = 0.0
    """Mean fraction of lost frames, 0 to 1."""
    delay: float = 0.0
    """Seconds that every frame takes at least."""
    jitter: float = 0.0
    """Maximum additional delay in seconds, uniformly distributed from 0."""
    burst: int = 1
    """Consecutive frames of a loss. The mean stays :attr:`loss`."""
    outages: tuple[tuple[float, float], ...] = ()
    """Intervals ``(start, end)``, in seconds since the beginning of the call, in which frames that
    are sent or would arrive are lost. The start is inclusive, the end exclusive. An end may be
    ``math.inf``."""
    seed: int = 0
    """Seed of the random numbers."""

    def __post_init__(self) -> None:
        check_number("loss", self.loss, at_least=0, at_most=1)
        check_number("delay", self.delay, at_least=0, unit="seconds")
        check_number("jitter", self.jitter, at_least=0, unit="seconds")
        check_number("burst", self.burst, at_least=1, integer=True)
        check_number("seed", self.seed, integer=True)
        # Lists are accepted, but a frozen dataclass should be hashable.
        object.__setattr__(self, "outages", tuple(_outage(outage) for outage in self.outages))

    def __repr__(self) -> str:
        # Without defaults, so that a failing example shows its faults at a glance.
        faults = [
            f"{field.name}={value!r}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        ]
        return f"LinkFaults({', '.join(faults)})"


def _outage(outage: Sequence[float]) -> tuple[float, float]:
    try:
        start, end = outage
    except (TypeError, ValueError):
        raise ValueError(f"an outage must be (start, end); got {short_repr(outage)}") from None
    if not 0 <= start <= end or start == math.inf:
        raise ValueError(f"an outage must satisfy 0 <= start <= end; got {short_repr(outage)}")
    return start, end


class EmulatedLink:
    """One direction of one call: computes when each frame arrives."""

    def __init__(self, faults: LinkFaults) -> None:
        self.faults = faults
        self.sent: int = 0
        """Frames passed to :meth:`transmit`."""
        self.lost: int = 0
        """Frames that never arrive."""
        self._random = Random(faults.seed)
        self._burst_left = 0
        self._sent_at = -math.inf
        self._arrived = -math.inf
        # With the probability p that a burst begins at a frame, the mean gap between two bursts is
        # (1 - p) / p frames, and the loss is burst / (burst + (1 - p) / p). Solved for p:
        self._burst_begins = (
            faults.loss / (faults.loss + faults.burst * (1 - faults.loss)) if faults.loss else 0.0
        )

    def transmit(self, now: float) -> float | None:
        """Compute the arrival of a frame.

        Frames arrive in order, as behind a jitter buffer: a late frame delays the next ones.

        Args:
            now: time of sending, in seconds since the beginning of the call.

        Returns:
            Time of arrival on the same clock; None if the frame is lost.

        Raises:
            ValueError: ``now`` is before the previous frame.
        """
        if not now >= self._sent_at:
            raise ValueError(f"now must be at least {self._sent_at!r}; got {now!r}")
        self._sent_at = now
        self.sent += 1
        # Always two random numbers per frame, so that losses do not depend on the jitter nor the
        # jitter on losses: removing one fault keeps the others.
        lost = self._loses(self._random.random())
        late = self.faults.jitter * self._random.random()
        arrives = max(self._arrived, now + self.faults.delay + late)
        if lost or self._is_out(now) or self._is_out(arrives):
            self.lost += 1
            return None
        self._arrived = arrives
        return arrives

    def _loses(self, chance: float) -> bool:
        if self._burst_left == 0 and chance < self._burst_begins:
            self._burst_left = self.faults.burst
        if self._burst_left == 0:
            return False
        self._burst_left -= 1
        return True

    def _is_out(self, time: float) -> bool:
        return any(start <= time < end for start, end in self.faults.outages)
