"""Continue sessions after a lost connection: tokens of clients, and values in the store.

A client receives a token with the answer to its offer. The key of the store is a hash of the token
and of the client's identity: another client's token, or a token without its value, begins anew.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from anyio import CancelScope, create_task_group, current_time, fail_after, move_on_after
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._saving import DEADLINE, NOW, SavedState, decode_record
from fastrtc_anyio._signaling.session_ids import shorten
from fastrtc_anyio._user_code import contain_exits
from fastrtc_anyio.errors import SaveFailed
from fastrtc_anyio.resumption import MemoryStore, SessionStore
from fastrtc_anyio.session import Session

__all__ = ["Resuming"]

_SCAN_SECONDS = 2.0
"""Seconds between two searches for values that have to be written again, at most."""


class Resuming:
    """Lets clients of a service continue their sessions.

    Args:
        lifetime: ``Limits.resume``.
        log_level: of the beginning of a session.
    """

    def __init__(self, lifetime: float | None, log_level: int) -> None:
        self.store: SessionStore = MemoryStore()
        self._lifetime = lifetime
        self._log_level = log_level
        self._sessions: dict[str, Session] = {}
        """Sessions that have not been forgotten, by their keys."""
        self._states: dict[str, SavedState] = {}
        """What has been saved, and is renewed or deleted, by the keys."""
        self._queue: dict[SavedState, None] = {}
        """What has to be written or deleted now."""
        self._changed = anyio.Event()
        self._is_reachable = True

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None, None]:
        """Write what sessions save while the block runs, and at its end what is left."""
        async with create_task_group() as tasks:
            tasks.start_soon(self._run)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
                with move_on_after(DEADLINE, shield=True):
                    for state in list(self._states.values()):
                        if await state.settle() is not None:
                            break
                self._states.clear()
                self._queue.clear()

    def register(self, session: Session) -> str | None:
        """Let the client of a new session continue it. Return the token, if that is possible."""
        if self._lifetime is None:
            return None
        token = secrets.token_urlsafe(32)
        key = _make_key(token, session.identity)
        session.saved = SavedState(self.store, key, self._lifetime, self._enqueue)
        self._sessions[key] = session
        return token

    async def end_previous(self, token: str | None, identity: str | None) -> Session | None:
        """End the session of a token, if this process has it: its client calls again.

        Returns:
            That session, which still occupies its slot for a moment.
        """
        session = self._sessions.get(_make_key(token, identity)) if token else None
        if session is None or session.saved is None or session.saved.is_deleting:
            await checkpoint()
            return None
        await session.saved.give_up()
        session.end_continued()
        return session

    async def resume(self, session: Session, token: str | None) -> None:
        """Give a new session what the one of a token has saved, if anything."""
        await checkpoint()
        if not token or session.saved is None:
            return
        key = _make_key(token, session.identity)
        if (former := self._states.get(key)) is not None and former.is_deleting:
            return
        try:
            with fail_after(DEADLINE), contain_exits("the store"):
                record = await self.store.take(key)
            if record is None:
                return
            session.resumed_from = decode_record(record)
        except Exception as exc:  # of the store's network, or a value of another program
            self._note(exc)
            return
        logger.log(
            self._log_level,
            "session %s: continues session %s",
            session.log_id,
            shorten(session.resumed_from.session_id),
            event="session.resumed",
            session_id=session.log_id,
        )
        try:
            await session.saved.save(record)  # so that it is not lost with this connection
        except SaveFailed as exc:
            self._note(exc)

    def forget(self, session: Session) -> None:
        """Write what waits for that, and let the rest expire: the session is gone. Idempotent."""
        if session.saved is not None and self._sessions.pop(session.saved.key, None) is not None:
            session.saved.end(keep=True)

    def _enqueue(self, state: SavedState) -> None:
        if state.is_over:
            self._states.pop(state.key, None)
            return
        self._states[state.key] = state
        if state.due == NOW:
            self._queue[state] = None
        self._changed.set()

    async def _run(self) -> None:
        scan_seconds = min(_SCAN_SECONDS, (self._lifetime or math.inf) / 8)
        next_scan = current_time() + scan_seconds
        while True:
            states, self._queue = list(self._queue), {}
            if (now := current_time()) >= next_scan:
                states = [state for state in self._states.values() if state.due <= now]
                next_scan = now + scan_seconds
            await self._settle(states)
            if not self._queue:
                self._changed = anyio.Event()
                with CancelScope(deadline=next_scan if self._states else math.inf):
                    await self._changed.wait()

    async def _settle(self, states: list[SavedState]) -> None:
        """Write or delete some values. The first failure postpones the rest to the next search."""
        for state in states:
            if state.due > current_time():
                continue
            error = await state.settle()
            if state.is_taken and (session := self._sessions.get(state.key)) is not None:
                session.end_if_taken()
            self._states.pop(state.key, None)
            if not state.is_over:
                self._states[state.key] = state  # after the others
            self._note(error)
            if error is not None:
                return

    def _note(self, error: Exception | None) -> None:
        if error is not None and self._is_reachable:
            cause = error.__cause__ or error
            logger.warning(
                "what sessions save cannot be stored or taken: the store raised %s",
                type(cause).__name__,
                event="store.lost",
            )
        elif error is None and not self._is_reachable:
            logger.info("the store answers again", event="store.found")
        self._is_reachable = error is None


def _make_key(token: str, identity: str | None) -> str:
    text = f"{token}\n{identity or ''}"  # a token of a stranger may have lone surrogates
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
