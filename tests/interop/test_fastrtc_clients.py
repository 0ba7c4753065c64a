"""Front ends written for FastRTC, in Chromium.

The page is ``fastrtc_client.js``, assembled from FastRTC's documentation. Its application has the
documented endpoints ``/input_hook`` and ``/outputs``, which call the stream's hooks.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel

from fastrtc_anyio import (
    AdditionalOutputs,
    CloseReason,
    EnergyVad,
    ReplyOnPause,
    SessionState,
    Stream,
    WebRTCError,
)
from fastrtc_anyio.server.launch import open_server
from fastrtc_anyio.testing.signals import tone
from tests.kit.backends import on_trio
from tests.kit.calls import make_stream, only_session, wait_ended
from tests.kit.waiting import wait_until

from .chromium import Browser, Page

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

OUT_RATE = 24_000
PITCH = 600.0
"""Pitch of the reply, Hz."""
CLIENT = Path(__file__).with_name("fastrtc_client.js")
TURN = ["started_talking", "pause_detected", "send_input", "fetch_output", "response_starting"]
"""The messages of a turn: the texts of log messages and the types of the others."""


class Inputs(BaseModel):
    webrtc_id: str
    values: list[Any]


class Text(BaseModel):
    webrtc_id: str
    text: str


async def answer(audio: tuple[int, Any], prompt: str) -> AsyncIterator[Any]:
    rate, samples = audio
    if prompt == "fail":
        raise WebRTCError("no credit left")
    loudness = float(np.sqrt((samples.astype(float) ** 2).mean()))
    yield AdditionalOutputs({"prompt": prompt, "rate": rate, "loudness": loudness})
    yield OUT_RATE, tone(PITCH, OUT_RATE, 2.0)


def make_conversation() -> Stream:
    handler = ReplyOnPause(
        answer, input_sample_rate=OUT_RATE, output_sample_rate=OUT_RATE, model=EnergyVad()
    )
    return make_stream(handler, mode="send-receive", concurrency_limit=1)


@asynccontextmanager
async def serve(stream: Stream) -> AsyncGenerator[str, None]:
    app = FastAPI()
    stream.mount(app)
    tag = "video" if stream.modality == "video" else "audio"

    @app.get("/")
    def page() -> HTMLResponse:
        body = f'<{tag} id="media" autoplay muted></{tag}><script>{CLIENT.read_text()}</script>'
        return HTMLResponse(f"<!doctype html><html><body>{body}</body></html>")

    @app.post("/input_hook")
    async def input_hook(inputs: Inputs) -> None:
        stream.set_input(inputs.webrtc_id, *inputs.values)

    @app.post("/text")
    async def text(typed: Text) -> None:
        stream.set_input(typed.webrtc_id, typed.text)
        handler: Any = stream.handlers[typed.webrtc_id]
        handler.trigger_response()

    @app.get("/outputs")
    def outputs(webrtc_id: str) -> StreamingResponse:
        async def events() -> AsyncGenerator[str, None]:
            async for output in stream.output_stream(webrtc_id):
                yield f"event: output\ndata: {json.dumps(output.args[0])}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    async with open_server(app) as url:
        yield url


async def check_turn(page: Page, prompt: str) -> None:
    """Wait for the outputs and the audio of a reply, and check the messages of the turn."""
    await page.wait_for("outputs.length === 1", "the outputs")
    await page.wait_for(f"Math.abs(pitch() - {PITCH}) < 20", "the sound of the answer")
    (output,) = await page.evaluate("outputs")
    assert (output["prompt"], output["rate"]) == (prompt, OUT_RATE)
    assert output["loudness"] > 200
    told = await page.evaluate(
        "messages.filter((m) => m.type).map((m) => m.type === 'log' ? m.data : m.type)"
    )
    assert told[:5] == TURN
    assert await page.evaluate("interruptions") == 0
    assert page.complaints == []


async def test_conversation_over_webrtc(talker: Browser) -> None:
    """Trickled candidates, requested inputs, output events, the limit, an error and the end."""
    stream = make_conversation()
    async with serve(stream) as url:
        page, other = await talker.open_page(url), await talker.open_page(url)
        await page.evaluate("inputs = {values: ['from the page']}")
        await page.evaluate("callByWebRTC({audio: true}, true).then(readOutputs)")
        session = only_session(stream)
        # An offer takes a slot of the limit when it connects.
        await wait_until(lambda: session.state is SessionState.CONNECTED, "the connection")

        await other.evaluate("callByWebRTC({audio: true}, true)")
        refusal = await other.evaluate("refusal")
        assert refusal["meta"]["error"] == "concurrency_limit_reached"
        assert refusal["meta"]["limit"] == 1

        await check_turn(page, "from the page")
        await page.evaluate("hangUp()")
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP

        # Text input, and a reply that fails.
        await other.evaluate("callByWebRTC({audio: true}, true)")
        session = only_session(stream)
        await wait_until(lambda: session.state is SessionState.CONNECTED, "the connection")
        await other.evaluate("post('/text', {webrtc_id: id, text: 'fail'})")
        await other.wait_for("messages.some((m) => m.type === 'error')", "the error")
        (error,) = await other.evaluate("messages.filter((m) => m.type === 'error')")
        assert error["message"] == error["data"] == "no credit left"
        assert await wait_ended(stream, session) is CloseReason.HANDLER_ERROR


async def test_conversation_over_websocket(talker: Browser) -> None:
    """Outputs requested before the start, mu-law in both directions, the limit and the end."""
    stream = make_conversation()
    async with serve(stream) as url:
        page, other = await talker.open_page(url), await talker.open_page(url)
        await page.evaluate("inputs = {values: ['by a socket']}")
        await page.evaluate("callByWebSocket()")
        await page.wait_for("messages.some((m) => m.event === 'pong')", "the pong")
        session = only_session(stream)
        assert session.id != session.alias == await page.evaluate("id")

        await other.evaluate("callByWebSocket()")
        await other.wait_for("messages.some((m) => m.event === 'close')", "the refusal")
        refusal = next(m for m in await other.evaluate("messages") if "status" in m)
        assert refusal["status"] == "failed"
        assert refusal["meta"]["error"] == "concurrency_limit_reached"
        assert refusal["meta"]["limit"] == 1

        await check_turn(page, "by a socket")
        await page.evaluate("hangUp()")
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP


@on_trio
async def test_video_filter_with_input(browser: Browser) -> None:
    """The offer has all candidates; the page sends the input at the start and at each change."""

    def paint(picture: Any, green: float = 0.0) -> Any:
        return np.full_like(picture[:120, :160], (0, round(255 * green), 0))

    stream = make_stream(paint, modality="video")
    async with serve(stream) as url:
        page = await browser.open_page(url)
        await page.evaluate("callByWebRTC({video: true}, false)")
        session = only_session(stream)
        for green in (1.0, 0.5):
            await page.evaluate(f"inputs = {{values: [{green}]}}, sendInputs()")
            await page.wait_for(
                f"element.videoWidth === 160 && Math.abs(colour()[1] - {255 * green}) < 30"
                " && colour()[0] < 30",
                "the input in the picture",
            )
        await page.evaluate("hangUp()")
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
        assert page.complaints == []
