"""One error out, not a nest."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from anyio import get_cancelled_exc_class

__all__ = ["unwrapped"]


@contextmanager
def unwrapped() -> Generator[None, None, None]:
    """Put this round a task group: a group of one error leaves as that error.

    Cancellations beside a real error are left out; several real errors stay a group.
    """
    error: BaseException | None = None
    try:
        yield
    except BaseExceptionGroup as group:
        error = group
        _, real = group.split(get_cancelled_exc_class())
        if real is not None:
            error = real
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
    if error is not None:
        try:
            raise error
        finally:
            del error  # no reference cycle through the traceback
