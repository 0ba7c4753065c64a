"""WHIP and WHEP endpoints (RFC 9725, and its counterpart for receiving clients).

``POST .../whip`` begins a session whose client sends, ``POST .../whep`` one whose client receives.
The session is then a resource at the ``Location`` of the answer: the client patches it with
candidates and deletes it. It has the same handler and limits as any other session. A new
``ice-ufrag`` requests an ICE restart (RFC 9725 4.3.3); ``If-Match: *`` alone does not, as players
send it with plain candidates.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

from anyio.lowlevel import checkpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.turns import take_turns
from fastrtc_anyio._overload import as_overloaded
from fastrtc_anyio._sessions.ownership import is_reachable
from fastrtc_anyio._sessions.service import SessionService
from fastrtc_anyio._signaling.ice import parse_ice_servers
from fastrtc_anyio._signaling.requests import OfferRequest, SessionDescription
from fastrtc_anyio._signaling.sdp_parser import parse_in_steps
from fastrtc_anyio._signaling.whip import (
    FRAGMENT_TYPE,
    PROBLEM_TYPE,
    SDP_TYPE,
    Fragment,
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
    CloseReason,
    FastRTCError,
    InvalidOffer,
    LimitExceeded,
    NotAuthenticated,
    SignalingError,
    UnknownSession,
)

from .access import Visitor
from .http import (
    URL_CHARACTERS,
    AdmittedEndpoint,
    Guard,
    admit_visitor,
    read_body,
    retry_headers,
)
from .options import WebOptions

__all__ = ["whip_routes"]

_METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]
"""The routes match every method, so that a useless one is refused with problem details too."""
_FORMER = 16
"""Former ICE sessions to remember, whose candidates are refused."""


def whip_routes(service: SessionService, options: WebOptions, prefix: str) -> list[Route]:
    """Create the routes of a stream's WHIP and WHEP endpoints, below ``prefix``."""
    routes = []
    protocols: tuple[Protocol, ...] = ("whip", "whep")
    for protocol in protocols:
        endpoints = _Endpoints(service, options, protocol)
        routes += [
            Route(f"{prefix}/{protocol}", endpoints.collection, methods=_METHODS),
            Route(f"{prefix}/{protocol}/{{session}}", endpoints.resource, methods=_METHODS),
        ]
    return routes


@dataclass(frozen=True)
class _Resource:
    """State of a session's resource, beside the session."""

    tag: str
    ice_users: frozenset[str]
    """User fragments of the client in the newest ICE session."""
    former: tuple[frozenset[str], ...] = ()
    """Those of the last ICE sessions before."""


class _Refusal(SignalingError):
    """A refusal with any status."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status_hint = status


class _Endpoints:
    """The endpoints of one protocol."""

    def __init__(self, service: SessionService, options: WebOptions, protocol: Protocol) -> None:
        self._service = service
        self._options = options
        self._protocol: Protocol = protocol
        self._resources: dict[str, _Resource] = {}

    async def collection(self, request: Request) -> Response:
        """``POST`` an offer."""
        methods = {"POST": self._start, "GET": _respond_empty, "HEAD": _respond_empty}
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
        self,
        request: Request,
        methods: Mapping[str, AdmittedEndpoint],
        accepted: Mapping[str, str],
    ) -> Response:
        allowed = ", ".join([*methods, "OPTIONS"])

        async def dispatch(request: Request, visitor: Visitor) -> Response:
            if request.method not in methods:
                detail = f"{request.method} is not possible here; {allowed} are"
                raise _Refusal(HTTPStatus.METHOD_NOT_ALLOWED, detail)
            return await methods[request.method](request, visitor)

        def fail(error: FastRTCError, status: int) -> Response:
            headers: Mapping[str, str] = {}
            if status == HTTPStatus.METHOD_NOT_ALLOWED:
                headers = {"Allow": allowed}
            elif status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
                headers = accepted
            elif isinstance(error, NotAuthenticated):
                headers = {"WWW-Authenticate": "Bearer"}
            else:
                headers = retry_headers(error)
            body = problem_body(status, error)
            return JSONResponse(body, status, headers, media_type=PROBLEM_TYPE)

        guard = Guard(self._options, fail, f"a {self._protocol.upper()} request")
        options = Response(headers={"Allow": allowed, **accepted})
        return await guard.respond(request, dispatch, methods=allowed, options=options)

    async def _start(self, request: Request, visitor: Visitor) -> Response:
        with self._service.observers.watch_refusals(FastRTCError):
            offer = await self._read_offer(request)
            links = await self._links()
        answer = await self._service.offer(
            OfferRequest(offer, None), identity=visitor.identity, client=visitor.client
        )
        key = answer.webrtc_id
        live = self._service.registry.sessions
        self._resources = {k: r for k, r in self._resources.items() if k in live}
        tag = _make_tag()
        self._resources[key] = _Resource(tag, find_ice_users(offer.sdp))
        headers = {"Location": self._locate(request, key), "ETag": tag}
        response = Response(answer.description.sdp, 201, headers, media_type=SDP_TYPE)
        for link in links:
            response.headers.append("Link", link)
        return response

    async def _read_offer(self, request: Request) -> SessionDescription:
        _check_type(request, SDP_TYPE)
        if not accepts(request.headers.get("accept"), SDP_TYPE):
            detail = f"the answer is {SDP_TYPE}, which the request does not accept"
            raise _Refusal(HTTPStatus.NOT_ACCEPTABLE, detail)
        service, protocol = self._service, self._protocol
        if service.mode == {"whip": "receive", "whep": "send"}[protocol]:
            other = {"whip": "WHEP", "whep": "WHIP"}[protocol]
            detail = f'this stream has mode="{service.mode}": it can be reached by {other}'
            # Not 406: from a WHEP endpoint, that is a counter-offer.
            raise _Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        sdp = _decode(await read_body(request, service.request_limits))
        parsed = await take_turns(parse_in_steps(sdp, service.request_limits))
        return SessionDescription("offer", str(narrow_offer(parsed, protocol)))

    def _locate(self, request: Request, key: str) -> str:
        """Return a reference to a session, relative to the URL that the client posted to.

        Only the client knows that URL: proxies replace the host, and remove parts of the path.
        The query stays, since it may contain the client's token. RFC 9110 10.2.2 allows relative
        references. A client that does not resolve them loses only its DELETE.
        """
        place = key if request.scope["path"].endswith("/") else f"{self._protocol}/{key}"
        query = quote(request.scope["query_string"], safe=URL_CHARACTERS)
        return f"{place}?{query}" if query else place

    async def _trickle(self, request: Request, visitor: Visitor) -> Response:
        key, resource = self._find(request, visitor)
        _check_type(request, FRAGMENT_TYPE)
        match = request.headers.get("if-match")
        if match is None:
            detail = "PATCH must name its ICE session: send If-Match with the ETag of the 201"
            raise _Refusal(HTTPStatus.PRECONDITION_REQUIRED, detail)
        if not has_entity_tag(match, resource.tag):
            detail = "If-Match names a different ICE session"
            raise _Refusal(HTTPStatus.PRECONDITION_FAILED, detail)
        body = await read_body(request, self._service.request_limits)
        fragment = parse_fragment(_decode(body), self._service.request_limits)
        if any(fragment.ice_users & users for users in resource.former):
            detail = "the ICE session of these candidates was replaced by a restart"
            raise _Refusal(HTTPStatus.PRECONDITION_FAILED, detail)
        response = Response(status_code=204)
        restarts = not fragment.ice_users <= resource.ice_users
        if restarts:
            response = await self._restart(key, resource, fragment)
        await self._add_candidates(key, fragment, useful=restarts)
        return response

    async def _add_candidates(self, key: str, fragment: Fragment, *, useful: bool) -> None:
        """Add the candidates of a fragment, except those that cannot be used.

        ``useful`` says that the fragment has served a purpose already: only a fragment that serves
        none is refused.
        """
        refusal: SignalingError | None = None
        for candidate in [*fragment.candidates, *([None] if fragment.complete else [])]:
            try:
                await self._service.add_candidate(key, candidate)
                useful = True
            except LimitExceeded:
                raise
            except SignalingError as exc:
                refusal = refusal or exc
        if refusal is not None and not useful:
            raise refusal

    async def _restart(self, key: str, resource: _Resource, fragment: Fragment) -> Response:
        """Restart ICE (RFC 9725 4.3.3). A failure leaves the session as it is."""
        answer = await self._service.restart_ice(key, fragment.credentials)
        former = (*resource.former[1 - _FORMER :], resource.ice_users)
        self._resources[key] = _Resource(_make_tag(), fragment.ice_users, former)
        headers = {"ETag": self._resources[key].tag}
        return Response(answer, 200, headers, media_type=FRAGMENT_TYPE)

    async def _confirm(self, request: Request, visitor: Visitor) -> Response:
        self._find(request, visitor)
        return await _respond_empty(request, visitor)

    async def _end(self, request: Request, visitor: Visitor) -> Response:
        key, _ = self._find(request, visitor)
        session = self._service.registry.sessions[key]
        session.close(CloseReason.HUNG_UP, "the client ended the session")
        del self._resources[key]
        return Response(status_code=200)

    async def _add_links(self, request: Request, response: Response) -> None:
        """Send the ICE servers to clients that need them before their offer (RFC 9725 4.6)."""
        try:
            await admit_visitor(self._options, request)
            for link in await self._links():
                response.headers.append("Link", link)
        except SignalingError as exc:
            logger.debug(
                "no ICE servers for an OPTIONS request: %s", exc, event="whip.no_ice_servers"
            )
        except Exception as exc:
            if as_overloaded(exc) is None:
                logger.exception(
                    "an OPTIONS request was answered without ICE servers",
                    event="whip.no_ice_servers",
                )

    async def _links(self) -> list[str]:
        configuration = await self._options.load_rtc_configuration()
        return link_headers(parse_ice_servers(configuration.get("iceServers")))

    def _find(self, request: Request, visitor: Visitor) -> tuple[str, _Resource]:
        key: str = request.path_params["session"]
        resource = self._resources.get(key)
        session = self._service.registry.sessions.get(key)
        if resource is None or session is None or not is_reachable(session, visitor.identity):
            raise UnknownSession("no such session, or it has ended")
        return key, resource


def _make_tag() -> str:
    return f'"{secrets.token_hex(8)}"'


async def _respond_empty(_request: Request, _visitor: Visitor) -> Response:
    # RFC 9725 4.1: the resource has no representation.
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
        raise InvalidOffer(f"the body must be UTF-8; byte {exc.start + 1} is not") from None
