"""The end of a WebSocket under each server: closed by the client, or broken."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import BrokenResourceError, BusyResourceError
from anyio.lowlevel import checkpoint
from starlette.websockets import WebSocket

from fastrtc_anyio import CloseReason, RequestLimits
from fastrtc_anyio._wire.events import Framing, Start
from fastrtc_anyio._wire.fastrtc import FastRTCFraming
from fastrtc_anyio._wire.payload import MULAW_8K
from fastrtc_anyio._wire.twilio import TwilioFraming
from fastrtc_anyio.server.launch import open_server
from fastrtc_anyio.server.websockets import Socket
from tests.kit.calls import open_hypercorn, open_uvicorn, wait_ended
from tests.kit.handlers import Quiet
from tests.kit.waiting import wait_until
from tests.kit.websockets import Wire, open_wire

from .test_websocket import open_stream

START = Start("3f0c8e7a5d1b4296af7083c2de91b654", MULAW_8K, "CA1")
CLIENTS: dict[str, tuple[Callable[[], Framing], str]] = {
    "browser": (FastRTCFraming, "/websocket/offer"),
    "Twilio": (TwilioFraming, "/telephone/handler"),
}


SERVERS: dict[str, Any] = {
    "launch": open_server,
    "hypercorn": open_hypercorn,
    "uvicorn, websockets": partial(open_uvicorn, ws="websockets"),
    "uvicorn, websockets-sansio": partial(open_uvicorn, ws="websockets-sansio"),
    "uvicorn, wsproto": partial(open_uvicorn, ws="wsproto"),
}
every_server = pytest.mark.parametrize(
    ("anyio_backend", "server"),
    [("asyncio", server) for server in SERVERS]
    + [("trio", server) for server in SERVERS if "uvicorn" not in server],
    indirect=["anyio_backend"],
)
pytestmark = pytest.mark.filterwarnings(
    "ignore:The `websockets` implementation is deprecated",
    "ignore:websockets.*is deprecated",
    "ignore:remove second argument of ws_handler",
)


@asynccontextmanager
async def open_started(url: str, client: str = "browser") -> AsyncGenerator[Wire, None]:
    """Connect and send the start message of a client."""
    make_framing, path = CLIENTS[client]
    async with open_wire(url, path) as wire:
        text = make_framing().encode(START)
        assert text is not None
        await wire.send(text)
        yield wire


def ends(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [r for r in caplog.records if r.__dict__.get("event") == "session.ended"]
    return [record.getMessage() for record in records]


@every_server
@pytest.mark.parametrize("client", CLIENTS)
async def test_close_handshake_with_any_code_hangs_up(server: str, client: str) -> None:
    codes = (1000, 1001, 1002, 1008, 1011, 3000, 4999, None) if client == "browser" else (1000,)
    async with open_stream(Quiet(), serve=SERVERS[server]) as (stream, url):
        for code in codes:
            async with open_started(url, client) as wire:
                await wait_until(lambda: stream.active == 1)
                (session,) = stream.sessions.values()
                await wire.aclose(code)
                assert (code, await wait_ended(stream, session)) == (code, CloseReason.HUNG_UP)


@every_server
async def test_close_before_the_session_is_up_logs_no_warning(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "fastrtc_anyio")
    async with open_stream(Quiet(), serve=SERVERS[server]) as (_, url):
        for code in (1000, 1001, None):
            async with open_wire(url) as wire:
                await wire.aclose(code)
            async with open_started(url) as wire:
                await wire.aclose(code)
        await wait_until(lambda: len(ends(caplog)) == 3)
        assert all("hung_up" in text for text in ends(caplog))
    ours = [record for record in caplog.records if record.name == "fastrtc_anyio"]
    assert [record.getMessage() for record in ours if record.levelno >= logging.WARNING] == []


@every_server
async def test_broken_connection_fails_where_the_server_reports_it(server: str) -> None:
    tells = server in ("launch", "uvicorn, websockets")
    async with open_stream(Quiet(), serve=SERVERS[server]) as (stream, url):  # noqa: SIM117
        async with open_started(url) as wire:
            await wait_until(lambda: stream.active == 1)
            (session,) = stream.sessions.values()
            wire.abort()
            expected = CloseReason.PEER_FAILED if tells else CloseReason.HUNG_UP
            assert await wait_ended(stream, session) is expected


VIOLATIONS: dict[str, tuple[str | bytes, int]] = {
    "no payload": ('{"event": "media"}', 1008),
    "no base64": ('{"event": "media", "media": {"payload": "%%%"}}', 1008),
    "binary": (b"\0\0", 1008),
    "second start": (FastRTCFraming().encode(START) or "", 1008),
    "too long": ("x" * 300_000, 1009),
    "too long for the server": ("x" * 2_000_000, 1009),
}


@every_server
@pytest.mark.parametrize("client", CLIENTS)
async def test_violation_after_the_start_closes_with_its_code(server: str, client: str) -> None:
    async with open_stream(Quiet(), serve=SERVERS[server]) as (stream, url):
        for name, (message, code) in VIOLATIONS.items():
            async with open_started(url, client) as wire:
                await wait_until(lambda: stream.active == 1)
                (session,) = stream.sessions.values()
                await wire.send(message)
                assert (name, await wire.receive_end()) == (name, code)
                reason = await wait_ended(stream, session)
                if name == "too long for the server" and server == "hypercorn":
                    continue  # reports neither a code nor a reason
                assert (name, reason) == (name, CloseReason.PEER_FAILED)
                assert session.closed is not None
                assert "broke the protocol" in session.closed.message


@pytest.mark.parametrize(
    ("frame", "code"),
    [(b"\x81\x81\0\0\0\0\xff", 1007), (b"\x8b\x80\0\0\0\0", 1002), (b"\x81\x01a", 1002)],
    ids=["no UTF-8", "reserved", "no mask"],
)
async def test_malformed_frame_closes_with_the_code_of_rfc_6455(frame: bytes, code: int) -> None:
    async with open_stream(Quiet()) as (stream, url), open_started(url) as wire:
        await wait_until(lambda: stream.active == 1)
        (session,) = stream.sessions.values()
        wire.send_bytes(frame)
        assert await wire.receive_end() == code
        assert await wait_ended(stream, session) is CloseReason.PEER_FAILED


class StrictServer:
    """An ASGI ``send`` that fails like Hypercorn's on trio if two tasks call it at once."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self._busy = False

    async def send(self, message: Any) -> None:
        if self._busy:
            raise BusyResourceError("sending")
        self._busy = True
        await anyio.sleep(0.01)
        self._busy = False
        self.sent.append(message["type"])


async def receive_connect() -> Any:
    await checkpoint()
    return {"type": "websocket.connect"}


async def test_one_task_sends_at_a_time_and_nothing_follows_the_close() -> None:
    server = StrictServer()
    scope = {"type": "websocket", "headers": []}
    websocket = WebSocket(scope, receive_connect, server.send)
    await websocket.accept()
    socket = Socket(websocket, RequestLimits())

    async def send() -> None:
        with suppress(BrokenResourceError):
            await socket.send("x")

    async with anyio.create_task_group() as tg:
        for task in (send, send, socket.aclose, send, socket.aclose):
            tg.start_soon(task)
    assert server.sent[0] == "websocket.accept"
    assert server.sent.count("websocket.close") == 1
    assert server.sent[-1] == "websocket.close"


async def test_error_of_any_kind_breaks_the_socket_and_escapes_no_close() -> None:
    async def fail(message: Any) -> None:
        await checkpoint()
        if message["type"] != "websocket.accept":
            raise BusyResourceError("sending")

    websocket = WebSocket({"type": "websocket", "headers": []}, receive_connect, fail)
    await websocket.accept()
    socket = Socket(websocket, RequestLimits())
    with pytest.raises(BrokenResourceError):
        await socket.send("x")
    with pytest.raises(BrokenResourceError):
        await socket.aclose()


async def test_stopping_server_closes_with_1000_in_a_session_and_1001_before_it() -> None:
    codes = dict[str, int]()

    async with anyio.create_task_group() as tg, open_stream(Quiet()) as (stream, url):
        waiting, started = anyio.Event(), anyio.Event()

        async def read_code(name: str, opened: Any, ready: anyio.Event) -> None:
            async with opened as wire:
                ready.set()
                codes[name] = await wire.receive_end()

        tg.start_soon(read_code, "before", open_wire(url), waiting)
        tg.start_soon(read_code, "session", open_started(url), started)
        await waiting.wait()
        await started.wait()
        await wait_until(lambda: stream.active == 1)
    assert codes == {"before": 1001, "session": 1000}
