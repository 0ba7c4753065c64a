"""Decide which clients may begin a session."""

from __future__ import annotations

from typing import Literal

from fastrtc_anyio.errors import AdmissionError, InvalidStateError

from .registry import SessionRegistry

ConcurrencyLimit = int | Literal["default"] | None


class Admission:
    """Admits clients within the limits of a service."""

    def __init__(self, registry: SessionRegistry, limit: int | None) -> None:
        self.registry = registry
        self._limit = limit

    def admit(self, alias: str | None) -> None:
        """Check that a further session may begin.

        Raises:
            InvalidStateError: the alias is in use.
            AdmissionError: the limit of concurrent sessions is reached.
        """
        if alias is not None and self.registry.find(alias) is not None:
            raise InvalidStateError(f"the webrtc_id {alias!r} is in use")
        active = self.registry.active
        if self._limit is not None and active >= self._limit:
            raise AdmissionError(self._limit, active)


def parse_limit(limit: object) -> int | None:
    """Return the option ``concurrency_limit`` as a number of sessions, or None for no limit."""
    if limit == "default":
        return 1
    if limit is None or (isinstance(limit, int) and not isinstance(limit, bool) and limit > 0):
        return limit
    raise ValueError(f'concurrency_limit must be a positive int, "default" or None; got {limit!r}')
