"""The stream's endpoints in a Starlette or FastAPI application."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from fastrtc_anyio._core.user_code import call_user_function

from .http import JSON, read_json, respond
from .page.document import page_document, page_headers
from .page.forms import add_field_routes, describe_fields
from .telephone import answer_incoming_call
from .whip import whip_routes

if TYPE_CHECKING:
    from fastrtc_anyio.stream import Stream

__all__ = ["client_config", "mount", "page_route"]

_TITLE = "fastrtc_anyio"


def mount(stream: Stream, app: Any, path: str, tags: list[str] | None) -> None:
    """See :meth:`fastrtc_anyio.Stream.mount`."""
    prefix = path.rstrip("/")
    if prefix and not prefix.startswith("/"):
        raise ValueError(f'path must be empty or begin with "/"; got {path!r}')
    if not hasattr(app, "router"):
        raise TypeError(f"a stream is mounted on a Starlette or FastAPI application; got {app!r}")

    async def answer(request: Request) -> Response:
        return JSON(await stream.offer(await read_json(request, stream.request_limits)))

    async def configure(_request: Request) -> Response:
        # Read anew for each call: credentials of TURN servers grow old.
        return JSON(await client_config(stream), headers={"Cache-Control": "no-store"})

    async def webrtc_offer(request: Request) -> Response:
        return await respond(stream, request, answer)

    async def webrtc_config(request: Request) -> Response:
        return await respond(stream, request, configure)

    async def telephone_incoming(request: Request) -> Response:
        return await answer_incoming_call(stream, request)

    endpoints = (
        ("webrtc/offer", ["POST", "OPTIONS"], webrtc_offer),
        ("webrtc/config", ["GET", "OPTIONS"], webrtc_config),
        ("telephone/incoming", ["POST"], telephone_incoming),
    )
    for name, methods, endpoint in endpoints:
        route = f"{prefix}/{name}"
        if hasattr(app, "add_api_route"):
            method = methods.pop(0)
            app.add_api_route(route, endpoint, methods=[method], tags=tags, response_model=None)
        if methods:
            app.router.routes.append(Route(route, endpoint, methods=methods))
    app.router.routes.extend(whip_routes(stream, prefix))
    for name, serve in (
        ("websocket/offer", stream.websocket_offer),
        ("telephone/handler", stream.telephone_handler),
    ):
        app.router.routes.append(WebSocketRoute(f"{prefix}/{name}", serve))
    add_field_routes(stream, app, prefix)
    _open_in_lifespan(stream, app)


async def client_config(stream: Stream) -> dict[str, Any]:
    """What a client has to know of a stream before it calls; for anybody to see who may come in.

    Returns:
        ``modality``, ``mode``, ``rtc_configuration``, ``track_constraints`` and ``rtp_params`` as
        they were given to the stream; ``stereo``, whether it is known to want two channels;
        ``title`` and ``subtitle``, empty with ``hide_title``; ``inputs`` and ``outputs``,
        described.
    """
    ui = stream.ui_args
    shown = not ui.get("hide_title")
    configuration: Any = stream.rtc_configuration
    if callable(configuration):
        configuration = await call_user_function(configuration)
    return {
        "modality": stream.modality,
        "mode": stream.mode,
        "rtc_configuration": dict(configuration or {}),
        "track_constraints": stream.track_constraints,
        "rtp_params": stream.rtp_params,
        "stereo": _wants_stereo(stream),
        "title": str(ui.get("title") or _TITLE) if shown else "",
        "subtitle": str(ui.get("subtitle") or "") if shown else "",
        **describe_fields(stream),
    }


def _wants_stereo(stream: Stream) -> bool:
    """Whether the handler or the constraints ask for two channels. A handler that is only made for
    a call says so in its answer, by ``stereo=1``."""
    given = stream.track_constraints
    audio = given.get("audio", given)
    count = audio.get("channelCount") if isinstance(audio, Mapping) else None
    wanted = list(count.values()) if isinstance(count, Mapping) else [count]
    return getattr(stream.handler, "expected_layout", None) == "stereo" or 2 in wanted


def page_route(path: str = "/", *, framed_by: Iterable[str] | None = None) -> Route:
    """The page that talks to the stream mounted at the same path.

    It is the same for everybody and holds nothing of the stream's, so it is not guarded: what it
    asks for is, and where a token is wanted it asks the person for it.

    Args:
        path: where it is.
        framed_by: origins whose pages may show it in a frame, such as ``["https://example.com"]``;
            an empty list is none but its own. By default any may: a frame has a microphone only if
            the page around it gives it one.

    Raises:
        TypeError, ValueError: ``framed_by`` is no list of origins.
    """
    headers = page_headers(framed_by)

    async def page(_request: Request) -> Response:
        return Response(page_document(), media_type="text/html", headers=headers)

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
