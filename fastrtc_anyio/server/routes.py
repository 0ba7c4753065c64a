"""Routes of a stream in a Starlette or FastAPI application."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from fastrtc_anyio._core.options import check_type
from fastrtc_anyio._sessions.service import SessionService
from fastrtc_anyio._signaling.log_text import log_error
from fastrtc_anyio.errors import FastRTCError, NotAllowed

from .access import Visitor
from .forms import field_routes
from .hosts import HostRules, NamedHosts, check_host, check_hosts
from .http import JSON, Endpoint, guard_json, read_json
from .operators import operator_routes
from .options import WebOptions
from .page.components import Component, Hidden
from .page.document import page_document, page_headers
from .stopping import drain_at_end
from .telephone import answer_incoming_call, serve_telephone
from .websockets import serve_websocket
from .whip import whip_routes

__all__ = ["client_config", "create_page", "mount", "page_route"]

_TITLE = "fastrtc_anyio"


def mount(
    service: SessionService,
    options: WebOptions,
    app: Starlette,
    path: str,
    tags: list[str] | None = None,
) -> None:
    """Add the endpoints to an application, and open the service in its lifespan.

    See :meth:`fastrtc_anyio.Stream.mount`.

    Raises:
        ValueError: ``path`` does not begin with a slash.
        TypeError: ``app`` is not a Starlette or FastAPI application.
    """
    prefix = path.rstrip("/")
    if prefix and not prefix.startswith("/"):
        raise ValueError(f'path must be empty or begin with "/"; got {path!r}')
    if not hasattr(app, "router"):
        raise TypeError(f"app must be a Starlette or FastAPI application; got {app!r}")

    async def telephone_incoming(request: Request) -> Response:
        return await answer_incoming_call(service, options, request)

    routes = app.router.routes
    first = len(routes)
    endpoints: tuple[tuple[str, str, Endpoint], ...] = (
        ("webrtc/offer", "POST", guard_json(options, partial(_offer, service))),
        ("webrtc/config", "GET", guard_json(options, partial(_configure, service, options))),
        ("telephone/incoming", "POST", telephone_incoming),
    )
    for name, method, endpoint in endpoints:
        route, label = f"{prefix}/{name}", name.replace("/", "_")
        methods = [method] if name.startswith("telephone") else [method, "OPTIONS"]
        add_api_route = getattr(app, "add_api_route", None)
        if add_api_route is not None:  # FastAPI's, which documents the endpoint
            add_api_route(
                route, endpoint, methods=[method], tags=tags, response_model=None, name=label
            )
            methods.remove(method)
        if methods:
            routes.append(Route(route, endpoint, methods=methods, name=label))
    routes.extend(whip_routes(service, options, prefix))
    for name, serve in (
        ("websocket/offer", serve_websocket),
        ("telephone/handler", serve_telephone),
    ):
        socket, label = partial(serve, service, options), name.replace("/", "_")
        routes.append(WebSocketRoute(f"{prefix}/{name}", socket, name=label))
    routes.extend(field_routes(service, options, prefix, routes))
    routes.extend(operator_routes(service, options, prefix, routes))
    for added in routes[first:]:
        _allow_slash(added)
    _open_in_lifespan(service, app)


async def _offer(service: SessionService, request: Request, visitor: Visitor) -> Response:
    with service.observers.watch_refusals(FastRTCError):
        body = await read_json(request, service.request_limits)
    answer = await service.handle_request(body, identity=visitor.identity, client=visitor.client)
    return JSON(answer)


async def _configure(
    service: SessionService, options: WebOptions, _request: Request, _visitor: Visitor
) -> Response:
    # Read anew for each call: credentials of TURN servers expire.
    config = await client_config(service, options)
    return JSON(config, headers={"Cache-Control": "no-store"})


async def client_config(service: SessionService, options: WebOptions) -> dict[str, object]:
    """Return the body of ``GET webrtc/config``, which a client reads before it calls.

    Most entries are arguments of :class:`fastrtc_anyio.Stream`. ``stereo`` is whether the handler
    or the constraints ask for two channels; a handler that each call creates states this by
    ``stereo=1`` in the answer instead.
    """
    ui = options.ui_args
    shown = not ui.get("hide_title")
    return {
        "modality": service.modality,
        "mode": service.mode,
        "rtc_configuration": await options.load_rtc_configuration(),
        "track_constraints": options.track_constraints,
        "rtp_params": options.rtp_params,
        "stereo": _wants_stereo(service.handler, options.track_constraints),
        "title": str(ui.get("title") or _TITLE) if shown else "",
        "subtitle": str(ui.get("subtitle") or "") if shown else "",
        "send_input_on": ui.get("send_input_on", "change"),
        "inputs": _describe(options.additional_inputs),
        "outputs": _describe(options.additional_outputs),
    }


def _describe(components: Iterable[Component]) -> list[dict[str, object]]:
    return [component.describe() for component in components if not isinstance(component, Hidden)]


def _wants_stereo(handler: object, constraints: Mapping[str, object]) -> bool:
    audio = constraints.get("audio", constraints)
    count = audio.get("channelCount") if isinstance(audio, Mapping) else None
    wanted = list(count.values()) if isinstance(count, Mapping) else [count]
    return getattr(handler, "expected_layout", None) == "stereo" or 2 in wanted


def page_route(
    path: str = "/", *, framed_by: Iterable[str] = (), allowed_hosts: Iterable[str] = ()
) -> Route:
    """Create the route of the page that talks to the stream mounted at the same path.

    The page needs no authentication: it is the same for every visitor and holds no data of the
    stream. Its requests are guarded, and it asks the visitor for a token where one is required.

    Args:
        path: path of the page.
        framed_by: origins whose pages may show it in a frame, such as ``["https://example.com"]``,
            or ``["*"]`` for any. By default only pages of the same origin may.
        allowed_hosts: names of the server, as for :class:`fastrtc_anyio.Stream`.

    Raises:
        TypeError, ValueError: ``path`` does not begin with a slash, ``framed_by`` is not a list of
            origins, or ``allowed_hosts`` of hosts.
    """
    check_type("path", path, str)
    if not path.startswith("/"):
        raise ValueError(f'path must begin with "/"; got {path!r}')
    return create_page(path, NamedHosts(check_hosts(allowed_hosts)), framed_by)


def create_page(path: str, rules: HostRules, framed_by: Iterable[str]) -> Route:
    """Create the route of the page, with the host rules of a stream."""
    headers = page_headers(framed_by)

    async def page(request: Request) -> Response:
        try:
            check_host(rules, request)
        except NotAllowed as exc:
            log_error(logging.WARNING, "the page was refused", error=exc, event="page.refused")
            return PlainTextResponse(str(exc), exc.status_hint)
        return Response(page_document(), media_type="text/html", headers=headers)

    route = Route(path, page)
    _allow_slash(route)
    return route


def _allow_slash(route: BaseRoute) -> None:
    """Let a route match with and without a slash at the end.

    Starlette would redirect to the other form, at an absolute URL without the part of the path that
    a proxy has removed.
    """
    assert isinstance(route, Route | WebSocketRoute)
    pattern = route.path_regex.pattern.removesuffix("$").removesuffix("/")
    route.path_regex = re.compile(f"{pattern}/?$")


def _open_in_lifespan(service: SessionService, app: Starlette) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[Any, None]:
        # The application's own resources outlive the sessions. It may have opened the stream.
        async with inner(app) as state, AsyncExitStack() as stack:
            if not service.is_open:
                await stack.enter_async_context(service)
            await stack.enter_async_context(drain_at_end(service, app))
            yield state

    app.router.lifespan_context = lifespan
