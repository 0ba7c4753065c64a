"""What every endpoint does: let somebody in, read JSON, answer with a true status."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from fastrtc_anyio._signaling.requests import failure_body
from fastrtc_anyio.errors import (
    FastRTCError,
    InvalidOffer,
    NotAllowed,
    NotAuthenticated,
    PeerFailed,
    SignalingError,
    WebRTCError,
)
from fastrtc_anyio.limits import RequestLimits

from .access import check_entry, cors_headers
from .bodies import read_body

if TYPE_CHECKING:
    from fastrtc_anyio.stream import Stream

__all__ = ["JSON", "Endpoint", "log_failure", "read_json", "respond"]

logger = logging.getLogger("fastrtc_anyio")

Endpoint = Callable[[Request], Awaitable[Response]]


class JSON(JSONResponse):
    """JSON in ASCII: what came in as an escape can go out, even if it is half a character."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


async def respond(stream: Stream, request: Request, endpoint: Endpoint) -> Response:
    """Carry out a request if it may come in; failures are answered as FastRTC's clients expect."""
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
        if isinstance(exc, NotAllowed):
            # Most pages show nobody what they were told.
            logger.warning("a request was refused: %s", exc)
        response = JSON(failure_body(exc), exc.status_hint)
        if isinstance(exc, NotAuthenticated):
            response.headers["WWW-Authenticate"] = "Bearer"
    except Exception as exc:
        log_failure("a request could not be answered", exc)
        hidden = FastRTCError("the server has met an error, which is in its log")
        response = JSON(failure_body(exc if isinstance(exc, WebRTCError) else hidden), 500)
    response.headers.update(cors)
    return response


def log_failure(what: str, error: Exception) -> None:
    """Write down an error that clients are not told, called where it is caught. That there is no
    way through the network says all in its message; whatever else comes with its traceback."""
    if isinstance(error, PeerFailed):
        logger.error("%s: %s", what, error)
    else:
        logger.exception(what)


async def read_json(request: Request, limits: RequestLimits) -> Any:
    """The body of a request.

    Raises:
        LimitExceeded: it is too large, or comes too slowly.
        InvalidOffer: it is no JSON.
        ClientDisconnect: the client is gone.
    """
    body = await read_body(request, limits)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise InvalidOffer(f"the body is not JSON: {exc}") from exc
