"""`open_server` serves from the beginning of its block to the end, and leaves nothing open."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fastrtc_anyio.server.launch import open_server
from tests.kit.calls import make_stream


async def hello(_request: Request) -> Response:
    return PlainTextResponse("hello")


def count_fds() -> int:
    return len(os.listdir("/dev/fd"))


async def test_server_accepts_connections_only_inside_block() -> None:
    async with open_server(Starlette(routes=[Route("/", hello)])) as url:
        async with httpx.AsyncClient() as http:
            assert (await http.get(url)).text == "hello"
        before = count_fds()
    port = int(url.rpartition(":")[2])
    with pytest.raises(OSError, match="connection"):
        await anyio.connect_tcp("127.0.0.1", port)
    assert count_fds() < before


async def test_port_in_use_raises_os_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = count_fds()
        with pytest.raises(OSError, match="in use"):
            async with open_server(Starlette(), port=listener.getsockname()[1]):
                pytest.fail("the port is in use")
        assert count_fds() == before


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"port": "7860"}, TypeError, "port must be an int .*; got '7860'"),
        ({"port": 70_000}, ValueError, "port must be an int .*; got 70000"),
        ({"host": 5}, TypeError, "host must be a str; got 5"),
        ({"backend": "curio"}, ValueError, "backend must be one of .*; got 'curio'"),
        ({"framed_by": "x"}, TypeError, "framed_by must be a list of origins; got 'x'"),
    ],
)
def test_wrong_argument_of_launch_is_an_error_that_shows_it(
    options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_stream().launch(**options)


async def test_ipv6_address_is_served_and_bracketed_in_url() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback address")
    async with open_server(Starlette(routes=[Route("/", hello)]), "::1") as url:
        assert url.startswith("http://[::1]:")
        async with httpx.AsyncClient() as http:
            assert (await http.get(url)).text == "hello"


async def test_response_is_not_delayed_by_nagle() -> None:
    """Head and body are two packets; Nagle's algorithm would delay the second by 40 ms."""
    async with (
        open_server(Starlette(routes=[Route("/", hello)])) as url,
        httpx.AsyncClient() as http,
    ):
        await http.get(url)
        began = anyio.current_time()
        for _ in range(25):
            await http.get(url)
        assert anyio.current_time() - began < 25 * 0.030


async def test_application_without_lifespan_is_served() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await PlainTextResponse("hello")(scope, receive, send)

    with anyio.fail_after(5):
        async with open_server(app) as url, httpx.AsyncClient() as http:
            assert (await http.get(url)).text == "hello"


async def test_failing_lifespan_raises_before_block() -> None:
    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncGenerator[None, None]:
        if not os.environ.get("NO_SUCH_DATABASE"):
            raise ValueError("no database")
        yield

    before = count_fds()
    entered = []
    with pytest.raises(RuntimeError, match="no database"):
        async with open_server(Starlette(lifespan=lifespan)):
            entered.append(True)
    assert not entered
    assert count_fds() == before


async def test_cancelled_block_ends_lifespan() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncGenerator[None, None]:
        seen.append("up")
        yield
        seen.append("down")

    with anyio.CancelScope() as scope:
        async with open_server(Starlette(lifespan=lifespan)):
            scope.cancel()
            await anyio.sleep_forever()
    assert seen == ["up", "down"]


async def test_error_in_block_is_raised_unchanged() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_server(Starlette()):
            raise KeyError("mine")


async def test_open_requests_are_cancelled_at_end_of_block() -> None:
    """One request waits, the other sends to a client that no longer reads."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await Starlette()(scope, receive, send)
            return
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            body = {"type": "http.response.body", "body": bytes(65_536), "more_body": True}
            await send(body)
            if scope["path"] == "/wait":
                await anyio.sleep_forever()
            while True:
                await send(body)
        finally:
            seen.append(scope["path"])

    async with open_server(app) as url:
        port = int(url.rpartition(":")[2])
        connections = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(2)]
        for connection, path in zip(connections, ("/wait", "/flood"), strict=True):
            await connection.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await connection.receive(100)
        began = anyio.current_time()
    assert anyio.current_time() - began < 3
    for connection in connections:
        await connection.aclose()
    assert sorted(seen) == ["/flood", "/wait"]
