"""``health/live``, ``health/ready`` and ``sessions/{id}``: what they answer, and to whom."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import create_task_group
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fastrtc_anyio import Limits, RequestLimits, Session, SessionState, Stream
from fastrtc_anyio._core.pace import TICK, LoopPace
from fastrtc_anyio._peers.memory import MemoryPeer
from fastrtc_anyio.server import require_token
from tests.kit.asgi import request
from tests.kit.calls import make_stream
from tests.kit.handlers import Quiet
from tests.kit.waiting import wait_until


def mount(stream: Stream, path: str = "", app: Any = None) -> Any:
    app = Starlette() if app is None else app
    stream.mount(app, path)
    return app


@asynccontextmanager
async def open_session(stream: Stream, **options: Any) -> AsyncGenerator[Session, None]:
    """Serve a client in memory until the end of the block."""
    peers: list[MemoryPeer] = []
    before = set(stream.sessions)

    def make_peer(_needs: object, _buffers: object) -> MemoryPeer:
        peers.append(MemoryPeer())
        peers[0].client.connect()
        return peers[0]

    async def serve() -> None:
        await stream.serve_peer(make_peer, **options)

    async with create_task_group() as tasks:
        tasks.start_soon(serve)
        await wait_until(lambda: set(stream.sessions) - before)
        (key,) = set(stream.sessions) - before
        session = stream.sessions[key]
        await wait_until(lambda: session.state is SessionState.CONNECTED)
        yield session
        peers[0].client.hang_up()


async def ready(app: Any, path: str = "/health/ready") -> tuple[int, Any]:
    reply = await request(app, "GET", path)
    assert reply.headers["cache-control"] == "no-store"
    return reply.status, reply.json()


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
@pytest.mark.parametrize("prefix", ["", "/voice"])
async def test_open_stream_is_live_and_ready(framework: Any, prefix: str) -> None:
    stream = make_stream(Quiet)
    app = mount(stream, prefix, framework())
    async with stream:
        assert await ready(app, f"{prefix}/health/live") == (200, {"status": "live"})
        assert await ready(app, f"{prefix}/health/ready") == (200, {"status": "ready"})
        assert await ready(app, f"{prefix}/health/ready/") == (200, {"status": "ready"})
        assert (await request(app, "HEAD", f"{prefix}/health/live")).status == 200
        assert (await request(app, "POST", f"{prefix}/health/live")).status == 405


async def test_stream_that_is_not_open_is_live_but_not_ready() -> None:
    app = mount(make_stream(Quiet))
    assert await ready(app, "/health/live") == (200, {"status": "live"})
    assert await ready(app) == (503, {"status": "unready", "reason": "closed"})


async def test_full_stream_is_not_ready_until_a_session_has_ended() -> None:
    stream = make_stream(Quiet, concurrency_limit=1)
    app = mount(stream)
    async with stream:
        async with open_session(stream):
            assert await ready(app) == (503, {"status": "unready", "reason": "full"})
            assert (await request(app, "GET", "/health/live")).status == 200
        await wait_until(lambda: stream.active == 0)
        assert await ready(app) == (200, {"status": "ready"})


async def test_draining_stream_is_not_ready_while_its_sessions_go_on() -> None:
    stream = make_stream(Quiet, drain_timeout=None)
    app = mount(stream)
    async with stream:
        async with open_session(stream) as session, create_task_group() as tasks:
            tasks.start_soon(stream.drain)
            await wait_until(lambda: stream.is_draining)
            assert await ready(app) == (503, {"status": "unready", "reason": "draining"})
            assert (await request(app, "GET", "/health/live")).status == 200
            assert stream.describe(session.id)["state"] == "connected"
            tasks.cancel_scope.cancel()
        await wait_until(lambda: stream.active == 0)
        assert await ready(app) == (503, {"status": "unready", "reason": "draining"})
    async with stream:
        assert await ready(app) == (200, {"status": "ready"})


class LatePortal:
    """A loop with a separate clock, beside one that is on time."""

    def __init__(self, stream: Stream) -> None:
        self.now = 0.0
        self.pace, self.host = LoopPace(), LoopPace()
        load = stream._service._load
        load._limit, load._clock = 0.1, lambda: self.now
        load.compare(self.host, self.pace)
        self.run(2)

    def run(self, seconds: float, lag: float = 0.0) -> None:
        due = self.now + seconds
        while self.now < due:
            self.now += TICK + lag
            self.pace.tick(self.now, 0)
            self.host.tick(self.now, 0)


async def test_stream_is_not_ready_while_its_loop_is_late() -> None:
    stream = make_stream(Quiet)
    app = mount(stream)
    async with stream:
        loop = LatePortal(stream)
        assert await ready(app) == (200, {"status": "ready"})
        loop.run(2, lag=0.15)
        for _ in range(2):
            assert await ready(app) == (503, {"status": "unready", "reason": "overloaded"})
        loop.run(2)
        assert await ready(app) == (200, {"status": "ready"})
        assert stream._service._load._is_overloaded is False, "asking changes nothing"


async def test_stream_is_not_ready_while_the_portal_stands_still() -> None:
    """A single stall that does not end: there is no second measurement."""
    stream = make_stream(Quiet)
    app = mount(stream)
    async with stream:
        loop = LatePortal(stream)
        loop.now += 0.9
        loop.host.tick(loop.now, 0)
        assert await ready(app) == (200, {"status": "ready"})
        loop.now += 0.5
        assert await ready(app) == (503, {"status": "unready", "reason": "overloaded"})


async def test_stream_that_opens_again_has_no_outdated_load() -> None:
    stream = Stream(Quiet, modality="audio")
    load = stream._service._load
    async with stream:
        await wait_until(load.measure_loops)
    assert load.measure_loops() == {}
    load._clock = lambda: time.monotonic() + 3600
    assert not load.is_overloaded(1)


async def test_stream_without_a_limit_of_lag_is_ready() -> None:
    stream = make_stream(Quiet)  # limits.lag is None
    app = mount(stream)
    async with stream:
        assert await ready(app) == (200, {"status": "ready"})


async def test_probes_need_neither_credentials_nor_a_known_host() -> None:
    stream = make_stream(Quiet, authenticate=require_token("secret"), allowed_hosts=["example.org"])
    app = mount(stream)
    probe = [(b"host", b"10.1.2.3:8000"), (b"user-agent", b"kube-probe/1.33")]
    async with stream:
        for path in ("/health/live", "/health/ready"):
            assert (await request(app, "GET", path, headers=probe)).status == 200


@pytest.mark.parametrize("first", [True, False])
async def test_application_has_precedence_with_its_own_health(first: bool) -> None:
    async def own(_request: Request) -> Response:
        await anyio.lowlevel.checkpoint()
        return PlainTextResponse("my own")

    app, routes = Starlette(), [Route("/health/live", own), Route("/sessions/{name}", own)]
    stream = make_stream(Quiet, authenticate=require_token("secret"))
    if first:
        app.router.routes += routes
    stream.mount(app)
    if not first:
        app.router.routes += routes
    async with stream:
        assert (await request(app, "GET", "/health/live")).text == "my own"
        assert (await request(app, "GET", "/sessions/x")).text == "my own"
        assert (await request(app, "GET", "/health/ready")).status == 200


ADA, BO = ((b"authorization", f"Bearer {token}".encode()) for token in ("ada-token", "bo-token"))


async def test_description_is_for_the_owner_of_the_session() -> None:
    tokens = {"ada-token": "ada", "bo-token": "bo"}
    stream = make_stream(Quiet, authenticate=require_token(tokens))
    app = mount(stream)
    async with stream, open_session(stream, alias="hers", identity="ada") as session:
        for name in ("hers", session.id, session.log_id):
            path = f"/sessions/{name}"
            reply = await request(app, "GET", path, headers=[ADA])
            assert reply.status == 200, reply.text
            assert reply.headers["cache-control"] == "no-store"
            assert reply.json()["session_id"] == session.log_id
            assert reply.json()["state"] == "connected"
            assert (await request(app, "GET", path)).status == 401
            foreign = await request(app, "GET", path, headers=[BO])
            unknown = await request(app, "GET", "/sessions/none", headers=[BO])
            assert (foreign.status, unknown.status) == (404, 404)
            assert foreign.text.replace(name, "none") == unknown.text
        described = stream.describe(session.log_id)
        json.dumps(described, allow_nan=False)
        assert described["handler"] == "Quiet"
        text = (await request(app, "GET", "/sessions/hers", headers=[ADA])).text
        for secret in (session.id, "hers", "ada"):
            assert f'"{secret}"' not in text


async def test_stream_without_authentication_describes_no_session_over_http() -> None:
    stream = make_stream(Quiet)
    app = mount(stream)
    async with stream, open_session(stream) as session:
        assert (await request(app, "GET", f"/sessions/{session.id}")).status == 404
        assert stream.describe(session.id)["state"] == "connected"


async def test_precise_path_of_the_application_takes_precedence() -> None:
    async def show_all(_request: Request) -> Response:
        await anyio.lowlevel.checkpoint()
        return PlainTextResponse("all")

    stream = make_stream(Quiet, authenticate=require_token("secret"))
    app = mount(stream)
    app.router.routes.append(Route("/sessions/all", show_all))
    app.router.routes.append(Route("/{path:path}", show_all))
    header = [(b"authorization", b"Bearer secret")]
    async with stream:
        assert (await request(app, "GET", "/sessions/all")).body == b"all"
        assert (await request(app, "GET", "/sessions/any", headers=header)).status == 404


async def test_limits_of_requests_count_descriptions() -> None:
    limits = RequestLimits(client_requests=3)
    stream = make_stream(
        Quiet,
        authenticate=require_token("secret"),
        request_limits=limits,
        limits=Limits(block=None),
    )
    app = mount(stream)
    header = [(b"authorization", b"Bearer secret")]
    async with stream:
        statuses = [
            (await request(app, "GET", "/sessions/none", headers=header)).status for _ in range(9)
        ]
    assert statuses[0] == 404
    assert statuses[-1] == 429
