"""A handler as the driver of a session."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, get_args

import anyio
from anyio import create_task_group
from anyio.from_thread import BlockingPortal

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._core.user_code import is_coroutine_function
from fastrtc_anyio._media.convert import AudioConverter
from fastrtc_anyio._media.frames import FRAMES_PER_SECOND, split_frame
from fastrtc_anyio._media.media_plan import MediaNeeds, MediaPlan
from fastrtc_anyio._media.playout import Played
from fastrtc_anyio._media.resample import Rechunker
from fastrtc_anyio._media.video import VideoFormat
from fastrtc_anyio._signaling.messages import parse_digit
from fastrtc_anyio._user_code import contain_exits
from fastrtc_anyio.abc import AsyncioBridge
from fastrtc_anyio.conversation.handlers import ReplyOnPause
from fastrtc_anyio.errors import CloseReason, HandlerContractError
from fastrtc_anyio.handlers import (
    AsyncAudioVideoStreamHandler,
    AsyncStreamHandler,
    AudioVideoStreamHandler,
    HandlerRuntime,
    StreamHandler,
    StreamHandlerBase,
)
from fastrtc_anyio.handlers.functions import FunctionHandler
from fastrtc_anyio.session import Session

from .calls import Calls
from .conversation import converse
from .emissions import read_audio_emission, read_audio_frame
from .generators import play_generator
from .run import HandlerRun
from .video import apply_function, emit_video, receive_video

Part = Callable[[HandlerRun[Any]], Awaitable[None]]
"""A part of a handler. Each part requires the class of handler that :func:`media_parts` checks."""


class HandlerDriver:
    """Serves a session with a handler: its parts run concurrently, and an error in one ends all."""

    def __init__(self, handler: StreamHandlerBase) -> None:
        check_handler(handler)
        self.handler = handler
        channels = 2 if handler.expected_layout == "stereo" else 1
        converses = isinstance(handler, ReplyOnPause)
        self.needs = MediaNeeds(
            handler.output_sample_rate,
            handler.input_sample_rate,
            channels,
            1 if converses else channels,
            handler.fps,
            live=False if converses else None,
        )
        self.name: str = _name_of(handler)
        self._calls = Calls(handler)
        self._run: HandlerRun[StreamHandlerBase] | None = None
        self._runtimes: list[_Runtime] = []

    async def run(self, session: Session) -> None:
        handler = self.handler
        run = self._run = HandlerRun(handler, session, self._calls)
        async with self._attached(session) as runtime:
            handler.set_channel(runtime)
            async with create_task_group() as tg:
                for part in (start_up, read_messages, *media_parts(handler, session.media)):
                    tg.start_soon(self._run_part, part, run, name=f"HandlerDriver.{part.__name__}")
                # Parts return when the client has left. The peer is about to report the reason, so
                # their return must not end the session first.
                await anyio.sleep_forever()

    async def _run_part(self, part: Part, run: HandlerRun[StreamHandlerBase]) -> None:
        try:
            with contain_exits(type(self.handler).__name__):
                await part(run)
        except Exception as exc:
            # Here rather than in the session, which learns of it only once all parts have unwound.
            run.session.fail(exc)
            raise

    async def play_out(self, session: Session) -> None:
        if self._run is not None:
            await self._run.play_out()

    async def shut_down(self, session: Session) -> None:
        """Call ``shutdown``. The handler may use the session there, even if it never ran."""
        try:
            async with self._attached(session):
                await self._calls.method("shutdown")
        finally:
            self._run = None
            for runtime in self._runtimes:
                runtime.detach()

    @asynccontextmanager
    async def _attached(self, session: Session) -> AsyncGenerator[_Runtime, None]:
        async with BlockingPortal() as portal:
            runtime = _Runtime(session, portal)
            self._runtimes.append(runtime)
            self.handler.set_runtime(runtime)
            yield runtime

    async def join(self, deadline: float) -> int:
        return await self._calls.join(deadline)


def _name_of(handler: StreamHandlerBase) -> str:
    return handler.source if isinstance(handler, FunctionHandler) else type(handler).__name__


def check_handler(handler: StreamHandlerBase) -> None:
    """Raise `HandlerContractError` for a method of the wrong kind or a setting out of range."""
    name = type(handler).__name__
    if not hasattr(handler, "expected_layout"):
        raise HandlerContractError(f"{name}.__init__ must call super().__init__() first")
    is_async = isinstance(handler, AsyncStreamHandler)
    # A conversation's start_up may be either.
    methods = [] if isinstance(handler, ReplyOnPause) else ["start_up"]
    if isinstance(handler, StreamHandler | AsyncStreamHandler):
        methods += ["receive", "emit"]
    if isinstance(handler, AudioVideoStreamHandler | AsyncAudioVideoStreamHandler):
        methods += ["video_receive", "video_emit"]
    for method in methods:
        if is_coroutine_function(getattr(handler, method)) != is_async:
            base = AsyncStreamHandler if is_async else StreamHandler
            kind = "a coroutine function (async def)" if is_async else "a plain function (def)"
            raise HandlerContractError(
                f"{name}.{method} must be {kind}, because {name} derives from {base.__name__}"
            )
    if handler.video_format not in get_args(VideoFormat):
        raise HandlerContractError(
            f"{name}.video_format must be one of {get_args(VideoFormat)}; "
            f"got {handler.video_format!r}"
        )
    if is_coroutine_function(handler.trigger_response):
        raise HandlerContractError(
            f"{name}.trigger_response must be a plain function (def): any thread may call it"
        )


def media_parts(handler: StreamHandlerBase, media: MediaPlan) -> Iterator[Part]:
    """Yield the parts of a handler for the media of its session."""
    if isinstance(handler, FunctionHandler):
        yield play_generator if handler.generates else apply_function
        return
    if isinstance(handler, ReplyOnPause):
        yield converse
        return
    if media.audio_in:
        yield receive_audio
    if media.audio:
        yield emit_audio  # for outputs and CloseStream even where no audio is sent
    if isinstance(handler, AudioVideoStreamHandler | AsyncAudioVideoStreamHandler):
        if media.video_in:
            yield receive_video
        if media.video:
            yield emit_video


async def start_up(run: HandlerRun[StreamHandlerBase]) -> None:
    """Call ``start_up``, which may run as long as the session unless a limit is set."""
    limit = run.session.limits.start_up
    with anyio.move_on_after(limit) as scope:
        await run.calls.method("start_up")
    if scope.cancelled_caught:
        text = f"start_up took longer than {limit:g} s"
        run.session.close(CloseReason.START_UP_TIMEOUT, text)


async def read_messages(run: HandlerRun[StreamHandlerBase]) -> None:
    """Pass messages of the client to ``on_message`` and key presses to ``on_dtmf``.

    Messages are read even if the handler overrides neither, so that they do not fill the queue.
    """
    kind = type(run.handler)
    takes_messages = kind.on_message is not StreamHandlerBase.on_message
    takes_digits = kind.on_dtmf is not StreamHandlerBase.on_dtmf
    while True:
        try:
            text = await run.session.messages.receive()
        except anyio.EndOfStream:
            return
        if takes_digits and (digit := parse_digit(text)) is not None:
            await run.calls.method("on_dtmf", digit)
        elif takes_messages:
            await run.calls.method("on_message", text)


async def receive_audio(run: HandlerRun[StreamHandlerBase]) -> None:
    """Pass the client's audio to ``receive``, 20 ms at a time."""
    rate = run.handler.input_sample_rate
    channels = 2 if run.handler.expected_layout == "stereo" else 1
    convert = AudioConverter(rate, channels, primed=True)
    rechunk = Rechunker(rate // FRAMES_PER_SECOND, channels, copy=False)
    audio_in = run.session.audio_in
    read = audio_in.receive_or_silence if run.handler.receive_silence else audio_in.receive
    receive = run.calls.bind("receive")
    try:
        while True:
            try:
                frame = await read()
            except anyio.EndOfStream:
                return
            for piece in split_frame(frame):
                for samples in rechunk.push(convert(piece)):
                    await receive((rate, samples))
                    run.note_received()
    finally:
        convert.reset()


async def emit_audio(run: HandlerRun[StreamHandlerBase]) -> None:
    """Call ``emit`` repeatedly and play its audio."""
    source, emit = run.calls.source("emit"), run.calls.bind("emit")
    read = partial(read_audio_emission, source=source)
    plays = run.session.media.audio_out
    while True:
        received = run.received
        value = await emit()
        if plays and (frame := read_audio_frame(value)) is not None:
            await run.play_frame(frame)
            continue
        emission = await run.calls.convert(read, source, value)
        await run.play(emission)
        # No playout queue slows this loop down: without the pause it would occupy a core.
        if not plays:
            await anyio.sleep(1 / FRAMES_PER_SECOND)
        elif emission.media is None:
            await run.wait_received(received, 1 / FRAMES_PER_SECOND)


class _Runtime(HandlerRuntime):
    """The running session and its data channel, as its handler sees them.

    After :meth:`detach` the session has ended: calls have no effect, and the portal is gone. The
    session and its handler then no longer refer to each other. Without a reference cycle their
    memory is free as soon as nothing uses them.
    """

    def __init__(self, session: Session, portal: BlockingPortal) -> None:
        self._session: Session | None = session
        self._portal: BlockingPortal | None = portal
        self._bridge: AsyncioBridge | None = None
        self._host = Host()

    def detach(self) -> None:
        """Forget the session."""
        with suppress(RuntimeError):  # it has no bridge
            self._bridge = self.asyncio_bridge
        self._session = self._portal = None

    @property
    def portal(self) -> BlockingPortal:
        if (portal := self._portal) is None:
            raise RuntimeError("the session has ended")
        return portal

    @property
    def asyncio_bridge(self) -> AsyncioBridge:
        if (session := self._session) is not None:
            return session.asyncio_bridge
        if self._bridge is None:
            raise RuntimeError("the session has ended")
        return self._bridge

    @property
    def on_host_thread(self) -> bool:
        return self._host.is_current_thread

    def send(self, message: str) -> None:
        if not isinstance(message, str):
            raise TypeError(f"message must be a str; got {type(message).__name__}")
        if (session := self._session) is not None:
            self._host.call(partial(session.messages.send_nowait, message))

    def hang_up(self, message: str) -> None:
        if (session := self._session) is not None:
            session.hang_up(message)

    def send_transcript(self, role: str, text: str) -> None:
        if (session := self._session) is not None:
            session.send_transcript(role, text)

    def flush(self) -> Played:
        if (session := self._session) is None:
            return Played(0, 0.0)
        if session.media.video_out:
            session.video_out.flush()
        return session.audio_out.flush() if session.media.audio_out else Played(0, 0.0)
