"""Plain functions of the application run on a bounded number of threads."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette

from fastrtc_anyio import Overloaded
from fastrtc_anyio._user_code import MAX_CALLS, call_user_function
from tests.kit.backends import anyio_backend as anyio_backend
from tests.kit.calls import make_stream
from tests.kit.waiting import wait_until


class Slow:
    """A plain function that returns once it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self, *_args: object) -> bool:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.release.wait(30)
        with self._lock:
            self.running -= 1
        return False


@asynccontextmanager
async def open_http(**options: Any) -> AsyncGenerator[httpx.AsyncClient, None]:
    app = Starlette()
    stream = make_stream(**options)
    stream.mount(app)
    async with (
        stream,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as http,
    ):
        yield http


async def test_excess_requests_to_authenticate_wait_or_are_503s() -> None:
    slow, statuses = Slow(), list[int]()

    async def request(http: httpx.AsyncClient) -> None:
        reply = await http.get("/webrtc/config")
        statuses.append(reply.status_code)
        if reply.status_code == 503:
            assert int(reply.headers["retry-after"]) == 10
            assert "functions of the application are running" in reply.text

    async with open_http(authenticate=slow) as http, anyio.create_task_group() as tg:
        for _ in range(MAX_CALLS + 400 + 25):
            tg.start_soon(request, http)
        await wait_until(lambda: statuses.count(503) == 25 and slow.running == MAX_CALLS)
        slow.release.set()
    assert statuses.count(401) == MAX_CALLS + 400
    assert slow.most == MAX_CALLS


async def test_abandoned_call_occupies_its_thread_until_it_returns() -> None:
    slow = Slow()
    async with anyio.create_task_group() as tg:
        for _ in range(MAX_CALLS):
            tg.start_soon(call_user_function, slow)
        await wait_until(lambda: slow.running == MAX_CALLS)
        tg.cancel_scope.cancel()
    with anyio.move_on_after(0.1) as scope:
        await call_user_function(int)
    assert scope.cancelled_caught
    slow.release.set()
    assert await call_user_function(int) == 0


async def test_call_waits_for_a_thread_for_a_limited_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastrtc_anyio._user_code._MAX_WAIT", 0.1)
    slow = Slow()
    async with anyio.create_task_group() as tg:
        for _ in range(MAX_CALLS):
            tg.start_soon(call_user_function, slow)
        await wait_until(lambda: slow.running == MAX_CALLS)
        with pytest.raises(Overloaded, match=r"none has returned within 0\.1 s"):
            await call_user_function(int)
        slow.release.set()


@pytest.mark.parametrize("plain", [True, False])
async def test_authenticate_has_a_deadline(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrtc_anyio.server.access._VERDICT_SECONDS", 0.1)
    slow = Slow()

    async def wait_for_ever(_connection: object) -> bool:
        await checkpoint()
        await anyio.sleep_forever()
        return True

    async with open_http(authenticate=slow if plain else wait_for_ever) as http:
        reply = await http.get("/webrtc/config")
        assert (reply.status_code, "retry-after" in reply.headers) == (503, True)
        assert "authenticate did not return within 0.1 s" in reply.text
        slow.release.set()
