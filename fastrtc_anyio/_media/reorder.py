"""Puts packets back in order, and keeps none a moment longer than order needs.

A packet that is next in line passes at once. Behind a gap, packets are held until the missing one
comes or a few have been held; then the gap is given up and all of them pass. So a loss costs a
delay of some packets once, and no delay afterwards. (Smoothing out when packets arrive is not done
here but where sound is played, by :mod:`.playout`, which alone knows when it is needed.)
"""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["MAX_CONCEALED", "REORDER_LIMIT", "JitterBuffer"]

T = TypeVar("T")

REORDER_LIMIT = 3
"""Packets held behind a gap. Real networks seldom reorder by more, and 60 ms is bearable."""
MAX_CONCEALED = 5
"""Lost packets in a row that are reported; a longer gap is an interruption, not a loss."""
_RESTART = 1000
"""A sequence number further off than this is a new stream (20 s of packets)."""


class JitterBuffer(Generic[T]):
    """Orders packets by their 16-bit RTP sequence numbers.

    Attributes:
        lost: packets given up.
        late: packets that came after they were given up, or twice; dropped.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.late = 0
        self._next: int | None = None
        self._held: dict[int, T] = {}

    def push(self, sequence: int, packet: T) -> list[T | None]:
        """Take a packet.

        Args:
            sequence: its RTP sequence number.
            packet: never None.

        Returns:
            What can be passed on now, in order; None stands for a lost packet.
        """
        ahead = 0 if self._next is None else _distance(self._next, sequence)
        if self._next is None or abs(ahead) > _RESTART:
            self._held.clear()
            self._next = sequence
            ahead = 0
        if ahead < 0 or sequence in self._held:
            self.late += 1
            return []
        self._held[sequence] = packet
        ready = self._take_ready()
        if len(self._held) > REORDER_LIMIT:
            ready += self._give_up_gap()
            ready += self._take_ready()
        return ready

    def _take_ready(self) -> list[T | None]:
        ready: list[T | None] = []
        assert self._next is not None
        while self._next in self._held:
            ready.append(self._held.pop(self._next))
            self._next = (self._next + 1) & 0xFFFF
        return ready

    def _give_up_gap(self) -> list[T | None]:
        assert self._next is not None
        start = self._next
        self._next = min(self._held, key=lambda sequence: _distance(start, sequence))
        gap = _distance(start, self._next)
        self.lost += gap
        return [None] * min(gap, MAX_CONCEALED)


def _distance(origin: int, sequence: int) -> int:
    """How far ahead of another a 16-bit sequence number is, the short way round."""
    return (sequence - origin + 0x8000) % 0x10000 - 0x8000
