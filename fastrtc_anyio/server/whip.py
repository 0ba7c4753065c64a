"""WHIP and WHEP endpoints (RFC 9725 and its counterpart for those who listen).

``POST .../whip`` starts a session whose client sends, ``POST .../whep`` one whose client receives;
the session is then at the ``Location`` of the answer, to be patched with candidates and deleted. It
is a session like any other: same handler, same limits. An ICE restart is refused with 422, as the
RFC has it for those who only trickle (4.3.1). It is the new ``ice-ufrag`` that makes a restart, not
``If-Match: *``, which players send with plain candidates, too.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from anyio.lowlevel import checkpoint
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fastrtc_anyio._core.user_code import call_user_function
from fastrtc_anyio._signaling.ice import parse_ice_servers
from fastrtc_anyio._signaling.whip import (
    FRAGMENT_TYPE,
    PROBLEM_TYPE,
    SDP_TYPE,
    Protocol,
    accepts,
    find_ice_users,
    has_entity_tag,
    link_headers,
    narrow_offer,
    parse_fragment,
    problem_body,
)
from fastrtc_anyio.errors import (
    AdmissionError,
    CloseReason,
    InvalidOffer,
    NoFreePort,
    NotAuthenticated,
    SignalingError,
    UnknownSession,
    WebRTCError,
)

from .access import check_entry, cors_headers
from .bodies import read_body
from .http import log_failure

if TYPE_CHECKING:
    from fastrtc_anyio.stream import Stream

__all__ = ["whip_routes"]

logger = logging.getLogger("fastrtc_anyio")

_METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]
"""All are taken, so that those which are of no use here get an answer in the form of the others."""
_RETRY_SECONDS = 5

Endpoint = Callable[[Request], Awaitable[Response]]


def whip_routes(stream: Stream, prefix: str) -> list[Route]:
    """The endpoints of a stream, below ``prefix``."""
    routes = []
    protocols: tuple[Protocol, ...] = ("whip", "whep")
    for protocol in protocols:
        endpoints = _Endpoints(stream, protocol)
        routes += [
            Route(f"{prefix}/{protocol}", endpoints.collection, methods=_METHODS),
            Route(f"{prefix}/{protocol}/{{session}}", endpoints.resource, methods=_METHODS),
        ]
    return routes


@dataclass(frozen=True)
class _Resource:
    """What has to be known of a session besides what the session itself knows."""

    tag: str
    ice_users: frozenset[str]


class _Refusal(SignalingError):
    """A request that HTTP itself has a word for."""

    def __init__(self, status: HTTPStatus, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status_hint = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class _Endpoints:
    """The endpoints of one protocol."""

    def __init__(self, stream: Stream, protocol: Protocol) -> None:
        self._stream = stream
        self._protocol: Protocol = protocol
        self._resources: dict[str, _Resource] = {}

    async def collection(self, request: Request) -> Response:
        """``POST`` an offer."""
        methods = {"POST": self._start, "GET": _say_nothing, "HEAD": _say_nothing}
        response = await self._respond(request, methods, {"Accept-Post": SDP_TYPE})
        if request.method == "OPTIONS" and "access-control-request-method" not in request.headers:
            await self._add_links(request, response)
        return response

    async def resource(self, request: Request) -> Response:
        """``PATCH`` a session with candidates, or ``DELETE`` it."""
        methods = {
            "PATCH": self._trickle,
            "DELETE": self._end,
            "GET": self._confirm,
            "HEAD": self._confirm,
        }
        return await self._respond(request, methods, {"Accept-Patch": FRAGMENT_TYPE})

    async def _respond(
        self, request: Request, methods: Mapping[str, Endpoint], accepted: Mapping[str, str]
    ) -> Response:
        allowed = ", ".join([*methods, "OPTIONS"])
        cors = cors_headers(self._stream, request, allowed, preflight=request.method == "OPTIONS")
        if request.method == "OPTIONS":
            response = Response(headers={"Allow": allowed, **accepted})
        else:
            try:
                await check_entry(self._stream, request)
                if request.method not in methods:
                    detail = f"{request.method} is not possible here; {allowed} are"
                    raise _Refusal(HTTPStatus.METHOD_NOT_ALLOWED, detail, Allow=allowed)
                response = await methods[request.method](request)
            except ClientDisconnect:
                response = Response(status_code=400)  # to nobody
            except SignalingError as exc:
                response = _problem(exc.status_hint, exc, _explain(exc, accepted))
            except Exception as exc:
                log_failure(f"a {self._protocol.upper()} request could not be answered", exc)
                hidden = "the server has met an error, which is in its log"
                response = _problem(500, exc if isinstance(exc, WebRTCError) else hidden)
        response.headers.update(cors)
        return response

    async def _start(self, request: Request) -> Response:
        _check_type(request, SDP_TYPE)
        if not accepts(request.headers.get("accept"), SDP_TYPE):
            detail = f"the answer is {SDP_TYPE}, which the request does not accept"
            raise _Refusal(HTTPStatus.NOT_ACCEPTABLE, detail)
        stream, protocol = self._stream, self._protocol
        if stream.mode == {"whip": "receive", "whep": "send"}[protocol]:
            other = {"whip": "WHEP", "whep": "WHIP"}[protocol]
            detail = f'this stream has mode="{stream.mode}": it can be reached by {other}'
            # Not 406: from a WHEP endpoint, that is a counter-offer.
            raise _Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        sdp = _decode(await read_body(request, stream.request_limits))
        offer = {"type": "offer", "sdp": narrow_offer(sdp, protocol)}
        links = await _links(stream)
        answer = await stream.offer(offer)
        key: str = answer["webrtc_id"]
        live = stream.sessions
        self._resources = {k: r for k, r in self._resources.items() if k in live}
        tag = f'"{secrets.token_hex(8)}"'
        self._resources[key] = _Resource(tag, find_ice_users(sdp))
        location = f"{quote(request.scope['path'])}/{key}"  # not what the client says is our host
        response = Response(
            answer["sdp"], 201, {"Location": location, "ETag": tag}, media_type=SDP_TYPE
        )
        for link in links:
            response.headers.append("Link", link)
        return response

    async def _trickle(self, request: Request) -> Response:
        key, resource = self._find(request)
        _check_type(request, FRAGMENT_TYPE)
        match = request.headers.get("if-match")
        if match is None:
            detail = "a PATCH says which ICE session it is for: If-Match, with the ETag of the 201"
            raise _Refusal(HTTPStatus.PRECONDITION_REQUIRED, detail)
        if not has_entity_tag(match, resource.tag):
            detail = "If-Match names another ICE session than this one's"
            raise _Refusal(HTTPStatus.PRECONDITION_FAILED, detail)
        fragment = parse_fragment(_decode(await read_body(request, self._stream.request_limits)))
        if not fragment.ice_users <= resource.ice_users:
            detail = "ICE cannot be restarted here: end this session and start another"
            raise _Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        candidates = [*fragment.candidates, *([None] if fragment.complete else [])]
        for candidate in candidates:
            await self._stream.add_ice_candidate(key, candidate)
        return Response(status_code=204)

    async def _confirm(self, request: Request) -> Response:
        self._find(request)
        return await _say_nothing(request)

    async def _end(self, request: Request) -> Response:
        key, _ = self._find(request)
        self._stream.sessions[key].close(CloseReason.HUNG_UP, "the client ended the session")
        del self._resources[key]
        return Response(status_code=200)

    async def _add_links(self, request: Request, response: Response) -> None:
        """The ICE servers, for clients that cannot be told after their offer is made (RFC 9725
        4.6), if they may come in."""
        try:
            await check_entry(self._stream, request)
            for link in await _links(self._stream):
                response.headers.append("Link", link)
        except SignalingError as exc:
            logger.debug("no ICE servers for an OPTIONS request: %s", exc)
        except Exception:
            logger.exception("an OPTIONS request was answered without ICE servers")

    def _find(self, request: Request) -> tuple[str, _Resource]:
        key: str = request.path_params["session"]
        resource = self._resources.get(key)
        if resource is None or key not in self._stream.sessions:
            raise UnknownSession("there is no such session, or it has ended")
        return key, resource


async def _say_nothing(_request: Request) -> Response:
    """RFC 9725 4.1: success without content, as there is no representation."""
    await checkpoint()
    return Response(status_code=204)


def _check_type(request: Request, wanted: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        detail = f"the body must be {wanted}; got {given[:60] or 'no Content-Type'}"
        raise _Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)


def _decode(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as exc:
        raise InvalidOffer(f"the body is not UTF-8: {exc}") from exc


async def _links(stream: Stream) -> list[str]:
    configuration: Any = stream.rtc_configuration
    if callable(configuration):
        configuration = await call_user_function(configuration)
    return link_headers(parse_ice_servers((configuration or {}).get("iceServers")))


def _explain(error: SignalingError, accepted: Mapping[str, str]) -> dict[str, str]:
    if isinstance(error, NotAuthenticated):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, AdmissionError | NoFreePort):
        return {"Retry-After": str(_RETRY_SECONDS)}
    if error.status_hint == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        return dict(accepted)
    return error.headers if isinstance(error, _Refusal) else {}


def _problem(
    status: int, error: SignalingError | WebRTCError | str, headers: Mapping[str, str] | None = None
) -> Response:
    body = problem_body(status, error)
    return JSONResponse(body, status, dict(headers or {}), media_type=PROBLEM_TYPE)
