"""FastRTC's reference programs over real HTTP and WebRTC."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from fastrtc_anyio import (
    AdditionalOutputs,
    CloseReason,
    EmitType,
    Session,
    Stream,
    UnknownSession,
    VideoStreamHandler,
    WebRTCData,
)
from fastrtc_anyio.server.launch import open_server
from tests.kit.backends import on_asyncio
from tests.kit.calls import make_stream, open_uvicorn, place_call, receive_json
from tests.kit.handlers import Quiet, SyncQuiet
from tests.kit.measure import check_echo as measure_echo
from tests.kit.waiting import SECONDS, wait_until
from tests.parity.programs import (
    RATE,
    AsyncEchoHandler,
    EchoHandler,
    FarewellHandler,
    InstructedHandler,
    MemoryStreamEchoHandler,
    PlainInstructedHandler,
    RealtimeAPI,
    RealtimeHandler,
)


class InputData(BaseModel):
    webrtc_id: str
    prompt: str
    conf_threshold: float


class Chat(BaseModel):
    webrtc_id: str
    textbox: str


def make_app(stream: Stream) -> FastAPI:
    """The application of FastRTC's "Connecting via API"."""
    app = FastAPI()
    stream.mount(app)

    @app.post("/input_hook")
    async def _(data: InputData) -> None:
        stream.set_input(data.webrtc_id, data.prompt, data.conf_threshold)

    @app.post("/plain_input_hook")
    def _(data: InputData) -> None:
        stream.set_input(data.webrtc_id, data.prompt, data.conf_threshold)

    @app.post("/chat")
    async def _(data: Chat) -> None:
        stream.set_input(data.webrtc_id, WebRTCData(data.webrtc_id, data.textbox))
        stream.handlers[data.webrtc_id].trigger_response()

    @app.get("/updates")
    async def _(webrtc_id: str) -> StreamingResponse:
        async def output_stream() -> AsyncGenerator[str, None]:
            async for output in stream.output_stream(webrtc_id):
                yield f"data: {json.dumps(output.args[0])}\n\n"

        return StreamingResponse(output_stream(), media_type="text/event-stream")

    @app.get("/latest")
    async def _(webrtc_id: str) -> Any:
        return (await stream.fetch_latest_output(webrtc_id)).args[0]

    return app


async def check_echo(handler: Any) -> None:
    stream = make_stream(handler)
    async with stream, place_call(stream) as client:
        (session,) = stream.sessions.values()
        await measure_echo(client)
        client.hang_up()
        await wait_until(lambda: not stream.sessions)
    assert session.abandoned_threads == 0
    assert session.error is None


async def test_echo_whose_emit_blocks_in_a_queue() -> None:
    await check_echo(EchoHandler())


@on_asyncio
async def test_echo_with_asyncio_queue() -> None:
    await check_echo(AsyncEchoHandler())


async def test_echo_with_memory_stream() -> None:
    await check_echo(MemoryStreamEchoHandler)


async def test_start_up_holds_service_connection_for_whole_call() -> None:
    api = RealtimeAPI()
    stream = make_stream(lambda: RealtimeHandler(api))
    async with stream, place_call(stream) as client:
        (session,) = stream.sessions.values()
        outputs = session.outputs.read()
        with anyio.fail_after(SECONDS):  # the service answers silence too
            async for output in outputs:
                if output.args[0]["content"] == "answer 3":
                    break
        assert api.log[0] == "connected"
        assert "disconnected" not in api.log
        client.hang_up()
        await wait_until(lambda: not stream.sessions)
        rest = [output async for output in outputs]
    assert api.log[-1] == "disconnected"
    assert len(rest) == api.log.count("answered") - 3


@pytest.mark.parametrize("hook", ["/input_hook", "/plain_input_hook"])
@pytest.mark.parametrize("kind", [InstructedHandler, PlainInstructedHandler])
async def test_input_hook(kind: Any, hook: str) -> None:
    stream = make_stream(kind())
    app = make_app(stream)
    async with (
        open_server(app) as url,
        place_call(url, "caller") as client,
        httpx.AsyncClient(base_url=url) as http,
    ):
        await receive_json(client, "send_input")
        data = {"webrtc_id": "caller", "prompt": "be brief", "conf_threshold": 0.3}
        assert (await http.post(hook, json=data)).status_code == 200
        log = await receive_json(client, "log")
        assert log["data"] == ["__webrtc_value__", "be brief", 0.3]


class Chatty(Quiet):
    """ "Send text or audio": answers typed text."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: EmitType = None

    def trigger_response(self) -> None:
        data: WebRTCData = self.latest_args[0]
        self.answer = AdditionalOutputs(f"{data.webrtc_id} wrote {data.textbox}")

    async def emit(self) -> EmitType:
        answer, self.answer = self.answer, None
        return answer


async def test_text_triggers_response() -> None:
    stream = make_stream(Chatty())
    app = make_app(stream)
    async with (
        open_server(app) as url,
        place_call(url, "caller") as client,
        httpx.AsyncClient(base_url=url) as http,
    ):
        assert stream.handlers["caller"] is not stream.handler
        for text in ("hello", "hello again"):
            data = {"webrtc_id": "caller", "textbox": text}
            assert (await http.post("/chat", json=data)).status_code == 200
            await receive_json(client, "fetch_output")
            latest = await http.get("/latest", params={"webrtc_id": "caller"})
            assert latest.json() == f"caller wrote {text}"
        stream.set_input("caller", WebRTCData("caller", "third"))
        stream.trigger_response("caller")
        await receive_json(client, "fetch_output")
        assert (await stream.fetch_latest_output("caller")).args == ("caller wrote third",)


class Counting(SyncQuiet):
    """Emits numbered outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self) -> EmitType:
        self.count += 1
        if self.count > 10:
            return None
        return (RATE, np.zeros((1, 480), np.int16)), AdditionalOutputs({"count": self.count})


async def read_events(url: str, webrtc_id: str) -> list[Any]:
    """Read the data of all events up to the end of the stream."""
    events = []
    async with httpx.AsyncClient(base_url=url, timeout=SECONDS) as http:
        params = {"webrtc_id": webrtc_id}
        async with http.stream("GET", "/updates", params=params) as reply:
            assert reply.headers["content-type"].startswith("text/event-stream")
            async for line in reply.aiter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line.removeprefix("data: ")))
    return events


async def check_events(serve: Any) -> None:
    stream = make_stream(Counting())
    async with serve(make_app(stream)) as url:
        events: list[list[Any]] = []
        async with anyio.create_task_group() as tg:

            async def read() -> None:
                events.append(await read_events(url, "caller"))

            async with place_call(url, "caller") as client:
                (session,) = stream.sessions.values()
                tg.start_soon(read)
                await wait_until(lambda: session.statistics().outputs.readers == 1)
                for _ in range(10):
                    await receive_json(client, "fetch_output")
        # The event stream ends with the session.
        assert events == [[{"count": n} for n in range(1, 11)]]


async def test_server_sent_events_through_built_in_server() -> None:
    await check_events(open_server)


@on_asyncio
async def test_server_sent_events_through_uvicorn() -> None:
    await check_events(open_uvicorn)


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # Starlette drops it
async def test_disconnected_event_client_releases_its_reader() -> None:
    stream = make_stream(Counting())
    async with open_server(make_app(stream)) as url, place_call(url, "caller"):
        (session,) = stream.sessions.values()
        port = int(url.rpartition(":")[2])
        for _ in range(3):
            async with await anyio.connect_tcp("127.0.0.1", port) as connection:
                await connection.send(
                    b"GET /updates?webrtc_id=caller HTTP/1.1\r\nHost: localhost\r\n\r\n"
                )
                await wait_until(lambda: session.statistics().outputs.readers == 1)
            # The server drops the application's generator, which drops the reader.
            await wait_until(lambda: _readers(session) == 0)
        assert session.closed is None


def _readers(session: Session) -> int:
    gc.collect()
    return session.statistics().outputs.readers


async def test_close_stream_sends_message_after_playout() -> None:
    stream = make_stream(FarewellHandler())
    async with stream, place_call(stream) as client:
        (session,) = stream.sessions.values()
        assert (await receive_json(client, "end_stream"))["data"] == "Goodbye!"
        loud = 0
        with anyio.fail_after(SECONDS):
            try:
                while True:
                    loud += bool(np.any(np.abs((await client.receive_audio()).samples) > 300))
            except anyio.EndOfStream:
                pass
    # Three seconds, less the losses of the network and the client's jitter buffer.
    assert loud > 130
    assert session.closed is not None
    assert session.closed.reason is CloseReason.HANDLER_CLOSED


def half(brighter: str) -> Any:
    picture = np.full((240, 320, 3), 40, np.uint8)
    picture[slice(120) if brighter == "upper" else slice(120, None)] = 200
    return picture


def brighter_half(frame: Any) -> str:
    gray = frame.to_ndarray(format="gray").astype(int)
    return "upper" if gray[:100].mean() > gray[140:].mean() + 50 else "lower"


def flip_vertically(image: Any) -> Any:
    return np.flip(image, axis=0)


@pytest.mark.parametrize(
    "handler", [flip_vertically, VideoStreamHandler(flip_vertically, fps=15, skip_frames=True)]
)
async def test_function_that_flips_the_picture(handler: Any) -> None:
    stream = make_stream(handler, modality="video")
    async with (
        open_server(make_app(stream)) as url,
        place_call(url, "caller", audio=False, video="sendrecv") as client,
    ):
        client.camera.picture = half("upper")
        await wait_until(lambda: bool(client.seen) and brighter_half(client.seen[-1]) == "lower")
        client.camera.picture = half("lower")
        await wait_until(lambda: brighter_half(client.seen[-1]) == "upper")


async def test_generator_at_60_pictures_per_second() -> None:
    def generation() -> Any:
        for number in range(120):
            brighter = "upper" if number < 60 else "lower"
            if number % 60 == 59:
                yield half(brighter), AdditionalOutputs(number)
            else:
                yield half(brighter)

    stream = make_stream(VideoStreamHandler(generation, fps=60), modality="video", mode="receive")
    async with (
        open_server(make_app(stream)) as url,
        place_call(url, "caller", audio=False, video="recvonly") as client,
    ):
        (session,) = stream.sessions.values()
        numbers = [output.args[0] async for output in session.outputs.read()]
        await wait_until(client.closed.is_set)
    assert numbers == [59, 119]
    counted = session.statistics().video_out
    assert counted is not None
    assert (counted.sent, counted.played) == (120, 120)
    assert session.video_out.fps == 60
    assert [brighter_half(client.seen[index]) for index in (0, -1)] == ["upper", "lower"]


async def test_inputs_reach_video_function() -> None:
    def detection(image: Any, prompt: str = "dark", conf_threshold: float = 0.2) -> Any:
        level = round(255 * conf_threshold)
        return np.full_like(image, level), AdditionalOutputs(prompt)

    stream = make_stream(detection, modality="video")
    async with (
        open_server(make_app(stream)) as url,
        place_call(url, "caller", audio=False, video="sendrecv") as client,
        httpx.AsyncClient(base_url=url) as http,
    ):
        await wait_until(lambda: bool(client.seen))
        assert (await http.get("/latest", params={"webrtc_id": "caller"})).json() == "dark"
        data = {"webrtc_id": "caller", "prompt": "bright", "conf_threshold": 0.8}
        assert (await http.post("/input_hook", json=data)).status_code == 200
        await wait_until(lambda: client.seen[-1].to_ndarray(format="gray").mean() > 180)
        assert (await http.get("/latest", params={"webrtc_id": "caller"})).json() == "bright"


async def test_session_function() -> None:
    async def serve(session: Session) -> None:
        async for frame in session.audio_in:
            await session.audio_out.send(frame)

    await check_echo(serve)


async def test_application_ends_a_call() -> None:
    stream = make_stream(EchoHandler())
    async with stream, place_call(stream, webrtc_id="caller") as client:
        (session,) = stream.sessions.values()
        await wait_until(lambda: session.messages.is_open)
        assert set(stream.handlers) == {"caller", session.id}
        assert stream.handlers["caller"] is stream.handlers[session.id]
        stream.update_connection("caller", "closed")
        assert (await receive_json(client, "end_stream"))["data"] == "closed by the application"
        await wait_until(client.closed.is_set)
        await wait_until(lambda: not stream.sessions)
        assert stream.handlers == {}
        assert session.closed is not None
        assert session.closed.reason is CloseReason.HANDLER_CLOSED
        with pytest.raises(UnknownSession):
            stream.set_input("caller", 1)
        with pytest.raises(UnknownSession):
            stream.trigger_response("caller")
        with pytest.raises(UnknownSession):
            stream.update_connection("caller", "closed")
