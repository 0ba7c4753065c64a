"""Decisions read from bytes: the randomness of all mutators.

A fuzzer that is guided by coverage, Hypothesis and a seeded generator all supply bytes. Equal bytes
give equal decisions, and the bytes of a finding reproduce it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Reads decisions from bytes. After their end, every decision is the first possibility."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @classmethod
    def of_seed(cls, seed: int, size: int = 96) -> Choices:
        """Return the decisions of a seeded generator."""
        return cls(random.Random(seed).randbytes(size))

    @property
    def ended(self) -> bool:
        return self._at >= len(self._data)

    def number(self, limit: int) -> int:
        """Return a number below ``limit``."""
        width = 1 if limit <= 256 else 2 if limit <= 65_536 else 4
        return int.from_bytes(self.take(width).ljust(width, b"\0"), "big") % limit

    def pick(self, items: Sequence[T]) -> T:
        return items[self.number(len(items))]

    def chance(self, one_in: int) -> bool:
        """Return True once in ``one_in`` decisions, and never after the end."""
        return self.number(one_in) == one_in - 1

    def take(self, size: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def rest(self) -> bytes:
        """Return all remaining bytes."""
        return self.take(max(0, len(self._data) - self._at))
