"""Applications under the built-in server notice that their client has gone."""

from __future__ import annotations

import anyio
import pytest
from anyio.abc import SocketStream
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from fastrtc_anyio.server import _sockets
from fastrtc_anyio.server.launch import open_server
from tests.kit.waiting import wait_until

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Streaming:
    """Sends a response without an end, until the client has gone."""

    def __init__(self, part: int = 1, receivers: int = 1) -> None:
        self.part, self.receivers = bytes(part), receivers
        self.begun = self.gone = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        await receive()  # the request
        async with anyio.create_task_group() as tasks:
            for _ in range(self.receivers):
                tasks.start_soon(self._listen, receive)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while self.gone < self.receivers:
                await send({"type": "http.response.body", "body": self.part, "more_body": True})
                self.begun = True
                await anyio.sleep(0.01)

    async def _listen(self, receive: Receive) -> None:
        message = await receive()
        assert message["type"] == "http.disconnect"
        self.gone += 1


async def connect(url: str) -> SocketStream:
    return await anyio.connect_tcp("127.0.0.1", int(url.rpartition(":")[2]))


@pytest.mark.parametrize("receivers", [1, 3])
@pytest.mark.parametrize("pipelined", [0, 200_000])
async def test_client_that_goes_is_noticed(receivers: int, pipelined: int) -> None:
    app = Streaming(receivers=receivers)
    async with open_server(app) as url:
        async with await connect(url) as client:
            await client.send(REQUEST + REQUEST * (pipelined // len(REQUEST)))
            await wait_until(lambda: bool(app.begun))
        await wait_until(lambda: app.gone == receivers)


async def test_client_that_reads_nothing_counts_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sockets, "_STALL", 0.1)
    app = Streaming(part=1_000_000)
    async with open_server(app) as url, await connect(url) as client:
        await client.send(REQUEST)
        await wait_until(lambda: bool(app.gone))


async def test_is_disconnected_notices_the_end_of_the_client() -> None:
    verdicts: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        request = Request(scope, receive)
        await request.body()
        while not any(verdicts):
            verdicts.append(await request.is_disconnected())
            await anyio.sleep(0.01)

    async with open_server(app) as url:
        async with await connect(url) as client:
            await client.send(REQUEST)
            await wait_until(lambda: bool(verdicts))
            assert verdicts == [False] * len(verdicts)
        await wait_until(lambda: verdicts[-1])


@pytest.mark.parametrize("stays", [True, False])
async def test_background_task_delays_no_request(stays: bool) -> None:
    release, ended = anyio.Event(), anyio.Event()

    async def work() -> None:
        await release.wait()
        ended.set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            task = BackgroundTask(work) if scope["path"] == "/work" else None
            await PlainTextResponse("answer", background=task)(scope, receive, send)

    async with open_server(app) as url:
        async with await connect(url) as client:
            for request in (REQUEST.replace(b"/", b"/work", 1), REQUEST):
                await client.send(request)
                received = b""
                with anyio.fail_after(5):
                    while not received.endswith(b"answer"):
                        received += await client.receive()
            if stays:
                release.set()
                await wait_until(ended.is_set)
        release.set()
        await wait_until(ended.is_set)  # also after its client has gone


async def test_stopping_server_cancels_background_tasks() -> None:
    cancelled = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                await PlainTextResponse("answer")(scope, receive, send)
                await anyio.sleep_forever()
            finally:
                cancelled.set()

    async with open_server(app) as url, await connect(url) as client:
        await client.send(REQUEST)
        await client.receive()
    assert cancelled.is_set()
