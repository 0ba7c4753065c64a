"""The language-model agent with its fake model, in memory and on virtual time."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from fastrtc_anyio import Resumed, Session
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.speech.tts import SentenceTTS, TTSOptions
from fastrtc_anyio.testing import Call, open_call
from tests.kit.asgi import StreamingTransport
from tests.kit.conversations import LoudVad, say, silence, voice
from tests.kit.documentation import blocks_of

from .loading import load

RATE = 16_000
S_PER_CHARACTER = 0.06
LEVEL = 1000  # of the first sentence that is spoken; each is louder by 1 than the one before
ANSWER = "This is the first sentence. The second one is somewhat longer. Here comes the third one."
QUESTION = "where is the train station"


class Voice(SentenceTTS[TTSOptions]):
    """Speaks each sentence as samples of a different constant value."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def speak(self, sentence: str, options: TTSOptions | None) -> tuple[int, Int16Array]:
        self.said.append(sentence)
        length = round(S_PER_CHARACTER * len(sentence) * RATE)
        return RATE, np.full((1, length), LEVEL + len(self.said) - 1, np.int16)

    def heard(self, call: Call) -> str:
        """The words of which the client has received at least half."""
        words: list[str] = []
        for number, sentence in enumerate(self.said):
            count = np.count_nonzero(call.heard == LEVEL + number)
            share = count / call.session.audio_out.sample_rate / (S_PER_CHARACTER * len(sentence))
            words += sentence.split()[: round(share * len(sentence.split()))]
        return " ".join(words)


class Listener:
    """Recognises one text for each utterance."""

    def stt(self, audio: tuple[int, Int16Array]) -> str:
        assert audio[1].size
        return QUESTION


class Agent:
    """A program, the example's or the guide's, with its fake model."""

    def __init__(self, program: dict[str, Any], fake: Any) -> None:
        self.program = program
        self.fake = fake
        self.voice = Voice()
        program["get_stt_model"] = lambda name: Listener()
        program["get_tts_model"] = lambda name: self.voice

    @asynccontextmanager
    async def call(
        self, app: Any = None, resumed_from: Resumed | None = None
    ) -> AsyncGenerator[Call, None]:
        handler = self.program["stream"].handler.copy()
        handler.model = LoudVad()
        handler.output_sample_rate = RATE
        async with anyio.create_task_group() as tasks:
            self.transport = StreamingTransport(app or self.fake.app, tasks)
            http = httpx.AsyncClient(
                transport=self.transport, base_url="http://model/v1", timeout=30
            )
            async with http, open_call(handler, resumed_from=resumed_from) as call:
                self.program["http"] = http
                yield call


@pytest.fixture(params=["example", "guide"])
def agent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Agent:
    fake = load("fake_chat_completions")
    monkeypatch.setitem(fake.ANSWERS, "train station", ANSWER)
    if request.param == "example":
        return Agent(vars(load("llm_agent")), fake)
    program: dict[str, Any] = {}
    block = blocks_of("docs/guides/language_model_agent.md", "python")[0]
    exec(block.text.replace(".launch()", ""), program)
    return Agent(program, fake)


async def wait_for(condition: Callable[[], object], seconds: float = 60) -> float:
    """Wait on virtual time, and return the time."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.1)
    return anyio.current_time()


async def ask(call: Call) -> None:
    await say(call, voice(1.0), silence(0.8))


async def test_first_sentence_is_audible_within_a_second_of_its_end(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent.fake, "SECONDS_PER_WORD", 0.5)
    async with agent.call() as call:
        await ask(call)
        words = len(ANSWER.split(". ")[0].split())
        complete = await wait_for(lambda: agent.fake.completions[0].words_sent > words)
        audible = await wait_for(lambda: call.heard.any())
        assert audible < complete + 1
        assert not agent.fake.completions[0].finished
        await wait_for(lambda: agent.voice.heard(call) == ANSWER)
    assert agent.fake.completions[0].finished


@pytest.mark.parametrize("seconds", [1.0, 2.0, 3.5])
async def test_interruption_closes_the_request_and_keeps_the_heard_words(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(agent.fake, "SECONDS_PER_WORD", 0.35)
    async with agent.call() as call:
        await ask(call)
        await wait_for(lambda: call.heard.any())
        await anyio.sleep(seconds)
        first = agent.fake.completions[0]
        assert not first.closed
        await say(call, voice(0.5))
        assert first.closed
        assert not first.finished
        before = call.heard.shape[1]
        await say(call, voice(0.5), silence(0.4))
        assert not call.heard[0, before:].any()
        heard = agent.voice.heard(call)
        assert heard
        assert heard != ANSWER
        await wait_for(lambda: len(agent.fake.completions) == 2)
        system, *history = agent.fake.completions[1].messages
        assert system["role"] == "system"
        assert history == [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": heard},
            {"role": "user", "content": QUESTION},
        ]


async def test_whole_answer_is_in_the_history(agent: Agent) -> None:
    async with agent.call() as call:
        await ask(call)
        await wait_for(lambda: agent.voice.heard(call) == ANSWER)
        await ask(call)
        await wait_for(lambda: len(agent.fake.completions) == 2)
    assert agent.fake.completions[1].messages[1:3] == [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": ANSWER},
    ]


async def test_hanging_up_closes_the_request(agent: Agent) -> None:
    async with agent.call():
        pass
    async with agent.call() as call:
        await ask(call)
        await wait_for(lambda: agent.fake.completions)
        assert not agent.fake.completions[0].closed
    assert agent.fake.completions[0].closed


def answering(response: Callable[[], Response]) -> Starlette:
    async def complete(request: Request) -> Response:
        return response()

    return Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])


def streaming(*parts: str, stalls: bool = False, breaks: bool = False) -> Starlette:
    async def write() -> AsyncGenerator[str, None]:
        for part in parts:
            yield part
        if stalls:
            await anyio.sleep_forever()

    async def breaking(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in parts:
            await send({"type": "http.response.body", "body": part.encode(), "more_body": True})

    if breaks:
        return breaking  # type: ignore[return-value]
    return answering(lambda: StreamingResponse(write(), media_type="text/event-stream"))


def stream_of(text: str, line: str = "data: {}", newline: str = "\n", last: str = "[DONE]") -> str:
    """The events of a stream that sends a text in three pieces."""
    cuts = text[:5], text[5:20], text[20:]
    datas = [
        json.dumps({"choices": [{"delta": {"content": cut}}]}, ensure_ascii=False) for cut in cuts
    ]
    lines = [line.format(data) for data in (*datas, *([last] if last else []))]
    return "".join(f"{one}{newline}{newline}" for one in lines)


STREAMS = {
    "CRLF": stream_of(ANSWER, newline="\r\n"),
    "comments": stream_of(ANSWER, line=": ping\n\nevent: message\nid: 1\nretry: 3\ndata:{}"),
    "no end": stream_of(ANSWER, last=""),
    "no last line": stream_of(ANSWER, last="").strip(),
    "other line ends": stream_of(
        ANSWER.replace("is ", "is\u2028", 1).replace("one ", "one\x85", 1)
    ),
    "usage": stream_of(ANSWER, last='{"choices": [], "usage": {"total_tokens": 9}}'),
    "empty": stream_of(ANSWER, last='{"choices": [{"delta": {"content": null}}]}'),
}


@pytest.mark.parametrize(
    ("agent", "kind"),
    [*(("example", kind) for kind in STREAMS), ("guide", "other line ends")],
    indirect=["agent"],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_every_form_of_stream_is_spoken(agent: Agent, kind: str, size: int) -> None:
    data = STREAMS[kind].encode()

    async def send_pieces(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    async with agent.call(send_pieces) as call:
        await ask(call)
        await wait_for(lambda: agent.voice.heard(call) == ANSWER)
    assert call.session.error is None


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    raise httpx.ConnectError("connection refused")


SPOKEN = 'data: {"choices": [{"delta": {"content": "It is far. Go "}}]}\n\n'
FAILURES = {
    "401": (answering(lambda: JSONResponse({"error": "wrong key"}, 401)), "401 .*wrong key"),
    "404": (Starlette(), "404"),
    "500": (answering(lambda: Response("sorry", 500)), "500 .*sorry"),
    "page": (answering(lambda: Response("<html>")), "<html>"),
    "json": (streaming("data: {nonsense\n\n"), "nonsense"),
    "error": (streaming('data: {"error": "overloaded"}\n\n'), "overloaded"),
    "list": (streaming('data: {"choices": [{"delta": {"content": ["a"]}}]}\n\n'), "content"),
    "moved": (answering(lambda: RedirectResponse("https://model/v1")), "307"),
    "shape": (streaming('data: {"choices": [{"delta": 1}]}\n\n'), "delta"),
    "stall": (streaming(SPOKEN, stalls=True), "ReadTimeout"),
    "silence": (streaming(stalls=True), "ReadTimeout"),
    "break": (streaming(SPOKEN, breaks=True), "closed"),
}


@pytest.mark.parametrize(
    ("agent", "failure"),
    [*(("example", failure) for failure in FAILURES), ("guide", next(iter(FAILURES)))],
    indirect=["agent"],
)
async def test_failure_of_the_endpoint_is_announced_and_the_call_continues(
    agent: Agent, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, logged = FAILURES[failure]
    async with agent.call(app) as call:
        await ask(call)
        sorry = agent.program["SORRY"]
        await wait_for(lambda: agent.voice.heard(call).endswith(sorry))
        messages = [await call.client.receive_message() for _ in range(6)]
        assert any('"warning"' in message for message in messages), messages
        (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert "no answer from http://model" in record.getMessage()
        assert re.search(logged, record.getMessage())
        # Text that came before the failure was spoken.
        begin = "It is far. Go " if failure in ("stall", "break") else ""
        assert agent.voice.heard(call) == f"{begin}{sorry}"
        agent.transport.app = agent.fake.app
        await ask(call)
        await wait_for(lambda: agent.voice.heard(call).endswith(ANSWER))
    assert call.session.error is None


async def test_history_continues_in_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Any] = []
    monkeypatch.setattr(Session, "save_nowait", lambda session, value: saved.append(value))
    fake = load("fake_chat_completions")
    monkeypatch.setitem(fake.ANSWERS, "train station", ANSWER)
    agent = Agent(vars(load("llm_agent")), fake)
    async with agent.call() as call:
        await ask(call)
        await wait_for(lambda: saved)
    assert saved == [[
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": ANSWER},
    ]]  # fmt: skip
    async with agent.call(resumed_from=Resumed("lost", saved[0])) as call:
        await ask(call)
        await wait_for(lambda: len(saved) == 2)
    assert saved[1][:2] == saved[0]
    assert [message["role"] for message in saved[1]] == ["user", "assistant"] * 2
    assert len(fake.completions[-1].messages) == 4
