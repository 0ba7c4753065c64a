"""The log's view of a session: its short id, its recent events and its threads."""

from __future__ import annotations

import time
from collections import deque
from contextvars import ContextVar
from typing import NamedTuple, Protocol
from weakref import WeakSet

__all__ = ["Noted", "SessionLog", "Thread", "current_log"]

_REMEMBERED = 50
"""Recent events of a session."""


class Thread(Protocol):
    """A ``threading.Thread``."""

    name: str

    @property
    def ident(self) -> int | None: ...


class Noted(NamedTuple):
    """An event of a session."""

    at: float
    """Time of ``time.monotonic``, in seconds."""
    event: str
    level: int | None
    """Level of its log record; None without one."""


class SessionLog:
    """The log's view of a session. Thread-safe.

    Attributes:
        id: the part of the session's id that logs show. The whole id admits requests about the
            session.
        began: time of ``time.monotonic``, in seconds.
        recent: the newest events, the oldest first.
        threads: the threads that run plain functions of the session.
        block: seconds for which code of the session may hold the event loop; None for any time.
        has_blocked: whether the log has named code that held it for longer.
    """

    def __init__(self, shown_id: str, block: float | None = None) -> None:
        self.id: str = shown_id
        self.began: float = time.monotonic()
        self.recent: deque[Noted] = deque(maxlen=_REMEMBERED)
        self.threads: WeakSet[Thread] = WeakSet()
        self.block: float | None = block
        self.has_blocked: bool = False

    def note(self, event: str, level: int | None = None) -> None:
        """Remember an event. Log records of the session are remembered without this call."""
        self.recent.append(Noted(time.monotonic(), event, level))

    def note_state(self, state: str) -> None:
        """Remember a new state of the session."""
        self.note(f"session.{state}")


current_log: ContextVar[SessionLog | None] = ContextVar("current_log", default=None)
"""The log of the session of the running task or thread."""
