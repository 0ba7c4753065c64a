"""Unwrap exception groups of one error."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from anyio import get_cancelled_exc_class


@contextmanager
def collapse_groups() -> Generator[None, None, None]:
    """Around a task group: raise a group of one error as that error.

    Cancellations beside other errors are dropped. Several errors stay a group.
    """
    error: BaseException | None = None
    try:
        yield
    except BaseExceptionGroup as group:
        error = _find_error(group)
    if error is not None:
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # not the group
            del error, context  # no reference cycle through the traceback


def _find_error(group: BaseExceptionGroup) -> BaseException:
    error: BaseException | None = group.split(get_cancelled_exc_class())[1]
    if error is None:
        return group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
