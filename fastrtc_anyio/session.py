"""One client's connection, from its offer to its end: one cancel scope.

Whatever ends a session - the client, an error, a limit, the server - ends by cancelling that
scope. What follows is the same each time: the driver is shut down, the peer closed, the threads
waited for, each within a limit. The first reason to end is the one that counts.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import anyio
from anyio import (
    TASK_STATUS_IGNORED,
    BrokenResourceError,
    CancelScope,
    EndOfStream,
    create_task_group,
)
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint

from ._core.groups import collapse_groups
from ._core.host import Host
from ._media.media_plan import MediaNeeds, MediaPlan
from ._signaling.messages import encode_message
from ._signaling.session_state import SessionEvent, SessionState, SessionStateMachine
from .abc import (
    AsyncioBridge,
    AudioInStatistics,
    AudioOutStatistics,
    AudioReceiveStream,
    AudioSendStream,
    MessageStatistics,
    MessageStream,
    Peer,
    VideoInStatistics,
    VideoOutStatistics,
    VideoReceiveStream,
    VideoSendStream,
)
from .errors import (
    Closed,
    CloseReason,
    ConnectTimeout,
    HandlerContractError,
    PeerClosed,
    PeerError,
    SignalingError,
    WebRTCError,
)
from .handlers import StreamHandlerBase
from .limits import Limits
from .outputs import AdditionalOutputs, OutputBoard, OutputStatistics

__all__ = [
    "Context",
    "Driver",
    "Session",
    "SessionFunction",
    "SessionStatistics",
    "Warning",
    "current_session",
    "get_current_context",
]

logger = logging.getLogger("fastrtc_anyio")

T = TypeVar("T")

current_session: ContextVar[Session] = ContextVar("current_session")
"""Set in the tasks of a session and in the threads its handler runs on."""

_OUR_ENDS = {
    CloseReason.HANDLER_CLOSED,
    CloseReason.TIME_LIMIT,
    CloseReason.START_UP_TIMEOUT,
    CloseReason.IDLE,
    CloseReason.CANCELLED,
}
_IDLE_STEPS = 20
"""How often within the idle limit the counters are looked at: it is kept to a twentieth."""
_GONE_SECONDS = 1.0
"""How long after a broken stream the peer may take to say that it has ended."""


@dataclass(frozen=True)
class SessionStatistics:
    """What a session's channels have counted. None for media that its stream does not have."""

    audio_in: AudioInStatistics | None
    audio_out: AudioOutStatistics | None
    video_in: VideoInStatistics | None
    video_out: VideoOutStatistics | None
    messages: MessageStatistics
    outputs: OutputStatistics
    abandoned_threads: int
    """Threads that had not come back from the handler within the shutdown limit."""


class Driver(Protocol):
    """Serves one connected session.

    Attributes:
        handler: the handler that is driven; None for a session function.
        needs: media formats to ask the transport for.
    """

    @property
    def handler(self) -> StreamHandlerBase | None: ...

    @property
    def needs(self) -> MediaNeeds: ...

    async def run(self, session: Session) -> None:
        """Serve the client. Returning ends the session."""

    async def shut_down(self, session: Session) -> None:
        """Called exactly once, when the session has ended, also one that was never connected. Has a
        time limit."""

    async def join(self, deadline: float) -> int:
        """Wait for threads until ``deadline``, on the clock of ``anyio.current_time``.

        Returns:
            How many were left behind.
        """
        ...


class Session:
    """One connection: its client, its state, and the driver that serves it.

    Args:
        peer: the client. The session closes it.
        driver: what to run while connected.
        limits: deadlines.
        alias: the client's own name for it.
        asyncio_bridge: where asyncio-only libraries run.
        websocket: the web framework's WebSocket, if the client came by one.
    """

    def __init__(
        self,
        peer: Peer,
        driver: Driver,
        *,
        limits: Limits | None = None,
        alias: str | None = None,
        asyncio_bridge: AsyncioBridge | None = None,
        websocket: Any = None,
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        """128 random bits: nobody reaches a session by guessing."""
        self.alias = alias
        self.peer = peer
        self.websocket = websocket
        self.driver = driver
        self.limits = limits or Limits()
        self.error: BaseException | None = None
        """What the handler, or the connection, raised."""
        self.outputs = OutputBoard()
        """Values for the application."""
        self.abandoned_threads = 0
        """Threads that had not come back from the handler within the shutdown limit."""
        self._asyncio_bridge = asyncio_bridge
        self._host = Host()
        self._machine = SessionStateMachine()
        self._scope = CancelScope()
        self._told = False  # whether the client knows that this is the end

    @property
    def state(self) -> SessionState:
        """Where the session is in its life."""
        return self._machine.state

    @property
    def closed(self) -> Closed | None:
        """Why the session ends or has ended; None while it lives."""
        return self._machine.closed

    @property
    def media(self) -> MediaPlan:
        """Which media flow which way."""
        return self.peer.media

    @property
    def audio_in(self) -> AudioReceiveStream:
        """Audio from the client, as it came. ``async for frame in session.audio_in``."""
        self._require(self.media.audio_in, "audio_in")
        return self.peer.audio_in

    @property
    def audio_out(self) -> AudioSendStream:
        """Audio to the client, at any rate."""
        self._require(self.media.audio_out, "audio_out")
        return self.peer.audio_out

    @property
    def video_in(self) -> VideoReceiveStream:
        """Pictures from the client; a slow reader sees the latest."""
        self._require(self.media.video_in, "video_in")
        return self.peer.video_in

    @property
    def video_out(self) -> VideoSendStream:
        """Pictures to the client."""
        self._require(self.media.video_out, "video_out")
        return self.peer.video_out

    @property
    def messages(self) -> MessageStream:
        """Text messages, both ways."""
        return self.peer.messages

    def send_outputs(self, outputs: AdditionalOutputs) -> None:
        """Give values to the application, and tell the client that there are some."""
        self.outputs.publish(outputs)
        self.messages.send_nowait(encode_message("fetch_output"))

    async def run_asyncio(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await an asyncio coroutine function: for libraries that know no other event loop.

        Under asyncio it runs right here; under trio, on an asyncio loop in a second thread, the
        same one for every call, so that what one call opens another can use.

        Raises:
            What the coroutine raises. A ``RuntimeError`` if it was cancelled on its own side.

        Cancellation:
            Cancels the coroutine and waits until it has ended. If it had ended by then, under trio
            its result is returned: what it opened is not lost.
        """
        return await self.asyncio_bridge.run(function, *args)

    @property
    def asyncio_bridge(self) -> AsyncioBridge:
        """Where asyncio-only libraries run.

        Raises:
            RuntimeError: the session was made without.
        """
        if self._asyncio_bridge is None:
            raise RuntimeError("this session was made without an asyncio bridge")
        return self._asyncio_bridge

    def statistics(self) -> SessionStatistics:
        """What every channel has counted so far. On any thread, at any time, also after the end."""
        peer, media = self.peer, self.media
        return SessionStatistics(
            audio_in=peer.audio_in.statistics() if media.audio_in else None,
            audio_out=peer.audio_out.statistics() if media.audio_out else None,
            video_in=peer.video_in.statistics() if media.video_in else None,
            video_out=peer.video_out.statistics() if media.video_out else None,
            messages=self.messages.statistics(),
            outputs=self.outputs.statistics(),
            abandoned_threads=self.abandoned_threads,
        )

    async def transport_statistics(self) -> Mapping[str, Any]:
        """What the transport counts: for WebRTC aiortc's reports, W3C's ``getStats``."""
        return await self.peer.transport_statistics()

    def close(self, reason: CloseReason, message: str = "") -> None:
        """End the session. Returns at once; the end itself happens in :meth:`run`. Any thread."""
        self._host.call(lambda: self._close(reason, message))

    def fail(self, error: Exception) -> None:
        """End the session because the handler raised ``error``, which is raised too."""
        self.error = self.error or error
        if isinstance(error, WebRTCError):
            self.close(CloseReason.HANDLER_ERROR, error.message)
        else:
            text = f"The server has met an error, logged as {self.id[:8]}."
            self.close(CloseReason.HANDLER_ERROR, text)

    def _close(self, reason: CloseReason, message: str) -> None:
        self._machine.close(reason, message)
        self._scope.cancel()

    def _require(self, there: bool, name: str) -> None:
        if not there:
            raise HandlerContractError(
                f"session.{name} does not exist: the stream's modality and mode give {self.media}"
            )

    async def run(
        self,
        negotiate: Callable[[], Awaitable[object]] | None = None,
        *,
        task_status: TaskStatus[object] = TASK_STATUS_IGNORED,
    ) -> None:
        """Live the whole life of the session.

        Args:
            negotiate: makes the answer, which is reported to the starter of the task. Without it,
                the peer is taken to be connecting already.

        Raises:
            What the handler or the negotiation raised. All ends that are not errors return.

        Cancellation:
            Ends the session: the connection is closed at once, and this returns within the
            shutdown and close limits. A handler that shields itself is waited for all the same.
        """
        token = current_session.set(self)
        try:
            with self._scope:
                await self._run(negotiate, task_status)
        finally:
            await self._release()
            current_session.reset(token)

    async def _run(
        self,
        negotiate: Callable[[], Awaitable[object]] | None,
        task_status: TaskStatus[object],
    ) -> None:
        try:
            with collapse_groups():
                async with create_task_group() as tg:
                    tg.start_soon(self._guard_peer)
                    try:
                        await self._live(tg, negotiate, task_status)
                    except Exception as exc:
                        self.fail(exc)  # at once: the guard is to tell the client why
                        raise
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
        await checkpoint()  # where a session ends that was closed before it ran
        try:
            if negotiate is not None:
                self._machine.handle(SessionEvent.OFFER)
                answer = await negotiate()
                self._machine.handle(SessionEvent.ANSWERED)
                task_status.started(answer)
            await self._connect()
        except PeerError as exc:
            self.close(exc.reason, str(exc))
            raise
        except SignalingError as exc:
            self.close(CloseReason.REJECTED, str(exc))
            raise
        self._machine.handle(SessionEvent.PEER_CONNECTED)
        tasks.start_soon(self._watch_peer)
        if self.limits.time_limit is not None:
            tasks.start_soon(self._watch_time, self.limits.time_limit)
        if self.limits.idle is not None:
            tasks.start_soon(self._watch_idle, self.limits.idle)
        await self._serve()

    async def _serve(self) -> None:
        try:
            with collapse_groups():
                await self.driver.run(self)
        except (BrokenResourceError, EndOfStream):
            # The driver was talking to a client that has just gone: the peer says why, now or
            # in a moment. If the client is still there, the error is the driver's own.
            with anyio.move_on_after(_GONE_SECONDS):
                closed = await self.peer.wait_closed()
                self.close(closed.reason, closed.message)
                return
            raise

    async def _connect(self) -> None:
        with anyio.move_on_after(self.limits.connect) as scope:
            try:
                await self.peer.wait_connected()
            except PeerClosed as exc:  # a client may change its mind; that is no error
                self.close(exc.reason, str(exc))
                await checkpoint()
        if scope.cancelled_caught:
            raise ConnectTimeout(f"no connection came up within {self.limits.connect:g} s")

    async def _watch_peer(self) -> None:
        closed = await self.peer.wait_closed()
        self.close(closed.reason, closed.message)

    async def _watch_time(self, limit: float) -> None:
        await anyio.sleep(limit)
        self.close(CloseReason.TIME_LIMIT, f"the time limit of {limit:g} s is reached")

    async def _watch_idle(self, limit: float) -> None:
        """Look at the counters now and then: cheaper than a clock read for each frame."""
        step = limit / _IDLE_STEPS
        seen, still = self._activity(), 0
        while still < _IDLE_STEPS:
            await anyio.sleep(step)
            activity = self._activity()
            still = still + 1 if activity == seen else 0
            seen = activity
        self.close(CloseReason.IDLE, f"nothing was sent or received for {limit:g} s")

    def _activity(self) -> tuple[int, ...]:
        now = self.statistics()
        return (
            now.audio_in.received if now.audio_in else 0,
            now.audio_out.played if now.audio_out else 0,
            now.video_in.received if now.video_in else 0,
            now.video_out.played if now.video_out else 0,
            now.messages.received,
            now.messages.sent,
        )

    async def _guard_peer(self) -> None:
        """Close the connection as soon as the session ends, however it does.

        The driver may take its time to unwind, or may never; the client need not wait for it.
        """
        try:
            await anyio.sleep_forever()
        finally:
            await self._close_peer()

    def _tell_client(self) -> None:
        """Say why, before the connection is closed. The client's own end is no news to it."""
        closed = self.closed
        assert closed is not None
        if closed.reason is CloseReason.HANDLER_ERROR:
            self.messages.send_nowait(encode_message("error", closed.message))
        elif closed.reason in _OUR_ENDS:
            self.messages.send_nowait(encode_message("end_stream", closed.message))

    async def _close_peer(self) -> None:
        # Every other end has given its reason before it cancelled anything.
        self._machine.close(CloseReason.CANCELLED, "the server is stopping")
        with anyio.move_on_after(self.limits.close, shield=True) as scope:
            try:
                if not self._told:
                    self._told = True
                    self._tell_client()
            finally:
                try:
                    await self.peer.aclose()
                except Exception:  # the session has its reason; what else it holds is freed
                    logger.exception("session %s: the connection failed to close", self.id)
        if scope.cancelled_caught:
            logger.error("session %s: the connection did not close in time", self.id)

    async def _release(self) -> None:
        with CancelScope(shield=True):
            deadline = anyio.current_time() + self.limits.shutdown
            async with create_task_group() as tg:
                tg.start_soon(self._close_peer)
                tg.start_soon(self._shut_down, deadline)
            self._machine.handle(SessionEvent.PEER_RELEASED)
            self.outputs.close()
            self.abandoned_threads = await self.driver.join(deadline)
        if self.abandoned_threads:
            logger.warning(
                "session %s: %d threads did not come back from the handler within %g s",
                self.id,
                self.abandoned_threads,
                self.limits.shutdown,
            )

    async def _shut_down(self, deadline: float) -> None:
        with CancelScope(deadline=deadline) as scope:
            try:
                await self.driver.shut_down(self)
            except Exception:  # the session has its reason already; this one is for the log
                logger.exception("session %s: shutdown failed", self.id)
        if scope.cancelled_caught:
            logger.error(
                "session %s: shutdown took longer than %g s", self.id, self.limits.shutdown
            )


SessionFunction = Callable[[Session], Awaitable[None]]


@dataclass(frozen=True)
class Context:
    """Where the calling code runs."""

    webrtc_id: str
    """The client's own name for its connection, or the session's id if it gave none."""
    websocket: Any = None
    """The WebSocket, as the web framework has it, if the client or its carrier came by one."""


def get_current_context() -> Context:
    """Tell a handler which connection it serves; in its tasks and on its threads.

    Raises:
        RuntimeError: called elsewhere.
    """
    session = _session("get_current_context()")
    return Context(session.alias or session.id, session.websocket)


def Warning(message: str = "Warning issued.") -> None:  # noqa: N802 - FastRTC's name
    """Show the client a warning. Unlike :class:`WebRTCError` it ends nothing.

    Raises:
        RuntimeError: called outside a handler.
    """
    _session("Warning()").messages.send_nowait(encode_message("warning", str(message)))


def _session(what: str) -> Session:
    session = current_session.get(None)
    if session is None:
        raise RuntimeError(f"{what} is for handlers: no session is being served here")
    return session
