"""Requests that pass from a server's event loop to an application in another thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, get_cancelled_exc_class
from anyio.from_thread import BlockingPortal
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.host import Host
from fastrtc_anyio.cluster._app_thread import AppThread
from tests.kit.backends import anyio_backend  # noqa: F401
from tests.kit.waiting import wait_until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not hasattr(BlockingPortal, "call_async"), reason="the extra ray needs anyio 4.16"
    ),
    pytest.mark.parametrize("backend", ["trio", "asyncio"]),
]
SCOPE = {"type": "http", "path": "/"}


@asynccontextmanager
async def open_thread(
    app: Callable[..., Awaitable[None]], backend: str, noted: list[str] | None = None
) -> AsyncGenerator[AppThread, None]:
    noted = [] if noted is None else noted

    @asynccontextmanager
    async def open_app() -> AsyncGenerator[Any, None]:
        noted.append(f"opened on {'trio' if Host().asyncio_loop is None else 'asyncio'}")
        yield app
        noted.append("closed")

    thread = AppThread(open_app, backend)
    await thread.start()
    async with live(thread):
        yield thread


@asynccontextmanager
async def live(thread: AppThread) -> AsyncGenerator[Client, None]:
    """Run the lifespan of the server."""
    server = Client({"type": "lifespan.startup"})
    async with create_task_group() as tasks:
        tasks.start_soon(thread, {"type": "lifespan"}, server.receive, server.send)
        await wait_until(lambda: server.sent == [{"type": "lifespan.startup.complete"}])
        yield server
        server.put({"type": "lifespan.shutdown"})
    assert server.sent[-1] == {"type": "lifespan.shutdown.complete"}


class Client:
    """The server's side of a request."""

    def __init__(self, *messages: Any) -> None:
        self._queue = list(messages)
        self._put = anyio.Event()
        self.sent: list[Any] = []
        self.waiting = 0
        self.taken = anyio.Semaphore(1_000)
        self._thread = threading.get_ident()

    def put(self, message: Any) -> None:
        self._queue.append(message)
        self._put.set()

    async def receive(self) -> Any:
        assert threading.get_ident() == self._thread
        await checkpoint()
        self.waiting += 1
        try:
            while not self._queue:
                self._put = anyio.Event()
                await self._put.wait()
        finally:
            self.waiting -= 1
        return self._queue.pop(0)

    async def send(self, message: Any) -> None:
        assert threading.get_ident() == self._thread
        await self.taken.acquire()
        self.sent.append(message)


async def test_application_runs_on_its_own_event_loop(backend: str) -> None:
    noted: list[str] = []
    home = threading.get_ident()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert threading.get_ident() != home
        scope["changed"] = True
        noted.append(str((await receive())["body"]))
        await send({"type": "http.response.start", "status": 204})

    client = Client({"type": "http.request", "body": b"x"})
    async with open_thread(app, backend, noted) as thread:
        scope = dict(SCOPE)
        await thread(scope, client.receive, client.send)
        assert scope == SCOPE
        await thread.check()
    assert client.sent == [{"type": "http.response.start", "status": 204}]
    assert noted == [f"opened on {backend}", "b'x'", "closed"]


async def test_application_waits_until_the_server_takes_a_message(backend: str) -> None:
    begun: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for number in range(5):
            begun.append(number)
            await send(number)

    client = Client()
    client.taken = anyio.Semaphore(2)
    async with open_thread(app, backend) as thread, create_task_group() as tasks:
        tasks.start_soon(thread, SCOPE, client.receive, client.send)
        await wait_until(lambda: begun == [0, 1, 2])
        assert client.sent == [0, 1]
        for _ in range(3):
            client.taken.release()
    assert client.sent == [0, 1, 2, 3, 4]


async def test_messages_go_both_ways_at_the_same_time(backend: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def count() -> None:
            for number in range(100):
                await send(number)

        async with create_task_group() as tasks:
            tasks.start_soon(count)
            while (message := await receive())["type"] != "websocket.disconnect":
                await send(message["text"])

    texts = [f"text {number}" for number in range(40)]
    client = Client(*({"type": "websocket.receive", "text": text} for text in texts))
    client.put({"type": "websocket.disconnect"})
    async with open_thread(app, backend) as thread:
        await thread({"type": "websocket"}, client.receive, client.send)
    assert [one for one in client.sent if isinstance(one, str)] == texts
    assert [one for one in client.sent if isinstance(one, int)] == list(range(100))


async def test_cancelled_request_is_cancelled_in_the_application(backend: str) -> None:
    noted: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
        finally:
            with CancelScope(shield=True):
                await anyio.sleep(0.01)
                noted.append("cleaned up")

    client = Client()
    async with open_thread(app, backend) as thread:
        async with create_task_group() as tasks:
            tasks.start_soon(thread, SCOPE, client.receive, client.send)
            await wait_until(lambda: client.waiting == 1)
            tasks.cancel_scope.cancel()
        assert noted == ["cleaned up"]
        assert client.waiting == 0


async def test_error_beside_a_cancellation_ends_its_request_only(backend: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(send, "any")
            tasks.start_soon(receive)

    client = Client()
    other = Client()
    failures: list[BaseException] = []

    async def send(message: Any) -> Any:
        try:
            await anyio.sleep_forever()
        except get_cancelled_exc_class():
            raise OSError("the client has gone") from None

    async def request(thread: AppThread) -> None:
        try:
            await thread(SCOPE, client.receive, send)
        except BaseException as exc:
            failures.append(exc)
            raise

    async with open_thread(app, backend) as thread, create_task_group() as others:
        others.start_soon(thread, SCOPE, other.receive, send)
        async with create_task_group() as tasks:
            tasks.start_soon(request, thread)
            await wait_until(lambda: client.waiting == other.waiting == 1)
            tasks.cancel_scope.cancel()
        await thread.check()
        assert other.waiting == 1
        others.cancel_scope.cancel()
    assert [type(one) for one in failures] == [get_cancelled_exc_class()]


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_error_of_the_servers_receive_is_a_disconnect(backend: str, kind: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(await receive())

    async def receive() -> Any:
        raise RuntimeError("the request is not known any more")

    client = Client()
    async with open_thread(app, backend) as thread:
        await thread({"type": kind}, receive, client.send)
    code = {"code": 1006} if kind == "websocket" else {}
    assert client.sent == [{"type": f"{kind}.disconnect", **code}]


async def test_cancelled_receive_loses_no_message(backend: str) -> None:
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def note() -> None:
            received.append(await receive())

        for number in range(100):
            async with create_task_group() as tasks:  # as a response that watches its client
                tasks.start_soon(note)
                await send(number)
                tasks.cancel_scope.cancel()
        while len(received) < 100:
            await note()

    client = Client()

    async def send(message: Any) -> None:
        client.put(message)

    async with open_thread(app, backend) as thread:
        with anyio.fail_after(10):
            await thread(SCOPE, client.receive, send)
    assert received == list(range(100))


async def test_server_and_application_see_the_errors_of_each_other(backend: str) -> None:
    noted: list[Exception] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send("any")
        except OSError as exc:
            noted.append(exc)
        raise ValueError("of the application")

    async def fail(message: Any) -> None:
        raise OSError("the client has gone")

    client = Client()
    async with open_thread(app, backend) as thread:
        with pytest.raises(ValueError, match="of the application"):
            await thread(SCOPE, client.receive, fail)
        await thread.check()
    assert [str(exc) for exc in noted] == ["the client has gone"]


async def test_requests_that_have_not_ended_are_cancelled_at_the_end(backend: str) -> None:
    noted: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
        finally:
            noted.append("cancelled")

    client = Client()
    failures: list[BaseException] = []

    async def request(thread: AppThread) -> None:
        try:
            await thread(SCOPE, client.receive, client.send)
        except Exception as exc:
            failures.append(exc)

    async with create_task_group() as tasks, open_thread(app, backend, noted) as thread:
        tasks.start_soon(request, thread)
        await wait_until(lambda: client.waiting == 1)
    assert noted[1:] == ["closed", "cancelled"]
    assert len(failures) == 1
    assert client.waiting == 0


async def test_end_of_the_lifespan_waits_for_the_application(backend: str) -> None:
    may_end = threading.Event()
    ended: list[str] = []

    @asynccontextmanager
    async def open_app() -> AsyncGenerator[Any, None]:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send("served")

        yield app
        while not may_end.is_set():
            await anyio.sleep(0.01)
        ended.append("closed")

    thread = AppThread(open_app, backend)
    await thread.start()
    client = Client()
    async with live(thread) as server:
        server.put({"type": "lifespan.shutdown"})
        for _ in range(20):  # requests go on while it drains
            await thread(SCOPE, client.receive, client.send)
        assert not ended
        may_end.set()
        await wait_until(lambda: bool(ended))
    with pytest.raises(RuntimeError, match="does not run"):
        await thread(SCOPE, client.receive, client.send)
    await thread.stop()


async def test_error_of_the_opening_is_raised_and_the_thread_ends(backend: str) -> None:
    threads = threading.active_count()

    @asynccontextmanager
    async def open_app() -> AsyncGenerator[Any, None]:
        if backend:
            raise ValueError("the model is missing")
        yield

    thread = AppThread(open_app, backend)
    with pytest.raises(ValueError, match="the model is missing"):
        await thread.start()
    with pytest.raises(RuntimeError, match="does not run"):
        await thread.check()
    # anyio keeps the thread that has waited.
    assert threading.active_count() <= threads + 1


async def test_check_fails_once_the_application_has_failed(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def open_app() -> AsyncGenerator[Any, None]:
        async def fail() -> None:
            await failing.wait()
            raise ValueError("out of order")

        failing = anyio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            failing.set()

        async with create_task_group() as tasks:
            tasks.start_soon(fail)
            yield app

    client = Client()
    thread = AppThread(open_app, backend)
    await thread.start()
    async with live(thread):
        await thread.check()
        with caplog.at_level(logging.ERROR):
            await thread(SCOPE, client.receive, client.send)
            await wait_until(lambda: "the application has failed" in caplog.text)
        with pytest.raises(RuntimeError, match="the application has ended"):
            await thread.check()


async def test_check_waits_for_an_event_loop_that_is_blocked(backend: str) -> None:
    is_blocked, go_on = threading.Event(), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        is_blocked.set()
        go_on.wait()

    client = Client()
    async with open_thread(app, backend) as thread, create_task_group() as tasks:
        tasks.start_soon(thread, SCOPE, client.receive, client.send)
        await wait_until(is_blocked.is_set)
        with anyio.move_on_after(0.2) as waited:
            await thread.check()
        assert waited.cancelled_caught
        go_on.set()
        await thread.check()
