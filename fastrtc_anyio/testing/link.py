"""A bad network, made of numbers: loss in bursts, delay, jitter and outages.

Nothing here waits or reads a clock: the time is an argument, and the answer is when the frame
arrives. The same seed and the same times give the same answers on every run and machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from random import Random

__all__ = ["Link", "LinkFaults"]


@dataclass(frozen=True, repr=False)
class LinkFaults:
    """What is wrong with one direction of a call. Without arguments, nothing is.

    Raises:
        ValueError: a value that is not possible; names it.
    """

    loss: float = 0.0
    """How much of what is sent is lost, in the mean: from 0 to 1."""
    delay: float = 0.0
    """Seconds that every frame takes."""
    jitter: float = 0.0
    """Seconds that a frame may take beyond ``delay``: uniform from 0 to this."""
    burst: int = 1
    """Frames lost at a time. The mean loss stays :attr:`loss`."""
    outages: tuple[tuple[float, float], ...] = ()
    """``(start, end)`` in seconds since the call began, in which nothing arrives, the start
    included and the end not. What is sent then is lost, and so is what was on its way. The last
    end may be ``math.inf``."""
    seed: int = 0
    """Another seed loses other frames."""

    def __post_init__(self) -> None:
        if not 0 <= self.loss <= 1:
            raise ValueError(f"loss must be from 0 to 1; got {self.loss!r}")
        for name in ("delay", "jitter"):
            seconds = getattr(self, name)
            if not 0 <= seconds < math.inf:
                raise ValueError(f"{name} must be 0 s or more, and finite; got {seconds!r}")
        for name in ("burst", "seed"):
            number: object = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int):
                raise ValueError(  # noqa: TRY004 - one kind of error for all of them
                    f"{name} must be an int; got {number!r}"
                )
        if self.burst < 1:
            raise ValueError(f"burst must be 1 frame or more; got {self.burst}")
        # A list is welcome, but would not be hashable.
        object.__setattr__(self, "outages", tuple(_outage(outage) for outage in self.outages))

    def __repr__(self) -> str:
        # Only what is wrong: a failing example should show at a glance what it takes.
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
        raise ValueError(f"an outage is (start, end), in seconds; got {outage!r}") from None
    if not 0 <= start <= end or start == math.inf:
        raise ValueError(f"an outage must start at 0 s or later and end after that; got {outage!r}")
    return start, end


class Link:
    """One direction of one call: says of every frame when it arrives.

    Args:
        faults: what is wrong with it.
    """

    def __init__(self, faults: LinkFaults) -> None:
        self.faults = faults
        self.sent = 0
        """Frames given to :meth:`transmit`."""
        self.lost = 0
        """How many of them never arrive."""
        self._random = Random(faults.seed)
        self._burst_left = 0
        self._sent_at = -math.inf
        self._arrived = -math.inf
        # Between two bursts lie (1 - p) / p frames in the mean, so burst / (burst + (1 - p) / p)
        # is the loss. Solved for p, the chance that a burst begins with a frame:
        self._burst_begins = (
            faults.loss / (faults.loss + faults.burst * (1 - faults.loss)) if faults.loss else 0.0
        )

    def transmit(self, now: float) -> float | None:
        """Send a frame.

        Frames arrive in the order they were sent in, as behind a jitter buffer: a late one holds
        up those behind it.

        Args:
            now: when it is sent, in seconds since the call began.

        Returns:
            When it arrives, on the same clock; None if it is lost.

        Raises:
            ValueError: ``now`` is before the frame sent last.
        """
        if not now >= self._sent_at:
            raise ValueError(f"sent at {now!r} s, after a frame sent at {self._sent_at!r} s")
        self._sent_at = now
        self.sent += 1
        # Two numbers for each frame, needed or not: what is lost does not depend on the jitter,
        # nor the jitter on what is lost, so a fault can be taken away and the rest stays.
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
