"""The directory of workers, at a port that every program of the machine can reach."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import BrokenResourceError, create_task_group

from fastrtc_anyio.cluster import Location, MemoryDirectory, _remote
from fastrtc_anyio.cluster._remote import RemoteDirectory, serve_directory
from tests.kit.backends import anyio_backend  # noqa: F401

pytestmark = pytest.mark.anyio
HERE = Location("one", "http://127.0.0.1:1")


@asynccontextmanager
async def open_directory() -> AsyncGenerator[int, None]:
    async with create_task_group() as tasks:
        yield await tasks.start(serve_directory, MemoryDirectory(), "secret")
        tasks.cancel_scope.cancel()


async def test_strangers_keep_no_process_out(caplog: pytest.LogCaptureFixture) -> None:
    async with open_directory() as port, AsyncExitStack() as stack:
        for number in range(300):
            stranger = await stack.enter_async_context(await anyio.connect_tcp("127.0.0.1", port))
            if number % 3:
                await stranger.send([b'["secret', b"\xff\n"][number % 2])
        directory = RemoteDirectory(port, "secret")
        with anyio.fail_after(4):
            await directory.join(*HERE)
            assert await directory.list_processes() == [HERE]
    assert not caplog.records


@pytest.mark.parametrize(
    "line",
    [b"5", b"{}", b"[]", b'["wrong","list"]', b"[" * 100_000, b"\xff", b"x" * 300_000],
    ids=lambda line: str(line[:9]),
)
async def test_strangers_learn_nothing(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with open_directory() as port, await anyio.connect_tcp("127.0.0.1", port) as stranger:
        with anyio.fail_after(4), pytest.raises((anyio.EndOfStream, BrokenResourceError)):
            await stranger.send(line + b"\n")
            await stranger.receive()
    assert not caplog.records


async def test_finders_wait_for_longer_than_a_request_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_remote, "_READ_SECONDS", 0.2)
    async with open_directory() as port:
        assert await RemoteDirectory(port, "secret").find("a", 0.5) is None


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "too many"), BrokenResourceError()])
async def test_directory_that_cannot_accept_a_connection_goes_on(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    create = anyio.create_tcp_listener

    async def create_failing(**options: Any) -> Any:
        listener: Any = await create(**options)
        serve = listener.serve
        errors = [error]

        async def serve_later(*arguments: Any) -> None:
            if errors:
                raise errors.pop()
            await serve(*arguments)

        monkeypatch.setattr(listener, "serve", serve_later)
        return listener

    monkeypatch.setattr(anyio, "create_tcp_listener", create_failing)
    async with open_directory() as port:
        with anyio.fail_after(4):
            await RemoteDirectory(port, "secret").join(*HERE)
    (record,) = caplog.records
    assert getattr(record, "event", None) == "server.accept_failed"
