"""Bodies of requests: bounded in size and time."""

from __future__ import annotations

from anyio import move_on_after
from starlette.requests import Request

from fastrtc_anyio.errors import LimitExceeded
from fastrtc_anyio.limits import RequestLimits

__all__ = ["read_body"]

_DISCARDED = 16
"""So many times the limit is read of a body that is too large, so that the answer is not lost in a
reset connection."""


async def read_body(request: Request, limits: RequestLimits) -> bytes:
    """Read a whole body.

    Raises:
        LimitExceeded: it is too large (413), or comes too slowly (408).
        ClientDisconnect: the client is gone.
    """
    limit, seconds = limits.body_bytes, limits.body_seconds
    body, size = bytearray(), 0
    with move_on_after(seconds) as scope:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= limit:
                body += chunk
            elif size > _DISCARDED * limit:
                break
    if scope.cancelled_caught:
        text = f"the body was not there after {seconds:g} s (RequestLimits.body_seconds)"
        raise LimitExceeded(text, 408)
    if size > limit:
        raise LimitExceeded(f"the body is larger than {limit} bytes (RequestLimits.body_bytes)")
    return bytes(body)
