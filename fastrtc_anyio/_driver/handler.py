"""A handler as something a session can run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
from anyio import create_task_group
from anyio.from_thread import BlockingPortal

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._media.media_plan import MediaNeeds, MediaPlan
from fastrtc_anyio._media.playout import Played
from fastrtc_anyio._signaling.messages import parse_digit
from fastrtc_anyio.abc import AsyncioBridge
from fastrtc_anyio.conversation.handlers import ReplyOnPause
from fastrtc_anyio.errors import CloseReason
from fastrtc_anyio.functions import FunctionHandler
from fastrtc_anyio.handlers import (
    AsyncAudioVideoStreamHandler,
    AudioVideoStreamHandler,
    HandlerRuntime,
    StreamHandlerBase,
)
from fastrtc_anyio.session import Session

from .audio import emit_audio, receive_audio
from .calls import Calls, check_handler
from .conversation import converse
from .generators import play_generator
from .run import HandlerRun
from .video import apply_function, emit_video, receive_video

__all__ = ["HandlerDriver"]

Part = Callable[[HandlerRun[Any]], Awaitable[None]]


class HandlerDriver:
    """Drives a handler: its parts run side by side, and an error in one ends them all."""

    def __init__(self, handler: StreamHandlerBase) -> None:
        check_handler(handler)
        self.handler = handler
        self.needs = MediaNeeds(
            handler.output_sample_rate,
            handler.input_sample_rate,
            2 if handler.expected_layout == "stereo" else 1,
            handler.fps,
        )
        self._calls = Calls(handler)

    async def run(self, session: Session) -> None:
        """Drive the handler until it ends the session, raises, or is cancelled."""
        handler = self.handler
        run = HandlerRun(handler, session, self._calls)
        async with self._attached(session) as runtime:
            handler.set_channel(runtime.channel)
            async with create_task_group() as tg:
                for part in (start_up, read_messages, *media_parts(handler, session.media)):
                    tg.start_soon(self._run_part, part, run)
                # A part that comes to its end because the client has gone ends nothing: the
                # session is about to hear why.
                await anyio.sleep_forever()

    async def _run_part(self, part: Part, run: HandlerRun[Any]) -> None:
        try:
            await part(run)
        except Exception as exc:
            run.session.fail(exc)  # at once: the client does not wait for the rest to unwind
            raise

    async def shut_down(self, session: Session) -> None:
        """Call ``shutdown``. What it may need of the session it has, if this never ran either."""
        async with self._attached(session):
            await self._calls.method("shutdown")

    @asynccontextmanager
    async def _attached(self, session: Session) -> AsyncGenerator[_Runtime, None]:
        async with BlockingPortal() as portal:
            runtime = _Runtime(session, portal)
            self.handler._runtime = runtime
            yield runtime

    async def join(self, deadline: float) -> int:
        """Wait for the worker threads until ``deadline``; says how many were left behind."""
        return await self._calls.join(deadline)


def media_parts(handler: StreamHandlerBase, media: MediaPlan) -> Iterator[Part]:
    """What there is to do for a handler, given what flows."""
    if isinstance(handler, FunctionHandler):
        yield play_generator if handler.generates else apply_function
        return
    if isinstance(handler, ReplyOnPause):
        yield converse
        return
    if media.audio_in:
        yield receive_audio
    if media.audio:
        yield emit_audio  # also where no audio is sent: for outputs and the end
    if isinstance(handler, AudioVideoStreamHandler | AsyncAudioVideoStreamHandler):
        if media.video_in:
            yield receive_video
        if media.video:
            yield emit_video


async def start_up(run: HandlerRun[Any]) -> None:
    """Call ``start_up``, which may last as long as the session."""
    limit = run.session.limits.start_up
    with anyio.move_on_after(limit) as scope:
        await run.calls.method("start_up")
    if scope.cancelled_caught:
        text = f"start_up took longer than {limit:g} s"
        run.session.close(CloseReason.START_UP_TIMEOUT, text)


async def read_messages(run: HandlerRun[Any]) -> None:
    """Give the client's messages to ``on_message``, and key presses to ``on_dtmf``. They are read
    even if nobody listens."""
    kind = type(run.handler)
    listens = kind.on_message is not StreamHandlerBase.on_message
    counts_keys = kind.on_dtmf is not StreamHandlerBase.on_dtmf
    while True:
        try:
            text = await run.session.messages.receive()
        except anyio.EndOfStream:
            return
        if counts_keys and (digit := parse_digit(text)) is not None:
            await run.calls.method("on_dtmf", digit)
        elif listens:
            await run.calls.method("on_message", text)


class _Runtime(HandlerRuntime):
    """What a handler reaches of its session."""

    def __init__(self, session: Session, portal: BlockingPortal) -> None:
        self._session = session
        self.portal = portal
        self.channel = _Channel(session)
        self._host = Host()

    @property
    def asyncio_bridge(self) -> AsyncioBridge:
        return self._session.asyncio_bridge

    @property
    def on_host_thread(self) -> bool:
        return self._host.is_current_thread

    def flush(self) -> Played:
        if self._session.media.video_out:
            self._session.video_out.flush()
        if self._session.media.audio_out:
            return self._session.audio_out.flush()
        return Played(0, 0.0)


class _Channel:
    """The data channel as a handler sees it: ``send`` from any thread."""

    def __init__(self, session: Session) -> None:
        self._host = Host()
        self._messages = session.messages

    def send(self, message: str) -> None:
        if not isinstance(message, str):
            raise TypeError(f"a message is a str; got {type(message).__name__}")
        self._host.call(partial(self._messages.send_nowait, message))
