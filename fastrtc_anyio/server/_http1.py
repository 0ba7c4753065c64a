"""One HTTP/1.1 connection: its requests, one after the other, and its upgrade to a WebSocket.

Ambiguous requests are refused, because a proxy may read them in another way (request smuggling,
RFC 9112 11.2). Other versions of HTTP are refused, and an upgrade to one is ignored.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from urllib.parse import unquote

import h11
from anyio import CancelScope, Event, Semaphore, create_task_group, move_on_after
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.spacing import Spacing
from fastrtc_anyio._user_code import contain_exits
from fastrtc_anyio.limits import RequestLimits

from ._frames import WebSocketExchange, check_handshake, is_handshake
from ._sockets import ClientSocket

__all__ = ["Connection", "ServedApp"]

_MAX_HEAD = 16_384
"""Bytes of a request's head, and of a chunk's."""
_MAX_HEADERS = 200
_MAX_PIPELINED = 65_536
"""Bytes of further requests that are read while one is answered."""
_MAX_CALLS = 8
"""Calls of the application for one connection: of one request, and background tasks of others."""
_BATCH = 8
"""Requests of a burst to answer before a pause."""
_FRAMING = (b"content-length", b"transfer-encoding")
_REFUSALS: dict[int, str] = {
    HTTPStatus.BAD_REQUEST: "the request is not valid HTTP/1.1",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: (
        f"the head has more than {_MAX_HEAD} bytes or {_MAX_HEADERS} lines"
    ),
    HTTPStatus.INTERNAL_SERVER_ERROR: "the server has met an error, which is in its log",
    HTTPStatus.NOT_IMPLEMENTED: "no other transfer coding than chunked is supported",
    HTTPStatus.SERVICE_UNAVAILABLE: "the server is stopping",
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: "the server speaks HTTP/1.1 only",
}


@dataclass(frozen=True)
class ServedApp:
    """An application, and what all of its connections share."""

    app: ASGIApp
    limits: RequestLimits
    state: dict[str, object]
    """State of the application's lifespan."""


class Refusal(Exception):
    """A request is refused with a status, and its connection ends."""

    def __init__(self, status: int, reason: str | None = None) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason or _REFUSALS.get(status) or _REFUSALS[HTTPStatus.BAD_REQUEST]


class Connection:
    """Serves one client until either side closes the connection."""

    def __init__(
        self,
        served: ServedApp,
        client_socket: ClientSocket,
        client: tuple[str, int],
        server: tuple[str, int],
    ) -> None:
        self._served = served
        self._socket = client_socket
        self._client, self._server = client, server
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._idle: CancelScope | None = None
        self._calls: set[CancelScope] = set()
        self._free_calls = Semaphore(_MAX_CALLS)
        self._spacing = Spacing(_BATCH)
        self._stopping = False

    async def run(self) -> None:
        """Serve the client."""
        async with create_task_group() as tasks:
            tasks.start_soon(self._socket.run)
            async with create_task_group() as calls:  # its end waits for background tasks
                if await self._serve_requests(calls):
                    await self._socket.finish()
                else:
                    self._socket.abort()
            tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """Begin no further request."""
        self._stopping = True
        if self._idle is not None:
            self._idle.cancel()

    def cancel_requests(self) -> None:
        """Cancel the application's calls."""
        for call in self._calls:
            call.cancel()

    async def _serve_requests(self, calls: TaskGroup) -> bool:
        """Serve requests; return whether the output must leave before the connection ends."""
        while not self._stopping:
            try:
                request = await self._read_head()
                if request is None:
                    return True
                if is_handshake(request):
                    return await self._serve_websocket(request)
                exchange = _Exchange(self._parser, self._socket, request)
                await self._spacing.wait()
                await self._free_calls.acquire()
                calls.start_soon(self._answer, self._scope(request, "http"), exchange)
                await exchange.over.wait()
            except h11.RemoteProtocolError as exc:
                self._refuse(Refusal(exc.error_status_hint))
                return True
            except Refusal as exc:
                self._refuse(exc)
                return True
            if not exchange.is_complete:
                if exchange.is_started:
                    return False  # a truncated response must not look complete
                stopped = exchange.outcome == "cancelled"
                self._refuse(Refusal(503 if stopped else 500))
                return True
            if self._parser.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                return True
            self._parser.start_next_cycle()
        return True

    async def _read_head(self) -> h11.Request | None:
        with move_on_after(self._served.limits.head_seconds) as self._idle:
            event = await _next_event(self._parser, self._socket)
        idle, self._idle = self._idle, None
        if idle.cancelled_caught or not isinstance(event, h11.Request):
            return None
        return _check(event)

    async def _serve_websocket(self, request: h11.Request) -> bool:
        if (fault := check_handshake(request)) is not None:
            raise Refusal(*fault)
        while await _next_event(self._parser, self._socket) is not h11.PAUSED:
            pass  # the end of the request
        limit = 4 * self._served.limits.message_bytes  # the application's error states its limit
        exchange = WebSocketExchange(self._parser, self._socket, request, limit)
        scope = self._scope(request, "websocket")
        return await exchange.run(partial(self._call_app, scope))

    async def _answer(self, scope: Scope, exchange: _Exchange) -> None:
        try:
            exchange.outcome = await self._call_app(scope, exchange.receive, exchange.send)
        finally:
            exchange.over.set()
            self._free_calls.release()

    async def _call_app(self, scope: Scope, receive: Receive, send: Send) -> str:
        """Call the application; return ``"returned"``, ``"failed"`` or ``"cancelled"``."""
        with CancelScope() as call:
            self._calls.add(call)
            try:
                with contain_exits("the application"):
                    await self._served.app(scope, receive, send)
            except Exception:
                logger.exception(
                    "the application could not answer a request", event="request.failed"
                )
                return "failed"
            finally:
                self._calls.discard(call)
        return "cancelled" if call.cancelled_caught else "returned"

    def _scope(self, request: h11.Request, kind: str) -> Scope:
        path, _, query = request.target.partition(b"?")
        scope: Scope = {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.http_version.decode("ascii"),
            "scheme": "http" if kind == "http" else "ws",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "client": self._client,
            "server": self._server,
            "state": self._served.state.copy(),
            "extensions": {},
        }
        if kind == "http":
            scope["method"] = request.method.decode("ascii")
        else:
            offered = [v for name, v in request.headers if name == b"sec-websocket-protocol"]
            names = b",".join(offered).decode("latin-1").split(",")
            scope["subprotocols"] = [name.strip() for name in names if name.strip()]
            scope["extensions"] = {"websocket.http.response": {}}
        return scope

    def _refuse(self, refusal: Refusal) -> None:
        if self._parser.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = refusal.reason.encode()
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        if refusal.status == HTTPStatus.UPGRADE_REQUIRED:
            headers.append(("Sec-WebSocket-Version", "13"))
        phrase = HTTPStatus(refusal.status).phrase
        head = h11.Response(status_code=refusal.status, headers=headers, reason=phrase)
        self._socket.write(self._parser.send(head) or b"")
        with suppress(h11.LocalProtocolError):  # a response to HEAD
            self._socket.write(self._parser.send(h11.Data(data=body)) or b"")


class _Exchange:
    """One request and its response, as ASGI's ``receive`` and ``send``."""

    def __init__(
        self, parser: h11.Connection, client_socket: ClientSocket, request: h11.Request
    ) -> None:
        self._parser = parser
        self._socket = client_socket
        self._is_head = request.method == b"HEAD"
        self._body_over = False
        self._start: Message | None = None
        self._listening: set[CancelScope] = set()
        self._kept = 0
        self.is_started = False
        self.is_complete = False
        self.over = Event()
        """The response is complete, or the application has returned."""
        self.outcome = ""
        """See :meth:`Connection._call_app`."""
        if not any(name in _FRAMING for name, _ in request.headers):
            parser.next_event()  # the end of the request
            self._body: list[Message] = [_request_message(b"", more=False)]
        else:
            self._body = []

    async def receive(self) -> Message:
        if self._body:
            await checkpoint()
            self._body_over = True
            return self._body.pop()
        if not self._body_over:
            return await self._receive_body()
        # Starlette's is_disconnected() calls this in a cancelled scope, so it has no checkpoint.
        if not self._notice_end():
            with CancelScope() as scope:
                self._listening.add(scope)
                try:
                    await self._wait_closed()
                finally:
                    self._listening.discard(scope)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._start is None:
            await checkpoint()
            self._start = message
        elif message["type"] == "http.response.body" and self._start and not self.is_complete:
            data = self._encode_body(bytes(message.get("body", b"")), message)
            await self._socket.send(data)
            if not message.get("more_body", False):
                for scope in self._listening:
                    scope.cancel()
                self.over.set()
        else:
            raise RuntimeError(f"{message['type']} is out of order")

    async def _receive_body(self) -> Message:
        if self._parser.they_are_waiting_for_100_continue:
            event = h11.InformationalResponse(status_code=100, headers=[])
            self._socket.write(self._parser.send(event) or b"")
        try:
            await checkpoint()
            part = await _next_event(self._parser, self._socket)
        except h11.RemoteProtocolError:
            part = h11.ConnectionClosed()  # it is malformed, or the client has gone
        if isinstance(part, h11.Data):
            return _request_message(bytes(part.data), more=True)
        self._body_over = True
        if isinstance(part, h11.EndOfMessage):
            return _request_message(b"", more=False)
        return {"type": "http.disconnect"}

    async def _wait_closed(self) -> None:
        while not self._notice_end():
            if self._kept > _MAX_PIPELINED:
                await self._socket.wait_broken()
            else:
                await self._socket.wait_readable()

    def _notice_end(self) -> bool:
        """Read what has arrived; return whether the exchange or the connection has ended."""
        while not self.is_complete and self._kept <= _MAX_PIPELINED:
            data = self._socket.receive_nowait()
            if data is None:
                return False
            self._parser.receive_data(data)
            if not data:
                return True
            self._kept += len(data)
        return self.is_complete or self._socket.is_broken

    def _encode_body(self, body: bytes, message: Message) -> bytes:
        parts: list[h11.Event] = []
        assert self._start is not None
        status: int = self._start["status"]
        if not self.is_started:
            headers = [(b"Date", formatdate(usegmt=True).encode())]
            headers += [
                (bytes(name), bytes(value)) for name, value in self._start.get("headers", ())
            ]
            if not self._body_over and not self._body:
                headers.append((b"Connection", b"close"))  # the rest of the body is not read
            parts.append(h11.Response(status_code=status, headers=headers))
        if body and not self._is_head and status not in (204, 304):
            parts.append(h11.Data(data=body))
        over = not message.get("more_body", False)
        if over:
            parts.append(h11.EndOfMessage())
        data = b"".join(self._parser.send(part) or b"" for part in parts)
        self.is_started, self.is_complete = True, over
        return data


def _request_message(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def _check(request: h11.Request) -> h11.Request:
    """Return a request whose target is a path.

    Raises:
        Refusal: the request is ambiguous, or of another version of HTTP.
    """
    if request.http_version not in (b"1.0", b"1.1"):
        raise Refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    names = [name for name, _ in request.headers]
    if len(names) > _MAX_HEADERS:
        raise Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            reason = "a request has either Content-Length or Transfer-Encoding; got both"
            raise Refusal(HTTPStatus.BAD_REQUEST, reason)
        if request.http_version == b"1.0":
            raise Refusal(HTTPStatus.BAD_REQUEST, "HTTP/1.0 has no Transfer-Encoding")
    target = request.target
    if target.lower().startswith((b"http://", b"https://")):
        # RFC 9112 3.2.2: the authority of an absolute target replaces Host.
        authority, slash, rest = target.partition(b"://")[2].partition(b"/")
        authority, mark, query = authority.partition(b"?")
        target = slash + rest if slash and not mark else b"/" + mark + query + slash + rest
        headers = [(name, value) for name, value in request.headers if name != b"host"]
        headers.append((b"Host", authority))
        return h11.Request(
            method=request.method,
            target=target,
            headers=headers,
            http_version=request.http_version,
        )
    if not target.startswith(b"/") and (request.method, target) != (b"OPTIONS", b"*"):
        raise Refusal(HTTPStatus.BAD_REQUEST, "the target of a request must be a path")
    return request


async def _next_event(
    parser: h11.Connection, client_socket: ClientSocket
) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
    """Return the next part of a request.

    Raises:
        h11.RemoteProtocolError: it is malformed.
    """
    while (event := parser.next_event()) is h11.NEED_DATA:
        parser.receive_data(await client_socket.receive())
    return event
