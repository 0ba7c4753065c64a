"""The stream's endpoints in a Starlette or FastAPI application."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from inspect import isawaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from fastrtc_anyio.errors import FastRTCError, InvalidOffer, SignalingError, WebRTCError
from fastrtc_anyio.protocol.signaling import MAX_SDP_LENGTH, failure_body

if TYPE_CHECKING:
    from fastrtc_anyio.stream import Stream

__all__ = ["client_config", "mount", "page_route"]

logger = logging.getLogger("fastrtc_anyio")

_MAX_BODY = 2 * MAX_SDP_LENGTH
"""Bytes of a request: an SDP with every line break and quote escaped as JSON is not larger."""
_MAX_DISCARDED = 16 * _MAX_BODY
"""Bytes read of a body that is larger, so that the answer is not lost in a reset connection."""
_PAGE = Path(__file__).with_name("page.html")
_TITLE = "fastrtc_anyio"


def mount(stream: Stream, app: Any, path: str, tags: list[str] | None) -> None:
    """See :meth:`fastrtc_anyio.Stream.mount`."""
    prefix = path.rstrip("/")
    if prefix and not prefix.startswith("/"):
        raise ValueError(f'path must be empty or begin with "/"; got {path!r}')
    if not hasattr(app, "router"):
        raise TypeError(f"a stream is mounted on a Starlette or FastAPI application; got {app!r}")

    async def webrtc_offer(request: Request) -> Response:
        return await _answer(stream, request)

    async def webrtc_config(request: Request) -> Response:
        # Read anew for each call: credentials of TURN servers grow old.
        return _Json(await client_config(stream), headers={"Cache-Control": "no-store"})

    endpoints = (("offer", "POST", webrtc_offer), ("config", "GET", webrtc_config))
    for name, method, endpoint in endpoints:
        route = f"{prefix}/webrtc/{name}"
        if hasattr(app, "add_api_route"):
            app.add_api_route(route, endpoint, methods=[method], tags=tags, response_model=None)
        else:
            app.router.routes.append(Route(route, endpoint, methods=[method]))
    _open_in_lifespan(stream, app)


async def client_config(stream: Stream) -> dict[str, Any]:
    """What a client has to know of a stream before it calls; for anybody to see.

    Returns:
        ``modality``, ``mode``, ``rtc_configuration``, ``track_constraints`` and ``rtp_params`` as
        they were given to the stream; ``title`` and ``subtitle``, empty with ``hide_title``.
    """
    ui = stream.ui_args
    shown = not ui.get("hide_title")
    configuration = stream.rtc_configuration
    if not isinstance(configuration, Mapping):
        configuration = configuration()
    if isawaitable(configuration):
        configuration = await configuration
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


class _BodyTooLarge(InvalidOffer):
    status_hint = 413


class _Json(JSONResponse):
    """JSON in ASCII: what came in as an escape can go out, even if it is half a character."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


async def _answer(stream: Stream, request: Request) -> Response:
    try:
        return _Json(await stream.offer(await _read_json(request)))
    except ClientDisconnect:
        return Response(status_code=400)  # to nobody
    except SignalingError as exc:
        return _Json(failure_body(exc), exc.status_hint)
    except Exception as exc:
        logger.exception("an offer could not be answered")
        hidden = FastRTCError("the server has met an error, which is in its log")
        return _Json(failure_body(exc if isinstance(exc, WebRTCError) else hidden), 500)


async def _read_json(request: Request) -> Any:
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= _MAX_BODY:
            body += chunk
        elif size > _MAX_DISCARDED:
            break
    if size > _MAX_BODY:
        raise _BodyTooLarge(f"the body is larger than {_MAX_BODY} bytes")
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as exc:
        raise InvalidOffer(f"the body is not JSON: {exc}") from exc
