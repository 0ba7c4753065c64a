"""Audio over real WebSockets through each server, with an independent client."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus

from fastrtc_anyio import (
    AdditionalOutputs,
    CloseReason,
    Limits,
    RequestLimits,
    Session,
    Stream,
    WebRTCError,
    get_current_context,
)
from fastrtc_anyio._peers.websocket import WebSocketPeer
from fastrtc_anyio._wire.events import Start
from fastrtc_anyio._wire.fastrtc import FastRTCFraming
from fastrtc_anyio._wire.payload import MULAW_8K, AudioEncoding
from fastrtc_anyio.server.launch import open_server
from fastrtc_anyio.server.websockets import Socket
from fastrtc_anyio.testing import check_peer, tone
from tests.kit.calls import make_stream, open_uvicorn
from tests.kit.handlers import AsyncEcho, Quiet
from tests.kit.measure import typical_snr
from tests.kit.waiting import wait_until
from tests.kit.websocket_clients import Client
from tests.kit.websockets import PCM_16K, Wire, open_client, open_wire

serve_uvicorn = partial(open_uvicorn, ws="websockets-sansio")


@asynccontextmanager
async def open_stream(
    handler: Any = None, framework: Any = Starlette, serve: Any = open_server, **settings: Any
) -> AsyncGenerator[tuple[Stream, str], None]:
    settings.setdefault("limits", Limits(lag=None))
    stream = Stream(handler or AsyncEcho(), modality="audio", **settings)
    app = framework()
    stream.mount(app, "/voice")
    async with serve(app) as url:
        yield stream, f"{url}/voice"


async def check_echo(client: Client) -> None:
    """Send a tone of 1.5 s and check the echo."""
    rate = client.encoding.sample_rate
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.listen)
        await client.speak(tone(440, 48_000, 1.5), 48_000)
        with anyio.fail_after(5):
            while client.sound.shape[1] < rate * 1.3:
                await anyio.sleep(0.02)
        tasks.cancel_scope.cancel()
    assert typical_snr(client.sound[0, rate // 4 : rate], 440, rate) > 30


class TestCalls:
    @pytest.mark.parametrize("framework", [Starlette, FastAPI])
    async def test_client_of_built_in_server_hears_echo(self, framework: Any) -> None:
        async with open_stream(framework=framework) as (stream, url):
            async with open_client(url) as client:
                await check_echo(client)
                assert set(stream.handlers) == {"caller", *stream.sessions}
            await wait_until(lambda: stream.active == 0)

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.parametrize("framework", [Starlette, FastAPI])
    async def test_uvicorn_client_hears_echo(self, framework: Any) -> None:
        async with open_stream(framework=framework, serve=serve_uvicorn) as (stream, url):
            async with open_client(url) as client:
                await check_echo(client)
            await wait_until(lambda: stream.active == 0)

    @pytest.mark.parametrize("encoding", [MULAW_8K, AudioEncoding("pcm16", 44_100)], ids=str)
    async def test_client_hears_echo_in_its_encoding(self, encoding: AudioEncoding) -> None:
        async with open_stream() as (_, url), open_client(url, Start("me", encoding)) as client:
            await check_echo(client)

    async def test_start_without_encoding_means_mulaw_at_handler_rates(self) -> None:
        """Clients of FastRTC name no encoding: mu-law, in and out at the handler's rates."""
        handler = AsyncEcho(input_sample_rate=8_000, output_sample_rate=24_000)
        async with open_stream(handler) as (_, url), open_wire(url) as wire:
            await wire.send(json.dumps({"event": "start", "websocket_id": "a1b2"}))
            payload = base64.b64encode(bytes([0x80]) * 800).decode()
            for _ in range(5):
                await wire.send(json.dumps({"event": "media", "media": {"payload": payload}}))
            sizes = []
            for _ in range(10):
                body = await wire.receive_json()
                assert body["event"] == "media"
                sizes.append(len(base64.b64decode(body["media"]["payload"])))
        assert set(sizes) == {480}

    async def test_websocket_peer_conforms_over_a_real_socket(self) -> None:
        peers, take = anyio.create_memory_object_stream[WebSocketPeer](1)

        async def endpoint(websocket: WebSocket) -> None:
            await websocket.accept()
            framing = FastRTCFraming()
            start = framing.decode(await websocket.receive_text())
            assert isinstance(start, Start)
            peer = WebSocketPeer(Socket(websocket, RequestLimits()), framing, start)
            peers.send_nowait(peer)
            await peer.run()

        @asynccontextmanager
        async def open_pair() -> AsyncGenerator[tuple[WebSocketPeer, Client], None]:
            async with open_client(url, path="/") as client:
                peer = await take.receive()
                yield peer, client
                await peer.aclose()

        app = Starlette(routes=[WebSocketRoute("/", endpoint)])
        with peers, take:
            async with open_server(app) as url:
                await check_peer(open_pair)


class TestSessions:
    async def test_session_has_inputs_outputs_messages_and_context(self) -> None:
        seen: dict[str, Any] = {}

        class Curious(Quiet):
            async def on_message(self, message: str) -> None:
                seen["message"] = message
                seen["context"] = get_current_context()
                await self.send_message('{"type": "told"}')

            async def emit(self) -> Any:
                await self.args_set.wait()
                self.reset()
                return AdditionalOutputs(self.latest_args)

        async with open_stream(Curious()) as (stream, url), open_wire(url) as wire:
            await wire.send(json.dumps({"event": "start", "websocket_id": "me"}))
            await wire.send("any text")
            assert await wire.receive_json() == {"type": "told"}
            assert seen["message"] == "any text"
            assert seen["context"].webrtc_id == "me"
            assert seen["context"].websocket.url.path == "/voice/websocket/offer"
            stream.set_input("me", 7)
            assert (await wire.receive_json())["type"] == "fetch_output"
            outputs = await stream.fetch_latest_output("me")
            assert outputs.args == (["__webrtc_value__", 7],)

    async def test_shutdown_is_called_once_after_disconnect(self) -> None:
        """Defect D4 of FastRTC."""
        async with open_stream(Quiet()) as (stream, url):
            async with open_client(url):
                await wait_until(lambda: "caller" in stream.handlers)
                handler = stream.handlers["caller"]
            await wait_until(lambda: stream.active == 0)
            assert isinstance(handler, Quiet)
            assert handler.calls == ["shutdown"]

    async def test_handler_error_reaches_client_and_closes_socket(self) -> None:
        class Broken(Quiet):
            async def receive(self, frame: Any) -> None:
                raise WebRTCError("no more credit")

        async with open_stream(Broken()) as (stream, url), open_client(url) as client:
            await client.speak(tone(440, 48_000, 0.1), 48_000)
            with anyio.fail_after(5):
                body = json.loads(await client.receive_message())
            assert (body["type"], body["message"]) == ("error", "no more credit")
            with anyio.fail_after(5):
                await client.ended.wait()
            await wait_until(lambda: stream.active == 0)

    async def test_time_limit_sends_end_stream_and_closes_socket(self) -> None:
        async with open_stream(Quiet(), time_limit=0.2) as (_, url), open_client(url) as client:
            with anyio.fail_after(5):
                body = json.loads(await client.receive_message())
                await client.ended.wait()
            assert (body["type"], body["reason"]) == ("end_stream", "time_limit")

    async def test_stopping_server_sends_end_stream(self) -> None:
        ended: list[Session] = []
        async with open_wire_later() as dial:
            async with open_stream(Quiet()) as (stream, url):
                wire = await dial(url)
                await wire.send('{"event": "start"}')
                await wait_until(lambda: stream.active == 1)
                ended += stream.sessions.values()
            assert (await wire.receive_json())["type"] == "end_stream"
        assert ended[0].closed is not None
        assert ended[0].closed.reason is CloseReason.CANCELLED

    async def test_ping_gets_pong_before_and_after_start(self) -> None:
        async with open_stream() as (_, url), open_wire(url) as wire:
            for message in ('{"event": "ping"}', '{"event": "start"}', '{"event": "ping"}'):
                await wire.send(message)
            assert [await wire.receive_json() for _ in range(2)] == [{"event": "pong"}] * 2

    async def test_silent_handler_sends_no_audio(self) -> None:
        """Defect D2 of FastRTC, which sends silence for a handler without audio."""
        async with open_stream(Quiet()) as (stream, url), open_client(url) as client:
            await wait_until(lambda: stream.active == 1)
            await anyio.sleep(0.3)
            assert client.arrivals == []


@asynccontextmanager
async def open_wire_later() -> AsyncGenerator[Any, None]:
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:

        async def dial(url: str) -> Wire:
            return await stack.enter_async_context(open_wire(url))

        yield dial


class TestRejections:
    async def test_disconnect_before_start_takes_no_slot(self, caplog: Any) -> None:
        """Defect D1 of FastRTC: the next client is served, and no error is logged."""
        async with open_stream() as (stream, url):
            async with open_wire(url):
                pass
            async with open_wire(url) as wire:
                await wire.send('{"event": "stop"}')
                assert await wire.receive_end() == 1000
            async with open_client(url) as client:
                await check_echo(client)
            await wait_until(lambda: stream.active == 0)
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []

    @pytest.mark.parametrize(
        ("message", "error"),
        [
            ("hello", 'the first message must be "start"; got text'),
            (b"\0\1", "the protocol has text messages only; got a binary one"),
            ('{"event": "start", "websocket_id": 7}', '"websocket_id" must be a string'),
            ('{"event": "start", "encoding": "mp3"}', "must be one of mulaw, pcm16; got 'mp3'"),
            ('{"event": "start", "sample_rate": 11025}', "multiple of 50"),
            ('{"event": "media"}', '"media.payload" must be a base64 string; got None'),
        ],
    )
    async def test_invalid_start_closes_socket(self, message: str | bytes, error: str) -> None:
        async with open_stream() as (stream, url), open_wire(url) as wire:
            await wire.send(message)
            body = await wire.receive_json()
            assert body["type"] == "error"
            assert error in body["message"] == body["data"]
            assert await wire.receive_end() == 1008
            assert stream.active == 0

    @pytest.mark.parametrize(
        ("message", "error"),
        [
            ('{"event": "start"}', 'there is one "start"; got a second'),
            ('{"event": "media", "media": {"payload": "%"}}', "must be base64"),
            (b"\0", "got a binary one"),
        ],
    )
    async def test_invalid_message_ends_one_connection(
        self, message: str | bytes, error: str
    ) -> None:
        async with open_stream(concurrency_limit=2) as (stream, url):
            async with open_client(url) as good, open_wire(url) as wire:
                await wire.send('{"event": "start", "encoding": "pcm16"}')
                await wire.send(message)
                body = await wire.receive_json()
                assert body["type"] == "error"
                assert error in body["message"]
                assert await wire.receive_end() == 1008
                await check_echo(good)
            await wait_until(lambda: stream.active == 0)

    async def test_call_beyond_concurrency_limit_closes_with_1013(self) -> None:
        async with open_stream() as (stream, url), open_client(url):
            await wait_until(lambda: stream.active == 1)
            async with open_wire(url) as wire:
                await wire.send('{"event": "start", "websocket_id": "second"}')
                assert await wire.receive_json() == {
                    "status": "failed",
                    "meta": {
                        "error": "concurrency_limit_reached",
                        "limit": 1,
                        "message": "the limit of 1 concurrent sessions is reached (1 active)",
                    },
                }
                assert await wire.receive_end() == 1013

    async def test_websocket_id_in_use_is_rejected_everywhere(self) -> None:
        async with open_stream(concurrency_limit=None) as (stream, url), open_client(url):
            await wait_until(lambda: stream.active == 1)
            async with open_wire(url) as wire:
                await wire.send('{"event": "start", "websocket_id": "caller"}')
                assert "is in use" in (await wire.receive_json())["message"]
            candidate = {"type": "ice-candidate", "candidate": None, "webrtc_id": "caller"}
            async with httpx.AsyncClient() as http:
                reply = await http.post(f"{url}/webrtc/offer", json=candidate)
            assert reply.status_code == 409
            assert stream.active == 1

    async def test_missing_start_closes_socket_after_connect_limit(self) -> None:
        async with open_stream(limits=Limits(connect=0.1)) as (_, url), open_wire(url) as wire:
            error = "no start came within 0.1 s (Limits.connect)"
            assert (await wire.receive_json())["message"] == error
            assert await wire.receive_end() == 1008

    async def test_video_stream_rejects_websocket(self) -> None:
        stream = Stream(lambda frame: frame, modality="video")
        app = Starlette()
        stream.mount(app)
        async with open_server(app) as url, open_wire(url) as wire:
            await wire.send('{"event": "start"}')
            assert "carries video" in (await wire.receive_json())["message"]


class TestOrigins:
    @pytest.mark.parametrize("serve", [open_server, serve_uvicorn])
    async def test_foreign_origin_is_a_403(self, serve: Any, anyio_backend: Any) -> None:
        if serve is serve_uvicorn and anyio_backend[0] == "trio":
            pytest.skip("uvicorn needs asyncio")
        async with open_stream(serve=serve) as (_, url):
            with pytest.raises(InvalidStatus) as caught:
                async with open_wire(url, headers={"Origin": "https://evil.example"}):
                    pytest.fail("accepted without permission")
        response = caught.value.response
        assert response.status_code == 403
        assert b"allowed_origins" in (response.body or b"")

    async def test_allowed_and_own_origins_are_accepted(self) -> None:
        friend = "https://friend.example"
        async with open_stream(allowed_origins=[friend]) as (_, url):
            own = url.removesuffix("/voice")
            for origin in (friend, own, own.replace("http", "https")):
                async with open_wire(url, headers={"Origin": origin}) as wire:
                    await wire.send('{"event": "ping"}')
                    assert await wire.receive_json() == {"event": "pong"}


async def test_session_function_echoes_over_websocket() -> None:
    stream = make_stream()
    app = Starlette()
    stream.mount(app)
    async with open_server(app) as url, open_client(url, Start("me", PCM_16K)) as client:
        await check_echo(client)
    assert np.abs(client.sound).max() > 5000
