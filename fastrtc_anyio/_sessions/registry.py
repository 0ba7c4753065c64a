"""The live sessions of a stream, by their ids."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
from anyio import EndOfStream
from anyio.lowlevel import checkpoint

from fastrtc_anyio._signaling.session_state import SessionState
from fastrtc_anyio.errors import InvalidStateError, UnknownSession
from fastrtc_anyio.handlers import StreamHandlerBase
from fastrtc_anyio.outputs import AdditionalOutputs
from fastrtc_anyio.session import Session

from .ownership import is_reachable


class SessionRegistry:
    """Finds live sessions by their own ids and by the ids of their clients."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._aliases: dict[str, Session] = {}
        self._slots: dict[str, str | None] = {}
        """Clients that hold slots, by the ids of their sessions."""
        self._changed: anyio.Event | None = None

    @property
    def active(self) -> int:
        """Number of sessions that hold a slot. Any thread may ask for it."""
        return sum(self._holds_slot(session) for session in list(self._sessions.values()))

    @property
    def ending_unconnected(self) -> int:
        """Number of sessions without a slot that are being closed."""
        return sum(
            session.state is SessionState.CLOSING and key not in self._slots
            for key, session in self._sessions.items()
        )

    def count_slots(self, client: str) -> int:
        """Return how many slots a client holds."""
        return sum(
            self._slots.get(key) == client and self._holds_slot(session)
            for key, session in self._sessions.items()
        )

    def take_slot(self, session: Session, client: str | None) -> None:
        """Let a session hold a slot until it is closed."""
        self._slots[session.id] = client

    def _holds_slot(self, session: Session) -> bool:
        return session.id in self._slots and session.state is not SessionState.CLOSED

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The sessions by their own ids, except those whose tasks were abandoned."""
        sessions = dict(self._sessions)
        return {key: session for key, session in sessions.items() if not session.is_abandoned}

    @property
    def has_abandoned(self) -> bool:
        """Whether tasks of an ended session still run."""
        return any(session.is_abandoned for session in self._sessions.values())

    @property
    def handlers(self) -> Mapping[str, StreamHandlerBase]:
        """The handlers by both ids. Session functions are left out."""
        return {
            key: session.driver.handler
            for session in self.sessions.values()
            for key in (session.alias, session.id)
            if key is not None and session.driver.handler is not None
        }

    def add(self, session: Session) -> None:
        """Add a session under its id and its alias."""
        session.on_released = self._notify
        self._sessions[session.id] = session
        if session.alias is not None:
            self._aliases[session.alias] = session

    def forget(self, session: Session) -> None:
        """Remove a session. A later one may have its alias by now."""
        self._sessions.pop(session.id, None)
        self._slots.pop(session.id, None)
        if session.alias is not None and self._aliases.get(session.alias) is session:
            del self._aliases[session.alias]
        session.outputs.close()  # a session that never ran may have readers
        self._notify()

    async def wait_empty(self) -> None:
        """Wait until no session is left, except those whose tasks were abandoned."""
        await checkpoint()
        while self.sessions:
            if self._changed is None:
                self._changed = anyio.Event()
            await self._changed.wait()

    async def wait_closed(self, session: Session) -> None:
        """Wait until a session is closed, and holds no slot."""
        await checkpoint()
        while session.state is not SessionState.CLOSED and session.id in self._sessions:
            if self._changed is None:
                self._changed = anyio.Event()
            await self._changed.wait()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def find(self, webrtc_id: str, identity: str | None = None) -> Session | None:
        """Return a live session by its client's id or by its own.

        ``identity`` is that of the client that asks, None for the application. A client finds only
        the sessions that it has begun.
        """
        session = self._aliases.get(webrtc_id) or self._sessions.get(webrtc_id)
        if session is None or session.state is SessionState.CLOSED:
            return None
        return session if is_reachable(session, identity) else None

    def get(self, webrtc_id: str, identity: str | None = None) -> Session:
        """Do the same as :meth:`find`, and raise an error if there is none.

        Raises:
            UnknownSession: there is no such session.
        """
        session = self.find(webrtc_id, identity)
        if session is None:
            raise UnknownSession(f"no session has the id {webrtc_id!r}")
        return session

    def get_any(self, name: str, identity: str | None = None) -> Session:
        """Return a session whose tasks still run, also after its end, for a look at it.

        ``name`` may also be the beginning of its id that the log shows.

        Raises:
            UnknownSession: there is no such session.
        """
        # A client may choose an id that the log shows for the session of another.
        found = [one for one in self._sessions.values() if name in (one.id, one.log_id)]
        if (named := self._aliases.get(name)) is not None:
            found.append(named)
        for session in found:
            if is_reachable(session, identity):
                return session
        raise UnknownSession(f"no session has the id {name!r}")

    async def fetch_latest_output(
        self, webrtc_id: str, identity: str | None = None
    ) -> AdditionalOutputs:
        """Return the newest outputs of a session. Waits for the first.

        Raises:
            UnknownSession: there is no such session, or it ended without any.
        """
        outputs = self.get(webrtc_id, identity).outputs
        try:
            return await outputs.latest()
        except EndOfStream:
            raise UnknownSession(f"the session of {webrtc_id!r} ended without outputs") from None

    def get_handler(self, webrtc_id: str, identity: str | None = None) -> StreamHandlerBase:
        """Return the handler of a session.

        Raises:
            UnknownSession: there is no such session.
            InvalidStateError: a session function serves it.
        """
        handler = self.get(webrtc_id, identity).driver.handler
        if handler is None:
            raise InvalidStateError(f"a session function serves {webrtc_id!r}; it has no inputs")
        return handler
