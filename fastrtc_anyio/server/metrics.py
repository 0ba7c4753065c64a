"""``GET /metrics``, for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from anyio.lowlevel import checkpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fastrtc_anyio._sessions.service import SessionService
from fastrtc_anyio.observability.metrics import Metrics

from .access import Visitor
from .http import guard_json
from .last_route import LastRoute
from .options import WebOptions

__all__ = ["metrics_routes"]


def metrics_routes(
    service: SessionService, options: WebOptions, prefix: str, others: Sequence[BaseRoute]
) -> list[Route]:
    """Create the route of the metrics, if the stream has some; ``others`` take precedence."""
    for observer in service.observers:
        if isinstance(observer, Metrics) and observer.endpoint:
            endpoint = guard_json(options, partial(_render, observer))
            return [LastRoute(f"{prefix}/metrics", endpoint, ["GET"], others)]
    return []


async def _render(metrics: Metrics, _request: Request, _visitor: Visitor) -> Response:
    await checkpoint()
    text, content_type = metrics.render()
    return Response(text, headers={"Content-Type": content_type, "Cache-Control": "no-store"})
