"""Sessions: one client's connection and the driver that serves it."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Protocol, TypeVar, Unpack

from anyio import TASK_STATUS_IGNORED, create_task_group
from anyio.abc import TaskStatus

from ._core.groups import collapse_groups
from ._core.options import check_type
from ._media.media_plan import MediaNeeds, MediaPlan
from ._saving import SavingSession
from ._signaling.messages import encode_message, encode_transcript
from ._signaling.session_ids import make_session_id
from ._user_code import contain_exits
from .abc import (
    AsyncioBridge,
    AudioInStatistics,
    AudioOutStatistics,
    AudioReceiveStream,
    AudioSendStream,
    DiscardStatistics,
    MessageStatistics,
    MessageStream,
    Peer,
    VideoInStatistics,
    VideoOutStatistics,
    VideoReceiveStream,
    VideoSendStream,
)
from .conversation.handlers import ReplyOnPause, TurnSettings
from .conversation.pause_rules import AlgoOptions
from .conversation.utterances import Utterances
from .errors import HandlerContractError
from .handlers import StreamHandlerBase
from .limits import Limits
from .outputs import AdditionalOutputs, OutputStatistics
from .speech.batch import ModelOptions, PauseDetectionModel
from .speech.vad import Vad
from .transcript import Transcript

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

T = TypeVar("T")

current_session: ContextVar[Session] = ContextVar("current_session")
"""The session of the running task or thread."""


@dataclass(frozen=True)
class SessionStatistics:
    """Counters of a session. None for media that the stream does not have."""

    audio_in: AudioInStatistics | None
    audio_out: AudioOutStatistics | None
    video_in: VideoInStatistics | None
    video_out: VideoOutStatistics | None
    messages: MessageStatistics
    outputs: OutputStatistics
    discarded: DiscardStatistics
    """Malformed items, none of which ended the session."""
    abandoned_threads: int
    """Threads that did not return from the handler within the shutdown limit."""
    abandoned_tasks: int
    """Tasks of the handler that did not end within the shutdown limit."""


class Driver(Protocol):
    """Serves one connected session."""

    name: str
    """Name of the handler's class, or of the function."""

    @property
    def handler(self) -> StreamHandlerBase | None:
        """The handler that is driven; None for a session function."""

    @property
    def needs(self) -> MediaNeeds:
        """Media formats to ask the transport for."""
        ...

    async def run(self, session: Session) -> None:
        """Serve the client. Returning ends the session."""

    async def play_out(self, session: Session) -> None:
        """Send nothing more, and wait until all queued media have been played.

        Called once, while :meth:`run` runs, if the session hangs up.
        """

    async def shut_down(self, session: Session) -> None:
        """Shut the handler down. Called exactly once, even if the client never connected."""

    async def join(self, deadline: float) -> int:
        """Wait for the handler's threads, and return how many still run at the deadline."""
        ...


class Session(SavingSession):
    """One connection: its client, its state, and the driver that serves it.

    Args:
        peer: the client. The session closes it.
        driver: the code to run while connected.
        limits: deadlines.
        alias: the client's id for the connection.
        identity: the client's identity, as ``authenticate`` returned it.
        asyncio_bridge: runs asyncio-only libraries.
        websocket: the web framework's WebSocket, if the client connected over one.
        owner: the name of this process in a cluster.
    """

    def __init__(
        self,
        peer: Peer,
        driver: Driver,
        *,
        limits: Limits | None = None,
        alias: str | None = None,
        identity: str | None = None,
        asyncio_bridge: AsyncioBridge | None = None,
        websocket: Any = None,
        owner: str | None = None,
    ) -> None:
        # 128 random bits: a client cannot guess the id of another client's session.
        session_id = make_session_id(owner, secrets.token_urlsafe(16))
        super().__init__(session_id, peer, limits or Limits())
        self.alias = alias
        self.identity = identity
        self.websocket = websocket
        self.driver = driver
        self.transcript: Transcript = Transcript()
        """The text of the conversation so far."""
        self._said = count(1)  # any thread may take a number
        self._asyncio_bridge = asyncio_bridge
        self._converse: Callable[[ReplyOnPause], object] | None = None

    @property
    def media(self) -> MediaPlan:
        """Media kinds and their directions."""
        return self.peer.media

    @property
    def audio_in(self) -> AudioReceiveStream:
        """Audio from the client: ``async for frame in session.audio_in``.

        The handler's driver reads it where there is one. A session function receives Opus at 48 kHz
        in mono, or in stereo from the client's first stereo packet on; other codecs, telephones and
        WebSockets at their own rate in mono.
        """
        self._require(self.media.audio_in, "audio_in")
        return self.peer.audio_in

    @property
    def audio_out(self) -> AudioSendStream:
        """Audio to the client, at any rate."""
        self._require(self.media.audio_out, "audio_out")
        return self.peer.audio_out

    @property
    def video_in(self) -> VideoReceiveStream:
        """Video from the client. A slow reader receives the latest frame."""
        self._require(self.media.video_in, "video_in")
        return self.peer.video_in

    @property
    def video_out(self) -> VideoSendStream:
        """Video to the client."""
        self._require(self.media.video_out, "video_out")
        return self.peer.video_out

    @property
    def messages(self) -> MessageStream:
        """Text messages in both directions."""
        return self.peer.messages

    def utterances(
        self,
        *,
        algo_options: AlgoOptions | None = None,
        model: Vad | PauseDetectionModel | None = None,
        model_options: ModelOptions = None,
        can_interrupt: bool = True,
        input_sample_rate: int = 48_000,
        **settings: Unpack[TurnSettings],
    ) -> Utterances:
        """Take turns with the user in a session function.

        ``async for utterance in session.utterances()`` waits for each utterance, and ``await
        utterance.reply(chunks)`` plays the reply. Turns are those of :class:`ReplyOnPause`, whose
        options these are. The conversation reads :attr:`audio_in` from the first iteration to the
        end of the session, and there may be one in each session.

        Raises:
            RuntimeError: called outside of a session function, or the session has none.
            ImportError, TypeError, ValueError: as from :class:`ReplyOnPause`.
        """
        if self._converse is None:
            raise RuntimeError("utterances() is for session functions: this session has none")
        self._require(self.media.audio, "audio_in and session.audio_out")
        return Utterances(
            self._converse,
            algo_options=algo_options,
            model=model,
            model_options=model_options,
            can_interrupt=can_interrupt,
            input_sample_rate=input_sample_rate,
            **settings,
        )

    def set_converse(self, converse: Callable[[ReplyOnPause], object] | None) -> None:
        """Set the function that lets a handler take turns. Called by the driver."""
        self._converse = converse

    def send_outputs(self, outputs: AdditionalOutputs) -> None:
        """Publish values to the application, and notify the client.

        Raises:
            TypeError: ``outputs`` is not an :class:`AdditionalOutputs`.
        """
        check_type("outputs", outputs, AdditionalOutputs)
        with contain_exits("a listener of outputs"):
            self.outputs.publish(outputs)
        self.messages.send_nowait(encode_message("fetch_output"))

    def send_transcript(self, role: str, text: str) -> None:
        """Add a text to :attr:`transcript`, and send it to the client, unless it is blank.

        The page shows it. :class:`ReplyOnPause` does this itself for the text of its replies. Any
        thread may call this. A telephone receives no messages.

        Raises:
            TypeError: an argument is not a str.
            ValueError: ``role`` is empty.
        """
        self.transcript.add(role, text)
        if words := text.strip():
            message = encode_transcript(f"said-{next(self._said)}", role, words)
            self._host.call(partial(self.messages.send_nowait, message))

    async def run_asyncio(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await a coroutine function of a library that supports asyncio only.

        Under asyncio it runs in this task. Under trio it runs on an asyncio loop in a second
        thread, the same for all calls, so that calls can share connections.

        Raises:
            RuntimeError: the coroutine was cancelled on the asyncio side.
            Exception: the coroutine raised it.

        Cancellation:
            Cancels the coroutine and waits for its end. Under trio, the result of a coroutine that
            completes meanwhile is returned, so that its resources are not lost.
        """
        return await self.asyncio_bridge.run(function, *args)

    @property
    def asyncio_bridge(self) -> AsyncioBridge:
        """The loop for asyncio-only libraries.

        Raises:
            RuntimeError: the session was created without a bridge.
        """
        if self._asyncio_bridge is None:
            raise RuntimeError("this session was created without an asyncio bridge")
        return self._asyncio_bridge

    def statistics(self) -> SessionStatistics:
        """Return the counters so far, also after the end. Thread-safe."""
        peer, media = self.peer, self.media
        return SessionStatistics(
            audio_in=peer.audio_in.statistics() if media.audio_in else None,
            audio_out=peer.audio_out.statistics() if media.audio_out else None,
            video_in=peer.video_in.statistics() if media.video_in else None,
            video_out=peer.video_out.statistics() if media.video_out else None,
            messages=self.messages.statistics(),
            outputs=self.outputs.statistics(),
            discarded=peer.discarded(),
            abandoned_threads=self.abandoned_threads,
            abandoned_tasks=self.abandoned_tasks,
        )

    async def transport_statistics(self) -> Mapping[str, Any]:
        """Return the transport's counters: for WebRTC, aiortc's form of W3C's ``getStats``."""
        return await self.peer.transport_statistics()

    def _require(self, exists: bool, name: str) -> None:
        if not exists:
            raise HandlerContractError(
                f"session.{name} does not exist: the stream's modality and mode give {self.media}"
            )

    async def run(
        self,
        negotiate: Callable[[], Awaitable[object]] | None = None,
        *,
        task_status: TaskStatus[object] = TASK_STATUS_IGNORED,
    ) -> None:
        token = current_session.set(self)
        try:
            await super().run(negotiate, task_status=task_status)
        finally:
            current_session.reset(token)

    async def _run_driver(self) -> None:
        await self.driver.run(self)

    async def _play_out(self) -> None:
        await self.driver.play_out(self)

    async def wait_played(self) -> None:
        """Wait until all queued audio and video have been played or flushed, or the connection has
        ended."""
        with collapse_groups():
            async with create_task_group() as tg:
                if self.media.audio_out:
                    tg.start_soon(self.audio_out.wait_played)
                if self.media.video_out:
                    tg.start_soon(self.video_out.wait_played)

    async def _shut_down_driver(self) -> None:
        await self.driver.shut_down(self)

    async def _join_driver(self, deadline: float) -> int:
        return await self.driver.join(deadline)

    def _count_activity(self) -> tuple[int, ...]:
        now = self.statistics()
        return (
            now.audio_in.received if now.audio_in else 0,
            now.audio_out.played if now.audio_out else 0,
            now.video_in.received if now.video_in else 0,
            now.video_out.played if now.video_out else 0,
            now.messages.received,
            now.messages.sent,
        )


SessionFunction = Callable[[Session], Awaitable[None]]


@dataclass(frozen=True)
class Context:
    """The connection that the calling code serves."""

    webrtc_id: str
    """The client's id for its connection, or the session's id if the client sent none."""
    session: Session
    """The session, for instance to hang up."""
    websocket: Any = None
    """The web framework's WebSocket, if the client or its carrier connected over one."""
    identity: str | None = None
    """The client's identity, as ``authenticate`` returned it; None if it returned True."""


def get_current_context() -> Context:
    """Return the connection that a handler serves, in its tasks and threads.

    Raises:
        RuntimeError: called outside a handler.
    """
    session = _get_session("get_current_context()")
    return Context(session.alias or session.id, session, session.websocket, session.identity)


def Warning(message: str = "Warning issued.") -> None:  # noqa: N802 - FastRTC's name
    """Show a warning to the client. Unlike :class:`WebRTCError`, it does not end the session.

    Raises:
        RuntimeError: called outside a handler.
    """
    _get_session("Warning()").messages.send_nowait(encode_message("warning", str(message)))


def _get_session(caller: str) -> Session:
    session = current_session.get(None)
    if session is None:
        raise RuntimeError(f"{caller} is for handlers: no session is being served here")
    return session
