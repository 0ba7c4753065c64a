"""Refuse requests that the server has no resources for."""

from __future__ import annotations

import logging
import time

from ._core.host import Lock
from ._core.log import logger
from ._core.shortage import find_shortage
from .errors import Overloaded

_QUIET = 60.0
"""Seconds between two warnings about the same resource."""

_lock = Lock()
_warned: dict[str, float] = {}
"""Time of the last warning by resource."""


def as_overloaded(error: BaseException) -> Overloaded | None:
    """Return the refusal for an error caused by a shortage of the process; None for any other.

    The first shortage of each resource is logged as a warning, and another after a minute.
    """
    if isinstance(error, Overloaded):
        return error
    resource = find_shortage(error)
    if resource is None:
        return None
    _warn(resource, error)
    return Overloaded(f"the server is out of {resource}; try again later")


def _warn(resource: str, error: BaseException) -> None:
    now = time.monotonic()
    with _lock:
        due = now - _warned.get(resource, -_QUIET) >= _QUIET
        if due:
            _warned[resource] = now
    level = logging.WARNING if due else logging.DEBUG
    logger.log(
        level,
        "the process is out of %s: requests are refused (%r)",
        resource,
        error,
        event="process.shortage",
    )
