"""A process of a cluster whose requests of clients come from another server."""

from __future__ import annotations

import logging
import secrets
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from anyio import create_task_group
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fastrtc_anyio import MemoryStore, Stream, TelephoneOptions
from fastrtc_anyio.cluster import MemoryDirectory
from fastrtc_anyio.cluster._process import Built, Process
from tests.kit.backends import anyio_backend  # noqa: F401
from tests.kit.calls import make_stream
from tests.kit.switchboards import SECRET
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.anyio
KEY = b64encode(bytes(range(32))).decode()


def build() -> Built:
    """An application with a state, and a stream in it."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, object]]:
        yield {"model": "loaded"}

    async def state(request: Request) -> Response:
        return JSONResponse({"model": request.state.model})

    app = Starlette(routes=[Route("/state", state)], lifespan=lifespan)
    stream = make_stream()
    stream.mount(app)
    return app, stream


@asynccontextmanager
async def open_processes(
    directory: MemoryDirectory, *names: str
) -> AsyncGenerator[list[tuple[httpx.AsyncClient, Stream]], None]:
    async with create_task_group() as tasks:
        yield [await tasks.start(_run, directory, name) for name in names]
        tasks.cancel_scope.cancel()


async def _run(directory: MemoryDirectory, name: str, *, task_status: Any) -> None:
    streams: list[Stream] = []
    async with (
        Process(build, name, "127.0.0.1", 60).open(directory, SECRET, streams) as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http,
    ):
        task_status.started((http, streams[0]))
        await anyio.sleep_forever()


async def test_forwarded_requests_have_the_state_of_the_lifespan() -> None:
    directory = MemoryDirectory()
    async with open_processes(directory, "one", "two") as ((one, stream), (two, _)):
        assert [entry.owner for entry in await directory.list_processes()] == ["one", "two"]
        assert stream.store is directory
        webrtc_id = secrets.token_hex(8)
        assert stream.claims is not None
        await stream.claims.claim(webrtc_id, "one." + secrets.token_urlsafe(16))
        for http in (one, two):
            reply = await http.get(f"/state?webrtc_id={webrtc_id}")
            assert reply.json() == {"model": "loaded"}
            assert (await http.get(f"/sessions/{webrtc_id}")).status_code == 404
    assert await directory.list_processes() == []


async def test_end_of_the_block_drains_and_leaves(caplog: pytest.LogCaptureFixture) -> None:
    directory = MemoryDirectory()
    streams: list[Stream] = []
    with caplog.at_level(logging.INFO):
        async with Process(build, "one", "127.0.0.1", 60).open(directory, SECRET, streams):
            assert not streams[0].is_draining
    assert "draining: sessions left: 0; drain_timeout: 60 s" in caplog.text
    assert await directory.list_processes() == []
    assert not streams[0].is_open


async def test_process_drains_as_soon_as_it_is_asked() -> None:
    asked: list[bool] = []
    streams: list[Stream] = []
    process = Process(build, "one", "127.0.0.1", 60, lambda: bool(asked))
    async with process.open(MemoryDirectory(), SECRET, streams):
        asked.append(True)
        await wait_until(lambda: streams[0].is_draining)


class OwnStore(MemoryStore):
    """A store that a program has chosen."""


def build_telephone() -> Stream:
    return make_stream(telephone=TelephoneOptions(telnyx_public_key=KEY))


def build_own() -> Stream:
    options = TelephoneOptions(telnyx_public_key=KEY, secret="of the program")
    stream = make_stream(telephone=options)
    stream.store = OwnStore()
    return stream


@pytest.mark.parametrize(
    ("build", "secret", "store"),
    [(build_telephone, SECRET, MemoryDirectory), (build_own, "of the program", OwnStore)],
)
async def test_stream_shares_what_the_program_has_not_chosen(
    build: Any, secret: str, store: type
) -> None:
    streams: list[Stream] = []
    async with Process(build, "one", "127.0.0.1", 60).open(MemoryDirectory(), SECRET, streams):
        assert streams[0].telephone.secret == secret
        assert type(streams[0].store) is store


@pytest.mark.parametrize("built", [None, Starlette(), (make_stream(), Starlette()), "stream"])
async def test_other_results_of_build_are_refused(built: Any) -> None:
    process = Process(lambda: built, "one", "127.0.0.1", 60)
    with pytest.raises(TypeError, match=r"build must return a Stream, or .*; got "):
        async with process.open(MemoryDirectory(), SECRET, []):
            pass
