"""Network emulation: independent jitter and loss of each packet, and an outage."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Faults:
    """Faults of a line."""

    jitter: float = 0.0
    """Maximum additional delay in seconds, uniformly distributed from 0. Packets stay in order."""
    loss: float = 0.0
    """Fraction of packets that are lost, 0 to 1."""
    echo: bool = True
    """Whether the way back has the jitter and the loss, too."""
    outage: tuple[int, int] = (0, 0)
    """Numbers of the first frame to the server that is lost, and of the first that is not."""


class Line:
    """One direction of one call."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self._faults = faults
        self._random = Random(seed)
        self._last = 0.0

    def transmit(self, now: float, number: int = -1) -> float | None:
        """Return the time of arrival of a packet of a frame; None if it is lost."""
        # Two random numbers for each packet: losses do not depend on the jitter.
        lost = self._random.random() < self._faults.loss
        late = self._random.random() * self._faults.jitter
        self._last = max(self._last, now + late)
        first, last = self._faults.outage
        return None if lost or first <= number < last else self._last
