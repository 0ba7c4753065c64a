"""Put numbered packets back in order, holding none longer than order requires.

A packet that is next in line passes at once. Behind a gap, packets are held until the missing
packet arrives, the first of them has waited for `HOLD_SECONDS`, or more than a limit are held. Then
the gap is given up and the held packets pass. A loss therefore costs a short delay once, and no
delay afterwards. Jitter in arrival is not smoothed here but by :mod:`.playout`, which alone knows
when smoothing is needed.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

HOLD_SECONDS = 0.06
"""Seconds that a packet waits for those before it. Networks seldom reorder by more."""
_RTP_MODULUS = 1 << 16
_FARTHEST = 180_000
"""Distance ahead, an hour of packets, beyond which a number that only grows is malformed."""


class Ordered(NamedTuple, Generic[T]):
    """A packet that has passed.

    Attributes:
        packet: the packet.
        lost: packets directly before it that were given up.
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

    Attributes:
        lost: packets given up.
        late: packets that came after they were given up, or twice. They are dropped.
    """

    def __init__(
        self, limit: int, restart: int, *, first: int | None = None, modulus: int | None = None
    ) -> None:
        self.lost = 0
        self.late = 0
        self._limit = limit
        self._restart = restart
        self._modulus = modulus
        self._next = first
        self._held: dict[int, tuple[float, T]] = {}  # with the time of arrival, in order of arrival

    @classmethod
    def rtp(cls) -> ReorderBuffer[T]:
        """Return a buffer for RTP's 16-bit sequence numbers and packets of 20 ms.

        Networks seldom reorder by more than 3 packets. A number 1000 packets away, 20 s, belongs
        to a new stream.
        """
        return cls(limit=3, restart=1000, modulus=_RTP_MODULUS)

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
            return arrived + HOLD_SECONDS
        return None

    def push(self, number: int | None, packet: T, now: float) -> list[Ordered[T]]:
        """Add a packet that has just arrived; return those that can pass now, in order.

        A packet without a number is taken for the next in line.
        """
        ready: list[Ordered[T]] = []
        if self._next is not None and (number is None or self._is_malformed(number)):
            number = self._next
        number = number or 0
        if self._next is None or self._is_restart(number):
            ready = self.flush()
            self._next = number
        if self._distance(self._next, number) < 0 or number in self._held:
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
            self._next += 1
            if self._modulus is not None:
                self._next %= self._modulus
        return ready

    def _give_up_gap(self) -> list[Ordered[T]]:
        assert self._next is not None
        start = self._next
        # By distance, not by value: numbers may have wrapped within the packets held.
        self._next = min(self._held, key=lambda number: self._distance(start, number))
        gap = self._distance(start, self._next)
        self.lost += gap
        return self._pop_ready(gap)

    def _distance(self, origin: int, number: int) -> int:
        """Return how far ahead of ``origin`` a number is, the short way round if they wrap."""
        if self._modulus is None:
            return number - origin
        half = self._modulus // 2
        return (number - origin + half) % self._modulus - half
