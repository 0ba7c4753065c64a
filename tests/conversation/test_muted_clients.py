"""Clients that stop sending audio: a muted microphone, silence suppression, an outage.

Time is virtual. The client sends nothing at all in place of silence.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
import numpy as np
import pytest
from anyio import create_task_group

from fastrtc_anyio import AsyncStreamHandler, ReplyOnPause, ReplyOnStopWords, Session
from fastrtc_anyio._driver import HandlerDriver
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._wire.fastrtc import FastRTCFraming
from fastrtc_anyio._wire.twilio import TwilioFraming
from fastrtc_anyio.conversation.events import ReplyStarted, UserStartedSpeaking
from fastrtc_anyio.handlers import StreamHandlerBase
from fastrtc_anyio.testing import open_call
from tests.kit.backends import on_trio
from tests.kit.conversations import (
    RATE,
    Log,
    LoudVad,
    agent,
    answering,
    say,
    silence,
    voice,
)
from tests.kit.handlers import Quiet
from tests.kit.websocket_clients import open_pair

PAUSE = 0.5
"""Seconds after the end of speech at which a `LoudVad` detects a pause."""


class Speaker(Protocol):
    async def __call__(self, samples: Int16Array) -> None: ...


@asynccontextmanager
async def memory(handler: StreamHandlerBase) -> AsyncGenerator[Speaker, None]:
    async with open_call(handler) as call:
        yield lambda samples: say(call, samples)


def websocket(framing: Callable[[], Any]) -> Any:
    @asynccontextmanager
    async def connect(handler: StreamHandlerBase) -> AsyncGenerator[Speaker, None]:
        handler.phone_mode = framing is TwilioFraming
        async with (
            open_pair(framing, liveness_s=5.0) as (peer, client),
            create_task_group() as tasks,
        ):
            session = Session(peer, HandlerDriver(handler))
            tasks.start_soon(session.run)
            tasks.start_soon(client.listen)
            yield lambda samples: client.speak(samples, RATE)
            client.hang_up()
            await peer.wait_closed()
            tasks.cancel_scope.cancel()

    return connect


TRANSPORTS = pytest.mark.parametrize(
    "connect",
    [memory, websocket(FastRTCFraming), websocket(TwilioFraming)],
    ids=["memory", "websocket", "telephone"],
)


@TRANSPORTS
async def test_client_that_mutes_while_speaking_gets_a_reply(connect: Any) -> None:
    log = Log()
    async with connect(agent(answering(0.1), on_event=log)) as speak:
        await speak(np.concatenate([silence(0.5), voice(1)], axis=1))
        await anyio.sleep(2)
    (started,) = log.of(ReplyStarted)
    assert started.at == pytest.approx(1.5 + PAUSE, abs=0.2)


class SlowSearch(ReplyOnStopWords):
    """Finds a stop word in the first half second of any speech, after 3 s."""

    async def find_stop_word(self, audio: tuple[int, Int16Array]) -> int | None:  # type: ignore[override]
        await anyio.sleep(3)
        return RATE // 2


def slow_search(model: Any, log: Log) -> SlowSearch:
    reply = answering(0.1)
    unused: Any = object()
    return SlowSearch(
        reply, ["x"], input_sample_rate=RATE, model=model, stt_model=unused, on_event=log
    )


@TRANSPORTS
async def test_speech_after_a_stop_word_gets_a_reply_though_the_search_ends_later(
    connect: Any,
) -> None:
    log = Log()
    handler = slow_search(LoudVad(), log)
    async with connect(handler) as speak:
        await speak(voice(1.5))
        await anyio.sleep(4)
    (started,) = log.of(ReplyStarted)
    assert started.at == pytest.approx(3 + PAUSE, abs=0.4)


@TRANSPORTS
async def test_client_that_sends_speech_only_gets_a_reply_to_each_turn(connect: Any) -> None:
    """The client has its own voice-activity detection."""
    said: list[Any] = []
    log = Log()
    async with connect(agent(answering(0.1, log=said), on_event=log)) as speak:
        for _ in range(3):
            await speak(voice(1))
            await anyio.sleep(2)
    times = [event.at for event in log.of(UserStartedSpeaking)]
    assert np.diff(times) == pytest.approx([3, 3], abs=0.1)
    assert len(log.of(ReplyStarted)) == 3
    utterances = [audio[1] for audio in said if isinstance(audio, tuple)]
    assert [np.count_nonzero(np.abs(u) > 1000) / RATE for u in utterances] == pytest.approx(
        [1, 1, 1], abs=0.05
    )


@TRANSPORTS
async def test_silence_that_is_not_sent_has_its_true_length(connect: Any) -> None:
    class Recorder(AsyncStreamHandler):
        def __init__(self) -> None:
            super().__init__(input_sample_rate=RATE)
            self.pieces: list[Any] = []

        async def receive(self, frame: tuple[int, Any]) -> None:
            self.pieces.append(frame[1])

        async def emit(self) -> None:
            return None

        def copy(self) -> Recorder:
            return Recorder()

    recorder = Recorder()
    async with connect(recorder) as speak:
        for _ in range(3):
            await speak(voice(1))
            await anyio.sleep(3)
    recorded = np.concatenate(recorder.pieces, axis=1)[0]
    loud = np.flatnonzero(np.abs(recorded) > 1000) / RATE
    starts = [loud[0], *loud[1:][np.diff(loud) > 0.5]]
    assert starts == pytest.approx([0, 4, 8], abs=0.05)
    assert recorded.size / RATE == pytest.approx(9, abs=0.1)


@on_trio
async def test_handler_with_receive_silence_is_called_while_the_client_is_muted() -> None:
    class Listener(Quiet):
        receive_silence = True

        def __init__(self) -> None:
            super().__init__()
            self.times: list[float] = []

        async def receive(self, frame: tuple[int, Any]) -> None:
            self.times.append(anyio.current_time())

    listener = Listener()
    async with open_call(listener) as call:
        await say(call, voice(1))
        await anyio.sleep(100)
    assert len(listener.times) == pytest.approx(61 * 50, abs=2)  # the longest gap is 60 s
    assert np.diff(listener.times).max() < 0.3


async def test_own_pause_rule_is_called_while_the_client_is_muted() -> None:
    class Patient(ReplyOnPause):
        def determine_pause(self, audio: Any, sampling_rate: int, state: Any) -> bool:
            state.started_talking = True
            return not np.any(audio[-sampling_rate:])

    log = Log()
    handler = Patient(answering(0.1), input_sample_rate=RATE, on_event=log)
    async with open_call(handler) as call:
        await say(call, voice(1))
        await anyio.sleep(1.5)
    assert log.of(ReplyStarted)[0].at == pytest.approx(2, abs=0.1)


async def test_stalled_server_does_not_take_late_audio_for_silence() -> None:
    """Silence is for what the client did not send, not for what the server did not read."""
    heard: list[Any] = []

    async def listen(session: Session) -> None:
        async for frame in session.audio_in.in_real_time():
            heard.append(frame.samples)
            if len(heard) == 10:
                await anyio.sleep(0.7)

    async with open_call(listen) as call:
        await say(call, voice(3))
    assert sum(np.count_nonzero(samples == 0) for samples in heard) == 0
