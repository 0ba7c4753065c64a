"""One daemon thread that works for many sessions.

Work that each session has to do every few milliseconds is cheaper in rounds: a thread that wakes
for one session's few microseconds of work spends more time on waking, and on code and data that the
processor's caches have lost meanwhile.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from .records import log_failure

_EXIT_S = 1.0
"""Seconds that the end of the process waits for the thread."""
_MAX_WAIT = 3600.0
"""Seconds of one wait, at most. An infinite period is none that the operating system knows."""


class Member(Protocol):
    """A session's part of the work."""

    @property
    def waiting(self) -> bool:
        """Whether there is work that must not wait for the next round."""
        ...

    def end(self, error: Exception) -> None:
        """Report an error to the session: the thread no longer works for it."""
        ...


M = TypeVar("M", bound=Member)


class SharedThread(Generic[M]):
    """Daemon thread that works for its members in rounds, as long as there are any.

    Make one for the process: it is never freed. The thread ends before the process does, because a
    library that Python stops in the middle of a call may abort the process.

    Args:
        name: name of the thread.
        serve: called on the thread, with all members in each round, and between the rounds, after
            `wake`, with those that are waiting. It should contain errors that concern one member:
            one that it raises ends all members of the call.
        period: returns the seconds from one round to the next for these members.
    """

    def __init__(
        self,
        name: str,
        serve: Callable[[Sequence[M]], None],
        period: Callable[[Sequence[M]], float],
    ) -> None:
        self._name = name
        self._serve = serve
        self._period = period
        self._reset()
        atexit.register(self._exit)
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        # A forked process has no thread, and may have a copy of a lock made while it was held.
        self._lock = threading.Lock()
        self._members: list[M] = []
        self._thread: threading.Thread | None = None
        self._awake = threading.Event()
        self._exiting = False

    def _exit(self) -> None:
        with self._lock:
            self._exiting = True
            self._members.clear()
            thread = self._thread
        self._awake.set()
        if thread is not None:
            thread.join(_EXIT_S)

    def add(self, member: M) -> None:
        """Work for a member, too.

        Raises:
            RuntimeError: the process is out of threads, or exits.
        """
        with self._lock:
            if self._exiting:
                raise RuntimeError(f"{self._name} has ended because the process exits")
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()  # it waits for the lock
                self._thread = thread
            self._members.append(member)
        self._awake.set()  # its rounds may be more frequent

    def remove(self, member: M) -> None:
        """Stop working for a member. The thread may still be working for it. Idempotent."""
        with self._lock:
            if member in self._members:
                self._members.remove(member)
            if not self._members:
                self._awake.set()

    def wake(self) -> None:
        """Serve the members that are waiting now."""
        self._awake.set()

    def _run(self) -> None:
        began = -math.inf
        while True:
            self._awake.clear()
            with self._lock:
                if not self._members:
                    self._thread = None
                    return
                members = list(self._members)
            try:
                period, now = self._period(members), time.monotonic()
                if now < began + period:
                    members = [member for member in members if member.waiting]
                else:
                    began = now
                if members:
                    self._serve(members)
            except BaseException as exc:  # the thread works for other sessions, too
                self._end(members, exc)
                continue
            finally:
                del members  # a waiting thread must not keep ended sessions alive
            self._awake.wait(min(max(0.0, began + period - time.monotonic()), _MAX_WAIT))

    def _end(self, members: Sequence[M], cause: BaseException) -> None:
        """End the members whose work has failed."""
        for member in members:
            self.remove(member)
            error = RuntimeError(f"{self._name} failed: {type(cause).__name__}")
            error.__cause__ = cause
            try:
                member.end(error)
            except BaseException as exc:
                with suppress(BaseException):  # a filter of the application's log may have failed
                    log_failure(
                        "an error was not reported to its session",
                        error=exc,
                        event="thread.error_lost",
                    )
