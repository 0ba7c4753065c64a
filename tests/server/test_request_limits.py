"""Each request limit rejects the excess with its own name and affects no other client."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx
import pytest
from anyio import create_task_group, to_thread
from starlette.applications import Starlette

from fastrtc_anyio import CloseReason, Limits, RequestLimits, Stream, Textbox
from fastrtc_anyio.server.launch import open_server
from tests.kit.aiortc_client import open_client
from tests.kit.calls import (
    LOOPBACK,
    accept,
    make_offer,
    only_session,
    place_call,
    post,
    wait_ended,
)
from tests.kit.handlers import AsyncEcho
from tests.kit.measure import check_echo
from tests.kit.waiting import wait_until
from tests.kit.websockets import open_client as open_socket
from tests.kit.websockets import open_wire

CANDIDATE = {"candidate": "candidate:1 1 udp 1 127.0.0.1 9 typ host", "sdpMid": "0"}
SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
POSTS = {
    "/webrtc/offer": "application/json",
    "/whip": "application/sdp",
    "/whep": "application/sdp",
    "/input_hook": "application/json",
    "/telephone/incoming": "application/x-www-form-urlencoded",
}


def make_stream(**limits: Any) -> Stream:
    return Stream(
        AsyncEcho,
        modality="audio",
        concurrency_limit=4,
        server_rtc_configuration=LOOPBACK,
        limits=Limits(lag=None),
        additional_inputs=[Textbox("Name")],
        additional_outputs=[Textbox("Text")],
        request_limits=RequestLimits(**limits),
    )


def serve(stream: Stream) -> Any:
    app = Starlette()
    stream.mount(app)
    return open_server(app, limits=stream.request_limits)


def detail(reply: httpx.Response) -> str:
    if reply.headers["content-type"].startswith("text/plain"):
        return reply.text
    body = reply.json()
    return str(body["detail"] if "detail" in body else body["meta"]["error"])


@pytest.mark.parametrize("path", POSTS)
async def test_body_above_body_bytes_is_a_413(path: str) -> None:
    stream = make_stream(body_bytes=2000)
    async with serve(stream) as url, httpx.AsyncClient(base_url=url) as http:
        headers = {"Content-Type": POSTS[path]}
        reply = await http.post(path, content=b"x" * 2001, headers=headers)
        assert reply.status_code == 413
        assert detail(reply) == "the body is larger than 2000 bytes (RequestLimits.body_bytes)"
        reply = await http.post(path, content=b"x" * 2000, headers=headers)
        assert reply.status_code != 413
        assert not stream.sessions


@pytest.mark.parametrize("path", POSTS)
async def test_body_slower_than_body_seconds_is_a_408(path: str) -> None:
    """The limit applies to the whole body, although each byte arrives soon after the last."""
    stream = make_stream(body_seconds=0.3)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {POSTS[path]}\r\n"
        "Content-Length: 9999\r\n\r\n"
    )
    async with serve(stream) as url:
        port = int(url.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as connection:
            await connection.send(head.encode())

            async def drip() -> None:
                while True:
                    await connection.send(b"v")
                    await anyio.sleep(0.05)

            with anyio.fail_after(5):
                async with create_task_group() as tg:
                    tg.start_soon(drip)
                    answer = await connection.receive()
                    tg.cancel_scope.cancel()
        assert b" 408 " in answer.partition(b"\r\n")[0]


async def test_head_slower_than_head_seconds_closes_connection() -> None:
    """The server closes the connection before it calls the application."""
    async with serve(make_stream(head_seconds=0.2)) as url:
        port = int(url.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as connection:
            await connection.send(b"POST /webrtc/offer HTTP/1.1\r\nHost: ")
            with anyio.fail_after(4), pytest.raises(anyio.EndOfStream):
                await connection.receive()


async def test_stream_offer_above_body_bytes_raises_with_status_413() -> None:
    async with make_stream(body_bytes=2000) as stream:
        with pytest.raises(Exception, match=r"2001 characters.*RequestLimits\.body_bytes") as info:
            await stream.offer({"type": "offer", "sdp": "x" * 2001})
    assert getattr(info.value, "status_hint", None) == 413


async def test_sections_beyond_limit_are_a_413() -> None:
    stream = make_stream(sections=2)
    async with serve(stream) as url, open_client() as client:
        sdp = await make_offer(client, channel=True)
        more = sdp + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"
        reply = await post(url, {"type": "offer", "sdp": more})
        assert reply.status_code == 413
        assert "3 sections or more; at most 2 are allowed (RequestLimits.sections)" in detail(reply)
        assert (await post(url, {"type": "offer", "sdp": sdp})).status_code == 200


async def test_candidates_beyond_limit_are_a_429_and_call_connects() -> None:
    stream = make_stream(candidates=5)
    async with serve(stream) as url, open_client() as client:
        body = {"type": "offer", "sdp": await make_offer(client), "webrtc_id": "caller"}
        answer = await post(url, body)
        candidate = {"type": "ice-candidate", "candidate": CANDIDATE, "webrtc_id": "caller"}
        replies = [await post(url, candidate) for _ in range(7)]
        assert replies[-1].status_code == 429
        assert "a client may send 5 candidates (RequestLimits.candidates)" in detail(replies[6])
        end = {"type": "ice-candidate", "candidate": None, "webrtc_id": "caller"}
        assert (await post(url, end)).json() == {"status": "success"}
        await accept(client, answer.json()["sdp"])
        await check_echo(client)


async def test_early_candidates_beyond_limit_are_a_429_for_one_id() -> None:
    stream = make_stream(candidates=2)
    async with serve(stream) as url:
        body = {"type": "ice-candidate", "candidate": CANDIDATE, "webrtc_id": "early"}
        statuses = [(await post(url, body)).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        body["webrtc_id"] = "another"
        assert (await post(url, body)).status_code == 200


async def test_whip_candidates_beyond_limit_are_a_429_and_call_connects() -> None:
    stream = make_stream(candidates=50)
    lines = ["m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=mid:0"]
    lines += [f"a=candidate:{i} 1 udp {i} 127.0.0.1 {20_000 + i} typ host" for i in range(1000)]
    async with (
        serve(stream) as url,
        httpx.AsyncClient(base_url=url) as http,
        open_client() as client,
    ):
        created = await http.post("/whip", content=await make_offer(client), headers=SDP)
        place = created.headers["location"]
        headers = {**FRAGMENT, "If-Match": created.headers["etag"]}
        reply = await http.patch(place, content="\r\n".join([*lines, ""]), headers=headers)
        assert reply.status_code == 429
        assert "RequestLimits.candidates" in detail(reply)
        await accept(client, created.text)
        await wait_until(client.connected.is_set)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("text", ["x" * 1001, "\u20ac" * 400])
async def test_long_websocket_message_ends_connection(text: str, started: bool) -> None:
    stream = make_stream(message_bytes=1000)
    async with serve(stream) as url, open_socket(url), open_wire(url) as wire:
        if started:
            await wire.send('{"event": "start"}')
        await wire.send(text)
        body = await wire.receive_json()
        size = len(text.encode())
        assert body["type"] == "error"
        assert (
            body["message"] == f"the message has {size} bytes; at most 1000 are allowed "
            "(RequestLimits.message_bytes)"
        )
        await wire.receive_end()
        await wait_until(lambda: stream.active == 1)


async def test_very_long_websocket_message_closes_with_1009() -> None:
    stream = make_stream(message_bytes=1000)
    async with serve(stream) as url, open_wire(url) as wire:
        await wire.send("x" * 4001)
        assert await wire.receive_end() == 1009


async def test_too_many_websocket_messages_close_with_1008() -> None:
    stream = make_stream(messages_per_second=2)
    async with serve(stream) as url, open_wire(url) as wire:
        await wire.send('{"event": "start"}')
        for _ in range(19):
            await wire.send("hello")
        await wait_until(lambda: stream.active == 1)
        await wire.send("one too many")
        assert await wire.receive_end() == 1008
        await wait_until(lambda: stream.active == 0)


async def test_too_many_data_channel_messages_end_the_session() -> None:
    stream = make_stream(messages_per_second=2)
    async with stream, place_call(stream) as call:
        session = only_session(stream)
        for _ in range(21):
            call.send_message("hello")
        assert await wait_ended(stream, session) is CloseReason.PEER_FAILED
        assert session.closed is not None
        assert "RequestLimits.messages_per_second" in session.closed.message


async def test_long_data_channel_message_gets_error_and_call_continues() -> None:
    """Browsers refuse to send above ``max-message-size``; this client ignores it."""
    stream = make_stream(message_bytes=1000)
    async with serve(stream) as url, open_client() as client:
        body = {"type": "offer", "sdp": await make_offer(client, channel=True)}
        answer = (await post(url, body)).json()["sdp"]
        assert "a=max-message-size:1000\r\n" in answer
        await accept(client, answer.replace("max-message-size:1000", "max-message-size:65536"))
        await to_thread.run_sync(client.send_message, "x" * 1001)
        with anyio.fail_after(10):
            error = json.loads(await client.receive_message())
        assert error["type"] == "error"
        assert "1001 bytes; at most 1000" in error["message"]
        await check_echo(client)


async def test_event_streams_beyond_limit_are_a_429_until_one_closes() -> None:
    stream = make_stream(event_streams=2)
    async with (
        serve(stream) as url,
        place_call(url, "me"),
        httpx.AsyncClient(base_url=url) as http,
    ):
        place = "/outputs?webrtc_id=me"
        async with http.stream("GET", place) as one, http.stream("GET", place) as two:
            assert (one.status_code, two.status_code) == (200, 200)
            reply = await http.get(place)
            assert reply.status_code == 429
            assert "2 streams of outputs" in detail(reply)
            assert "RequestLimits.event_streams" in detail(reply)

        async def is_free() -> bool:
            async with http.stream("GET", place) as again:
                return again.status_code == 200

        with anyio.fail_after(10):
            while not await is_free():
                await anyio.sleep(0.02)
