"""WebRTC calls through each ASGI server and framework."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from fastrtc_anyio.server.launch import open_server
from tests.kit.calls import make_stream, open_uvicorn, place_call
from tests.kit.measure import check_echo
from tests.kit.waiting import wait_until

APPLICATIONS = {"starlette": Starlette, "fastapi": FastAPI}


@pytest.mark.parametrize("path", ["", "/voice"])
@pytest.mark.parametrize("framework", APPLICATIONS)
async def test_call_through_built_in_server_echoes_and_closes_stream(
    framework: str, path: str
) -> None:
    await _check_call(APPLICATIONS[framework](), path, open_server)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("path", ["", "/voice"])
@pytest.mark.parametrize("framework", APPLICATIONS)
async def test_call_through_uvicorn_echoes_and_closes_stream(framework: str, path: str) -> None:
    await _check_call(APPLICATIONS[framework](), path, open_uvicorn)


async def _check_call(app: Any, path: str, serve: Any) -> None:
    stream = make_stream()
    stream.mount(app, path)
    seen = [stream.is_open]
    async with serve(app) as url:
        seen.append(stream.is_open)
        async with place_call(f"{url}{path}") as client:
            await wait_until(lambda: stream.active == 1)
            await check_echo(client)
        await wait_until(lambda: stream.active == 0)
    seen.append(stream.is_open)
    assert seen == [False, True, False]
