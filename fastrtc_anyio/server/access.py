"""Access control: origin checks and authentication.

Every endpoint calls :func:`admit` before it reads a request.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, overload
from urllib.parse import urlsplit

from anyio import move_on_after
from anyio.lowlevel import checkpoint

from fastrtc_anyio._sessions.ownership import ANONYMOUS
from fastrtc_anyio._user_code import call_user_function
from fastrtc_anyio.errors import HandlerContractError, NotAllowed, NotAuthenticated, Overloaded

from .hosts import HostRules, NamedHosts, check_host

if TYPE_CHECKING:  # so that a `Stream` can be made without Starlette
    from starlette.requests import HTTPConnection

__all__ = [
    "AccessRules",
    "Authenticate",
    "Visitor",
    "admit",
    "check_origins",
    "cors_headers",
    "is_allowed",
    "require_token",
]

Authenticate = Callable[["HTTPConnection"], bool | str | Awaitable[bool | str]]

_VERDICT_SECONDS = 20.0
"""Seconds for ``authenticate`` to return, with the wait for a thread."""
_PREFLIGHT_SECONDS = 600
"""Seconds for which a browser may cache the response to a preflight request."""
_FORBIDDEN = re.compile(r"[\s,;@\"'<>]")
"""Characters that no host contains; in a header they would begin another directive."""
_PORTS = {"http": ":80", "https": ":443"}


class AccessRules(Protocol):
    """Access rules. A ``Stream`` has these attributes."""

    @property
    def authenticate(self) -> Authenticate | None: ...

    @property
    def allowed_origins(self) -> Iterable[str]: ...


@dataclass(frozen=True)
class Visitor:
    """The client of a request or a WebSocket that was admitted."""

    identity: str = ANONYMOUS
    client: str | None = None
    """The client as the limits of one client count it; None exempts it from them."""


async def admit(rules: AccessRules, connection: HTTPConnection) -> str:
    """Check the host, the origin and the credentials of a request or a WebSocket.

    Returns:
        The client's identity, which methods of ``Stream`` take as ``identity``: the string that
        ``authenticate`` returned, or an empty one.

    Args:
        rules: a stream, or another object with ``authenticate`` and ``allowed_origins``. It may
            have ``allowed_hosts`` and ``telephone``, too.
        connection: the request or WebSocket.

    Raises:
        NotAllowed: the request names a foreign host, or a page of a foreign origin sent it.
        NotAuthenticated: ``authenticate`` returned False.
        HandlerContractError: ``authenticate`` returned neither True, False nor an identity.
        Overloaded: ``authenticate`` did not return in time, or too many calls of it wait.
        Exception: ``authenticate`` raised it.
    """
    check_host(rules if isinstance(rules, HostRules) else NamedHosts(), connection)
    headers = connection.headers
    if not is_allowed(headers.get("origin"), headers.get("host", ""), rules.allowed_origins):
        raise NotAllowed(
            "pages of other origins may not call this stream; Stream(allowed_origins=[...]) allows "
            "them",
            repr(headers["origin"]),
        )
    if rules.authenticate is None:
        await checkpoint()
        return ANONYMOUS
    with move_on_after(_VERDICT_SECONDS) as scope:
        verdict: object = await call_user_function(rules.authenticate, connection)
    if scope.cancelled_caught:
        raise Overloaded(f"authenticate did not return within {_VERDICT_SECONDS:g} s")
    if verdict is False:
        raise NotAuthenticated("authentication required: log in or send a bearer token")
    if verdict is True:
        return ANONYMOUS
    if isinstance(verdict, str) and verdict:
        return verdict
    # A function without a return statement returns None. Other objects are not identities: an error
    # or a response that is returned by mistake must not admit the client.
    raise HandlerContractError(
        "authenticate must return True or False, or the client's identity, a non-empty str; got "
        f"{type(verdict).__name__}"  # not the value, which may be personal
    )


@overload
def require_token(*tokens: str) -> Callable[[HTTPConnection], bool]: ...


@overload
def require_token(identities: Mapping[str, str], /) -> Callable[[HTTPConnection], bool | str]: ...


def require_token(
    *tokens: str | Mapping[str, str],
) -> Callable[[HTTPConnection], bool] | Callable[[HTTPConnection], bool | str]:
    """Create an ``authenticate`` function that accepts these bearer tokens (RFC 6750).

    A mapping from tokens to identities returns the identity of a token's owner:
    ``require_token({"token of Ada": "ada", "token of Bo": "bo"})``.

    Raises:
        TypeError: a token or an identity is not a string.
        ValueError: a token or an identity is empty, or ``tokens`` is.
    """
    known = _known_tokens(tokens)

    def authenticate(connection: HTTPConnection) -> bool | str:
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        verdict: bool | str = False
        sent = given.strip().encode()
        # No early exit: the time does not depend on which token matches.
        for token, admitted in known:
            if hmac.compare_digest(sent, token):
                verdict = admitted
        return verdict

    return authenticate


def _known_tokens(tokens: tuple[str | Mapping[str, str], ...]) -> list[tuple[bytes, bool | str]]:
    known: list[tuple[str, bool | str]] = []
    strings: list[object] = [*tokens]
    if len(tokens) == 1 and isinstance(tokens[0], Mapping):
        known += tokens[0].items()
        strings = [part for item in known for part in item]
    for given in strings:
        if not isinstance(given, str):
            kind = type(given).__name__
            raise TypeError(f"require_token takes tokens, or one mapping to identities; got {kind}")
    if not all(strings) or not strings:
        raise ValueError("require_token needs at least one token, and no empty token or identity")
    known = known or [(str(token), True) for token in tokens]
    return [(token.encode(), verdict) for token, verdict in known]


def cors_headers(
    rules: AccessRules, connection: HTTPConnection, methods: str, *, preflight: bool = False
) -> dict[str, str]:
    """Return the response headers that let pages of allowed origins use an endpoint.

    ``methods`` are those of the endpoint, for the response to a preflight request.
    """
    if not rules.allowed_origins:
        return {}
    headers = {"Vary": "Origin"}
    origin = connection.headers.get("origin")
    if origin is None or not is_allowed(origin, "", rules.allowed_origins):
        return headers
    headers["Access-Control-Allow-Origin"] = origin
    if preflight:
        requested = connection.headers.get("access-control-request-headers")
        headers["Access-Control-Allow-Methods"] = methods
        headers["Access-Control-Allow-Headers"] = (
            requested or "Authorization, Content-Type, If-Match"
        )
        headers["Access-Control-Max-Age"] = str(_PREFLIGHT_SECONDS)
    else:
        headers["Access-Control-Expose-Headers"] = "Location, Link, ETag, Retry-After"
    return headers


def check_origins(origins: Iterable[str], name: str = "allowed_origins") -> tuple[str, ...]:
    """Check an option that holds origins.

    Raises:
        TypeError: ``origins`` is a single string, which would be read letter by letter.
        ValueError: an entry is neither an origin such as ``https://example.com`` nor ``"*"``.
    """
    if isinstance(origins, str):
        raise TypeError(f"{name} must be a list of origins; got {origins!r}")
    checked = tuple(origins)
    for origin in checked:
        if origin != "*" and (
            "://" not in origin or _normal(origin) != origin.lower() or _FORBIDDEN.search(origin)
        ):
            raise ValueError(
                f'{name} must hold "*" or origins like "https://example.com"; got {origin!r}'
            )
    return checked


def is_allowed(origin: str | None, host: str, allowed: Iterable[str]) -> bool:
    """Return whether a page of ``origin`` may send a request (RFC 6454; RFC 6455 4.2.2).

    The pages of ``host`` are allowed, and those of further origins. The scheme of the host's pages
    does not count: only a proxy in front of the server may know whether they came over TLS.
    """
    if origin is None:  # only browsers send one: the client is not a page
        return True
    normal = _normal(origin)
    same = normal.partition("://")[2]
    own = {host.lower(), *(host.lower().removesuffix(port) for port in _PORTS.values())}
    return (bool(same) and same in own) or any(
        entry == "*" or entry.lower() == normal for entry in allowed
    )


def _normal(origin: str) -> str:
    """Return scheme, host, and port unless it is the default one; "" for a malformed origin."""
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return ""
    if not parts.scheme or not parts.netloc or parts.path or parts.query or parts.fragment:
        return ""
    return f"{parts.scheme}://{parts.netloc.removesuffix(_PORTS.get(parts.scheme, ''))}"
