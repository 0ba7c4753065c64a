"""Bodies of requests: bounded in size and time."""

from __future__ import annotations

from anyio import move_on_after
from starlette.requests import Request

from fastrtc_anyio.errors import SignalingError

__all__ = ["BODY_SECONDS", "read_body"]

BODY_SECONDS = 10.0
"""Seconds a client gets to send a body."""
_DISCARDED = 16
"""So many times the limit is read of a body that is too large, so that the answer is not lost in a
reset connection."""


class _BodyTooLarge(SignalingError):
    status_hint = 413


class _BodyTooSlow(SignalingError):
    status_hint = 408


async def read_body(request: Request, limit: int) -> bytes:
    """Read a whole body of at most ``limit`` bytes, within :data:`BODY_SECONDS`.

    Raises:
        SignalingError: it is too large (413), or comes too slowly (408).
        ClientDisconnect: the client is gone.
    """
    body, size = bytearray(), 0
    with move_on_after(BODY_SECONDS) as scope:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= limit:
                body += chunk
            elif size > _DISCARDED * limit:
                break
    if scope.cancelled_caught:
        raise _BodyTooSlow(f"the body was not there after {BODY_SECONDS:g} s")
    if size > limit:
        raise _BodyTooLarge(f"the body is larger than {limit} bytes")
    return bytes(body)
