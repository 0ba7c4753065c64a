"""Rejected and failed requests: status, error text, and no session left behind."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette

from fastrtc_anyio import AsyncStreamHandler, Stream
from fastrtc_anyio.server.launch import open_server
from tests.kit.aiortc_client import open_client
from tests.kit.calls import echo, make_offer, make_stream, place_call, post
from tests.kit.measure import check_echo
from tests.kit.waiting import wait_until
from tests.kit.websockets import open_wire

NO_AUDIO = """\
v=0
o=- 0 0 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:0
a=sctp-port:5000
a=setup:actpass
a=ice-ufrag:abcd
a=ice-pwd:abcdefghijklmnopqrstuv
a=fingerprint:sha-256 {fingerprint}
"""
UNKNOWN_CODEC = """\
v=0
o=- 0 0 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
m=audio 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=mid:0
a=sendrecv
a=rtpmap:96 speex/16000
a=rtcp-mux
a=setup:actpass
a=ice-ufrag:abcd
a=ice-pwd:abcdefghijklmnopqrstuv
a=fingerprint:sha-256 {fingerprint}
"""
FINGERPRINT = ":".join(["AB"] * 32)


def sdp(template: str) -> str:
    return template.format(fingerprint=FINGERPRINT).replace("\n", "\r\n")


@asynccontextmanager
async def serving(stream: Stream) -> AsyncGenerator[tuple[str, httpx.AsyncClient], None]:
    app = Starlette()
    stream.mount(app)
    async with open_server(app) as url, httpx.AsyncClient(base_url=url) as http:
        yield url, http


def check_failure(reply: httpx.Response, status: int) -> str:
    """Check a failed reply in the form of FastRTC; return its error text."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    body = reply.json()
    assert set(body) == {"status", "meta"}
    assert body["status"] == "failed"
    error = body["meta"]["error"]
    assert isinstance(error, str)
    assert error
    assert "Traceback" not in error
    return error


async def test_malformed_bodies_are_rejected_and_take_no_slot() -> None:
    bodies = {
        b"": "not JSON: syntax error at character 1",
        b"{": "not JSON: syntax error at character 2",
        b"\xff\xfe\xfd": "not JSON: the encoding must be UTF-8",
        b"[" * 100_000: "not JSON: more than",
        b"[" * 2_000: "not JSON: the nesting is too deep",
        b"9" * 5_000: "not JSON: a number has too many digits",
        b"null": "must be a JSON object",
        b"[]": "must be a JSON object",
        b'"offer"': "must be a JSON object",
        b"{}": '"type" must be',
        b'{"type": "answer", "sdp": "v=0"}': '"type" must be',
        b'{"type": ["offer"], "sdp": "v=0"}': '"type" must be',
        b'{"type": "\\ud800"}': '"type" must be',
        b'{"type": "offer"}': '"sdp" must be',
        b'{"type": "offer", "sdp": ""}': '"sdp" must be',
        b'{"type": "offer", "sdp": " \\r\\n"}': '"sdp" must be',
        b'{"type": "offer", "sdp": 7}': '"sdp" must be',
        b'{"type": "offer", "sdp": "rubbish", "webrtc_id": "caller"}': "must begin with the line",
        b'{"type": "offer", "sdp": "\\ud800"}': "must begin with the line",
        b'{"type": "offer", "sdp": "v=0\\r\\n"}': "no audio section",
        b'{"type": "offer", "sdp": "v=0", "webrtc_id": 7}': '"webrtc_id" must be',
        b'{"type": "offer", "sdp": "v=0", "webrtc_id": ""}': '"webrtc_id" must be',
    }
    stream = make_stream(concurrency_limit=1)
    async with serving(stream) as (url, http):
        for body, expected in bodies.items():
            reply = await http.post("/webrtc/offer", content=body)
            assert expected in check_failure(reply, 400), body[:80]
            assert not stream.sessions
        async with place_call(url, "caller"):
            await wait_until(lambda: stream.active == 1)


@pytest.mark.parametrize(
    ("template", "expected"),
    [(NO_AUDIO, "no audio section"), (UNKNOWN_CODEC, "needs one of the codecs")],
)
async def test_offer_without_common_codec_takes_no_slot(template: str, expected: str) -> None:
    stream = make_stream(concurrency_limit=1)
    async with serving(stream) as (url, http):
        reply = await http.post("/webrtc/offer", json={"type": "offer", "sdp": sdp(template)})
        assert expected in check_failure(reply, 400)
        assert not stream.sessions
        async with place_call(url):
            await wait_until(lambda: stream.active == 1)


async def test_id_in_use_is_rejected_until_its_session_ends() -> None:
    stream = make_stream()
    async with serving(stream) as (url, _):
        async with place_call(url, "caller") as first, open_client() as other:
            offer = {"type": "offer", "sdp": await make_offer(other), "webrtc_id": "caller"}
            reply = await post(url, offer)
            assert check_failure(reply, 409) == "the webrtc_id 'caller' is in use"
            async with open_wire(url) as wire:
                await wire.send(json.dumps({"event": "start", "websocket_id": "caller"}))
                assert "in use" in (await wire.receive_json())["message"]
                assert await wire.receive_end() == 1008
            await check_echo(first)
            await wait_until(lambda: stream.active == 1)
        await wait_until(lambda: stream.active == 0)
        async with place_call(url, "caller"):
            await wait_until(lambda: stream.active == 1)


async def test_concurrency_limit_is_a_503_in_the_form_of_fastrtc() -> None:
    stream = make_stream(concurrency_limit=1)
    async with serving(stream) as (url, _):
        async with place_call(url, "first"), open_client() as other:
            offer = {"type": "offer", "sdp": await make_offer(other), "webrtc_id": "second"}
            reply = await post(url, offer)
            assert check_failure(reply, 503) == "concurrency_limit_reached"
            assert reply.json()["meta"]["limit"] == 1
            await wait_until(lambda: stream.active == 1)
        await wait_until(lambda: stream.active == 0)
        async with place_call(url, "second"):
            await wait_until(lambda: stream.active == 1)


async def test_candidates_before_their_offer_are_accepted() -> None:
    stream = make_stream()
    line = "candidate:1 1 udp 2130706431 127.0.0.1 9 typ host"
    bodies: list[dict[str, Any] | None] = [
        {"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0},
        {"candidate": "", "sdpMid": "0"},
        None,
    ]
    async with serving(stream) as (url, _):
        for candidate in bodies:
            body = {"type": "ice-candidate", "candidate": candidate, "webrtc_id": "early"}
            reply = await post(url, body)
            assert (reply.status_code, reply.json()) == (200, {"status": "success"})
        assert not stream.sessions


async def test_malformed_candidates_are_rejected_and_session_stays() -> None:
    stream = make_stream()
    good = {"candidate": "candidate:1 1 udp 1 127.0.0.1 9 typ host", "sdpMid": "0"}
    rejected: list[tuple[Any, Any]] = [
        ({"candidate": 7, "sdpMid": "0"}, "caller"),
        ({"candidate": "x" * 2000, "sdpMid": "0"}, "caller"),
        ({**good, "sdpMid": 0}, "caller"),
        ({**good, "sdpMLineIndex": "0"}, "caller"),
        ({**good, "sdpMLineIndex": True}, "caller"),
        ({"candidate": good["candidate"]}, "caller"),
        ("candidate:1", "caller"),
        (good, None),
        (good, ""),
        (good, ["caller"]),
        (good, "x" * 129),
        # Valid JSON for an existing session, with a malformed candidate line.
        ({"candidate": "rubbish", "sdpMid": "0"}, "caller"),
        ({"candidate": "candidate:1 1 udp x 127.0.0.1 9 typ host", "sdpMid": "0"}, "caller"),
        ({"candidate": "candidate:1 1 udp 1 127.0.0.1", "sdpMid": "0"}, "caller"),
    ]
    async with serving(stream) as (url, _), place_call(url, "caller"):
        for candidate, webrtc_id in rejected:
            body = {"type": "ice-candidate", "candidate": candidate, "webrtc_id": webrtc_id}
            check_failure(await post(url, body), 400)
        body = {"type": "ice-candidate", "candidate": good, "webrtc_id": "caller"}
        assert (await post(url, body)).json() == {"status": "success"}
        await wait_until(lambda: stream.active == 1)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [524_289, 2_000_000])
async def test_body_above_default_limit_is_a_413(size: int, chunked: bool) -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for start in range(0, size, 50_000):
            yield b" " * min(50_000, size - start)

    stream = make_stream()
    async with serving(stream) as (url, http):
        body = chunks() if chunked else b" " * size
        reply = await http.post("/webrtc/offer", content=body)
        assert "larger than" in check_failure(reply, 413)
        assert not stream.sessions
        largest = b" " * 524_288
        assert "not JSON" in check_failure(
            await http.post(url + "/webrtc/offer", content=largest), 400
        )


async def test_disconnect_during_request_body_takes_no_slot() -> None:
    stream = make_stream()
    async with serving(stream) as (url, http):
        port = int(url.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as connection:
            head = "POST /webrtc/offer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
            await connection.send(head.encode())
        check_failure(await http.post("/webrtc/offer", content=b""), 400)
        assert not stream.sessions


class Broken(AsyncStreamHandler):
    """A handler whose ``copy`` raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def receive(self, frame: Any) -> None: ...

    async def emit(self) -> None: ...

    def copy(self) -> Broken:
        raise self.error


async def test_handler_copy_error_is_a_500_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = make_stream(Broken(RuntimeError("the secret of the database")))
    async with serving(stream) as (url, _), open_client() as client:
        reply = await post(url, {"type": "offer", "sdp": await make_offer(client)})
        assert "secret" not in check_failure(reply, 500)
        assert not stream.sessions
    assert "the secret of the database" in caplog.text


@pytest.mark.parametrize("way", ["webrtc/offer", "whip"])
async def test_unusable_server_address_is_a_500_and_one_log_line(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = Stream(
        echo, modality="audio", server_rtc_configuration={"addresses": ["203.0.113.77"]}
    )
    async with serving(nowhere) as (_, http), open_client() as client:
        offer = await make_offer(client)
        if way == "whip":
            sdp_type = {"Content-Type": "application/sdp"}
            reply = await http.post("/whip", content=offer, headers=sdp_type)
        else:
            reply = await http.post("/webrtc/offer", json={"type": "offer", "sdp": offer})
    assert reply.status_code == 500
    assert "203.0.113.77" not in reply.text
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "UDP socket on 203.0.113.77" in record.getMessage()
    assert record.exc_info is None
