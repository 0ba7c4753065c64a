"""Endpoints for operators: the health of a stream, its metrics, and descriptions of its sessions.

Orchestrators and load balancers ask for the health of a stream. They have no credentials, and use
any host name, so ``health/live`` and ``health/ready`` check neither. Their responses contain
nothing but one of a few words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from anyio.lowlevel import checkpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fastrtc_anyio._sessions.service import SessionService
from fastrtc_anyio.observability.metrics import Metrics

from .access import Visitor
from .http import JSON, guard_json
from .last_route import LastRoute
from .options import WebOptions

__all__ = ["operator_routes"]

_NOT_STORED = {"Cache-Control": "no-store"}


def operator_routes(
    service: SessionService, options: WebOptions, prefix: str, others: Sequence[BaseRoute]
) -> Iterator[Route]:
    """Yield the routes of a stream for its operators; ``others`` take precedence."""
    ready = partial(_answer_ready, service)
    yield LastRoute(f"{prefix}/health/live", _answer_live, ["GET"], others)
    yield LastRoute(f"{prefix}/health/ready", ready, ["GET"], others)
    metrics = [one for one in service.observers if isinstance(one, Metrics) and one.endpoint]
    if metrics:
        render = guard_json(options, partial(_render, metrics[0]))
        yield LastRoute(f"{prefix}/metrics", render, ["GET"], others)
    if options.authenticate is not None:
        describe = guard_json(options, partial(_describe, service))
        path = f"{prefix}/sessions/{{session_id}}"
        yield LastRoute(path, describe, ["GET", "OPTIONS"], others)


async def _answer_live(_request: Request) -> Response:
    await checkpoint()
    return JSON({"status": "live"}, headers=_NOT_STORED)


async def _answer_ready(service: SessionService, _request: Request) -> Response:
    await checkpoint()
    reason = service.find_unready()
    if reason is None:
        return JSON({"status": "ready"}, headers=_NOT_STORED)
    return JSON({"status": "unready", "reason": reason}, 503, headers=_NOT_STORED)


async def _render(metrics: Metrics, _request: Request, _visitor: Visitor) -> Response:
    await checkpoint()
    text, content_type = metrics.render()
    return Response(text, headers={"Content-Type": content_type, **_NOT_STORED})


async def _describe(service: SessionService, request: Request, visitor: Visitor) -> Response:
    await checkpoint()
    described = service.describe(request.path_params["session_id"], visitor.identity)
    return JSON(described, headers=_NOT_STORED)
