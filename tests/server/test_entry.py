"""Access control of every endpoint, listed from the application's own routes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from fastrtc_anyio import Checkbox, NotAllowed, NotAuthenticated, Stream
from fastrtc_anyio._wire.call_xml import TelephoneOptions
from fastrtc_anyio.observability import Metrics
from fastrtc_anyio.server import page_route, require_token
from tests.kit.handlers import Quiet

HERE = "here.example"
FOREIGN = "https://foreign.example"
KNOWN = {
    "input_hook",
    "metrics",
    "outputs",
    "telephone/handler",
    "telephone/incoming",
    "webrtc/config",
    "webrtc/offer",
    "websocket/offer",
    "whep",
    "whep/{session}",
    "whip",
    "whip/{session}",
}
GUARDED = KNOWN | {"sessions/{session_id}"}
"""Those of a stream with ``authenticate``."""
OPEN = {"health/live", "health/ready"}
"""Endpoints that answer everyone: tests/server/test_health.py."""


def make_app(framework: Any, **options: Any) -> tuple[Any, list[Any]]:
    """Return an application with a mounted stream, and the routes that the stream added."""
    app = framework()
    own = list(app.router.routes)
    Stream(
        Quiet,
        modality="audio",
        additional_inputs=[Checkbox("Loud")],
        additional_outputs=[Checkbox("Loud")],
        rtc_configuration={"iceServers": [{"urls": "stun:stun.example"}]},
        observers=[Metrics()],
        **options,
    ).mount(app, "/talk")
    added = [route for route in app.router.routes if route not in own]
    return app, [route for route in added if route.path.removeprefix("/talk/") not in OPEN]


def endpoints(routes: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield each method and path of the routes; the method of a WebSocket is "WEBSOCKET"."""
    for route in routes:
        methods = getattr(route, "methods", None)
        assert methods or isinstance(route, WebSocketRoute), f"unexpected route {route!r}"
        for method in methods or ["WEBSOCKET"]:
            yield method, route.path


@dataclass
class Reply:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


async def request(
    app: Any, method: str, path: str, server: str = "192.0.2.1", **headers: str
) -> Reply:
    """Make a request, or open a WebSocket, by calling the ASGI application directly."""
    socket = method == "WEBSOCKET"
    sent = {"host": HERE, **{name.replace("_", "-"): text for name, text in headers.items()}}
    scope: dict[str, Any] = {
        "type": "websocket" if socket else "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "wss" if socket else "https",
        "server": (server, 443),
        "path": path.replace("{session}", "nobody"),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), text.encode()) for name, text in sent.items()],
        "extensions": {"websocket.http.response": {}},
        **({"subprotocols": []} if socket else {"method": method}),
    }
    reply = Reply(0)
    incoming = (
        [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]
        if socket
        else [{"type": "http.request", "body": b""}, {"type": "http.disconnect"}]
    )

    async def receive() -> Any:
        await checkpoint()
        return incoming.pop(0) if len(incoming) > 1 else incoming[0]

    async def send(message: Any) -> None:
        await checkpoint()
        if message["type"].endswith("response.start"):
            reply.status = message["status"]
            reply.headers = {name.decode(): text.decode() for name, text in message["headers"]}
        elif message["type"].endswith("response.body"):
            reply.body += message.get("body", b"").decode()
        elif message["type"] == "websocket.accept":
            reply.status = 101

    await app(scope, receive, send)
    return reply


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
def test_mounted_routes_match_the_list_of_endpoints(framework: Any) -> None:
    """A new endpoint fails here until the list, and so every test below, includes it."""
    for authenticate, known in ((None, KNOWN), (require_token("secret"), GUARDED)):
        app, routes = make_app(framework, authenticate=authenticate)
        assert {path.removeprefix("/talk/") for _, path in endpoints(routes)} == known
        mounted = {getattr(route, "path", "") for route in app.router.routes}
        assert {f"/talk/{path}" for path in OPEN} <= mounted


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_every_endpoint_rejects_missing_or_wrong_token(framework: Any) -> None:
    app, routes = make_app(framework, authenticate=require_token("secret"))
    for method, path in endpoints(routes):
        for wrong in ("", "Bearer wrong", "Basic secret"):
            headers = {"authorization": wrong} if wrong else {}
            reply = await request(app, method, path, **headers)
            if method == "OPTIONS":  # a preflight request carries no credentials
                assert (reply.status in (200, 204), reply.body) == (True, ""), path
                assert "link" not in reply.headers, "ICE servers are for authenticated clients"
            else:
                assert reply.status == 401, f"{method} {path}"
                if "telephone" not in path and method != "WEBSOCKET":
                    assert reply.headers["www-authenticate"] == "Bearer"
                assert method == "HEAD" or "log in or send a bearer token" in reply.body
        reply = await request(app, method, path, authorization="Bearer secret")
        assert reply.status not in (0, 401, 403), f"{method} {path}"


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_every_endpoint_rejects_foreign_origin(framework: Any) -> None:
    app, routes = make_app(framework)
    for method, path in endpoints(routes):
        reply = await request(app, method, path, origin=FOREIGN)
        assert "access-control-allow-origin" not in reply.headers
        if method == "OPTIONS":
            assert (reply.status in (200, 204), reply.body) == (True, ""), path
            assert "link" not in reply.headers
        else:
            assert reply.status == 403, f"{method} {path}"
            assert method == "HEAD" or "allowed_origins" in reply.body
        for origin in (f"https://{HERE}", f"http://{HERE}"):
            reply = await request(app, method, path, origin=origin)
            assert reply.status not in (0, 401, 403), f"{method} {path}"


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_every_endpoint_accepts_allowed_origin(framework: Any) -> None:
    app, routes = make_app(framework, allowed_origins=[FOREIGN])
    for method, path in endpoints(routes):
        reply = await request(app, method, path, origin=FOREIGN)
        assert reply.status not in (0, 401, 403), f"{method} {path}"
        if method != "WEBSOCKET" and "telephone" not in path:  # carriers are not browsers
            assert reply.headers["access-control-allow-origin"] == FOREIGN, f"{method} {path}"


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_every_endpoint_on_loopback_rejects_foreign_host(framework: Any) -> None:
    app, routes = make_app(framework)
    for method, path in endpoints(routes):
        if method == "OPTIONS":
            continue  # the response is the same for every host
        reply = await request(app, method, path, "127.0.0.1")
        assert reply.status == 403, f"{method} {path}"
        assert method == "HEAD" or f"got '{HERE}'" in reply.body
        assert method == "HEAD" or "Stream(allowed_hosts=[...])" in reply.body
        reply = await request(app, method, path, "127.0.0.1", host="localhost:7860")
        assert reply.status not in (0, 401, 403), f"{method} {path}"


async def test_carriers_signature_does_not_replace_the_host_check() -> None:
    signed = TelephoneOptions(auth_token="secret", public_url="https://phone.example")
    app, routes = make_app(Starlette, telephone=signed)
    for method, path in endpoints(routes):
        if "telephone" in path:
            reply = await request(app, method, path, "127.0.0.1")
            assert "Stream(allowed_hosts=[...])" in reply.body
            reply = await request(app, method, path, "127.0.0.1", host="phone.example")
            assert "allowed_hosts" not in reply.body
            assert "not signed" in reply.body or reply.status == 403


@pytest.mark.parametrize(
    ("verdict", "status", "text"),
    [
        (NotAuthenticated("log in at /login"), 401, "log in at /login"),
        (NotAllowed("you have had enough"), 403, "you have had enough"),
        (None, 500, ""),
        ("", 500, ""),
        (1, 500, ""),
        (PlainTextResponse("secret", 401), 500, ""),
        (ValueError("secret"), 500, ""),
    ],
)
async def test_authenticate_error_sets_status_and_text(
    verdict: Any, status: int, text: str
) -> None:
    """An unexpected result or error of ``authenticate`` is a 500 without its text.

    A refusal that is returned by mistake must not admit the client as an identity.
    """

    async def authenticate(connection: HTTPConnection) -> Any:
        await checkpoint()
        assert connection.headers["host"] == HERE
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    app, routes = make_app(Starlette, authenticate=authenticate)
    for method, path in endpoints(routes):
        if method in ("OPTIONS", "HEAD"):
            continue
        reply = await request(app, method, path)
        assert reply.status == status, f"{method} {path}"
        assert text in reply.body
        assert "secret" not in reply.body


async def test_page_is_served_without_token() -> None:
    """The page itself asks for the token, so `page_route` needs no authentication."""
    app, _ = make_app(Starlette, authenticate=require_token("secret"), ui_args={"title": "Hidden"})
    app.router.routes.append(page_route("/talk/"))
    (route,) = (r for r in app.router.routes if isinstance(r, Route) and r.path == "/talk/")
    assert route.methods == {"GET", "HEAD"}
    reply = await request(app, "GET", "/talk/")
    assert reply.status == 200
    assert "Hidden" not in reply.body
    assert json.loads((await request(app, "GET", "/talk/webrtc/config")).body)["status"] == "failed"
