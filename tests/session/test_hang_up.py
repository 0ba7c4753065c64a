"""``hang_up``: a handler or a session function ends its call once the queued audio was played."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import (
    AudioFrame,
    CloseReason,
    EmitType,
    Session,
    StreamHandler,
    get_current_context,
    run_sync,
)
from fastrtc_anyio._media.playout import Played
from fastrtc_anyio.conversation.events import ReplyFinished, ReplyInterrupted
from fastrtc_anyio.testing import Call, open_call
from tests.kit.conversations import (
    OUT,
    Log,
    agent,
    heard_samples,
    say,
    silence,
    voice,
    words,
)
from tests.kit.handlers import Quiet, SyncQuiet

END = {"type": "end_stream", "data": "Goodbye.", "reason": "handler_closed"}


async def check_end(call: Call, heard: int | None = None) -> None:
    """Wait for the end of a call; check what the client received."""
    await call.ended.wait()
    messages = []
    with suppress(anyio.EndOfStream):
        while True:
            messages.append(json.loads(await call.client.receive_message()))
    assert [message for message in messages if message["type"] == "end_stream"] == [END]
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_CLOSED
    assert call.session.closed.message == "Goodbye."
    assert call.session.error is None
    if heard is not None:
        assert heard_samples(call) == heard


class Leaving(Quiet):
    """Hangs up in one of its methods, after one second of audio."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place
        self.emitted = False

    async def leave(self, place: str) -> None:
        if place == self.place:
            await anyio.sleep(0.5)  # emit has run
            self.hang_up("Goodbye.")
            self.hang_up("Not this.")

    async def start_up(self) -> None:
        await self.leave("start_up")

    async def receive(self, frame: Any) -> None:
        await self.leave("receive")

    async def on_message(self, message: str) -> None:
        await self.leave("on_message")

    async def on_dtmf(self, digit: str) -> None:
        await self.leave("on_dtmf")

    async def emit(self) -> EmitType:
        if not self.emitted:
            self.emitted = True
            return words(1)
        await self.leave("emit")
        return await super().emit()


@pytest.mark.parametrize("place", ["start_up", "receive", "on_message", "on_dtmf", "emit"])
async def test_hang_up_in_any_method_plays_queued_audio_first(place: str) -> None:
    handler = Leaving(place)
    async with open_call(handler) as call:
        call.client.send_message("hello")
        call.client.send_message('{"type": "dtmf", "data": "5"}')
        call.client.send_audio(AudioFrame(*words(0.02)))
        await check_end(call, OUT)
    assert handler.calls == ["shutdown"]


class SyncLeaving(SyncQuiet):
    """Hangs up on one of its threads."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place
        self.emitted = False

    def start_up(self) -> None:
        if self.place == "start_up":
            self.hang_up("Goodbye.")

    def receive(self, frame: Any) -> None:
        if self.place == "receive":
            self.hang_up("Goodbye.")

    def emit(self) -> EmitType:
        if self.place == "emit" and self.emitted:
            self.hang_up("Goodbye.")
            return words(1)  # too late to be played
        self.emitted = True
        return None


@pytest.mark.parametrize("place", ["start_up", "receive", "emit"])
async def test_hang_up_on_a_thread_plays_nothing_that_follows(place: str) -> None:
    async with open_call(SyncLeaving(place)) as call:
        call.client.send_audio(AudioFrame(*words(0.02)))
        await check_end(call, 0)


async def test_clear_queue_before_hang_up_drops_queued_audio() -> None:
    class Impatient(Leaving):
        async def leave(self, place: str) -> None:
            if place == "start_up":
                await anyio.sleep(0.3)
                self.clear_queue()
                self.hang_up("Goodbye.")

    async with open_call(Impatient("start_up")) as call:
        began = anyio.current_time()
        await check_end(call)
        assert anyio.current_time() - began < 0.5
        assert heard_samples(call) < OUT / 2


def leave(message: str = "Goodbye.") -> None:
    get_current_context().session.hang_up(message)


async def reply_async(audio: Any) -> AsyncGenerator[Any, None]:
    yield words(2)
    leave()
    yield words(5)


async def reply_with_model(audio: Any) -> AsyncGenerator[Any, None]:
    yield words(2)
    await run_sync(leave)  # a tool of a language model
    await anyio.sleep_forever()


def reply_plain(audio: Any) -> Generator[Any, None, None]:
    yield words(2)
    leave()
    yield words(5)


@pytest.mark.parametrize("reply", [reply_async, reply_with_model, reply_plain])
async def test_reply_hangs_up_after_its_audio_without_interruption(reply: Any) -> None:
    log = Log()
    async with open_call(agent(reply, on_event=log)) as call:
        with anyio.move_on_after(6):
            await say(call, voice(1), silence(1), voice(1), silence(3))
        await check_end(call, 2 * OUT)
    assert [finished.played for finished in log.of(ReplyFinished)] == [Played(2 * OUT, 2.0)]
    assert not log.of(ReplyInterrupted)


async def test_reply_that_ends_after_hang_up_is_finished_once() -> None:
    log = Log()

    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        yield words(1)
        leave()

    async with open_call(agent(reply, on_event=log)) as call:
        await say(call, voice(1), silence(1))
        await check_end(call, OUT)
    assert len(log.of(ReplyFinished)) == 1


async def test_session_function_plays_goodbye_and_returns() -> None:
    async def serve(session: Session) -> None:
        await session.audio_out.send(words(1))
        session.hang_up("Goodbye.")

    async with open_call(serve) as call:
        await check_end(call)
        assert heard_samples(call) == pytest.approx(2 * OUT, rel=0.02)  # at 48 kHz


async def test_session_function_is_cancelled_when_it_has_hung_up() -> None:
    cancelled = anyio.Event()

    async def serve(session: Session) -> None:
        await session.audio_out.send(words(1))
        session.hang_up("Goodbye.")
        try:
            while True:  # would play for ever
                await session.audio_out.send(words(1))
        finally:
            cancelled.set()

    async with open_call(serve) as call:
        began = anyio.current_time()
        await check_end(call)
        assert cancelled.is_set()
        assert anyio.current_time() - began < 3


async def test_application_hangs_up_paused_call_within_a_limit() -> None:
    async def serve(session: Session) -> None:
        await session.audio_out.send(words(1))
        session.audio_out.pause()
        await anyio.sleep_forever()

    async with open_call(serve) as call:
        await anyio.sleep(0.1)
        call.session.hang_up("Goodbye.")
        await check_end(call)


async def test_hang_up_before_connection_ends_the_session() -> None:
    async with open_call(Quiet(), connect=False) as call:
        call.session.hang_up("Goodbye.")
        await call.ended.wait()
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_CLOSED


async def test_client_that_leaves_during_goodbye_ends_the_call_first() -> None:
    async with open_call(Leaving("start_up")) as call:
        await anyio.sleep(0.7)
        call.client.hang_up()
        await call.ended.wait()
        call.session.hang_up("Too late.")
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HUNG_UP


async def test_error_during_goodbye_ends_the_call_with_the_error() -> None:
    class Failing(Leaving):
        async def receive(self, frame: Any) -> None:
            raise KeyError("x")

    async with open_call(Failing("start_up"), raise_errors=False) as call:
        await anyio.sleep(0.7)
        call.client.send_audio(AudioFrame(*words(0.02)))
        await call.ended.wait()
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_ERROR


@pytest.mark.parametrize("hang_up", [Quiet().hang_up, SyncQuiet().hang_up])
def test_hang_up_before_the_session_started_raises(hang_up: Callable[[], None]) -> None:
    with pytest.raises(RuntimeError, match=r"Quiet.hang_up exists once the session has started"):
        hang_up()


async def test_message_must_be_text() -> None:
    async with open_call(Quiet()) as call:
        with pytest.raises(TypeError, match="message must be a str; got 5"):
            call.session.hang_up(5)  # type: ignore[arg-type]


async def test_context_has_the_session() -> None:
    sessions: list[Session] = []

    class Asking(StreamHandler):
        def start_up(self) -> None:
            sessions.append(get_current_context().session)

        def receive(self, frame: tuple[int, np.ndarray[Any, Any]]) -> None: ...

        def emit(self) -> EmitType:
            return None

        def copy(self) -> Asking:
            return Asking()

    async with open_call(Asking()) as call:
        await anyio.sleep(0.1)
    assert sessions == [call.session]
