"""Mounting: paths of the endpoints, and the lifespan that opens the stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from fastrtc_anyio.server.launch import open_server
from fastrtc_anyio.server.routes import page_route
from tests.kit.calls import make_stream, place_call, post
from tests.kit.measure import check_echo
from tests.kit.waiting import wait_until


async def test_stream_in_nested_application_is_not_open() -> None:
    stream, inner = make_stream(), Starlette()
    stream.mount(inner)
    async with open_server(Starlette(routes=[Mount("/inner", inner)])) as url:
        reply = await post(f"{url}/inner", {"type": "offer", "sdp": "v=0"})
    assert reply.status_code == 503
    assert reply.json()["status"] == "failed"
    assert "`async with stream:`" in reply.json()["meta"]["error"]
    assert "lifespan" in reply.json()["meta"]["error"]


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_stream_in_nested_application_opens_in_outermost_lifespan(framework: Any) -> None:
    stream, inner = make_stream(), framework()
    stream.mount(inner)

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncGenerator[None, None]:
        async with stream:
            yield

    root = framework(lifespan=lifespan)
    root.mount("/inner", inner)
    async with open_server(root) as url:
        async with place_call(f"{url}/inner") as client:
            await check_echo(client)
        await wait_until(lambda: stream.active == 0)
    assert not stream.is_open


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_application_lifespan_encloses_stream(framework: Any) -> None:
    stream = make_stream()
    seen: list[tuple[str, bool]] = []

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncGenerator[dict[str, str], None]:
        seen.append(("up", stream.is_open))
        yield {"greeting": "hello"}
        seen.append(("down", stream.is_open))

    async def greet(request: Request) -> Response:
        return PlainTextResponse(request.state.greeting)

    app = framework(lifespan=lifespan)
    app.router.routes.append(Route("/greet", greet))
    stream.mount(app)
    async with open_server(app) as url, httpx.AsyncClient() as http:
        assert (await http.get(f"{url}/greet")).text == "hello"
        assert stream.is_open
    # Resources of the application outlive every session.
    assert seen == [("up", False), ("down", False)]
    assert not stream.is_open


async def test_two_streams_share_one_application() -> None:
    one, other, app = make_stream(), make_stream(), Starlette()
    one.mount(app, "/one")
    other.mount(app, "/other/")
    async with open_server(app) as url:
        async with place_call(f"{url}/one"), place_call(f"{url}/other"):
            await wait_until(lambda: (one.active, other.active) == (1, 1))
        assert (await post(url, {})).status_code == 404


async def test_openapi_schema_contains_offer_endpoint() -> None:
    app = FastAPI()
    make_stream().mount(app, "/voice", tags=["calls"])
    async with open_server(app) as url, httpx.AsyncClient() as http:
        schema = (await http.get(f"{url}/openapi.json")).json()
    assert schema["paths"]["/voice/webrtc/offer"]["post"]["tags"] == ["calls"]


def test_mount_path_without_slash_raises() -> None:
    with pytest.raises(ValueError, match="must be empty or begin with"):
        make_stream().mount(Starlette(), "voice")


async def test_page_route_serves_html_at_its_path() -> None:
    app = Starlette(routes=[page_route(), page_route("/talk")])
    async with open_server(app) as url, httpx.AsyncClient() as http:
        for path in ("/", "/talk"):
            reply = await http.get(url + path)
            assert reply.status_code == 200
            assert reply.headers["content-type"] == "text/html; charset=utf-8"
            assert reply.text.startswith("<!doctype html>")
            assert "webrtc/offer" in reply.text


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_stream_opened_by_application_lifespan_is_not_opened_again(framework: Any) -> None:
    stream = make_stream()

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncGenerator[None, None]:
        async with stream:
            yield

    app = framework(lifespan=lifespan)
    stream.mount(app)
    async with open_server(app):
        assert stream.is_open
    assert not stream.is_open
