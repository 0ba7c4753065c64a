"""Long computations in steps: :mod:`.turns` serves others between them."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Steps: TypeAlias = Generator[None, None, T]
"""A computation that yields after each step, and returns its result."""


def run_steps(steps: Steps[T]) -> T:
    """Run a computation to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
