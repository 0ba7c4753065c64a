"""The life cycle of a session: one cancel scope, from the offer to the last thread.

Every end of a session cancels that scope. The same steps follow each time, within their limits:
shut the driver down, close the peer, wait for the handler's threads. The first reason stays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

import anyio
from anyio import TASK_STATUS_IGNORED, BrokenResourceError, CancelScope, EndOfStream
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint

from ._core.groups import collapse_groups
from ._core.host import Host
from ._core.log import logger
from ._core.options import check_type
from ._core.records import Lines
from ._core.session_log import SessionLog, current_log
from ._core.shortage import find_shortage
from ._core.stacks import describe_subtasks, describe_threads
from ._core.threads import IDLE
from ._core.waiting import is_set_by, wait_idle
from ._observation import SessionObservation
from ._overload import as_overloaded
from ._signaling.log_text import log_text
from ._signaling.messages import encode_end
from ._signaling.session_ids import shorten
from ._signaling.session_state import SessionEvent, SessionState, SessionStateMachine
from ._user_code import contain_exits
from .abc import Peer
from .errors import (
    Closed,
    CloseReason,
    ConnectTimeout,
    PeerClosed,
    PeerError,
    SignalingError,
    WebRTCError,
)
from .limits import Limits
from .outputs import OutputBoard

_PLAY_OUT_SECONDS = 10.0
"""Seconds beyond the queued audio, for pauses, the last picture and a carrier's confirmation."""
_GONE_SECONDS = 1.0
"""Seconds for a peer to report its end after one of its streams broke."""


class SessionLife(ABC):
    """Runs a session, and closes its peer. A subclass adds the driver and the driver's view."""

    def __init__(self, session_id: str, peer: Peer, limits: Limits) -> None:
        self.id = session_id
        self.peer = peer
        self.limits = limits
        self.error: BaseException | None = None
        """The exception that the handler or the connection raised."""
        self.on_connected: Callable[[], Awaitable[None]] | None = None
        """Called when the client has connected. A :class:`SignalingError` rejects the client."""
        self.on_released: Callable[[], object] = lambda: None
        """Called when the connection is closed, and the handler's ``shutdown`` has ended."""
        self.outputs: OutputBoard = OutputBoard()
        """Values for the application."""
        self.observation: SessionObservation | None = None
        """Reports to the observers of the stream; None if there are none."""
        self.log: SessionLog = SessionLog(shorten(session_id), limits.block)
        self.abandoned_threads: int = 0
        self.abandoned_tasks: int = 0
        self._host = Host()
        self._machine = SessionStateMachine(self.log.note_state)
        self._scope = CancelScope()
        self._goodbye: str | None = None
        self._hung_up = anyio.Event()
        self._is_client_notified = False
        self._is_released = False
        self._served = anyio.Event()
        self.task_id: int = 0
        """The id of the task that runs the session; 0 before it runs."""

    @property
    def log_id(self) -> str:
        """The beginning of the id, for logs."""
        return self.log.id

    @abstractmethod
    async def _run_driver(self) -> None:
        """Serve the connected client."""

    @abstractmethod
    async def _play_out(self) -> None:
        """Let the driver send nothing more, and wait until all queued media have been played."""

    @abstractmethod
    async def _shut_down_driver(self) -> None:
        """Call the handler's ``shutdown``."""

    @abstractmethod
    async def _join_driver(self, deadline: float) -> int:
        """Wait for the handler's threads, and return how many are left at the deadline."""

    @abstractmethod
    def _count_activity(self) -> tuple[int, ...]:
        """Return counters, one of which grows with each frame and message."""

    @property
    def state(self) -> SessionState:
        """State in the life cycle."""
        return self._machine.state

    @property
    def closed(self) -> Closed | None:
        """The reason for the end of the session; None while it lives."""
        return self._machine.closed

    @property
    def is_abandoned(self) -> bool:
        """Whether the session has ended, but not all of its tasks."""
        return self.abandoned_tasks > 0 and self.state is SessionState.CLOSED

    def close(self, reason: CloseReason, message: str = "") -> None:
        """End the session now. Returns at once; :meth:`run` performs the end. Thread-safe."""
        self._host.call(lambda: self._close(reason, message))

    def hang_up(self, message: str = "") -> None:
        """End the call once the audio and video queued so far have been played. Thread-safe.

        Returns at once. Nothing sent afterwards is played, the client cannot interrupt what is, and
        a session function is cancelled. To drop the queued media as well, call
        ``session.audio_out.flush()`` before; in a handler, :meth:`.StreamHandlerBase.clear_queue`.

        The session ends with ``CloseReason.HANDLER_CLOSED``. Only the first call has an effect, and
        none after the end or after another reason has ended the session.

        Args:
            message: text for the client, which receives it as ``end_stream``. Telephones show none.

        Raises:
            TypeError: ``message`` is not a str.
        """
        check_type("message", message, str)
        self._host.call(lambda: self._hang_up(message))

    def _hang_up(self, message: str) -> None:
        if self._goodbye is not None:
            return
        self._goodbye = message
        if self.state is SessionState.CONNECTED:
            self._hung_up.set()
        else:
            self._close(CloseReason.HANDLER_CLOSED, message)

    @property
    def is_hanging_up(self) -> bool:
        """Whether :meth:`hang_up` was called: only queued media are still played."""
        return self._goodbye is not None

    def fail(self, error: Exception) -> None:
        """End the session because the handler raised ``error``, and record it."""
        self.error = self.error or error
        if isinstance(error, WebRTCError):
            self.close(CloseReason.HANDLER_ERROR, error.message)
        elif find_shortage(error) == "threads" and (refusal := as_overloaded(error)):
            self.close(CloseReason.REJECTED, str(refusal))
        else:
            text = f"The server has met an error, logged as {self.log_id}."
            self.close(CloseReason.HANDLER_ERROR, text)

    def _close(self, reason: CloseReason, message: str) -> None:
        self._machine.close(reason, message)
        self._scope.cancel()

    async def run(
        self,
        negotiate: Callable[[], Awaitable[object]] | None = None,
        *,
        task_status: TaskStatus[object] = TASK_STATUS_IGNORED,
    ) -> None:
        """Run the session from its offer to its end.

        Args:
            negotiate: creates the answer, which the starter of the task receives. None if the peer
                is connecting already.

        Raises:
            Exception: the handler or the negotiation raised it.

        Cancellation:
            Closes the connection at once, and returns within the shutdown and close limits. A
            handler that shields itself, or swallows its cancellation, delays the return. It is
            abandoned after the shutdown limit: logged with its stack and counted, and the session
            becomes CLOSED.
        """
        self.task_id = anyio.get_current_task().id
        token = current_log.set(self.log)
        try:
            with self._scope:
                await self._run(negotiate, task_status)
        finally:
            await self._release()
            current_log.reset(token)

    async def _run(
        self,
        negotiate: Callable[[], Awaitable[object]] | None,
        task_status: TaskStatus[object],
    ) -> None:
        try:
            with collapse_groups():
                async with anyio.create_task_group() as tg:
                    tg.start_soon(self._guard_peer)
                    try:
                        await self._live(tg, negotiate, task_status)
                    except Exception as exc:
                        # Before the task group cancels _guard_peer, which sends the reason.
                        self.fail(exc)
                        raise
                    finally:
                        self._served.set()
                    # A driver returns at the end of its input, too: then the peer has the reason.
                    await checkpoint()
                    if self.is_hanging_up:
                        await anyio.sleep_forever()
                    self.close(CloseReason.HANDLER_CLOSED)
        except Exception as exc:
            self.fail(exc)
            raise

    async def _live(
        self,
        tasks: TaskGroup,
        negotiate: Callable[[], Awaitable[object]] | None,
        task_status: TaskStatus[object],
    ) -> None:
        await checkpoint()  # a session that was closed before it ran ends here
        try:
            if negotiate is not None:
                self._machine.handle(SessionEvent.OFFER)
                answer = await negotiate()
                self._machine.handle(SessionEvent.ANSWERED)
                task_status.started(answer)
            await self._connect()
            if self.on_connected is not None:
                await self.on_connected()
        except PeerError as exc:
            self.close(exc.reason, str(exc))
            raise
        except SignalingError as exc:
            self.close(CloseReason.REJECTED, log_text(exc))
            raise
        self._machine.handle(SessionEvent.PEER_CONNECTED)
        if self.observation is not None:
            self.observation.connected()
        tasks.start_soon(self._watch_peer)
        tasks.start_soon(self._watch_hang_up)
        if self.limits.time_limit is not None:
            tasks.start_soon(self._watch_time, self.limits.time_limit)
        if self.limits.idle is not None:
            tasks.start_soon(self._watch_idle, self.limits.idle)
        await self._serve()

    async def _serve(self) -> None:
        try:
            with contain_exits("the handler"), collapse_groups():
                await self._run_driver()
        except (BrokenResourceError, EndOfStream):
            # The client has disconnected, and its peer reports the reason now or soon. Otherwise
            # the error is the driver's.
            with anyio.move_on_after(_GONE_SECONDS):
                await self._watch_peer()
                return
            raise

    async def _connect(self) -> None:
        with anyio.move_on_after(self.limits.connect) as scope:
            try:
                await self.peer.wait_connected()
            except PeerClosed as exc:  # the client gave up the call, which is not an error
                self.close(exc.reason, str(exc))
                await checkpoint()
        if scope.cancelled_caught:
            raise ConnectTimeout(f"no connection came up within {self.limits.connect:g} s")

    async def _watch_peer(self) -> None:
        closed = await self.peer.wait_closed()
        self.close(closed.reason, closed.message)

    async def _watch_hang_up(self) -> None:
        await self._hung_up.wait()
        queued = self.peer.audio_out.statistics().latency if self.peer.media.audio_out else 0.0
        with anyio.move_on_after(queued + _PLAY_OUT_SECONDS):
            await self._play_out()
        assert self._goodbye is not None
        self.close(CloseReason.HANDLER_CLOSED, self._goodbye)

    async def _watch_time(self, limit: float) -> None:
        await anyio.sleep(limit)
        self.close(CloseReason.TIME_LIMIT, f"the time limit of {limit:g} s is reached")

    async def _watch_idle(self, limit: float) -> None:
        await wait_idle(self._count_activity, limit)
        self.close(CloseReason.IDLE, f"nothing was sent or received for {limit:g} s")

    async def _guard_peer(self) -> None:
        """Close the connection as soon as the session ends, even if the driver never returns."""
        try:
            await anyio.sleep_forever()
        finally:
            deadline = anyio.current_time() + self.limits.shutdown
            await self._close_peer()
            with CancelScope(shield=True):
                if not await is_set_by(self._served, deadline):
                    self._abandon("the handler")
                    await self._release()

    def _abandon(self, name: str) -> None:
        """Log and count code that does not end, and free the session's slot."""
        self.abandoned_tasks += 1
        logger.warning(
            "session %s: %s did not end within %g s after the session; it swallows its "
            "cancellation, or shields itself:\n%s",
            self.log_id,
            name,
            self.limits.shutdown,
            Lines(describe_subtasks(self.task_id)),
            event="session.abandoned",
        )

    def _notify_client(self) -> None:
        """Send the reason for the end, unless the client caused it. It may not arrive."""
        assert self.closed is not None
        if (text := encode_end(self.closed)) is not None:
            self.peer.messages.send_nowait(text)

    async def _close_peer(self) -> None:
        # Every other cause has set its reason before it cancelled the scope.
        self._machine.close(CloseReason.CANCELLED, "the server is stopping")
        with anyio.move_on_after(self.limits.close, shield=True) as scope:
            try:
                if not self._is_client_notified:
                    self._is_client_notified = True
                    self._notify_client()
            finally:
                try:
                    await self.peer.aclose()
                except Exception:  # logged only: the rest of the session must still be released
                    text = "session %s: the connection failed to close"
                    logger.exception(text, self.log_id, event="session.close_failed")
        if scope.cancelled_caught:
            text = "session %s: the connection did not close in time"
            logger.error(text, self.log_id, event="session.close_timeout")

    async def _release(self) -> None:
        if self._is_released:
            return
        self._is_released = True
        with CancelScope(shield=True):
            deadline = anyio.current_time() + self.limits.shutdown
            done = anyio.Event()
            async with anyio.create_task_group() as tg:
                tg.start_soon(self._shut_down, deadline, done)
                try:
                    await self._close_peer()
                    if not await is_set_by(done, deadline + _GONE_SECONDS):
                        self._abandon("shutdown")
                finally:
                    self._machine.handle(SessionEvent.PEER_RELEASED)
                    self.on_released()
                    self.outputs.close()
                    self.abandoned_threads = await self._join_driver(deadline)
                    if self.observation is not None:
                        self.observation.ended()
        if self.abandoned_threads:
            logger.warning(
                "session %s: %d threads did not return from the handler within %g s:\n%s",
                self.log_id,
                self.abandoned_threads,
                self.limits.shutdown,
                Lines(describe_threads(self.log.threads, IDLE)),
                event="session.threads_abandoned",
            )

    async def _shut_down(self, deadline: float, done: anyio.Event) -> None:
        with CancelScope(deadline=deadline) as scope:
            try:
                with contain_exits("shutdown"), collapse_groups():
                    await self._shut_down_driver()
            except Exception as exc:  # logged only: the session has its reason already
                if as_overloaded(exc) is None:
                    logger.exception(
                        "session %s: shutdown failed", self.log_id, event="session.shutdown_failed"
                    )
            finally:
                done.set()
        if scope.cancelled_caught:
            text = "session %s: shutdown exceeded %g s"
            logger.error(text, self.log_id, self.limits.shutdown, event="session.shutdown_timeout")
