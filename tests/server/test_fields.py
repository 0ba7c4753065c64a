"""Additional inputs and outputs over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from starlette.applications import Starlette

from fastrtc_anyio import (
    AdditionalOutputs,
    Chatbot,
    Checkbox,
    Choice,
    Limits,
    RequestLimits,
    Slider,
    Stream,
    Textbox,
)
from fastrtc_anyio._wire.events import Start
from fastrtc_anyio.server.launch import open_server
from tests.kit.aiortc_client import AiortcClient
from tests.kit.calls import LOOPBACK, place_call
from tests.kit.handlers import Quiet
from tests.kit.waiting import wait_until
from tests.kit.websockets import PCM_16K, open_client

# httpx nests async generators to read a body, and closes the outermost only.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")

INPUTS = [Slider("Temperature", 0, 2), Choice("Voice", ["Ada", "Bo"]), Checkbox("Loud")]
VALUES = {"temperature": 1.5, "voice": "Bo", "loud": True}


class Opaque:
    def __repr__(self) -> str:
        return "<opaque>"


def make_stream(**options: Any) -> Stream:
    options.setdefault("limits", Limits(lag=None))
    return Stream(Quiet, modality="audio", server_rtc_configuration=LOOPBACK, **options)


@asynccontextmanager
async def serve(
    stream: Stream, framework: Any = Starlette, path: str = ""
) -> AsyncGenerator[str, None]:
    app = framework()
    stream.mount(app, path)
    async with open_server(app) as url:
        yield url + path


async def send(url: str, body: Any) -> httpx.Response:
    async with httpx.AsyncClient() as http:
        return await http.post(f"{url}/input_hook", json=body)


async def next_event(lines: AsyncIterator[str]) -> tuple[str, Any]:
    """Return the name and the data of the next server-sent event."""
    kind = ""
    with anyio.fail_after(10):
        async for line in lines:
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                return kind, json.loads(line.removeprefix("data: "))
    raise AssertionError("the event stream ended")


@asynccontextmanager
async def open_events(url: str, webrtc_id: str) -> AsyncGenerator[AsyncIterator[str], None]:
    async with (
        httpx.AsyncClient(timeout=30) as http,
        http.stream("GET", f"{url}/outputs?webrtc_id={webrtc_id}") as reply,
    ):
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        yield reply.aiter_lines()


async def hang_up(client: AiortcClient) -> None:
    await to_thread.run_sync(client.run, client.close)


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_posted_inputs_set_args_of_the_handler(framework: Any) -> None:
    stream = make_stream(additional_inputs=INPUTS)
    async with serve(stream, framework, "/talk") as url, place_call(url, "me"):
        reply = await send(url, {"webrtc_id": "me", **VALUES})
        assert (reply.status_code, reply.json()) == (200, {"status": "success"})
        handler = stream.handlers["me"]
        assert handler.latest_args == ["__webrtc_value__", 1.5, "Bo", True]
        assert handler.args_set.is_set()


INVALID_INPUTS: list[tuple[Any, int, str]] = [
    ({"webrtc_id": "unknown", **VALUES}, 404, "no session has the id 'unknown'"),
    ({"webrtc_id": "me", **VALUES, "temperature": 3}, 422, "must be from 0 to 2; got 3"),
    ({"webrtc_id": "me", "loud": True}, 422, "'temperature', 'voice' missing"),
    ({"webrtc_id": "me", **VALUES, "more": 1}, 422, "got 'more'"),
    ({**VALUES}, 422, 'must be a JSON object with a "webrtc_id"'),
    ({"webrtc_id": "x" * 129, **VALUES}, 422, 'must be a JSON object with a "webrtc_id"'),
    ([1], 422, 'must be a JSON object with a "webrtc_id"'),
    ({"webrtc_id": "me", "voice": "x" * 1_000_000}, 413, "larger than"),
]


async def test_invalid_inputs_change_no_args() -> None:
    stream = make_stream(additional_inputs=INPUTS)
    async with serve(stream) as url, place_call(url, "me"):
        for body, status, message in INVALID_INPUTS:
            reply = await send(url, body)
            assert reply.status_code == status
            assert reply.json()["status"] == "failed"
            assert message in reply.json()["meta"]["error"]
            assert stream.handlers["me"].latest_args == []


async def test_stream_without_components_has_no_input_or_output_endpoint() -> None:
    async with serve(make_stream()) as url, httpx.AsyncClient() as http:
        assert (await http.post(f"{url}/input_hook", json={})).status_code == 404
        assert (await http.get(f"{url}/outputs")).status_code == 404


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_application_endpoint_overrides_input_hook(framework: Any) -> None:
    """The application may add its route after it has mounted the stream."""
    app: Any = framework()
    make_stream(additional_inputs=INPUTS).mount(app)
    if framework is FastAPI:

        async def hook() -> str:
            return "mine"

        app.post("/input_hook")(hook)
    else:
        from starlette.requests import Request
        from starlette.responses import JSONResponse
        from starlette.routing import Route

        async def plain(_request: Request) -> JSONResponse:
            return JSONResponse("mine")

        app.router.routes.append(Route("/input_hook", plain, methods=["POST"]))
    async with open_server(app) as url:
        assert (await send(url, {"webrtc_id": "unknown"})).json() == "mine"


async def test_config_describes_inputs_and_outputs() -> None:
    chat = Chatbot("Conversation")
    stream = make_stream(additional_inputs=[*INPUTS, chat], additional_outputs=[chat])
    async with serve(stream) as url, httpx.AsyncClient() as http:
        config = (await http.get(f"{url}/webrtc/config")).json()
    assert config["inputs"] == [component.describe() for component in [*INPUTS, chat]]
    assert config["outputs"] == [chat.describe()]


async def test_outputs_are_events_until_session_ends() -> None:
    stream = make_stream(additional_outputs=[Textbox("Heard"), Textbox("Count")])
    async with serve(stream) as url, place_call(url, "me") as client:
        session = stream.sessions[next(iter(stream.sessions))]
        session.send_outputs(AdditionalOutputs("early", 1))
        async with open_events(url, "me") as events:
            assert await next_event(events) == ("output", {"heard": "early", "count": 1})
            session.send_outputs(AdditionalOutputs(Opaque()))
            assert await next_event(events) == ("output", {"heard": "<opaque>", "count": 1})
            session.send_outputs(AdditionalOutputs("c", float("nan"), "one too many"))
            assert await next_event(events) == ("output", {"heard": "c", "count": "nan"})
            await hang_up(client)
            assert await next_event(events) == ("end", None)
        await wait_until(lambda: not stream.sessions)


def append(old: list[str], new: str) -> list[str]:
    return [*old, new]


async def append_async(old: list[str], new: str) -> list[str]:
    await checkpoint()
    return [*old, new]


@pytest.mark.parametrize("handler", [append, append_async])
async def test_outputs_handler_combines_old_and_new_values(handler: Any) -> None:
    """An error of the outputs handler is a problem event; the next output is handled."""
    stream = make_stream(
        additional_outputs=[Chatbot("Conversation")], additional_outputs_handler=handler
    )
    async with serve(stream) as url, place_call(url, "me"), open_events(url, "me") as events:
        session = stream.sessions[next(iter(stream.sessions))]
        for outputs in (AdditionalOutputs("a"), AdditionalOutputs(), AdditionalOutputs("b")):
            session.send_outputs(outputs)
        assert await next_event(events) == ("output", {"conversation": ["a"]})
        kind, text = await next_event(events)
        assert kind == "problem"
        assert "server's log" in text
        assert await next_event(events) == ("output", {"conversation": ["a", "b"]})


async def test_outputs_handler_result_of_wrong_length_is_a_problem_event() -> None:
    stream = make_stream(
        additional_outputs=[Textbox("A"), Textbox("B")],
        additional_outputs_handler=lambda _a, _b, new: new,
    )
    async with serve(stream) as url, place_call(url, "me"), open_events(url, "me") as events:
        session = stream.sessions[next(iter(stream.sessions))]
        session.send_outputs(AdditionalOutputs(1))
        assert (await next_event(events))[0] == "problem"
        session.send_outputs(AdditionalOutputs((1, 2)))
        assert await next_event(events) == ("output", {"a": 1, "b": 2})


async def test_outputs_requested_before_websocket_start_arrive() -> None:
    """Pages written for FastRTC request outputs before they send the start event."""
    stream = make_stream(additional_outputs=[Textbox("A")])
    got: list[tuple[str, Any]] = []

    async def read() -> None:
        async with open_events(url, "me") as events:
            got.append(await next_event(events))
            got.append(await next_event(events))

    async with serve(stream) as url, anyio.create_task_group() as tg:
        tg.start_soon(read)
        await wait_until(lambda: len(stream._service.early_readers) == 1)
        async with open_client(url, Start("me", PCM_16K)):
            await wait_until(lambda: "me" in stream.handlers)
            stream.sessions[next(iter(stream.sessions))].send_outputs(AdditionalOutputs("x"))
            await wait_until(lambda: bool(got))
        await wait_until(lambda: len(got) == 2)
    assert got == [("output", {"a": "x"}), ("end", None)]


async def test_outputs_of_unknown_id_are_a_404() -> None:
    stream = make_stream(
        additional_outputs=[Textbox("A")], request_limits=RequestLimits(early_seconds=0.1)
    )
    async with serve(stream) as url, httpx.AsyncClient() as http:
        for query in ("", "?webrtc_id=unknown"):
            assert (await http.get(f"{url}/outputs{query}")).status_code == 404
