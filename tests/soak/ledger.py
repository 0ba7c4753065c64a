"""Counts of the server's handlers: sessions, faults, reasons and calls of ``shutdown``."""

from __future__ import annotations

import logging
from collections import Counter
from itertools import count
from typing import Any, Self

from fastrtc_anyio import Session
from fastrtc_anyio.session import current_session


class Ledger:
    """Counts of one server process. Handlers write it from any thread."""

    def __init__(self) -> None:
        self.trials: Counter[str] = Counter()
        """Sessions, or replies, by the fault of their handler."""
        self.reasons: Counter[tuple[str, str]] = Counter()
        """Ends of sessions by what happened in them and their reason."""
        self.open: dict[int, str] = {}
        """Handlers that have not been shut down."""
        self.twice: list[str] = []
        """Handlers that were shut down again."""
        self._ending: list[tuple[str, Session]] = []

    def count(self, label: str) -> None:
        """Count a trial."""
        self.trials[label] += 1

    def note(self, label: str, session: Session) -> None:
        """Note a session that is about to end."""
        # The id of the client states how it will end the session.
        self._ending.append((label or (session.alias or "").partition(" ")[0], session))
        self.count_ends()

    def count_ends(self) -> None:
        """Count the reasons of the sessions that have ended since they were noted."""
        ending, self._ending = self._ending, []
        for label, session in ending:
            if session.closed is None:
                self._ending.append((label, session))
            else:
                self.reasons[label, session.closed.reason.value] += 1


LEDGER = Ledger()
_numbers = count(1)


class Counted:
    """A handler whose calls of ``shutdown`` are counted."""

    label = ""
    number = 0

    def open(self, label: str = "") -> Self:
        """Count this copy."""
        self.label, self.number = label, next(_numbers)
        LEDGER.open[self.number] = label or type(self).__name__
        if label:
            LEDGER.count(label)
        return self

    def close(self) -> None:
        """Count a call of ``shutdown``."""
        if LEDGER.open.pop(self.number, None) is None:
            LEDGER.twice.append(self.label or type(self).__name__)
        LEDGER.note(self.label, current_session.get())


class Records(logging.Handler):
    """Counts log records by event and level; keeps the text of one of each kind."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.examples: dict[str, str] = {}
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        event: Any = getattr(record, "event", f"logger {record.name}")
        self.counts[event, record.levelname] += 1 + getattr(record, "suppressed", 0)
        if event not in self.examples:
            self.examples[event] = self.format(record)[-2000:]
