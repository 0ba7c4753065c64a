"""WebSocket clients that end in every way, at random moments, under every server."""

from __future__ import annotations

import json
import logging
import random
import struct
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from fastrtc_anyio import EmitType, Limits, RequestLimits
from tests.kit.handlers import AsyncEcho
from tests.kit.waiting import wait_until
from tests.server.test_websocket import open_stream
from tests.server.test_websocket_closes import SERVERS, every_server

CLIENTS = 60
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CODES = {"close": 1000, "going away": 1001, "violate": 1008, "long": 1009, "stop": 1000}
CODES["deaf"] = 1008
"""The code with which the server closes, or answers a close frame."""
pytestmark = pytest.mark.filterwarnings(
    "ignore:The `websockets` implementation is deprecated",
    "ignore:websockets.*is deprecated",
    "ignore:remove second argument of ws_handler",
)


class Chatty(AsyncEcho):
    """Sends audio and messages continuously, so that sends coincide with closes."""

    async def on_message(self, message: str) -> None:
        for _ in range(8):
            await self.send_message("x" * 200_000)

    async def emit(self) -> EmitType:
        await self.send_message("speaking")
        await anyio.sleep(0.005)
        return None

    def copy(self) -> Chatty:
        return Chatty()


def frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 65_536:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    return head + bytes(4) + payload


VIOLATION = frame(1, b'{"event": "media", "media": {"payload": "%"}}')


class Client:
    """A client of raw frames."""

    def __init__(self, connection: anyio.abc.SocketStream) -> None:
        self.connection = connection
        self.reader = BufferedByteReceiveStream(connection)

    async def read_code(self) -> int:
        """Read to the close frame, and return its code; 0 without one."""
        with suppress(anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
            while True:
                opcode, payload = await self.read_frame()
                if opcode == 8:
                    return int.from_bytes(payload[:2], "big")
        return 0

    async def read_frame(self) -> tuple[int, bytes]:
        first, second = await self.reader.receive_exactly(2)
        size = second & 127
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.receive_exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.reader.receive_exactly(8))
        return first & 15, await self.reader.receive_exactly(size) if size else b""

    async def send(self, data: bytes) -> None:
        with suppress(anyio.BrokenResourceError):
            await self.connection.send(data)

    async def end(self, kind: str) -> int | None:
        """End the connection in one way; return the code of the server's close frame, if needed."""
        match kind:
            case "close" | "going away":
                await self.send(frame(8, struct.pack("!H", CODES[kind])))
            case "violate":
                await self.send(VIOLATION)
            case "long":
                await self.send(frame(1, b"x" * 300_000))
            case "deaf":
                for _ in range(8):
                    await self.send(frame(1, b'{"type": "more", "data": 1}'))
                await anyio.sleep(0.4)  # the server's sends wait for this client meanwhile
                await self.send(VIOLATION)
            case "stop":
                await self.send(frame(1, b'{"event": "stop"}'))
            case "flood":
                ping = frame(9, b"x") + frame(1, b'{"event": "ping"}')
                with anyio.move_on_after(0.3):
                    for _ in range(40):
                        await self.send(ping * 5)
                return None
            case "stall":
                await anyio.sleep(0.3)
                return None
            case "fragments":
                await self.send(b"\x01\x81\0\0\0\0x" + b"\x00\x81\0\0\0\0x" * 200)
                return None
            case "half":
                await self.send(frame(1, b"x" * 100)[:50])
                return None
            case _:  # drop
                return None
        with anyio.fail_after(15):
            return await self.read_code()


KINDS = [*CODES, "flood", "stall", "fragments", "half", "drop"]


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Client, None]:
    port, path = url.rpartition(":")[2].split("/", 1)
    async with await anyio.connect_tcp("127.0.0.1", int(port)) as connection:
        await connection.send(HANDSHAKE.format(path=f"/{path}/websocket/offer").encode())
        client = Client(connection)
        response = await client.reader.receive_until(b"\r\n\r\n", 10_000)
        assert b" 101 " in response
        start = {"event": "start", "websocket_id": random.randbytes(16).hex()}
        await client.send(frame(1, json.dumps(start).encode()))
        yield client


async def run_client(url: str, kind: str, delay: float, codes: Counter[tuple[str, int]]) -> None:
    async with open_client(url) as client:
        await anyio.sleep(delay)
        code = await client.end(kind)
        if code is not None:
            codes[kind, code] += 1


@every_server
async def test_every_end_has_its_code_and_disturbs_no_other_client(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "websockets.client")
    chance = random.Random(1)
    codes: Counter[tuple[str, int]] = Counter()
    async with open_stream(
        Chatty(),
        serve=SERVERS[server],
        concurrency_limit=None,
        limits=Limits(stall=3.0, lag=None),
        request_limits=RequestLimits(client_requests=100_000, messages_per_second=5000),
    ) as (stream, url):
        async with open_client(url) as healthy:
            await wait_until(lambda: stream.active == 1)
            async with anyio.create_task_group() as tg:
                for number in range(CLIENTS):
                    kind = KINDS[number % len(KINDS)]
                    tg.start_soon(run_client, url, kind, chance.random() * 0.5, codes)
                    await anyio.sleep(0.005)
            await wait_until(lambda: stream.active == 1, "the end of the others", seconds=15)
            with anyio.fail_after(15):
                for _ in range(200):
                    assert (await healthy.read_frame())[0] == 1
            assert await healthy.end("close") == 1000
        await wait_until(lambda: stream.active == 0)
    print(server, sorted(codes.items()))
    wrong = {key: n for key, n in codes.items() if key[1] != CODES[key[0]]}
    assert wrong == {}
    texts = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert texts == []
    assert "could not be served" not in caplog.text
    assert "Traceback" not in caplog.text
