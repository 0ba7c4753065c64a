"""A carrier's numbered media, put back in order.

What comes in order is handed on at once. What comes early waits for the chunks before it, until
they are there or :data:`MOST_EARLY` chunks wait; then those before the first of them are given up,
and dropped if they still come. A number far below the last one is no late chunk: the carrier has
begun to count anew.
"""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["MOST_EARLY", "ChunkOrder"]

MOST_EARLY = 5
"""Chunks that wait: 0.1 s, at the 20 ms that carriers send at a time."""
_RESTART = 50
"""So far behind is not late, but counted anew."""


T = TypeVar("T")


class ChunkOrder(Generic[T]):
    """The order of one stream, whose chunks are numbered from 1 on.

    Attributes:
        missing: chunks that were given up.
    """

    def __init__(self) -> None:
        self.missing = 0
        self._next = 1
        self._early: dict[int, T] = {}

    def push(self, chunk: int | None, media: T) -> list[T]:
        """Take a chunk; returns what is now to be heard. One without a number has no order."""
        if chunk is None:
            return [media]
        if chunk < self._next - _RESTART:
            ready = self.flush()
            self._next = chunk + 1
            return [*ready, media]
        if chunk >= self._next:  # else it is late, or came twice
            self._early[chunk] = media
        if len(self._early) > MOST_EARLY:
            self._skip()
        return self._take()

    def flush(self) -> list[T]:
        """Give up whatever is missing; returns what waited for it."""
        ready: list[T] = []
        while self._early:
            self._skip()
            ready += self._take()
        return ready

    def _skip(self) -> None:
        first = min(self._early)
        self.missing += first - self._next
        self._next = first

    def _take(self) -> list[T]:
        ready: list[T] = []
        while (media := self._early.pop(self._next, None)) is not None:
            ready.append(media)
            self._next += 1
        return ready
