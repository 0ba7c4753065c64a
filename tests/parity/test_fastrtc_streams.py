"""Streams with the shapes of FastRTC's demos are served by the page's protocol, and are called.

The test takes the part of the page: it reads the configuration, sends the values of the inputs, and
follows the outputs, over which it keeps what the page would show.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import numpy as np
import pytest
from anyio import create_task_group

from fastrtc_anyio import CloseReason, Stream, StreamHandlerBase, VideoFrame
from fastrtc_anyio.server.forms import OutputEvents
from fastrtc_anyio.server.page.components import parse_inputs
from fastrtc_anyio.server.routes import client_config
from fastrtc_anyio.testing import Call, open_call, spoken
from tests.kit.backends import on_asyncio
from tests.kit.documentation import find_block

from . import fastrtc_streams as streams
from .fastrtc_handlers import RATE, ArgumentsHandler


@dataclass
class PageCall:
    """A call from the page."""

    stream: Stream
    call: Call
    shown: dict[str, Any] = field(default_factory=dict)
    """Values of inputs and outputs by name."""
    messages: list[dict[str, Any]] = field(default_factory=list)

    def send_inputs(self) -> None:
        if not self.stream.additional_inputs:
            return
        hidden = self.stream._web.hidden_values(self.call.session)
        names = {component.name for component in self.stream.additional_inputs} - hidden.keys()
        body = json.loads(json.dumps({name: self.shown[name] for name in names}))
        handler = self.call.session.driver.handler
        assert handler is not None
        handler.set_args(parse_inputs(self.stream.additional_inputs, body, hidden))

    async def follow_outputs(self) -> None:
        hidden = self.stream._web.hidden_values(self.call.session)
        reader = self.call.session.outputs.read()
        async for event in OutputEvents(reader, self.stream._web, hidden):
            if event.startswith("event: output"):
                self.shown |= json.loads(event.partition("data: ")[2])
            assert "problem" not in event

    async def follow_messages(self) -> None:
        try:
            while True:
                message = await self.call.receive_message()
                self.messages.append(message)
                if message["type"] == "send_input":
                    self.send_inputs()
        except anyio.EndOfStream:
            pass

    @property
    def heard_seconds(self) -> float:
        return float(np.count_nonzero(np.abs(self.call.heard) > 1000)) / RATE


@asynccontextmanager
async def call_from_page(stream: Stream, **options: Any) -> AsyncGenerator[PageCall]:
    config = await client_config(stream._service, stream._web)
    assert config["rtc_configuration"] in ({}, streams.TURN)
    handler = stream.handler
    if isinstance(handler, StreamHandlerBase):
        handler = handler.copy()
    options |= {"modality": stream.modality, "mode": stream.mode}
    async with open_call(handler, **options) as call:
        page = PageCall(stream, call)
        components = [*config["inputs"], *config["outputs"]]  # type: ignore[misc]
        page.shown = {entry["name"]: entry["value"] for entry in components}
        async with create_task_group() as tg:
            tg.start_soon(page.follow_messages)
            if stream.additional_outputs:
                tg.start_soon(page.follow_outputs)
            page.send_inputs()
            await anyio.sleep(0.1)
            yield page
            tg.cancel_scope.cancel()


async def say(page: PageCall) -> None:
    """Speak a sentence, and wait for the reply."""
    rate, samples = spoken()
    await page.call.speak(samples, rate)
    await page.call.speak(np.zeros((1, 3 * rate), np.int16), rate)


ASSISTANT = {"role": "assistant", "content": "hello"}
FINE = {"role": "assistant", "content": "fine"}
NEW = {"role": "user", "content": "what is new"}


@pytest.mark.parametrize("make", [streams.echo, streams.tuned_agent])
async def test_agent_without_page(make: Callable[[], Stream]) -> None:
    async with call_from_page(make()) as page:
        await say(page)
        assert page.heard_seconds > 0.2


async def test_voice_chat_gets_the_conversation_so_far() -> None:
    async with call_from_page(streams.voice_chat()) as page:
        for turn in (1, 2):
            await say(page)
            assert page.heard_seconds == pytest.approx(0.5 * turn, abs=0.01)
    reply = [{"role": "assistant", "content": f"reply {count}"} for count in (1, 3)]
    assert page.shown == {"chatbot": [NEW, reply[0], NEW, reply[1]]}


async def test_chat_with_token_keeps_a_conversation_for_each_session() -> None:
    async with call_from_page(streams.chat_with_token()) as page:
        await say(page)
        assert page.heard_seconds == pytest.approx(0.5, abs=0.01)
    assert page.shown == {"hf_token": "secret", "chatbot": [NEW, FINE]}


async def test_webrtc_error_of_a_missing_token_reaches_the_client() -> None:
    async with call_from_page(streams.chat_with_token(), raise_errors=False) as page:
        page.shown["hf_token"] = ""
        page.send_inputs()
        await say(page)
        errors = [entry["message"] for entry in page.messages if entry["type"] == "error"]
        assert errors == ["a token is required"]


@pytest.mark.parametrize("make", [streams.chat_with_state, streams.stop_word])
async def test_state_that_the_page_does_not_show(make: Callable[[], Stream]) -> None:
    async with call_from_page(make()) as page:
        await say(page)
        await say(page)
    audio = {"role": "user", "content": "[Audio]"}
    reply = [{"role": "assistant", "content": f"reply {count}"} for count in (1, 3)]
    assert page.shown == {"chatbot": [audio, reply[0], audio, reply[1]]}


async def test_captions_extend_the_text() -> None:
    async with call_from_page(streams.captions()) as page:
        await say(page)
    assert page.shown == {"model": "tiny", "captions": "tiny heard something"}


async def test_editor_gets_what_the_user_typed() -> None:
    async with call_from_page(streams.text_editor()) as page:
        page.shown["current_document"] = "notes: "
        page.send_inputs()
        await say(page)
        await say(page)
    assert page.shown["current_document"] == "notes: what is new; what is new; "


async def test_interview_greets_and_hangs_up() -> None:
    async with call_from_page(streams.interview()) as page:
        await anyio.sleep(1)
        assert page.heard_seconds == pytest.approx(0.5, abs=0.01)
        assert page.shown == {"chatbot": [ASSISTANT], "conversation": ["greeted"]}
        await say(page)
        with anyio.fail_after(5):
            await page.call.ended.wait()
        assert page.shown == {"chatbot": [ASSISTANT, NEW], "conversation": None}
    assert page.call.session.closed is not None
    assert page.call.session.closed.reason is CloseReason.HANDLER_CLOSED


@on_asyncio
@pytest.mark.parametrize(
    "make", [streams.realtime, streams.realtime_in_task, streams.realtime_with_arguments]
)
async def test_realtime_service(make: Callable[[], Stream]) -> None:
    async with call_from_page(make()) as page:
        await say(page)
        assert page.heard_seconds == pytest.approx(0.5, abs=0.01)
        assert page.shown["chatbot"] == [ASSISTANT]


@on_asyncio
async def test_handler_of_the_guide_echoes() -> None:
    block = find_block("docs/guides/migrating_from_fastrtc.md", "asyncio.Queue()")
    program: dict[str, Any] = {"__name__": "program"}
    exec(block.text, program)
    async with call_from_page(program["stream"]) as page:
        await say(page)
        assert page.heard_seconds > 0.2


@on_asyncio
async def test_service_that_reads_a_generator() -> None:
    async with call_from_page(streams.realtime_stream()) as page:
        await say(page)
        assert page.heard_seconds == pytest.approx(0.5, abs=0.01)


@on_asyncio
async def test_telephone_has_no_inputs() -> None:
    handler = ArgumentsHandler()
    async with open_call(handler, phone=True) as call:
        await call.speak(np.zeros((1, 8000), np.int16), 8000)
        assert handler.connection is not None


@on_asyncio
async def test_audio_and_video_with_a_picture_as_input() -> None:
    with pytest.warns(UserWarning, match="nothing like Gradio's Image 'Image'"):
        stream = streams.pictures()
    async with call_from_page(stream) as page:
        await say(page)
        assert page.heard_seconds > 0.2


async def test_detection_gets_its_number() -> None:
    with pytest.warns(UserWarning, match="nothing like Gradio's HTML"):
        stream = streams.detection()
    async with call_from_page(stream) as page:
        assert page.shown == {"slider": 0.4, "markdown": "# Detection"}
        picture = np.full((32, 32, 3), 200, np.uint8)
        for _ in range(10):
            page.call.client.send_video(VideoFrame(picture))
            await anyio.sleep(0.04)
        assert page.call.client.seen
