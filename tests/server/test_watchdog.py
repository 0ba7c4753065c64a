"""Handlers that block the event loop are named, with real threads and loops."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from anyio import create_task_group
from fastapi import FastAPI
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route

from fastrtc_anyio import Limits, ReplyOnPause, Session
from fastrtc_anyio._core.watchdog import watch_loop
from fastrtc_anyio.server import open_server
from fastrtc_anyio.testing import open_call, tone
from tests.kit.calls import make_stream, open_hypercorn, open_uvicorn
from tests.kit.conversations import LoudVad, voice
from tests.kit.handlers import Quiet, SyncQuiet
from tests.kit.waiting import wait_until

from .test_health import open_session

SECONDS = 0.7
"""For which the loop is blocked."""


def block() -> None:
    time.sleep(SECONDS)


def named(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [one for one in caplog.records if one.__dict__.get("event") == "loop.blocked"]


async def block_in_task() -> None:
    await anyio.sleep(0.01)
    block()


class BlockingReceive(Quiet):
    async def receive(self, frame: Any) -> None:
        block()


class BlockingEmit(Quiet):
    async def emit(self) -> Any:
        await anyio.sleep(0.01)
        block()
        await anyio.sleep_forever()


class BlockingChild(Quiet):
    async def start_up(self) -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(block_in_task)


class BlockingMessage(Quiet):
    async def on_message(self, message: str) -> None:
        block()


class BlockingShutdown(Quiet):
    async def shutdown(self) -> None:
        block()


async def blocking_function(session: Session) -> None:
    await anyio.sleep(0.01)
    block()
    await anyio.sleep_forever()


async def block_in_reply(audio: Any) -> AsyncGenerator[Any, None]:
    block()
    yield 24_000, tone(440, 24_000, 0.1)


async def block_in_filter(frame: Any) -> Any:
    block()
    return frame


def blocking_agent() -> ReplyOnPause:
    return ReplyOnPause(block_in_reply, input_sample_rate=16_000, model=LoudVad())


CASES: list[tuple[Callable[[], Any], str, str]] = [
    # handler, named function, modality
    (BlockingReceive, "BlockingReceive.receive", "audio"),
    (BlockingEmit, "BlockingEmit.emit", "audio"),
    (BlockingChild, "block_in_task", "audio"),
    (BlockingMessage, "BlockingMessage.on_message", "audio"),
    (BlockingShutdown, "BlockingShutdown.shutdown", "audio"),
    (lambda: blocking_function, "blocking_function", "audio"),
    (blocking_agent, "block_in_reply", "audio"),
    (lambda: block_in_filter, "block_in_filter", "video"),
]


@pytest.mark.parametrize(("make", "function", "modality"), CASES, ids=[c[1] for c in CASES])
async def test_code_that_blocks_the_loop_is_named(
    make: Callable[[], Any], function: str, modality: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with watch_loop(0.2):
        async with open_call(Quiet()) as innocent, open_call(make(), modality=modality) as call:
            call.client.send_message("hello")
            if modality == "video":
                call.client.send_video(np.zeros((8, 8, 3), np.uint8))
            elif make is blocking_agent:
                await call.speak(voice(1), 16_000)
                await call.speak(0 * voice(1.5), 16_000)
            else:
                await call.speak(tone(440, 48_000, 0.04))
            await anyio.sleep(0.1)
    (record,) = named(caplog)
    assert record.session_id == call.session.log_id != innocent.session.log_id
    first, *stack = record.getMessage().split("\n")
    assert first.startswith(f"session {call.session.log_id}: {function} has blocked the event loop")
    (milliseconds,) = map(int, re.findall(r"(\d+) ms", first))
    assert 200 <= milliseconds <= 1000 * SECONDS
    assert any("block()" in line for line in stack) or function == "block_in_task"
    assert "time.sleep(SECONDS)" in stack[-1]
    assert "loop.blocked" in [noted.event for noted in call.session.log.recent]


async def test_session_of_a_stream_is_named_once_and_before_the_block_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found: list[bool] = []
    calls = 0

    def block_until_named() -> bool:
        began = time.monotonic()
        while not named(caplog) and time.monotonic() < began + 10:
            time.sleep(0.01)  # the record comes from another thread
        return bool(named(caplog))

    async def serve(session: Session) -> None:
        nonlocal calls
        for _ in range(2):
            await anyio.sleep(0.01)
            found.append(block_until_named())
            block()
            calls += 1
        await anyio.sleep_forever()

    stream = make_stream(serve)
    async with stream, open_session(stream) as session:
        await wait_until(lambda: calls == 2)
    assert found == [True, True]
    (record,) = named(caplog)
    assert record.session_id == session.log_id


async def block_in_authenticate(_connection: HTTPConnection) -> str:
    await anyio.lowlevel.checkpoint()
    block()
    return "ada"


async def block_in_client_key(_connection: HTTPConnection) -> str:
    await anyio.lowlevel.checkpoint()
    block()
    return "key"


async def pass_on(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


async def block_in_endpoint(_request: Request) -> Response:
    await anyio.lowlevel.checkpoint()
    block()
    return Response()


@pytest.mark.parametrize("server", [open_server, open_hypercorn, open_uvicorn])
async def test_functions_outside_of_sessions_are_named_under_every_server(
    server: Any, anyio_backend_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    if server is open_uvicorn and anyio_backend_name == "trio":
        pytest.skip("uvicorn runs on asyncio")
    app = FastAPI(routes=[Route("/own", block_in_endpoint)])
    app.middleware("http")(pass_on)  # runs the rest in another task
    stream = make_stream(
        Quiet,
        authenticate=block_in_authenticate,
        client_key=block_in_client_key,
        limits=Limits(),
    )
    stream.mount(app)
    async with httpx.AsyncClient() as http, stream, server(app) as url:
        await wait_until(lambda: stream.is_open)
        for path in ("/own", "/webrtc/config"):
            assert (await http.get(f"{url}{path}")).status_code == 200
    messages = [record.getMessage().split("\n") for record in named(caplog)]
    # Others may block for as long, such as libraries that are loaded.
    found = [(text.split()[0], stack) for text, *stack in messages if text.startswith("block_in_")]
    functions = [block_in_endpoint, block_in_client_key, block_in_authenticate]
    assert [name for name, _ in found] == [function.__name__ for function in functions]
    for name, stack in found:
        assert stack[0].endswith(f"in {name}"), "the stack begins with the function"


async def test_plain_methods_block_their_threads_only(caplog: pytest.LogCaptureFixture) -> None:
    class Blocking(SyncQuiet):
        def receive(self, frame: Any) -> None:
            time.sleep(0.5)

    stream = make_stream(Blocking)
    async with stream, open_session(stream):
        await anyio.sleep(0.7)
    assert named(caplog) == []


async def test_loop_that_is_busy_with_many_sessions_names_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The loop is late by much more than the limit, but each step of it is short."""

    async def serve(session: Session) -> None:
        while True:
            due = time.monotonic() + 0.01
            while time.monotonic() < due:
                pass
            await anyio.lowlevel.checkpoint()

    with watch_loop(0.2):
        with anyio.move_on_after(2):
            async with create_task_group() as tasks:

                async def call() -> None:
                    async with open_call(serve):
                        await anyio.sleep_forever()

                for _ in range(40):
                    tasks.start_soon(call)
                await anyio.sleep_forever()
    assert named(caplog) == []


@pytest.mark.parametrize("options", [{"limits": Limits(block=None)}])
async def test_stream_without_the_limit_has_no_watchdog(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    stream = make_stream(BlockingEmit, **options)
    async with stream, open_session(stream):
        names = {thread.name for thread in threading.enumerate()}
        assert "fastrtc-watchdog" not in names
        await anyio.sleep(SECONDS + 0.3)
    assert named(caplog) == []


async def test_watchdog_ends_with_the_last_stream() -> None:
    def names() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name == "fastrtc-watchdog"]

    async with make_stream(Quiet), make_stream(Quiet):
        assert names() == ["fastrtc-watchdog"]
    await wait_until(lambda: names() == [])


SUSPENDED = """
import logging, sys, time
import anyio
from fastrtc_anyio._core.watchdog import watch_loop
from fastrtc_anyio.server import open_server
from fastrtc_anyio.testing import open_call

logging.basicConfig(level=logging.WARNING)

async def serve(session):
    while True:
        due = time.monotonic() + 0.05
        while time.monotonic() < due:
            pass
        await anyio.lowlevel.checkpoint()

async def main():
    with watch_loop(0.2):
        async with open_call(serve):
            print("ready", flush=True)
            await anyio.sleep(2)

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP")
async def test_suspended_process_names_no_code(anyio_backend_name: str) -> None:
    command = [sys.executable, "-c", SUSPENDED, anyio_backend_name]
    async with await anyio.open_process(command, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"ready" in await process.stdout.receive()
        for _ in range(3):
            os.kill(process.pid, signal.SIGSTOP)
            await anyio.sleep(0.7)
            os.kill(process.pid, signal.SIGCONT)
            await anyio.sleep(0.3)
        log = b"".join([chunk async for chunk in process.stderr])
    assert log == b""
    assert process.returncode == 0
