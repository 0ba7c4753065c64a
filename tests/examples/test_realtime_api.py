"""The bridge to a speech-to-speech service with its fake service, in memory and on virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import httpx
import httpx_ws
import numpy as np
import pytest
from httpx_ws.transport import ASGIWebSocketTransport
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from fastrtc_anyio import CloseReason
from fastrtc_anyio.testing import Call, open_call
from tests.kit.conversations import say, silence, voice

from .loading import load


class Service:
    """The example with a service in memory."""

    def __init__(self) -> None:
        self.example = load("realtime_api")
        self.fake = load("fake_realtime")

    @asynccontextmanager
    async def call(self, app: Any = None) -> AsyncGenerator[Call, None]:
        transport = ASGIWebSocketTransport(app or self.fake.app)
        async with httpx.AsyncClient(transport=transport) as http:
            self.example.aconnect_ws = partial(httpx_ws.aconnect_ws, client=http)
            self.example.options.url = "http://service/v1/realtime"
            async with open_call(self.example.Bridge(), raise_errors=False) as call:
                yield call


@pytest.fixture
def service() -> Service:
    return Service()


def transcript(call: Call) -> list[tuple[str, str]]:
    return [(role, text) for role, text in call.session.transcript]


async def test_utterance_is_answered_and_the_transcript_has_the_heard_words(
    service: Service,
) -> None:
    async with service.call() as call:
        await say(call, silence(0.5), voice(1.0), silence(4.0))
    assert call.session.error is None
    user, answer = transcript(call)
    assert user == ("user", "1.0 seconds of speech")
    assert answer[0] == "assistant"
    assert answer[1].endswith("and now you hear them twice.")
    assert np.count_nonzero(np.abs(call.heard) > 4000) == pytest.approx(2 * 24_000, rel=0.02)
    (session,) = service.fake.received
    assert session["session"]["audio"]["input"]["format"]["rate"] == 24_000


async def test_interruption_stops_the_answer_and_reports_its_played_audio(
    service: Service,
) -> None:
    async with service.call() as call:
        await say(call, silence(0.5), voice(2.0), silence(1.8))
        await say(call, voice(0.2))
        before = call.heard.shape[1]
        heard = np.count_nonzero(np.abs(call.heard) > 4000) / 24_000
        await say(call, silence(0.4))
        assert not call.heard[0, before:].any()
    assert call.session.error is None
    assert 0.5 < heard < 3
    _, truncation = service.fake.received
    assert truncation["type"] == "conversation.item.truncate"
    assert truncation["item_id"] == "item_1"
    assert truncation["audio_end_ms"] == pytest.approx(1000 * heard, abs=25)
    (_, (role, text)) = transcript(call)
    assert role == "assistant"
    answer = "I have heard 2.0 seconds of speech, and now you hear them twice."
    assert answer.startswith(text)
    total = 2 * 2.5  # the pause belongs to the utterance
    words = len(answer.split())
    assert len(text.split()) == pytest.approx(words * heard / total, abs=2)


async def test_service_that_refuses_or_leaves_ends_the_call_with_a_message(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(socket: WebSocket) -> None:
        await socket.close()

    async def leave(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close(1011, "overloaded")

    for answer in (refuse, leave):
        app = Starlette(routes=[WebSocketRoute("/v1/realtime", answer)])
        async with service.call(app) as call:
            with anyio.fail_after(5):
                await call.ended.wait()
        assert call.session.closed is not None
        assert call.session.closed.reason is CloseReason.HANDLER_ERROR
        assert str(call.session.error) == "The speech service is not available."
        assert "the connection to http://service/v1/realtime failed" in caplog.text
        caplog.clear()


def serving(*events: Any) -> Starlette:
    """A service that sends events, and waits where there is a number of seconds."""

    async def answer(socket: WebSocket) -> None:
        await socket.accept()
        for event in events:
            if isinstance(event, float):
                await anyio.sleep(event)
            else:
                await socket.send_json(event)
        async for _ in socket.iter_json():
            pass

    return Starlette(routes=[WebSocketRoute("/v1/realtime", answer)])


TEXT = {"type": "response.output_audio_transcript.delta", "delta": "I see. ", "item_id": "a"}
AUDIO = {"type": "response.output_audio.delta", "delta": "AAAQ" * 4800, "item_id": "a"}  # 0.3 s
DONE = {"type": "response.output_audio.done", "item_id": "a"}
STARTED = {"type": "input_audio_buffer.speech_started"}


@pytest.mark.parametrize("late", [[TEXT, DONE], [TEXT, AUDIO, AUDIO, DONE], [STARTED, DONE]])
async def test_events_of_an_interrupted_answer_have_no_effect(
    service: Service, late: list[Any]
) -> None:
    async with service.call(serving(*[TEXT, AUDIO] * 5, 0.5, STARTED, *late)) as call:
        await anyio.sleep(3)
        assert np.count_nonzero(call.heard) < 0.5 * 24_000
    assert call.session.error is None
    (said,) = transcript(call)
    assert said == ("assistant", "I see. I")  # a third of ten words


async def test_interruption_of_a_stalled_answer_reports_its_played_audio(
    service: Service,
) -> None:
    other = {"item_id": "b"}
    next_answer = [{**TEXT, **other}, {**AUDIO, **other}, {**DONE, **other}]
    events = [TEXT, AUDIO, 1.0, STARTED, STARTED, 0.5, DONE, *next_answer]
    async with service.call(serving(*events)) as call:
        await anyio.sleep(4)
    assert call.session.error is None
    assert transcript(call) == [("assistant", "I see."), ("assistant", "I see.")]


@pytest.mark.parametrize("seconds", [0.25, 0.3, 0.305, 0.31])
async def test_service_that_leaves_while_the_user_talks_ends_the_call_with_a_message(
    service: Service, seconds: float
) -> None:
    async def leave(socket: WebSocket) -> None:
        await socket.accept()
        await anyio.sleep(seconds)
        await socket.close(1011, "overloaded")

    app = Starlette(routes=[WebSocketRoute("/v1/realtime", leave)])
    async with service.call(app) as call:
        await say(call, voice(1))
    assert str(call.session.error) == "The speech service is not available."


async def test_answer_without_audio_is_not_heard(service: Service) -> None:
    async with service.call(serving(TEXT, DONE, STARTED)) as call:
        await anyio.sleep(1)
    assert call.session.error is None
    assert transcript(call) == []


async def test_service_that_sends_audio_without_end_ends_the_call(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.example, "CHUNKS", 200)
    async with service.call(serving(*[AUDIO] * 500)) as call:
        with anyio.fail_after(10):
            await call.ended.wait()
    assert str(call.session.error) == "The speech service is not available."


async def test_older_names_of_events_and_errors_of_the_service(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(socket: WebSocket) -> None:
        await socket.accept()
        item = {"item_id": "a"}
        audio = "AAAQ" * 4800  # 7200 samples, two of three not zero
        await socket.send_json({"type": "error", "error": {"message": "no such voice"}})
        await socket.send_json({"type": "response.audio_transcript.delta", "delta": "Hi.", **item})
        await socket.send_json({"type": "response.audio.delta", "delta": audio, **item})
        await socket.send_json({"type": "response.audio.done", **item})
        async for _ in socket.iter_json():
            pass

    app = Starlette(routes=[WebSocketRoute("/v1/realtime", answer)])
    async with service.call(app) as call:
        await anyio.sleep(2)
    assert transcript(call) == [("assistant", "Hi.")]
    assert call.heard.any()
    assert "no such voice" in caplog.text
