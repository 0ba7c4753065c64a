"""HTTP requests: guard an endpoint, read a bounded body, and answer failures."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit

from anyio import move_on_after
from starlette.datastructures import URL
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._overload import as_overloaded
from fastrtc_anyio._signaling.log_text import log_error, log_text
from fastrtc_anyio._signaling.messages import dump_json, load_json
from fastrtc_anyio._signaling.requests import failure_body
from fastrtc_anyio._user_code import contain_exits
from fastrtc_anyio._wire.call_xml import TelephoneOptions
from fastrtc_anyio.errors import (
    FastRTCError,
    InvalidBody,
    LimitExceeded,
    NotAllowed,
    NotAuthenticated,
    PeerFailed,
    SignalingError,
    WebRTCError,
)
from fastrtc_anyio.limits import RequestLimits

from .access import Visitor, admit, cors_headers
from .options import WebOptions

__all__ = [
    "AdmittedEndpoint",
    "Endpoint",
    "Guard",
    "HIDDEN",
    "JSON",
    "URL_CHARACTERS",
    "admit_visitor",
    "guard_json",
    "own_url",
    "read_body",
    "read_json",
    "retry_headers",
]

URL_CHARACTERS = "/?%!$&'()*+,;=:@~"
"""Punctuation that a path or a query may contain (RFC 3986 3.4); ``%`` begins an encoded byte."""

_UNAVAILABLE = 503

_SCHEMES = ("http", "https", "ws", "wss")
_HOST = re.compile(r"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?", re.ASCII | re.IGNORECASE)
_PREFIX = re.compile(r"(?:/[^\s?#]*)?")

Endpoint = Callable[[Request], Awaitable[Response]]
AdmittedEndpoint = Callable[[Request, Visitor], Awaitable[Response]]

HIDDEN = "the server has met an error, which is in its log"
"""The message of an error whose details clients must not see."""
_DISCARDED = 16
"""Bodies up to this multiple of the limit are read to their end: closing the connection earlier
would reset it, and the client would lose the response."""


class JSON(JSONResponse):
    """JSON that every client can parse."""

    def render(self, content: object) -> bytes:
        return dump_json(content).encode()


@dataclass(frozen=True)
class Guard:
    """Admits requests to endpoints, and answers every failure of one."""

    options: WebOptions
    fail: Callable[[FastRTCError, int], Response]
    """Builds the response to an error, from the error and its HTTP status."""
    subject: str = "a request"
    """The kind of request, for the log."""

    async def respond(
        self,
        request: Request,
        endpoint: AdmittedEndpoint,
        *,
        methods: str = "",
        options: Response | None = None,
        is_admitted: bool = False,
    ) -> Response:
        """Carry out a request.

        Args:
            methods: methods of the endpoint, for pages of other origins. Empty: no CORS headers.
            options: the response to an ``OPTIONS`` request, which needs no admission.
            is_admitted: whether the caller admits the request by other means.
        """
        preflight = options is not None and request.method == "OPTIONS"
        cors = cors_headers(self.options, request, methods, preflight=preflight) if methods else {}
        if options is not None and preflight:
            response = options
        else:
            response = await self._carry_out(request, endpoint, is_admitted)
        response.headers.update(cors)
        return response

    async def _carry_out(
        self, request: Request, endpoint: AdmittedEndpoint, is_admitted: bool
    ) -> Response:
        try:
            with contain_exits("a function of the application"):
                visitor = Visitor() if is_admitted else await admit_visitor(self.options, request)
                return await endpoint(request, visitor)
        except ClientDisconnect:
            return Response(status_code=400)  # no client is left to read it
        except SignalingError as exc:
            self._log_refusal(exc)
            return self.fail(exc, exc.status_hint)
        except Exception as exc:
            if (refusal := as_overloaded(exc)) is not None:
                self._log_refusal(refusal)
                return self.fail(refusal, refusal.status_hint)
            if isinstance(exc, PeerFailed):
                # A network without a usable address: the message says all, a traceback nothing.
                logger.error(
                    "%s could not be answered: %s",
                    self.subject,
                    log_text(exc),
                    event="request.failed",
                )
            else:
                logger.exception("%s could not be answered", self.subject, event="request.failed")
            return self.fail(exc if isinstance(exc, WebRTCError) else FastRTCError(HIDDEN), 500)

    def _log_refusal(self, error: SignalingError) -> None:
        if isinstance(error, NotAllowed):
            # Most pages do not show the response to a request that a browser blocked.
            level = logging.WARNING
        elif error.status_hint == _UNAVAILABLE:
            level = logging.INFO
        else:
            return  # the client alone has to mend its request
        log_error(level, "%s was refused", self.subject, error=error, event="request.refused")


async def admit_visitor(
    options: WebOptions, connection: HTTPConnection, *, check_access: bool = True
) -> Visitor:
    """Count a request or a WebSocket handshake, admit it, and return its client.

    Without ``check_access`` the client need not authenticate.

    Raises:
        LimitExceeded: the client has sent too many requests.
        Any error of :func:`.access.admit`.
    """
    with options.observers.watch_refusals():
        client = await options.fairness.count(connection)
        if not check_access:
            return Visitor(client=client)
        identity = await admit(options, connection)
    return Visitor(identity, f"identity {identity}" if identity else client)


def guard_json(options: WebOptions, endpoint: AdmittedEndpoint) -> Endpoint:
    """Guard an endpoint whose failures have FastRTC's JSON body."""
    guard = Guard(options, _fail_as_json)

    # No docstring: FastAPI would publish it.
    async def guarded(request: Request) -> Response:
        empty = Response(status_code=204)
        return await guard.respond(request, endpoint, methods="GET, POST, OPTIONS", options=empty)

    return guarded


def _fail_as_json(error: FastRTCError, status: int) -> Response:
    response = JSON(failure_body(error), status, retry_headers(error))
    if isinstance(error, NotAuthenticated):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def retry_headers(error: FastRTCError) -> dict[str, str]:
    """Return the header that tells a client when to repeat a request, if it should."""
    seconds = error.retry_after if isinstance(error, SignalingError) else None
    return {} if seconds is None else {"Retry-After": str(math.ceil(seconds))}


async def read_body(request: Request, limits: RequestLimits) -> bytes:
    """Read the whole body of a request.

    Raises:
        LimitExceeded: the body is too large (413) or too slow (408).
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
        text = f"the body did not arrive within {seconds:g} s (RequestLimits.body_seconds)"
        raise LimitExceeded(text, 408)
    if size > limit:
        raise LimitExceeded(f"the body is larger than {limit} bytes (RequestLimits.body_bytes)")
    return bytes(body)


async def read_json(request: Request, limits: RequestLimits) -> object:
    """Read and decode the body of a request.

    Raises:
        LimitExceeded: the body is too large (413) or too slow (408).
        InvalidBody: the body is not JSON.
    """
    body = await read_body(request, limits)
    try:
        return load_json(body)
    except ValueError as exc:
        raise InvalidBody(f"the body is not JSON: {exc}") from None


def own_url(connection: HTTPConnection, options: TelephoneOptions) -> str:
    """Return the URL of a request as its client sees it, even through a proxy."""
    headers, prefix = connection.headers, ""
    own = URL(scope={**connection.scope, "query_string": b""})
    scheme, netloc = own.scheme, own.netloc
    if options.trust_forwarded:
        # The first entry of a header is that of the proxy nearest to the client.
        forwarded_scheme = headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
        scheme = forwarded_scheme if forwarded_scheme in _SCHEMES else scheme
        host = headers.get("x-forwarded-host", "").partition(",")[0].strip()
        netloc = host if _HOST.fullmatch(host) else netloc
        # Each proxy removes its part of the path, the one nearest to the client first.
        stripped = ",".join(headers.getlist("x-forwarded-prefix")).split(",")
        joined = "".join(part.strip().rstrip("/") for part in stripped)
        prefix = joined if _PREFIX.fullmatch(joined) else ""
    root, path = _split_path(connection.scope)
    prefix = root or prefix
    if options.public_url is not None:
        public = urlsplit(options.public_url)
        scheme, netloc, prefix = public.scheme, public.netloc, public.path.rstrip("/") or prefix
    # The scheme does not tell: hypercorn's ProxyFixMiddleware sets "https" for WebSockets, too.
    secure, socket = scheme in ("https", "wss"), connection.scope["type"] == "websocket"
    scheme = ("wss" if secure else "ws") if socket else ("https" if secure else "http")
    path = quote(prefix + path, safe=URL_CHARACTERS)
    query = connection.scope["query_string"].decode("latin-1")
    return SplitResult(scheme, netloc, path, query, "").geturl()


def _split_path(scope: Scope) -> tuple[str, str]:
    """Return the ``root_path`` of the application, and the path below it as the client sent it.

    ASGI wants the path to begin with the root_path. uvicorn inserts it there. hypercorn 0.18 and
    ``FastAPI(root_path=...)`` do not, if a proxy has removed it.
    """
    # A mount extends root_path. Starlette keeps the outermost application's.
    root: str = scope.get("app_root_path", scope.get("root_path", "")).rstrip("/")
    path: str = scope["path"]
    raw = (scope.get("raw_path") or quote(path).encode()).decode("latin-1")
    if root and f"{path}/".startswith(f"{root}/"):
        raw = "".join(f"/{part}" for part in raw.split("/")[root.count("/") + 1 :])
    return root, raw
