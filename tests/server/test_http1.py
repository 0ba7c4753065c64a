"""The built-in server refuses ambiguous requests and other protocols, and bounds connections."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from fastrtc_anyio import RequestLimits
from fastrtc_anyio.server.launch import open_server
from tests.kit.waiting import wait_until

HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


async def describe(request: Request) -> Response:
    body = await request.body()
    return JSONResponse(
        {
            "method": request.method,
            "path": request.url.path,
            "query": request.url.query,
            "host": request.headers.getlist("host"),
            "body": body.decode(),
        }
    )


async def ignore_body(_request: Request) -> Response:
    return PlainTextResponse("not read", 401)


async def echo(websocket: WebSocket) -> None:
    await websocket.accept(headers=[(b"x-own", b"1")])
    async for text in websocket.iter_text():
        await websocket.send_text(text)


def make_app() -> Starlette:
    methods = ["GET", "POST", "OPTIONS"]
    return Starlette(
        routes=[
            Route("/ignore", ignore_body, methods=methods),
            WebSocketRoute("/echo", echo),
            Route("/{path:path}", describe, methods=methods),
        ]
    )


def head(first: str, *headers: str) -> bytes:
    return "\r\n".join([first, "Host: localhost", *headers, "", ""]).encode()


async def exchange(url: str, data: bytes, *, end: bool = False) -> bytes:
    """Send bytes, and return everything that the server sends until it closes."""
    received = bytearray()
    port = int(url.rpartition(":")[2])
    async with await anyio.connect_tcp("127.0.0.1", port) as connection:
        await connection.send(data)
        if end:
            await connection.send_eof()
        with anyio.fail_after(8), suppress(anyio.EndOfStream):
            while True:
                received += await connection.receive()
    return bytes(received)


def status(response: bytes) -> int:
    return int(response.split(b" ")[1])


@asynccontextmanager
async def open_app(**limits: Any) -> AsyncGenerator[str, None]:
    limits = {"head_seconds": 0.5} | limits
    async with open_server(make_app(), limits=RequestLimits(**limits)) as url:
        yield url


CHUNKED = "Transfer-Encoding: chunked"
REFUSED: dict[str, tuple[bytes, int]] = {
    "length and chunks": (head("POST / HTTP/1.1", "Content-Length: 4", CHUNKED), 400),
    "chunks and length": (head("POST / HTTP/1.1", CHUNKED, "content-length: 4"), 400),
    "two lengths": (head("POST / HTTP/1.1", "Content-Length: 4", "Content-Length: 5"), 400),
    "signed length": (head("POST / HTTP/1.1", "Content-Length: +4"), 400),
    "space before the colon": (head("POST / HTTP/1.1", "Transfer-Encoding : chunked"), 400),
    "other coding": (head("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked"), 501),
    "hidden coding": (head("POST / HTTP/1.1", "Transfer-Encoding: \x0bchunked"), 400),
    "chunked twice": (head("POST / HTTP/1.1", CHUNKED, CHUNKED), 501),
    "chunks in 1.0": (head("POST / HTTP/1.0", CHUNKED), 400),
    "two hosts": (head("GET / HTTP/1.1", "Host: evil.example"), 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 505),
    "HTTP/3": (head("GET / HTTP/3.0"), 505),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n", 400),
    "no path": (head("GET evil.example HTTP/1.1"), 400),
    "tunnel": (head("CONNECT evil.example:443 HTTP/1.1"), 400),
    "100,000 headers": (head("GET / HTTP/1.1", *["a: b"] * 100_000), 431),
    "300 headers": (head("GET / HTTP/1.1", *["a: b"] * 300), 431),
    "endless line": (b"GET /" + b"a" * 100_000, 431),
    "null": (head("GET /\0 HTTP/1.1"), 400),
    "no version of WebSocket": (head("GET /echo HTTP/1.1", *HANDSHAKE[:2], HANDSHAKE[3]), 426),
    "other version": (head("GET /echo HTTP/1.1", *HANDSHAKE[:2], "Sec-WebSocket-Version: 8"), 426),
    "no key": (head("GET /echo HTTP/1.1", *HANDSHAKE[:3]), 400),
    "short key": (head("GET /echo HTTP/1.1", *HANDSHAKE[:3], "Sec-WebSocket-Key: YQ=="), 400),
    "WebSocket in 1.0": (head("GET /echo HTTP/1.0", *HANDSHAKE), 400),
    "WebSocket with a body": (head("GET /echo HTTP/1.1", *HANDSHAKE, "Content-Length: 1"), 400),
}


async def test_ambiguous_and_foreign_requests_are_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_app() as url:
        for name, (data, expected) in REFUSED.items():
            response = await exchange(url, data, end=True)
            assert (name, status(response)) == (name, expected)
            assert response.startswith(b"HTTP/1.1 ")
            assert response.count(b"\r\n\r\n") == 1
            assert b"onnection: close\r\n" in response
            assert b"evil" not in response
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_refusal_reaches_a_client_that_still_sends() -> None:
    async with open_app() as url:
        big = b"x" * 3_000_000
        for first, headers, expected in (
            ("POST /ignore HTTP/1.1", [f"Content-Length: {len(big)}"], 401),
            ("POST / HTTP/1.1", [f"Content-Length: {len(big)}", CHUNKED], 400),
        ):
            response = await exchange(url, head(first, *headers) + big, end=True)
            assert status(response) == expected


async def test_malformed_body_ends_the_request() -> None:
    async with open_app() as url:
        for chunks in (b"zz\r\n", b"4;" + b"x" * 100_000, b"-1\r\n", b"4\r\nabcdef\r\n"):
            response = await exchange(url, head("POST / HTTP/1.1", CHUNKED) + chunks, end=True)
            assert response == b"" or status(response) >= 400


async def test_upgrade_to_http2_is_ignored() -> None:
    upgrade = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"]
    async with open_app() as url:
        response = await exchange(url, head("GET /a HTTP/1.1", *upgrade), end=True)
        assert response.startswith(b"HTTP/1.1 200")
        # Nor can other methods than GET become a WebSocket.
        response = await exchange(url, head("POST /echo HTTP/1.1", *HANDSHAKE), end=True)
        assert response.startswith(b"HTTP/1.1 200")


async def test_authority_of_an_absolute_target_replaces_host() -> None:
    async with open_app() as url:
        for target, path, query in (
            ("http://evil.example:80/a?b", "/a", "b"),
            ("HTTPS://evil.example:80", "/", ""),
            ("http://evil.example:80?b", "/", "b"),
        ):
            response = await exchange(url, head(f"GET {target} HTTP/1.1"), end=True)
            assert b'"host":["evil.example:80"]' in response
            assert f'"path":"{path}","query":"{query}"'.encode() in response


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with open_app() as url:
        first = head("POST /1 HTTP/1.1", "Content-Length: 3") + b"abc"
        chunked = head("POST /2 HTTP/1.1", CHUNKED) + b"3;ext=1\r\ndef\r\n0\r\nTrailer: x\r\n\r\n"
        last = head("GET /3 HTTP/1.1", "Connection: close")
        response = await exchange(url, first + chunked + head("HEAD /4 HTTP/1.1") + last)
        assert response.count(b"HTTP/1.1 200") == 4
        bodies = [response.index(text) for text in (b'"abc"', b'"def"', b'"/3"')]
        assert bodies == sorted(bodies)
        assert b'"/4"' not in response


async def test_expectation_is_continued_before_the_body() -> None:
    async with open_app() as url:
        port = int(url.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as connection:
            expect = ["Content-Length: 3", "Expect: 100-continue", "Connection: close"]
            await connection.send(head("POST / HTTP/1.1", *expect))
            assert (await connection.receive()).startswith(b"HTTP/1.1 100")
            await connection.send(b"abc")
            assert b'"body":"abc"' in await read_all(connection)


async def read_all(connection: SocketStream) -> bytes:
    data = bytearray()
    with anyio.fail_after(8), suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            data += await connection.receive()
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"\r\n\r\n"),
        head("GET / HTTP/1.1"),  # idle after its response
        head("GET /echo HTTP/1.1", *HANDSHAKE)[:-2],
        b"PRI * HTTP/2.0\r\n",
    ],
)
async def test_idle_connection_is_closed_after_head_seconds(data: bytes) -> None:
    async with open_app(head_seconds=0.2) as url:
        await exchange(url, data)


async def test_websocket_has_no_compression_and_sends_its_headers() -> None:
    async with open_app() as url:
        port = int(url.rpartition(":")[2])
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        async with await anyio.connect_tcp("127.0.0.1", port) as connection:
            frame = b"\x81\x82\0\0\0\0hi"  # sent with the handshake
            await connection.send(head("GET /echo HTTP/1.1", *HANDSHAKE, offer) + frame)
            data = b""
            while b"\x81\x02hi" not in data:
                data += await connection.receive()
            assert data.startswith(b"HTTP/1.1 101")
            assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in data
            assert b"x-own: 1" in data.lower()
            assert b"extensions" not in data.lower()
            await connection.send(b"\xc1\x82\0\0\0\0hi")  # a compressed message
            assert (await read_all(connection))[:4].startswith(b"\x88") is True


async def test_connections_above_the_limits_are_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_app(connections=12, head_seconds=5.0) as url, AsyncExitStack() as stack:
        port = int(url.rpartition(":")[2])

        async def connect(address: str) -> SocketStream:
            connection = await anyio.connect_tcp("127.0.0.1", port, local_host=address)
            return await stack.enter_async_context(connection)

        for number in range(1, 5):
            for _ in range(3):
                connection = await connect(f"127.0.0.{number}")
                await connection.send(head("GET / HTTP/1.1"))
                assert status(await connection.receive()) == 200
            refused = await read_all(await connect(f"127.0.0.{number}"))
            assert (status(refused), b"RequestLimits.connections" in refused) == (503, True)
        assert status(await read_all(await connect("127.0.0.9"))) == 503
        await stack.aclose()
        await wait_until(lambda: "RequestLimits.connections" in caplog.text)
        connection = await connect("127.0.0.9")  # the slots are free again
        await connection.send(head("GET / HTTP/1.1", "Connection: close"))
        assert status(await read_all(connection)) == 200


async def test_server_outlives_a_shortage_of_descriptors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept, failures = socket.socket.accept, [errno.EMFILE, errno.ENOBUFS, errno.ECONNABORTED]

    def fail_at_first(self: socket.socket) -> Any:
        if failures:
            raise OSError(failures.pop(), "not now")
        return accept(self)

    async with open_app() as url:
        monkeypatch.setattr(socket.socket, "accept", fail_at_first)
        response = await exchange(url, head("GET / HTTP/1.1", "Connection: close"))
        assert status(response) == 200
    assert caplog.text.count("no connection can be accepted: out of") == 2


async def test_failing_application_is_a_500_and_truncates_no_response_silently(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise ValueError("no lifespan")
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if scope["path"] == "/exit":
            raise SystemExit(3)
        raise ValueError("secret")

    async with open_server(app) as url:
        for path in ("/", "/exit"):
            response = await exchange(url, head(f"GET {path} HTTP/1.1"))
            assert (status(response), b"secret" in response) == (500, False)
        late = await exchange(url, head("GET /late HTTP/1.1"))
        assert not late.endswith(b"0\r\n\r\n")  # the end of the chunks is missing
    assert caplog.text.count("could not answer a request") == 3


@pytest.mark.parametrize(
    ("frame", "close"),
    [
        (b"\x81\x81\0\0\0\0\xff", b"\x88\x02\x03\xef"),  # not UTF-8: 1007
        (b"\xc1\x82\0\0\0\0hi", b"\x88\x02\x03\xea"),  # compressed: 1002
        (b"\x88\x82\0\0\0\0\x0f\xa0", b"\x88\x02\x0f\xa0"),  # closed by the client: 4000
    ],
)
async def test_close_frame_quotes_no_error_of_a_library(frame: bytes, close: bytes) -> None:
    async with open_app() as url:
        response = await exchange(url, head("GET /echo HTTP/1.1", *HANDSHAKE) + frame)
    assert response.partition(b"\r\n\r\n")[2] == close
