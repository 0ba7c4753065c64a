"""Clients that take slots from each other, over real servers and connections."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from anyio import create_task_group

from fastrtc_anyio import CloseReason, Limits, Overloaded, RequestLimits, Stream
from fastrtc_anyio._sessions.load import LoadGauge
from fastrtc_anyio.server import require_token
from tests.kit.aiortc_client import open_client
from tests.kit.calls import (
    accept,
    make_offer,
    make_stream,
    place_call,
    post,
    receive_json,
    serve,
    wait_ended,
)
from tests.kit.handlers import AsyncEcho
from tests.kit.waiting import wait_until
from tests.kit.websockets import open_wire

SDP = {"Content-Type": "application/sdp"}


@asynccontextmanager
async def serving(stream: Stream) -> AsyncGenerator[httpx.AsyncClient, None]:
    async with serve(stream) as url, httpx.AsyncClient(base_url=url, timeout=30) as http:
        yield http


def retry_after(reply: httpx.Response, status: int) -> int:
    assert reply.status_code == status, reply.text
    return int(reply.headers["retry-after"])


async def test_requests_alone_occupy_no_slot() -> None:
    """Offers over HTTP and WHIP, and WebSockets without a start; then a call."""
    stream = make_stream(AsyncEcho, concurrency_limit=1)
    async with serving(stream) as http, open_client() as client, AsyncExitStack() as stack:
        url = str(http.base_url)
        sdp = await make_offer(client)
        for number in range(3):
            body = {"type": "offer", "sdp": sdp, "webrtc_id": f"{number:032x}"}
            assert (await post(url, body)).status_code == 200
            assert (await http.post("/whip", content=sdp, headers=SDP)).status_code == 201
            await stack.enter_async_context(open_wire(url))
        assert stream.active == 0
        async with place_call(url):
            await wait_until(lambda: stream.active == 1)
            refused = await post(url, {"type": "offer", "sdp": sdp, "webrtc_id": "f" * 32})
            assert retry_after(refused, 503)
            assert refused.json()["meta"]["error"] == "concurrency_limit_reached"


async def test_client_learns_that_another_took_its_slot() -> None:
    stream = make_stream(AsyncEcho, concurrency_limit=1)
    async with stream, open_client() as client:
        body = {"type": "offer", "sdp": await make_offer(client, channel=True), "webrtc_id": "slow"}
        answer = await stream.offer(body)
        session = stream.session("slow")
        async with place_call(stream):
            await accept(client, answer["sdp"])
            message = await receive_json(client, "end_stream")
            assert message["reason"] == "rejected"
            assert "limit of 1 concurrent sessions" in message["data"]
            assert await wait_ended(stream, session) is CloseReason.REJECTED
            assert stream.active == 1


async def test_repeated_offer_gets_the_same_answer_and_connects() -> None:
    stream = make_stream(AsyncEcho)
    async with serving(stream) as http, open_client() as client:
        body = {"type": "offer", "sdp": await make_offer(client), "webrtc_id": "a" * 32}
        replies: list[bytes] = []

        async def ask() -> None:
            replies.append((await http.post("/webrtc/offer", json=body)).content)

        async with create_task_group() as tasks:
            tasks.start_soon(ask)
            tasks.start_soon(ask)
        await ask()
        assert replies == [replies[0]] * 3
        async with open_client() as thief:
            stolen = {**body, "sdp": await make_offer(thief)}
            assert (await http.post("/webrtc/offer", json=stolen)).status_code == 409
        await accept(client, json.loads(replies[0])["sdp"])
        await wait_until(client.connected.is_set)
        await wait_until(lambda: stream.active == 1)
        assert (await http.post("/webrtc/offer", json=body)).status_code == 409
        assert len(stream.sessions) == 1


async def test_limits_of_one_client_are_a_429_with_retry_after() -> None:
    limits = RequestLimits(client_pending=2, client_sessions=1, client_requests=12)
    stream = make_stream(AsyncEcho, request_limits=limits, trusted_proxies=["127.0.0.0/8"])
    async with serving(stream) as http, open_client() as client:
        url = str(http.base_url)
        sdp = await make_offer(client)

        async def offer(number: int, address: str) -> httpx.Response:
            body = {"type": "offer", "sdp": sdp, "webrtc_id": f"{number:032x}"}
            forwarded = {"X-Forwarded-For": address}
            return await http.post("/webrtc/offer", json=body, headers=forwarded)

        for number in range(2):
            assert (await offer(number, "192.0.2.1")).status_code == 200
        refused = await offer(2, "192.0.2.1")
        assert "RequestLimits.client_pending" in refused.json()["meta"]["error"]
        assert retry_after(refused, 429)
        assert (await offer(3, "192.0.2.2")).status_code == 200
        async with place_call(url):  # from 127.0.0.1
            await wait_until(lambda: stream.active == 1)
            async with open_wire(url) as wire:
                await wire.send(json.dumps({"event": "start", "websocket_id": "b" * 32}))
                assert "RequestLimits.client_sessions" in (await wire.receive_json())["message"]
                assert await wire.receive_end() == 1008
        asked = {"X-Forwarded-For": "192.0.2.1"}
        replies = [await http.get("/webrtc/config", headers=asked) for _ in range(12)]
        reply = replies[-1]
        assert "RequestLimits.client_requests" in reply.json()["meta"]["error"]
        assert retry_after(reply, 429)
        for path in ("/whip", "/whep"):
            reply = await http.post(path, headers=asked)
            assert retry_after(reply, 429)
        assert (await http.get("/webrtc/config")).status_code == 200


async def test_identities_are_counted_apart() -> None:
    limits = RequestLimits(client_pending=1)
    stream = make_stream(
        AsyncEcho,
        request_limits=limits,
        authenticate=require_token({"token of Ada": "ada", "token of Bo": "bo"}),
    )
    async with serving(stream) as http, open_client() as client:
        sdp = await make_offer(client)
        statuses = []
        for number, token in enumerate(["Ada", "Bo", "Ada"]):
            body = {"type": "offer", "sdp": sdp, "webrtc_id": f"{number:032x}"}
            headers = {"Authorization": f"Bearer token of {token}"}
            reply = await http.post("/webrtc/offer", json=body, headers=headers)
            statuses.append(reply.status_code)
        assert statuses == [200, 200, 429]


async def test_websocket_without_a_start_is_replaced_by_further_ones() -> None:
    stream = make_stream(AsyncEcho, request_limits=RequestLimits(pending_sessions=2))
    async with serving(stream) as http:
        url = str(http.base_url)
        async with open_wire(url) as first, open_wire(url) as second, open_wire(url):
            assert "too many other clients" in (await first.receive_json())["message"]
            assert await first.receive_end() == 1013
            await second.send(json.dumps({"event": "start", "websocket_id": "c" * 32}))
            await wait_until(lambda: stream.active == 1)


async def test_overloaded_server_answers_503(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_self: Any, _active: int) -> None:
        raise Overloaded("too much load", retry_after=7)

    stream = make_stream(AsyncEcho)
    async with serving(stream) as http, open_client() as client:
        sdp = await make_offer(client)
        monkeypatch.setattr(LoadGauge, "check", check)
        reply = await post(str(http.base_url), {"type": "offer", "sdp": sdp})
        assert retry_after(reply, 503) == 7
        assert retry_after(await http.post("/whip", content=sdp, headers=SDP), 503) == 7
        async with open_wire(str(http.base_url)) as wire:
            await wire.send(json.dumps({"event": "start", "websocket_id": "d" * 32}))
            assert (await wire.receive_json())["message"] == "too much load"
            assert await wire.receive_end() == 1013


async def test_open_stream_measures_its_loops() -> None:
    stream = Stream(AsyncEcho, modality="audio", limits=Limits(lag=0.1))
    async with stream:
        gauge = stream._service._load
        await wait_until(lambda: len(gauge._paces) == 2 and all(p.busy for p in gauge._paces))
