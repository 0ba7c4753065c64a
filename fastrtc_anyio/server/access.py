"""Who may come in: where a page is from, and who somebody says to be.

Every endpoint asks :func:`check_entry` first, before it reads anything else.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint
from starlette.requests import HTTPConnection

from fastrtc_anyio._core.user_code import call_user_function
from fastrtc_anyio.errors import HandlerContractError, NotAllowed, NotAuthenticated

from .origins import is_allowed

if TYPE_CHECKING:
    from fastrtc_anyio.stream import Stream

__all__ = ["check_entry", "cors_headers", "require_token"]

logger = logging.getLogger("fastrtc_anyio")

_PREFLIGHT_SECONDS = 600
"""How long a browser may remember what a preflight request was told."""


async def check_entry(stream: Stream, connection: HTTPConnection) -> None:
    """Let a request or a WebSocket in, or raise.

    Raises:
        NotAllowed: it is from a page of an origin that is not allowed.
        NotAuthenticated: ``authenticate`` returned False.
        HandlerContractError: ``authenticate`` returned neither True nor False.
        What ``authenticate`` raises.
    """
    headers = connection.headers
    if not is_allowed(headers.get("origin"), headers.get("host", ""), stream.allowed_origins):
        raise NotAllowed(
            f"pages of {headers['origin']!r} may not call this stream; "
            "Stream(allowed_origins=[...]) lets them"
        )
    if stream.authenticate is None:
        await checkpoint()
        return
    verdict: object = await call_user_function(stream.authenticate, connection)
    if verdict is False:
        raise NotAuthenticated("this stream is for those it knows: log in, or send a token")
    if verdict is not True:
        # None is what a function gives that forgot to say no.
        raise HandlerContractError(f"authenticate returns True or False; got {verdict!r}")


def require_token(*tokens: str) -> Callable[[HTTPConnection], bool]:
    """For ``Stream(authenticate=...)``: lets in who sends one of these bearer tokens (RFC 6750).

    Raises:
        ValueError: there is no token, or an empty one.
    """
    if not tokens or not all(tokens):
        raise ValueError("require_token needs tokens that are not empty")
    known = [token.encode() for token in tokens]

    def authenticate(connection: HTTPConnection) -> bool:
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        sent = given.strip().encode()
        return any(hmac.compare_digest(sent, token) for token in known)

    return authenticate


def cors_headers(
    stream: Stream, connection: HTTPConnection, methods: str, *, preflight: bool = False
) -> dict[str, str]:
    """What a page of another origin has to be told so that its browser lets it call."""
    if not stream.allowed_origins:
        return {}
    headers = {"Vary": "Origin"}
    origin = connection.headers.get("origin")
    if origin is None or not is_allowed(origin, "", stream.allowed_origins):
        return headers
    headers["Access-Control-Allow-Origin"] = origin
    if preflight:
        asked = connection.headers.get("access-control-request-headers")
        headers["Access-Control-Allow-Methods"] = methods
        headers["Access-Control-Allow-Headers"] = asked or "Authorization, Content-Type, If-Match"
        headers["Access-Control-Max-Age"] = str(_PREFLIGHT_SECONDS)
    else:
        headers["Access-Control-Expose-Headers"] = "Location, Link, ETag, Retry-After"
    return headers
