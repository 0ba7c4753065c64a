"""Endpoints for operators: ``health/live``, ``health/ready``, and ``sessions/{session_id}``.

Orchestrators and load balancers ask for the health of a stream. They have no credentials, and use
any host name, so these endpoints check neither. A response contains nothing but one of a few words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from anyio.lowlevel import checkpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fastrtc_anyio._sessions.service import SessionService

from .access import Visitor
from .http import JSON, guard_json
from .last_route import LastRoute
from .options import WebOptions

__all__ = ["operator_routes"]

_NOT_STORED = {"Cache-Control": "no-store"}


def operator_routes(
    service: SessionService, options: WebOptions, prefix: str, others: Sequence[BaseRoute]
) -> list[Route]:
    """Create the routes of a stream for its operators; ``others`` take precedence."""
    routes: list[Route] = [
        LastRoute(f"{prefix}/health/live", _answer_live, ["GET"], others),
        LastRoute(f"{prefix}/health/ready", partial(_answer_ready, service), ["GET"], others),
    ]
    if options.authenticate is not None:
        describe = guard_json(options, partial(_describe, service))
        path = f"{prefix}/sessions/{{session_id}}"
        routes.append(LastRoute(path, describe, ["GET", "OPTIONS"], others))
    return routes


async def _answer_live(_request: Request) -> Response:
    await checkpoint()
    return JSON({"status": "live"}, headers=_NOT_STORED)


async def _answer_ready(service: SessionService, _request: Request) -> Response:
    await checkpoint()
    reason = service.find_unready()
    if reason is None:
        return JSON({"status": "ready"}, headers=_NOT_STORED)
    return JSON({"status": "unready", "reason": reason}, 503, headers=_NOT_STORED)


async def _describe(service: SessionService, request: Request, visitor: Visitor) -> Response:
    await checkpoint()
    described = service.describe(request.path_params["session_id"], visitor.identity)
    return JSON(described, headers=_NOT_STORED)
