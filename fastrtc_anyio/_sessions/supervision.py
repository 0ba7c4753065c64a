"""Run sessions in tasks of the service, and log how they end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from anyio.abc import TaskGroup, TaskStatus

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.session_log import current_log
from fastrtc_anyio._core.stacks import forget_frames
from fastrtc_anyio._media.media_plan import MediaNeeds
from fastrtc_anyio._peers.streams.audio import BufferOptions
from fastrtc_anyio._signaling.messages import encode_message
from fastrtc_anyio.abc import AsyncioBridge, Peer
from fastrtc_anyio.errors import (
    CloseReason,
    InvalidStateError,
    PeerError,
    StreamNotOpen,
    WebRTCError,
)
from fastrtc_anyio.limits import Limits
from fastrtc_anyio.observability._dispatch import Observers
from fastrtc_anyio.session import Driver, Session

from .admission import Admission
from .claims import SessionClaims
from .early import EarlyReaders
from .ownership import ANONYMOUS, IdCheck

if TYPE_CHECKING:
    from fastrtc_anyio._peers.portal import Portal
    from fastrtc_anyio._peers.webrtc import WebRTCPeer

_LOST = {CloseReason.VANISHED, CloseReason.PEER_FAILED}
"""Ends that a client did not want; logged as warnings."""

P = TypeVar("P", bound=Peer)
T = TypeVar("T")


@dataclass(frozen=True)
class Resources:
    """Resources of an open service."""

    tasks: TaskGroup
    """Owns the sessions."""
    portal: Portal
    asyncio_bridge: AsyncioBridge
    peer_class: type[WebRTCPeer]


@dataclass(frozen=True)
class SessionOptions:
    """Settings of every session of a service."""

    make_driver: Callable[[], Driver]
    choose_buffers: Callable[[bool | None], BufferOptions]
    limits: Limits
    live: bool | None
    log_level: int


class Supervisor:
    """Creates the sessions of a service, and runs each in a separate task."""

    def __init__(
        self,
        options: SessionOptions,
        admission: Admission,
        early_readers: EarlyReaders,
        observers: Observers | None = None,
    ) -> None:
        self.resources: Resources | None = None
        """None while the service is not open."""
        self.claims: SessionClaims | None = None
        """Registers the ids that clients choose; None in a single process."""
        self._options = options
        self._admission = admission
        self._registry = admission.registry
        self._early_readers = early_readers
        self._observers = observers or Observers()
        self._id_check = IdCheck()

    def require_open(self) -> Resources:
        """Return the resources of the service.

        Raises:
            StreamNotOpen: it is not open.
        """
        if self.resources is None:
            raise StreamNotOpen(
                "the stream is not open: enter `async with stream:`, or run the lifespan of the "
                "application that it is mounted on. The lifespan of an application mounted inside "
                "another never runs: enter `async with stream:` in that of the outermost one"
            )
        return self.resources

    def create(
        self,
        make_peer: Callable[[MediaNeeds, BufferOptions], P],
        alias: str | None,
        identity: str | None,
        client: str | None,
        *,
        is_connected: bool,
        websocket: object = None,
        phone: bool = False,
    ) -> tuple[Session, P]:
        """Admit a client, and create its session, which :meth:`start` has to run.

        Args:
            make_peer: creates the peer.
            alias: the client's id for the connection.
            client: the client as the limits of one client count it; None for no such limits.
            is_connected: whether the peer is connected already, and takes its slot now.
            websocket: for ``Context.websocket``.
            phone: the handler's ``phone_mode``.

        Raises:
            As :meth:`.Admission.check`.
        """
        resources, options = self.require_open(), self._options
        self._admission.check(alias, client)
        if alias is not None and not identity and not phone:
            self._id_check.check(alias)
        driver = options.make_driver()
        if driver.handler is not None:
            driver.handler.phone_mode = phone
        needs = driver.needs
        live = needs.live if options.live is None else options.live
        peer = make_peer(needs, options.choose_buffers(live))
        session = Session(
            peer,
            driver,
            limits=options.limits,
            alias=alias,
            identity=identity or None,
            asyncio_bridge=resources.asyncio_bridge,
            websocket=websocket,
            owner=self.claims.name if self.claims is not None else None,
        )
        if self._registry.has_abandoned:
            session.messages.send_nowait(encode_message("log", "earlier_session_abandoned"))
        self._admission.add(session, client, is_connected=is_connected)
        self._observers.admit(session)
        if alias is not None:
            self._early_readers.attach(alias, session.outputs, identity or ANONYMOUS)
        return session, peer

    async def start(self, session: Session, negotiate: Callable[[], Awaitable[T]]) -> T:
        """Run a session in a task of the service, and return the result of ``negotiate``."""
        try:
            tasks, observation = self.require_open().tasks, session.observation
            with nullcontext() if observation is None else observation.in_session():
                negotiated: T = await tasks.start(self._supervise, session, negotiate)
        except BaseException:
            # asyncio may have cancelled the task before it ran a single line.
            self._forget(session)
            raise
        return negotiated

    async def _supervise(
        self,
        session: Session,
        negotiate: Callable[[], Awaitable[T]],
        task_status: TaskStatus[object],
    ) -> None:
        """Run a session, and log its error: other sessions are unaffected."""
        answered = False
        current_log.set(session.log)  # this task is the session's own

        async def answer() -> T:
            nonlocal answered
            if self.claims is not None and session.alias is not None:
                await self.claims.claim(session.alias, session.id)
            negotiated = await negotiate()
            answered = True
            logger.log(
                self._options.log_level,
                "session %s: answered",
                session.log_id,
                event="session.answered",
            )
            return negotiated

        try:
            await session.run(answer, task_status=task_status)
            if not answered:
                self._admission.drainer.check()
                raise InvalidStateError(f"the session was ended: {session.closed}")
        except Exception as exc:
            if not answered:
                session.error = None  # the exception has the session in its traceback
                raise  # to the caller of offer() or serve()
            _log_error(session, exc)
            forget_frames(exc)
        finally:
            self._forget(session)
            lost = session.closed is not None and session.closed.reason in _LOST
            level = logging.WARNING if lost else self._options.log_level
            logger.log(
                level, "session %s: %s", session.log_id, session.closed, event="session.ended"
            )

    def _forget(self, session: Session) -> None:
        self._admission.forget(session)
        if self.claims is not None and session.alias is not None:
            self.claims.release(session.alias, session.id)


def _log_error(session: Session, error: Exception) -> None:
    raised = session.closed and session.closed.reason is CloseReason.HANDLER_ERROR
    if isinstance(error, WebRTCError) or (not raised and isinstance(error, PeerError)):
        logger.warning("session %s ended: %r", session.log_id, error, event="session.failed")
    elif session.closed is None or session.closed.reason is not CloseReason.REJECTED:
        text = "session %s (%s) ended"
        logger.error(text, session.log_id, session.closed, exc_info=error, event="session.failed")
    # Otherwise the limits of the service, which the last line names.
