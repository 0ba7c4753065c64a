"""Malformed items of one connection: counted, and logged once for each kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

from fastrtc_anyio._core.host import Lock
from fastrtc_anyio._core.log import logger
from fastrtc_anyio.abc import DiscardStatistics

DiscardedKind: TypeAlias = Literal[
    "audio",
    "video",
    "packets",
    "datagrams",
    "candidates",
    "events",
    "messages_in",
    "messages_out",
]
"""Names of the fields of :class:`.DiscardStatistics`."""


class Discards:
    """Counts malformed items. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counters = DiscardStatistics()

    def count(self, kind: DiscardedKind, why: str, detail: object = "") -> None:
        """Count an item, and log the first of its kind.

        Args:
            kind: kind of the item.
            why: the fault. It must not quote what the client sent: only ``detail`` may, which is
                logged at level DEBUG.
            detail: further explanation.
        """
        with self._lock:
            number: int = getattr(self._counters, kind) + 1
            setattr(self._counters, kind, number)
        logger.debug("discarded: %s; %s", why, detail, event="client.item_discarded")
        if number == 1:
            text = "%s; further ones are only counted (SessionStatistics.discarded.%s)"
            logger.warning(text, why, kind, event="client.item_discarded")

    def statistics(self) -> DiscardStatistics:
        """Return a copy of the counters."""
        with self._lock:
            return replace(self._counters)
