"""Ctrl-C ends the process within seconds, despite open calls, requests and WebSockets."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.kit.calls import place_call
from tests.kit.measure import check_echo
from tests.kit.served import Program, run_server
from tests.kit.waiting import wait_until
from tests.kit.websockets import open_wire

PROGRAM = Path(__file__).with_name("interruptible.py")
CALLER = "3f0c8e7a5d1b4296af7083c2de91b654"
WEB_SOCKET = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)

# The program has its own backend; one backend is enough for the client.
pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


def running(mode: str) -> AbstractAsyncContextManager[Program]:
    return run_server([sys.executable, str(PROGRAM), mode])


@asynccontextmanager
async def open_request(url: str, path: str) -> AsyncGenerator[ByteStream, None]:
    """Make a GET request or a WebSocket handshake, and read the head of the response."""
    port = int(url.rpartition(":")[2])
    async with await anyio.connect_tcp("127.0.0.1", port) as connection:
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        if path == "/socket":
            lines += WEB_SOCKET
        lines += ["", ""]
        await connection.send("\r\n".join(lines).encode())
        reader = BufferedByteReceiveStream(connection)
        status = await reader.receive_until(b"\r\n", 100)
        assert status.split()[1] in (b"200", b"101")
        await reader.receive_until(b"\r\n\r\n", 10_000)
        if path in ("/events", "/flood"):
            await reader.receive_exactly(10)
        yield connection


@pytest.mark.parametrize("mode", ["trio", "asyncio"])
@pytest.mark.parametrize("paths", [[], ["/socket", "/events"], ["/socket", "/events", "/flood"]])
async def test_interrupt_ends_process_despite_open_connections(mode: str, paths: list[str]) -> None:
    """There is also a call and an idle connection. The client of ``/flood`` does not read."""
    async with (
        running(mode) as program,
        place_call(program.url, CALLER) as client,
        AsyncExitStack() as stack,
    ):
        await check_echo(client)
        port = int(program.url.rpartition(":")[2])
        await stack.enter_async_context(await anyio.connect_tcp("127.0.0.1", port))
        for path in paths:
            await stack.enter_async_context(open_request(program.url, path))
        took = await program.interrupt()
        print(f"{mode}, {paths}: {took:.2f} s")
        await wait_until(
            client.closed.is_set, seconds=1
        )  # the server has closed the connection explicitly
    assert program.process.returncode == 0, program.printed
    assert program.printed["stderr"] == ""


@pytest.mark.parametrize("mode", ["launch-trio", "launch-asyncio"])
async def test_launch_returns_after_interrupt(mode: str) -> None:
    async with running(mode) as program:
        async with open_request(program.url, "/"):
            pass
        async with place_call(program.url, CALLER) as client:
            await check_echo(client)
            took = await program.interrupt()
            print(f"{mode}: {took:.2f} s")
            await wait_until(client.closed.is_set, seconds=1)
    assert program.process.returncode == 0, program.printed
    assert program.printed["stderr"] == ""
    assert program.printed["stdout"].startswith(f"Open {program.url} in a browser")


@pytest.mark.parametrize("mode", ["stubborn-trio", "stubborn-asyncio"])
async def test_second_interrupt_ends_launch_despite_a_stubborn_handler(mode: str) -> None:
    async with running(mode) as program, open_wire(program.url) as wire:
        await wire.send('{"event": "start", "websocket_id": "me"}')
        assert await wire.receive() == "running"
        program.process.send_signal(signal.SIGINT)
        await wait_until(lambda: "it swallows its cancellation" in program.printed["stderr"])
        await program.interrupt()
    assert program.process.returncode == -signal.SIGINT  # the first one would give 0
    assert "in persist" in program.printed["stderr"]


@pytest.mark.parametrize("kind", ["call", "events"])
async def test_interrupt_ends_uvicorn_with_open_call(kind: str) -> None:
    async with (
        running("uvicorn") as program,
        place_call(program.url, CALLER) as client,
        AsyncExitStack() as stack,
    ):
        await check_echo(client)
        if kind == "events":
            await stack.enter_async_context(open_request(program.url, "/events"))
        took = await program.interrupt()
        print(f"uvicorn, {kind}: {took:.2f} s")
        await wait_until(client.closed.is_set, seconds=1)
    # After its clean-up, uvicorn.run() raises the signal again.
    assert program.process.returncode in (0, -signal.SIGINT), program.printed
    if kind == "call":
        assert "Traceback" not in program.printed["stderr"]
