"""Drain a service: refuse new sessions, and let the others end."""

from __future__ import annotations

import math

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._signaling.messages import encode_message
from fastrtc_anyio.errors import CloseReason, Draining
from fastrtc_anyio.session import Session

from .registry import SessionRegistry

_NOTICE_SECONDS = 5.0
"""Seconds between the notice to clients and the end of their sessions, at most."""
_NOTICE = "The server is restarting. This call ends in {:.3g} s."
_END = "the server is restarting"


class Drainer:
    """Refuses new sessions from its beginning on, and ends the others after the timeout."""

    def __init__(self, registry: SessionRegistry) -> None:
        self.timeout: float | None = None
        """Seconds for which sessions may continue; None for no limit."""
        self._registry = registry
        self._done: anyio.Event | None = None
        """Set when no session is left; None unless the service drains."""

    @property
    def is_draining(self) -> bool:
        return self._done is not None

    def check(self) -> None:
        """Raise :class:`.Draining` if the service drains."""
        if self.is_draining:
            raise Draining

    def begin(self, tasks: TaskGroup) -> None:
        """Begin to drain, in a task of the service. Idempotent."""
        if self._done is None:
            timeout = "none" if self.timeout is None else f"{self.timeout:g} s"
            text = "draining: sessions left: %d; drain_timeout: %s"
            logger.info(text, len(self._find_left()), timeout, event="server.draining")
            self._start(tasks, self.timeout)

    def cut(self, tasks: TaskGroup) -> None:
        """End all sessions now, and refuse new ones."""
        self._note_ending()
        if self._done is None:
            self._start(tasks, None)
        for session in self._find_left():
            session.close(CloseReason.CANCELLED, "the server is stopping")

    def _note_ending(self) -> None:
        if left := len(self._find_left()):
            logger.info("stopping: sessions ended now: %d", left, event="server.stopping")

    async def wait(self) -> None:
        """Wait until no session is left, or the service is closed."""
        if self._done is None:
            await checkpoint()
        else:
            await self._done.wait()

    def end(self) -> None:
        """The service is closed: forget the drain, and release those who wait for it."""
        self._note_ending()
        if self._done is not None:
            self._done.set()
            self._done = None

    def _start(self, tasks: TaskGroup, timeout: float | None) -> None:
        self._done = anyio.Event()
        tasks.start_soon(self._drain, timeout, self._done)

    def _find_left(self) -> list[Session]:
        """Return the sessions that have not ended. Others may still shut down."""
        return [one for one in self._registry.sessions.values() if one.closed is None]

    async def _drain(self, timeout: float | None, done: anyio.Event) -> None:
        now, wait_empty = anyio.current_time(), self._registry.wait_empty
        seconds = math.inf if timeout is None else timeout
        notice = min(_NOTICE_SECONDS, seconds / 2)
        with CancelScope(deadline=now + seconds - notice):
            await wait_empty()
        if notice:
            text = encode_message("warning", _NOTICE.format(notice), reason="draining")
            for session in self._find_left():
                _notify(session, text)
            with CancelScope(deadline=now + seconds):
                await wait_empty()
        if left := self._find_left():
            text = "drain_timeout has passed: sessions ended now: %d"
            logger.warning(text, len(left), event="server.drain_timeout")
            for session in left:
                session.close(CloseReason.CANCELLED, _END)
        await wait_empty()
        passed = anyio.current_time() - now
        logger.info("drained after %.1f s: no session is left", passed, event="server.drained")
        done.set()


def _notify(session: Session, text: str) -> None:
    try:
        session.messages.send_nowait(text)
    except Exception:  # of a transport of the application
        logger.exception(
            "session %s: the client could not be told about the end",
            session.log_id,
            event="session.notice_failed",
            session_id=session.log_id,
        )
