"""Put numbered packets back in order, holding none longer than order requires.

A packet that is next in line passes at once. Behind a gap, packets are held until the missing
packet arrives, the first of them has waited for the hold, or more than a limit are held. Then the
missing packet counts as lost, and the held packets pass. A loss therefore costs a short delay once,
and no delay afterwards. Jitter in arrival is not smoothed here but by :mod:`.playout`, which alone
knows when smoothing is needed.

The hold follows the network: it is as long as packets were lately overtaken. Where none were, a
gap is a loss, and waiting would only delay the packets behind it.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

HOLD_SECONDS = 0.06
"""Most seconds that a packet waits for those before it. Networks seldom reorder by more."""
LEAST_HOLD_SECONDS = 0.001
"""Seconds that it waits on a network that keeps the order: packets may be read in a burst."""
_FIRST_HOLD_SECONDS = 0.02
"""Seconds that it waits before the network is known, which it is after the first seconds."""
_FIRST_SECONDS = 2.0
_MARGIN = 1.25
"""Factor by which the hold exceeds the longest time by which a packet was overtaken."""
_MEMORY = 10.0
"""Seconds for which an overtaken packet is remembered. The time doubles each time that this was too
short: a packet that counted as lost came later."""
_MOST_MEMORY = 160.0
_GAPS = 8
"""Gaps given up that are remembered."""
_RTP_MODULUS = 1 << 16
_FARTHEST = 180_000
"""Distance ahead, an hour of packets, beyond which a number that only grows is malformed."""


class Ordered(NamedTuple, Generic[T]):
    """A packet that has passed.

    Attributes:
        packet: the packet.
        lost: packets directly before it that count as lost.
    """

    packet: T
    lost: int


class ReorderBuffer(Generic[T]):
    """Orders the packets of one stream by their sequence numbers.

    Times are those of any monotonic clock, in seconds.

    Args:
        limit: packets held behind a gap.
        restart: distance from the expected number beyond which a packet starts a new stream.
        first: number of the first packet; None to start with any.
        modulus: where numbers start again at 0; None for numbers that only grow. Growing numbers
            restart only when they go back: a jump ahead is a gap.
        hold: seconds that a packet waits for those before it. Less than the maximum follows the
            network.

    Attributes:
        lost: packets that did not arrive in time.
        late: packets that came after they counted as lost, or twice. They are dropped.
    """

    def __init__(
        self,
        limit: int,
        restart: int,
        *,
        first: int | None = None,
        modulus: int | None = None,
        hold: float = HOLD_SECONDS,
    ) -> None:
        self.lost = 0
        self.late = 0
        self._limit = limit
        self._restart = restart
        self._modulus = modulus
        self._next = first
        self._held: dict[int, tuple[float, T]] = {}  # with the time of arrival, in order of arrival
        self._hold = hold
        self._follows = hold < HOLD_SECONDS
        self._memory = _MEMORY
        self._forget_at = math.inf  # when the hold becomes the least
        self._gaps: deque[tuple[int, int, float]] = deque(maxlen=_GAPS)

    @classmethod
    def rtp(cls) -> ReorderBuffer[T]:
        """Return a buffer for RTP's 16-bit sequence numbers and packets of 20 ms.

        Networks seldom reorder by more than 3 packets. A number 1000 packets away, 20 s, belongs
        to a new stream.
        """
        return cls(limit=3, restart=1000, modulus=_RTP_MODULUS, hold=_FIRST_HOLD_SECONDS)

    @classmethod
    def chunks(cls) -> ReorderBuffer[T]:
        """Return a buffer for a carrier's chunks of 20 ms, numbered from 1.

        Their WebSocket keeps them in order, but not every carrier puts them in in order.
        """
        return cls(limit=5, restart=50, first=1)

    @property
    def due(self) -> float | None:
        """Time at which :meth:`poll` gives up a gap; None if no packet is held."""
        for arrived, _ in self._held.values():
            return arrived + self._hold
        return None

    def passes(self, number: int) -> bool:
        """Return whether a packet is the next in line, and none is held; then count it as passed.

        The usual case: :meth:`push` would return this packet alone.
        """
        if number != self._next or self._held:
            return False
        self._advance()
        return True

    def push(self, number: int | None, packet: T, now: float) -> list[Ordered[T]]:
        """Add a packet that has just arrived; return those that can pass now, in order.

        A packet without a number counts as the next in line.
        """
        if number is not None and self.passes(number):
            return [Ordered(packet, 0)]
        ready: list[Ordered[T]] = []
        if self._next is not None and (number is None or self._is_malformed(number)):
            number = self._next
        number = number or 0
        if self._next is None or self._is_restart(number):
            ready = self.flush()
            self._next = number
            self._forget_at = min(self._forget_at, now + _FIRST_SECONDS)
        ahead = self._distance(self._next, number)
        if self._follows and (self._held or ahead):
            self._note_order(number, ahead, now)
        if ahead < 0 or number in self._held:
            self.late += 1
            return ready
        self._held[number] = now, packet
        ready += self._pop_ready(0)
        if len(self._held) > self._limit:
            ready += self._give_up_gap()
        return ready + self.poll(now)

    def poll(self, now: float) -> list[Ordered[T]]:
        """Give up the packets that are overdue; return those that waited for them."""
        ready: list[Ordered[T]] = []
        while (due := self.due) is not None and due <= now:
            ready += self._give_up_gap()
        return ready

    def flush(self) -> list[Ordered[T]]:
        """Give up all missing packets; return those held."""
        ready: list[Ordered[T]] = []
        while self._held:
            ready += self._give_up_gap()
        return ready

    def _note_order(self, number: int, ahead: int, now: float) -> None:
        """Note by how much a packet was overtaken, if it was."""
        overtaken = 0.0
        if ahead < 0:
            for start, end, noticed in self._gaps:
                if 0 <= self._distance(start, number) < self._distance(start, end):
                    overtaken = now - noticed
                    self._memory = min(2 * self._memory, _MOST_MEMORY)
        elif number not in self._held:
            overtaken = max(
                (
                    now - arrived
                    for held, (arrived, _) in self._held.items()
                    if self._distance(number, held) > 0
                ),
                default=0.0,
            )
        if overtaken > 0:
            hold = min(_MARGIN * overtaken + LEAST_HOLD_SECONDS, HOLD_SECONDS)
            self._hold = max(self._hold, hold)
            self._forget_at = now + self._memory
        elif now >= self._forget_at:
            self._hold = LEAST_HOLD_SECONDS

    def _is_malformed(self, number: int) -> bool:
        assert self._next is not None
        return self._modulus is None and number - self._next > _FARTHEST

    def _is_restart(self, number: int) -> bool:
        assert self._next is not None
        ahead = self._distance(self._next, number)
        return ahead < -self._restart or (self._modulus is not None and ahead > self._restart)

    def _pop_ready(self, lost: int) -> list[Ordered[T]]:
        ready: list[Ordered[T]] = []
        assert self._next is not None
        while self._next in self._held:
            ready.append(Ordered(self._held.pop(self._next)[1], lost))
            lost = 0
            self._advance()
        return ready

    def _advance(self) -> None:
        assert self._next is not None
        self._next += 1
        if self._next == self._modulus:
            self._next = 0

    def _give_up_gap(self) -> list[Ordered[T]]:
        assert self._next is not None
        start = self._next
        # By distance, not by value: numbers may have wrapped within the packets held.
        self._next = min(self._held, key=lambda number: self._distance(start, number))
        gap = self._distance(start, self._next)
        self.lost += gap
        if self._follows:
            self._gaps.append((start, self._next, self._held[self._next][0]))
        return self._pop_ready(gap)

    def _distance(self, origin: int, number: int) -> int:
        """Return how far ahead of ``origin`` a number is, the short way round if they wrap."""
        if self._modulus is None:
            return number - origin
        half = self._modulus // 2
        return (number - origin + half) % self._modulus - half
