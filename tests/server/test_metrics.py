"""``GET /metrics``: its content during a real call, who may read it, and refusals over HTTP."""

from __future__ import annotations

import logging

import httpx
import pytest
from anyio.lowlevel import checkpoint
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from fastrtc_anyio import Draining
from fastrtc_anyio.observability import Metrics
from fastrtc_anyio.server import require_token
from tests.kit import asgi
from tests.kit.calls import make_stream, only_session, place_call, serve, wait_ended
from tests.kit.observing import count_of, scrape
from tests.kit.offers import audio, describe
from tests.kit.waiting import wait_until


async def read(url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as http:
        return await http.get(f"{url}/metrics", headers=headers)


async def test_metrics_of_a_call() -> None:
    metrics = Metrics()
    stream = make_stream(observers=[metrics])
    async with serve(stream) as url:
        async with place_call(url):
            await wait_until(lambda: bool(stream.sessions), "the session")
            session = only_session(stream)
            await wait_until(
                lambda: scrape(metrics)["frames_played_total", "audio"] > 10, "the echo"
            )
            reply = await read(url)
            assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert reply.headers["cache-control"] == "no-store"
            samples = {
                (sample.name, *sample.labels.values()): sample.value
                for family in text_string_to_metric_families(reply.text)
                for sample in family.samples
            }
            assert samples["fastrtc_sessions", "connected"] == 1
            assert samples["fastrtc_frames_received_total", "audio"] > 10
            assert samples["fastrtc_connect_seconds_count",] == 1
            await wait_until(lambda: scrape(metrics)["loop_busy_ratio", "portal"] > 0, "the load")
            assert scrape(metrics)["loop_busy_ratio", "host"] > 0
        await wait_ended(stream, session)
        values = scrape(metrics)
        assert count_of(values, "sessions_ended_total") == {"hung_up": 1}
        assert count_of(values, "sessions") == {}


async def test_metrics_need_authentication_where_the_stream_does() -> None:
    metrics = Metrics()
    app = Starlette()
    make_stream(observers=[metrics], authenticate=require_token("secret")).mount(app, "/talk")
    reply = await asgi.request(app, "GET", "/talk/metrics")
    assert reply.status == 401
    assert b"fastrtc_" not in reply.body
    authorized = [(b"authorization", b"Bearer secret")]
    reply = await asgi.request(app, "GET", "/talk/metrics", headers=authorized)
    assert reply.status == 200
    assert 'fastrtc_refusals_total{reason="not_authenticated"} 1.0' in reply.text


@pytest.mark.parametrize("has_metrics", [False, True])
async def test_no_endpoint_without_metrics_for_it(has_metrics: bool) -> None:
    observers = [Metrics(endpoint=False)] if has_metrics else []
    app = Starlette()
    make_stream(observers=observers).mount(app)
    assert (await asgi.request(app, "GET", "/metrics")).status == 404


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("is_mounted", [True, False])
async def test_application_has_precedence_with_its_own_metrics(
    first: bool, is_mounted: bool
) -> None:
    async def answer(_request: Request) -> Response:
        await checkpoint()
        return PlainTextResponse("my own")

    app, path = Starlette(), "/metrics/" if is_mounted else "/metrics"
    own = Mount("/metrics", PlainTextResponse("my own")) if is_mounted else Route(path, answer)
    if first:
        app.router.routes.append(own)
    make_stream(observers=[Metrics()]).mount(app)
    if not first:
        app.router.routes.append(own)
    assert (await asgi.request(app, "GET", path)).text == "my own"


async def test_refusals_of_all_transports_are_counted_once() -> None:
    metrics = Metrics()
    app = Starlette()
    stream = make_stream(observers=[metrics])
    stream.mount(app)
    async with stream:
        await asgi.request(app, "POST", "/webrtc/offer", b"{")
        await asgi.request(app, "POST", "/webrtc/offer", b'{"type": "offer"}')
        sdp = [(b"content-type", b"application/sdp")]
        await asgi.request(app, "POST", "/whip", b"v=1", headers=sdp)
        await asgi.websocket(app, "/websocket/offer", ["[]"])
        foreign = [(b"origin", b"https://foreign.example")]
        await asgi.websocket(app, "/websocket/offer", [], headers=foreign)
    await asgi.request(app, "POST", "/webrtc/offer", b'{"type": "offer", "sdp": ""}')
    assert count_of(scrape(metrics), "refusals_total") == {
        "invalid_body": 1,
        "invalid_offer": 2,
        "invalid_message": 1,
        "not_allowed": 1,
        "stream_not_open": 1,
    }


async def test_requests_that_no_session_can_serve_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    app = Starlette()
    stream = make_stream()
    stream.mount(app)
    offer = b'{"type": "offer", "sdp": "v=0", "webrtc_id": "name"}'
    sdp = [(b"content-type", b"application/sdp")]
    await asgi.request(app, "POST", "/webrtc/offer", offer)
    async with stream:
        await stream.drain()
        await asgi.request(app, "POST", "/webrtc/offer", offer[:9])
        await asgi.request(app, "POST", "/whip", describe(audio()).encode(), headers=sdp)
    refused = [r for r in caplog.records if r.__dict__.get("event") == "request.refused"]
    assert {record.levelno for record in refused} == {logging.INFO}
    not_open, draining = (record.getMessage() for record in refused)
    assert "was refused: The stream is not open" in not_open
    assert draining.endswith(f"was refused: {Draining.rule}")
