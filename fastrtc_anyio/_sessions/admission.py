"""Decide which clients may begin a session, and which may keep one.

A client that has been answered but has not connected is *pending*: an offer costs its sender one
request, so it must not occupy a slot of ``concurrency_limit``. Pending clients have a separate
quota, in which a new client replaces the oldest. The slot is taken on connection.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from anyio import (
    BrokenResourceError,
    CancelScope,
    ClosedResourceError,
    EndOfStream,
    current_time,
    move_on_after,
)

from fastrtc_anyio.abc import Peer
from fastrtc_anyio.errors import (
    AdmissionError,
    CloseReason,
    InvalidStateError,
    LimitExceeded,
    Overloaded,
)
from fastrtc_anyio.limits import RequestLimits
from fastrtc_anyio.session import Session

from .draining import Drainer
from .registry import SessionRegistry

ConcurrencyLimit = int | Literal["default"] | None

CROWDED = "too many other clients are connecting (RequestLimits.pending_sessions)"
"""The message for a client that another one has replaced."""
_RETRY_SECONDS = 5.0
_SHORT_WAIT = 0.04
"""Seconds of waiting whose audio is kept."""


class Load(Protocol):
    """Tells whether the server has time for a further session."""

    async def wait(self, count_active: Callable[[], int], *, in_steps: bool) -> None:
        """Wait until a further session may be admitted, or raise :class:`Overloaded`."""

    def note_session(self) -> None:
        """Note that a further session holds a slot."""


@dataclass(eq=False)
class Pending:
    """A client that has not connected yet."""

    client: str | None
    drop: Callable[[], None]
    """Ends it."""


class PendingClients:
    """Clients that have not connected yet: a bounded number, the oldest first."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._clients: dict[Pending, None] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def check(self, client: str | None) -> None:
        """Check that a client may begin to connect once more. None is the application.

        Raises:
            LimitExceeded: it has too many pending connections.
        """
        if client is None:
            return
        limit = self._limits.client_pending
        if sum(one.client == client for one in self._clients) >= limit:
            text = f"{limit} connections of this client are pending (RequestLimits.client_pending)"
            raise LimitExceeded(text, 429, retry_after=_RETRY_SECONDS)

    def enter(self, client: str | None, drop: Callable[[], None]) -> Pending:
        """Add a client, in place of the oldest if there are too many.

        Raises:
            LimitExceeded: the client has too many pending connections.
        """
        self.check(client)
        while len(self._clients) >= self._limits.pending_sessions:
            oldest = next(iter(self._clients))
            self.leave(oldest)
            oldest.drop()
        pending = Pending(client, drop)
        self._clients[pending] = None
        return pending

    @contextmanager
    def hold(self, client: str | None, seconds: float | None) -> Generator[CancelScope, None, None]:
        """Count a client as pending while the block runs, for at most ``seconds``.

        Raises:
            LimitExceeded: the client has too many pending connections.
            Overloaded: another client has replaced this one.
        """
        is_dropped = False

        def drop() -> None:
            nonlocal is_dropped
            is_dropped = True
            scope.cancel()

        with move_on_after(seconds) as scope:
            pending = self.enter(client, drop)
            try:
                yield scope
            finally:
                self.leave(pending)
        if is_dropped:
            raise Overloaded(CROWDED)

    def leave(self, pending: Pending) -> None:
        """Remove a client that has connected or ended. Idempotent."""
        self._clients.pop(pending, None)


class Admission:
    """Admits clients within the limits of a service, and knows the sessions that it admitted."""

    def __init__(
        self, registry: SessionRegistry, limit: int | None, limits: RequestLimits, load: Load
    ) -> None:
        self.registry = registry
        self.drainer: Drainer = Drainer(registry)
        self.pending: PendingClients = PendingClients(limits)
        self._limit = limit
        self._limits = limits
        self._load = load
        self._entries: dict[str, Pending] = {}
        """Pending sessions by their own ids."""
        self.on_forget: Callable[[Session], None] = lambda session: None
        """Called with each session that has ended."""

    def check(self, alias: str | None, client: str | None) -> None:
        """Check that a client may begin a session. None is the application.

        Raises:
            Draining: the service is draining.
            InvalidStateError: the alias is in use.
            AdmissionError: the limit of concurrent sessions is reached.
            LimitExceeded: the client has too many sessions.
            Overloaded: too many sessions are ending.
        """
        self.drainer.check()
        if alias is not None and self.registry.find(alias) is not None:
            raise InvalidStateError(f"the webrtc_id {alias!r} is in use")
        self._check_slots(client)
        self.pending.check(client)
        if self.registry.ending_unconnected >= self._limits.pending_sessions:
            raise Overloaded(CROWDED)

    def add(self, session: Session, client: str | None, *, is_connected: bool) -> None:
        """Register a session that was checked. It takes its slot now, or when it connects."""
        if is_connected:
            self._take_slot(session, client)
        else:
            drop = partial(session.close, CloseReason.REJECTED, CROWDED)
            self._entries[session.id] = self.pending.enter(client, drop)
            session.on_connected = partial(self._connect, session, client)
        self.registry.add(session)

    @property
    def is_full(self) -> bool:
        """Whether all slots are taken."""
        return self._limit is not None and self.registry.active >= self._limit

    def is_pending(self, session: Session) -> bool:
        """Whether a session has not connected, and has not been replaced."""
        return session.id in self._entries and session.closed is None

    def forget(self, session: Session) -> None:
        """Remove a session that has ended."""
        if session.observation is not None:
            session.observation.ended()  # of one that never ran
        session.on_connected = None  # it has the session among its arguments
        self._leave(session)
        self.registry.forget(session)
        self.on_forget(session)

    async def wait(self, *, in_steps: bool = True) -> None:
        """Wait until there is time for one more session; see :meth:`.LoadGauge.wait`.

        Raises:
            Overloaded: the server has no time for a further session.
        """
        await self._load.wait(lambda: self.registry.active, in_steps=in_steps)

    async def _connect(self, session: Session, client: str | None) -> None:
        began = current_time()
        await self.wait()
        if current_time() - began > _SHORT_WAIT:
            await _discard_audio(session.peer)
        self._leave(session)
        self._check_slots(client)
        self._take_slot(session, client)

    def _take_slot(self, session: Session, client: str | None) -> None:
        self.registry.take_slot(session, client)
        self._load.note_session()

    def _leave(self, session: Session) -> None:
        if (pending := self._entries.pop(session.id, None)) is not None:
            self.pending.leave(pending)

    def _check_slots(self, client: str | None) -> None:
        active = self.registry.active
        if self._limit is not None and active >= self._limit:
            raise AdmissionError(self._limit, active)
        limit = self._limits.client_sessions
        if client is not None and self.registry.count_slots(client) >= limit:
            text = f"this client has {limit} sessions (RequestLimits.client_sessions)"
            raise LimitExceeded(text, 429, retry_after=_RETRY_SECONDS)


async def _discard_audio(peer: Peer) -> None:
    """Discard the audio that came before its session began: it would stay as delay."""
    if peer.media.audio_in:
        with suppress(EndOfStream, ClosedResourceError, BrokenResourceError):
            while peer.audio_in.statistics().buffered:
                await peer.audio_in.receive()


def parse_limit(limit: object) -> int | None:
    """Return the option ``concurrency_limit`` as a number of sessions, or None for no limit."""
    if limit == "default":
        return 1
    if limit is None or (isinstance(limit, int) and not isinstance(limit, bool) and limit > 0):
        return limit
    raise ValueError(f'concurrency_limit must be a positive int, "default" or None; got {limit!r}')
