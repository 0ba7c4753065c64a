"""The stream's endpoints in a Starlette or FastAPI application."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from fastrtc_anyio.configuration import read_setting
from fastrtc_anyio.errors import (
    FastRTCError,
    InvalidOffer,
    NotAuthenticated,
    SignalingError,
    WebRTCError,
)
from fastrtc_anyio.protocol.signaling import MAX_SDP_LENGTH, failure_body

from .bodies import read_body
from .entry import check_entry, cors_headers
from .telephone import answer_incoming_call
from .whip import whip_routes

if TYPE_CHECKING:
    from fastrtc_anyio.stream import Stream

__all__ = ["client_config", "mount", "page_route"]

logger = logging.getLogger("fastrtc_anyio")

_MAX_BODY = 2 * MAX_SDP_LENGTH
"""Bytes of a request: an SDP with every line break and quote escaped as JSON is not larger."""
_PAGE = Path(__file__).with_name("page.html")
_TITLE = "fastrtc_anyio"

Endpoint = Callable[[Request], Awaitable[Response]]


def mount(stream: Stream, app: Any, path: str, tags: list[str] | None) -> None:
    """See :meth:`fastrtc_anyio.Stream.mount`."""
    prefix = path.rstrip("/")
    if prefix and not prefix.startswith("/"):
        raise ValueError(f'path must be empty or begin with "/"; got {path!r}')
    if not hasattr(app, "router"):
        raise TypeError(f"a stream is mounted on a Starlette or FastAPI application; got {app!r}")

    async def answer(request: Request) -> Response:
        return _Json(await stream.offer(await _read_json(request)))

    async def configure(_request: Request) -> Response:
        # Read anew for each call: credentials of TURN servers grow old.
        return _Json(await client_config(stream), headers={"Cache-Control": "no-store"})

    async def webrtc_offer(request: Request) -> Response:
        return await _respond(stream, request, answer)

    async def webrtc_config(request: Request) -> Response:
        return await _respond(stream, request, configure)

    async def telephone_incoming(request: Request) -> Response:
        return await answer_incoming_call(stream, request)

    endpoints = (
        ("webrtc/offer", "POST", webrtc_offer),
        ("webrtc/config", "GET", webrtc_config),
        ("telephone/incoming", "POST", telephone_incoming),
    )
    for name, method, endpoint in endpoints:
        route, methods = f"{prefix}/{name}", [method, "OPTIONS"]
        if hasattr(app, "add_api_route"):
            app.add_api_route(route, endpoint, methods=[method], tags=tags, response_model=None)
            methods = ["OPTIONS"]
        app.router.routes.append(Route(route, endpoint, methods=methods))
    app.router.routes.extend(whip_routes(stream, prefix))
    for name, serve in (
        ("websocket/offer", stream.websocket_offer),
        ("telephone/handler", stream.telephone_handler),
    ):
        app.router.routes.append(WebSocketRoute(f"{prefix}/{name}", serve))
    _open_in_lifespan(stream, app)


async def client_config(stream: Stream) -> dict[str, Any]:
    """What a client has to know of a stream before it calls; for anybody to see.

    Returns:
        ``modality``, ``mode``, ``rtc_configuration``, ``track_constraints`` and ``rtp_params`` as
        they were given to the stream; ``title`` and ``subtitle``, empty with ``hide_title``.
    """
    ui = stream.ui_args
    shown = not ui.get("hide_title")
    configuration: Any = stream.rtc_configuration
    if callable(configuration):
        configuration = await read_setting(configuration)
    return {
        "modality": stream.modality,
        "mode": stream.mode,
        "rtc_configuration": dict(configuration or {}),
        "track_constraints": stream.track_constraints,
        "rtp_params": stream.rtp_params,
        "title": str(ui.get("title") or _TITLE) if shown else "",
        "subtitle": str(ui.get("subtitle") or "") if shown else "",
    }


def page_route(path: str = "/") -> Route:
    """The page that talks to the stream mounted at the same path."""

    async def page(_request: Request) -> Response:
        return FileResponse(_PAGE, media_type="text/html")

    return Route(path, page)


def _open_in_lifespan(stream: Stream, app: Any) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[Any, None]:
        # What the application opens outlives the sessions. It may have opened the stream itself.
        async with inner(app) as state, AsyncExitStack() as stack:
            if not stream.is_open:
                await stack.enter_async_context(stream)
            yield state

    app.router.lifespan_context = lifespan


class _Json(JSONResponse):
    """JSON in ASCII: what came in as an escape can go out, even if it is half a character."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


async def _respond(stream: Stream, request: Request, endpoint: Endpoint) -> Response:
    preflight = request.method == "OPTIONS"
    cors = cors_headers(stream, request, "GET, POST, OPTIONS", preflight=preflight)
    if preflight:
        return Response(status_code=204, headers=cors)
    try:
        await check_entry(stream, request)
        response = await endpoint(request)
    except ClientDisconnect:
        response = Response(status_code=400)  # to nobody
    except SignalingError as exc:
        response = _Json(failure_body(exc), exc.status_hint)
        if isinstance(exc, NotAuthenticated):
            response.headers["WWW-Authenticate"] = "Bearer"
    except Exception as exc:
        logger.exception("a request could not be answered")
        hidden = FastRTCError("the server has met an error, which is in its log")
        response = _Json(failure_body(exc if isinstance(exc, WebRTCError) else hidden), 500)
    response.headers.update(cors)
    return response


async def _read_json(request: Request) -> Any:
    body = await read_body(request, _MAX_BODY)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise InvalidOffer(f"the body is not JSON: {exc}") from exc
