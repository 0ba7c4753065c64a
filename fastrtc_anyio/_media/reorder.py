"""Put numbered packets back in order, holding none longer than order requires.

A packet that is next in line passes at once. Behind a gap, packets are held until the missing
packet arrives or more than a limit are held. Then the gap is given up and the held packets pass. A
loss therefore costs the delay of a few packets once, and no delay afterwards. Jitter in arrival is
not smoothed here but by :mod:`.playout`, which alone knows when smoothing is needed.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

MAX_CONCEALED = 5
"""Consecutive lost packets that are reported. A longer gap is an interruption, not a loss."""
_RTP_MODULUS = 1 << 16


class ReorderBuffer(Generic[T]):
    """Orders the packets of one stream by their sequence numbers.

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
        self._held: dict[int, T] = {}

    @classmethod
    def rtp(cls) -> ReorderBuffer[T]:
        """Return a buffer for RTP's 16-bit sequence numbers and packets of 20 ms.

        Networks seldom reorder by more than 3 packets, and a delay of 60 ms is acceptable. A
        number 1000 packets away, 20 s, belongs to a new stream.
        """
        return cls(limit=3, restart=1000, modulus=_RTP_MODULUS)

    @classmethod
    def chunks(cls) -> ReorderBuffer[T]:
        """Return a buffer for a carrier's chunks of 20 ms, numbered from 1."""
        return cls(limit=5, restart=50, first=1)

    def push(self, number: int, packet: T) -> list[T | None]:
        """Add a packet; return those that can pass now, in order, with None for lost packets."""
        ready: list[T | None] = []
        if self._next is None or self._is_restart(number):
            ready = self.flush()
            self._next = number
        if self._distance(self._next, number) < 0 or number in self._held:
            self.late += 1
            return ready
        self._held[number] = packet
        ready += self._pop_ready()
        if len(self._held) > self._limit:
            ready += self._give_up_gap()
        return ready

    def flush(self) -> list[T | None]:
        """Give up the missing packets; return those held, with None for lost packets."""
        ready: list[T | None] = []
        while self._held:
            ready += self._give_up_gap()
        return ready

    def _is_restart(self, number: int) -> bool:
        assert self._next is not None
        ahead = self._distance(self._next, number)
        return ahead < -self._restart or (self._modulus is not None and ahead > self._restart)

    def _pop_ready(self) -> list[T | None]:
        ready: list[T | None] = []
        assert self._next is not None
        while self._next in self._held:
            ready.append(self._held.pop(self._next))
            self._next += 1
            if self._modulus is not None:
                self._next %= self._modulus
        return ready

    def _give_up_gap(self) -> list[T | None]:
        assert self._next is not None
        start = self._next
        # By distance, not by value: numbers may have wrapped within the packets held.
        self._next = min(self._held, key=lambda number: self._distance(start, number))
        gap = self._distance(start, self._next)
        self.lost += gap
        return [None] * min(gap, MAX_CONCEALED) + self._pop_ready()

    def _distance(self, origin: int, number: int) -> int:
        """Return how far ahead of ``origin`` a number is, the short way round if they wrap."""
        if self._modulus is None:
            return number - origin
        half = self._modulus // 2
        return (number - origin + half) % self._modulus - half
