"""Metrics and readiness of all processes: streams of several processes, without sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import create_task_group, current_time
from anyio.lowlevel import checkpoint
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastrtc_anyio import Limits, Stream
from fastrtc_anyio.cluster import Location, Member, MemoryDirectory
from fastrtc_anyio.cluster._requests import BufferedRequest
from fastrtc_anyio.cluster._survey import Others, Survey
from fastrtc_anyio.observability import Metrics
from tests.kit import asgi
from tests.kit.handlers import Quiet
from tests.server.test_health import open_session

TOKEN = [(b"authorization", b"Bearer secret")]
Ask = Callable[[], Awaitable[Any]]


class Apps(Others):
    """Other processes, whose applications are called.

    Attributes:
        faults: called in place of a process, by its name.
        asked: the names of the processes that were asked.
    """

    def __init__(self, apps: dict[str, ASGIApp]) -> None:
        super().__init__(Member(MemoryDirectory(), "http://one"), "a secret of the test")
        self.apps = apps
        self.faults: dict[str, Ask] = {}
        self.asked: list[str] = []

    async def list(self) -> list[Location]:
        await checkpoint()
        return [Location(name, f"http://{name}") for name in self.apps]

    async def ask(
        self,
        process: Location,
        request: BufferedRequest,
        purpose: str,
        send: Send,
        name: str | None = None,
    ) -> bool:
        self.asked.append(process.owner)
        if fault := self.faults.get(process.owner):
            return bool(await fault())
        statuses: list[int] = []

        async def note(message: Any) -> None:
            statuses.append(message.get("status", 0))
            if statuses[0] != 503:
                await send(message)

        await self.apps[process.owner](request.scope, _receive_no_body, note)
        return statuses[0] != 503


async def _receive_no_body() -> Message:
    await checkpoint()
    return {"type": "http.request", "body": b"", "more_body": False}


@asynccontextmanager
async def open_apps(
    make: Callable[[Stream], ASGIApp], **options: Any
) -> AsyncGenerator[tuple[Apps, list[Stream], ASGIApp], None]:
    """Applications of the processes one, two and three, and what the first one serves."""
    streams = [
        Stream(Quiet, modality="audio", observers=[Metrics()], limits=Limits(lag=None), **options)
        for _ in range(3)
    ]
    one, two, three = (make(stream) for stream in streams)
    others = Apps({"two": two, "three": three})
    survey = Survey(one, others, "one")

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        is_ready = scope["path"].rstrip("/").endswith("ready")
        answer = survey.answer_readiness if is_ready else survey.answer_metrics
        await answer(BufferedRequest(scope, receive), send)

    async with streams[0], streams[1], streams[2]:
        yield others, streams, serve


def mount(stream: Stream) -> ASGIApp:
    app = Starlette()
    stream.mount(app)
    return app


def up(text: str) -> dict[str, float]:
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = families["fastrtc_process_up"].samples
    return {sample.labels["process"]: sample.value for sample in samples}


async def test_metrics_of_all_processes() -> None:
    async with open_apps(mount) as (_, streams, app):
        for number, stream in enumerate(streams):
            (metrics,) = stream._service.observers
            for _ in range(number):
                metrics.reply_started(None, None)  # type: ignore[arg-type]
        reply = await asgi.request(app, "GET", "/metrics")
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert reply.headers["cache-control"] == "no-store"
        assert int(reply.headers["content-length"]) == len(reply.body)
        name = "fastrtc_replies_started_total"
        assert [line for line in reply.text.splitlines() if line.startswith(name)] == [
            f'{name}{{process="{process}"}} {number}.0'
            for number, process in enumerate(("one", "two", "three"))
        ]
        assert reply.text.count(f"# TYPE {name} counter") == 1
        assert up(reply.text) == {"one": 1, "two": 1, "three": 1}


async def test_processes_without_an_answer_are_left_out() -> None:
    async def refuse() -> bool:
        return False

    async with open_apps(mount) as (others, _, app):
        for fault in (anyio.sleep_forever, refuse):
            others.faults["two"] = fault
            began = current_time()
            reply = await asgi.request(app, "GET", "/metrics")
            assert up(reply.text) == {"one": 1, "two": 0, "three": 1}
            assert 'fastrtc_turns_total{process="two"}' not in reply.text
            assert 'fastrtc_turns_total{process="three"}' in reply.text
            assert current_time() - began == (3 if fault is anyio.sleep_forever else 0)
        del others.faults["two"]
        for wrong in (PlainTextResponse("a 1"), HTMLResponse("<html>"), _text("<html>")):
            others.apps["two"] = wrong
            reply = await asgi.request(app, "GET", "/metrics")
            assert up(reply.text) == {"one": 1, "two": 0, "three": 1}


def _text(content: str) -> Response:
    return Response(content, headers={"Content-Type": "text/plain; version=0.0.4"})


async def test_every_process_authenticates() -> None:
    async def authenticate(connection: HTTPConnection) -> bool:
        await checkpoint()
        return connection.headers.get("authorization") == "Bearer secret"

    async with open_apps(mount, authenticate=authenticate) as (others, _, app):
        reply = await asgi.request(app, "GET", "/metrics")
        assert reply.status == 401
        assert b"fastrtc_" not in reply.body
        assert not others.asked
        reply = await asgi.request(app, "GET", "/metrics", headers=TOKEN)
        assert up(reply.text) == {"one": 1, "two": 1, "three": 1}


@pytest.mark.parametrize(
    "page", [PlainTextResponse("my own"), _text("<html>"), Response(status_code=404)]
)
async def test_other_responses_are_those_of_one_process(page: Response) -> None:
    async with open_apps(lambda _: page) as (others, _, app):
        reply = await asgi.request(app, "GET", "/metrics")
        assert (reply.status, reply.body) == (page.status_code, page.body)
        assert not others.asked


async def test_a_response_without_headers_is_that_of_one_process() -> None:
    async def page(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"my own"})

    started: list[Message] = []

    async def send(message: Message) -> None:
        await checkpoint()
        started.append(message)

    async with open_apps(lambda _: page) as (others, _, app):
        scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": []}
        await app(scope, _receive_no_body, send)
        assert [message.get("body") for message in started] == [None, b"my own"]
        assert not others.asked


async def test_metrics_of_the_application_are_requested_as_plain_text() -> None:
    """Prometheus prefers OpenMetrics, and compression."""
    from prometheus_client import CollectorRegistry, Counter, make_asgi_app

    registry = CollectorRegistry()
    Counter("app_logins", "Logins.", registry=registry).inc()
    own = make_asgi_app(registry)
    headers = [
        (b"accept", b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4"),
        (b"accept-encoding", b"gzip"),
    ]
    async with open_apps(lambda _: own) as (_, _, app):
        reply = await asgi.request(app, "GET", "/metrics", headers=headers)
        assert reply.text.count('app_logins_total{process="') == 3
        assert "content-encoding" not in reply.headers


async def test_a_full_process_is_ready_if_another_one_is() -> None:
    async with open_apps(mount, concurrency_limit=1) as (others, streams, app):
        assert (await ready(app)) == (200, {"status": "ready"})
        assert not others.asked
        async with open_session(streams[0]):
            assert (await ready(app)) == (200, {"status": "ready"})
            async with open_session(streams[1]):
                await anyio.sleep(1)
                assert (await ready(app)) == (200, {"status": "ready"})
                async with open_session(streams[2]):
                    await anyio.sleep(1)
                    asked = len(others.asked)
                    for _ in range(5):  # the others are asked once a second
                        found = await ready(app)
                        assert found == (503, {"status": "unready", "reason": "full"})
                    assert len(others.asked) == asked + 2
                    others.faults["two"] = anyio.sleep_forever
                    await anyio.sleep(1)
                    assert (await ready(app))[0] == 503
                await anyio.sleep(1)
                began = current_time()
                assert (await ready(app))[0] == 200  # of the third
                assert current_time() == began
            await anyio.sleep(1)
        assert (await ready(app)) == (200, {"status": "ready"})


async def test_an_error_of_another_process_does_not_count_as_ready() -> None:
    async with open_apps(mount, concurrency_limit=1) as (others, streams, app):
        others.apps["two"] = PlainTextResponse("an error", 500)
        async with open_session(streams[0]):
            assert (await ready(app)) == (200, {"status": "ready"})
            others.apps["three"] = PlainTextResponse("another one", 404)
            await anyio.sleep(1)
            assert (await ready(app)) == (503, {"status": "unready", "reason": "full"})


async def test_nothing_is_kept_of_old_answers_about_readiness() -> None:
    """A path may have a part that clients choose."""
    full = JSONResponse({"status": "unready", "reason": "full"}, 503)
    survey = Survey(full, Apps({"two": full}), "one")
    for number in range(5):
        scope = {"type": "http", "path": f"/{number}/health/ready", "headers": []}
        await survey.answer_readiness(BufferedRequest(scope, _receive_no_body), _discard)
        await anyio.sleep(1)
    assert len(survey._ready) == 1


async def _discard(_message: Message) -> None:
    await checkpoint()


async def test_a_process_that_drains_is_not_ready() -> None:
    async with open_apps(mount) as (others, streams, app):
        async with open_session(streams[0]), create_task_group() as tasks:
            tasks.start_soon(streams[0].drain)
            await anyio.sleep(1)
            assert await ready(app) == (503, {"status": "unready", "reason": "draining"})
            tasks.cancel_scope.cancel()
        assert not others.asked


async def ready(app: ASGIApp) -> tuple[int, Any]:
    reply = await asgi.request(app, "GET", "/health/ready")
    return reply.status, reply.json()
