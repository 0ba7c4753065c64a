"""Send a request to another process, and receive it there.

The request keeps its path, query, headers and body. One header is added: it proves that a process
of the cluster sends the request, and says from which connection it came.
"""

from __future__ import annotations

import hmac
import json
from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, urlsplit

import anyio
import h11
from anyio import (
    BrokenResourceError,
    CancelScope,
    EndOfStream,
    create_task_group,
    current_time,
    fail_after,
)
from anyio.abc import ByteStream, TaskGroup
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastrtc_anyio._core.groups import collapse_groups

from ._requests import BufferedRequest
from .directory import Location
from .member import Member

__all__ = ["Forwarder", "Incomplete", "Inlet", "Lost", "Purpose", "Refused"]

HEADER = b"x-fastrtc-cluster"
_VERSION = 1
_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 30.0
"""Seconds for the head of a response, after the request, and for the other process to read a part
of the body. A GET may wait for outputs for any time."""
_HOP_BY_HOP = {
    b"connection",
    b"date",
    b"expect",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
"""Headers of one connection (RFC 9110 7.6.1), that of a client that waits to send its body, and
the date, which each server adds."""
_ELSEWHERE = 421
"""Status (RFC 9110 15.5.20) of a request about a session that a process does not have any more."""

Purpose = Literal["session", "place", "all"]
"""Whether a request is about a session of the receiver, shall begin one there, or is for all."""


class Refused(Exception):
    """No process listens at an address."""


class Lost(Exception):
    """A process does not answer."""


class Incomplete(Exception):
    """A process has ended while it answered.

    An ASGI application that returns now lets its server break off the client's connection.
    """


@dataclass(frozen=True)
class _Origin:
    """The connection from which a request came."""

    purpose: Purpose
    name: str
    client: list[object] | None
    server: list[object] | None
    scheme: str
    root_path: str

    @staticmethod
    def of(scope: Scope, purpose: Purpose, name: str | None) -> _Origin:
        client, server = scope.get("client"), scope.get("server")
        return _Origin(
            purpose,
            name or "",
            list(client) if client else None,
            list(server) if server else None,
            scope.get("scheme", "http"),
            scope.get("root_path", ""),
        )

    def apply(self, scope: Scope) -> Scope:
        return {
            **scope,
            "client": self.client and tuple(self.client),
            "server": self.server and tuple(self.server),
            "scheme": self.scheme,
            "root_path": self.root_path,
            "headers": [pair for pair in scope["headers"] if pair[0] != HEADER],
        }


class Forwarder:
    """Sends requests to other processes of a cluster, over HTTP/1.1.

    Connections are not used twice: a request that is lost because its connection had just been
    closed could not be repeated.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def forward(
        self,
        request: BufferedRequest,
        to: Location,
        purpose: Purpose,
        name: str | None,
        send: Send,
    ) -> bool:
        """Forward a request, and pass the response on, unless its status says to try elsewhere.

        Returns:
            Whether the request has been answered. If not, nothing has been sent.

        Raises:
            Refused: no process listens there. Nothing has been sent.
            Lost: the process has ended, or does not answer. Nothing has been sent.
            Incomplete: the process has ended while it answered. A part has been sent.
        """
        request.rewind()
        address = urlsplit(to.address)
        try:
            with fail_after(_CONNECT_SECONDS):
                stream = await anyio.connect_tcp(address.hostname or "", address.port or 80)
        except TimeoutError as exc:  # its process may be alive, and busy
            raise Lost(f"no connection to {to.address} within {_CONNECT_SECONDS:g} s") from exc
        except OSError as exc:
            if _is_refused(exc.__cause__ or exc):
                raise Refused(to.address) from exc
            # For instance, this process is out of file descriptors.
            raise Lost(f"no connection to {to.address}: {exc.__cause__ or exc}") from exc
        is_answered = True  # also if the client leaves
        with collapse_groups():
            async with stream, create_task_group() as tasks:
                exchange = _Exchange(stream, request, tasks)
                is_answered = await self._exchange(exchange, to, purpose, name, send)
                tasks.cancel_scope.cancel()
        return is_answered

    async def _exchange(
        self, exchange: _Exchange, to: Location, purpose: Purpose, name: str | None, send: Send
    ) -> bool:
        scope = exchange.request.scope
        fields = vars(_Origin.of(scope, purpose, name))
        text = json.dumps({"version": _VERSION, "secret": self._secret, **fields})
        try:
            await exchange.begin((HEADER, b64encode(text.encode())))
            response = await exchange.receive_head()
        except (OSError, BrokenResourceError, h11.ProtocolError) as exc:  # or a TimeoutError
            raise Lost(f"{type(exc).__name__}: {exc}") from exc
        if response.status_code == (_ELSEWHERE if purpose == "session" else 503):
            return False
        headers = [(key, value) for key, value in response.headers if key not in _HOP_BY_HOP]
        status = response.status_code
        await send({"type": "http.response.start", "status": status, "headers": headers})
        try:
            while (chunk := await exchange.receive_body()) is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (BrokenResourceError, h11.ProtocolError) as exc:
            raise Incomplete(f"its response broke off: {exc!r}") from exc
        await send({"type": "http.response.body", "body": b""})
        return True


class _Exchange:
    """A request that is sent to another process, and its response, which may come earlier."""

    def __init__(self, stream: ByteStream, request: BufferedRequest, tasks: TaskGroup) -> None:
        self.request = request
        self._stream = stream
        self._tasks = tasks
        self._http = h11.Connection(h11.CLIENT)
        self._waiting = CancelScope()
        """Cancelled if no response will come."""

    async def begin(self, header: tuple[bytes, bytes]) -> None:
        """Send the head of the request with a further header, and begin to send the body.

        The tasks are cancelled if the client closes its connection.
        """
        scope = self.request.scope
        given: list[tuple[bytes, bytes]] = list(scope["headers"])
        headers = [pair for pair in given if pair[0] not in _HOP_BY_HOP | {HEADER}]
        headers += [header, (b"connection", b"close")]
        if not any(key == b"host" for key, _ in given):  # HTTP/1.0
            headers.append((b"host", b""))
        if is_chunked := any(key == b"transfer-encoding" for key, _ in given):
            headers.append((b"transfer-encoding", b"chunked"))
        has_body = is_chunked or any(key == b"content-length" for key, _ in given)
        target: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        if query := scope["query_string"]:
            target += b"?" + query
        await self._write(h11.Request(method=scope["method"], target=target, headers=headers))
        self._tasks.start_soon(self._send_rest, has_body)

    async def _send_rest(self, has_body: bool) -> None:
        try:
            with suppress(BrokenResourceError):  # the response may say why
                if has_body:
                    await self._send_body()
                await self._write(h11.EndOfMessage())
            if self.request.scope["method"] != "GET":
                self._waiting.deadline = current_time() + _ANSWER_SECONDS
        except (TimeoutError, h11.ProtocolError):
            self._waiting.cancel()
            return
        while (await self.request.receive())["type"] != "http.disconnect":
            pass
        self._tasks.cancel_scope.cancel()

    async def _send_body(self) -> None:
        more = True
        while more:
            message = await self.request.receive()
            if message["type"] == "http.disconnect":
                raise BrokenResourceError
            more = message.get("more_body", False)
            if message.get("body"):
                await self._write(h11.Data(data=message["body"]))

    async def _write(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        if data := self._http.send(event):
            with fail_after(_ANSWER_SECONDS):
                await self._stream.send(data)

    async def receive_head(self) -> h11.Response:
        with self._waiting:
            while not isinstance(event := await self._receive(), h11.Response):
                if not isinstance(event, h11.InformationalResponse):
                    raise BrokenResourceError
            return event
        raise TimeoutError("no response")

    async def receive_body(self) -> bytes | None:
        """Return a piece of the body of the response; None at its end."""
        event = await self._receive()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def _receive(self) -> h11.Event:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            try:
                data = await self._stream.receive()
            except EndOfStream:
                data = b""
            self._http.receive_data(data)
        if not isinstance(event, h11.Event):
            raise BrokenResourceError
        return event


def _is_refused(error: BaseException) -> bool:
    """Return whether no process listens at an address, or at any of several."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_refused(one) for one in error.exceptions)
    return isinstance(error, ConnectionRefusedError)


class Inlet:
    """ASGI application at a process's own port: takes requests of other processes only."""

    def __init__(self, app: ASGIApp, member: Member, secret: str) -> None:
        self._app = app
        self._member = member
        self._secret = secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _answer_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif (origin := self._read_origin(scope)) is None:
            await _answer(send, 403, b"this port is for the processes of the cluster")
        elif origin.purpose == "session" and not self._member.holds(origin.name):
            await _answer(send, _ELSEWHERE, b"this process has no such session")
        else:
            await self._app(origin.apply(scope), receive, send)

    def _read_origin(self, scope: Scope) -> _Origin | None:
        """Return the origin of a request; None if no process of the cluster has sent it."""
        found = [value for key, value in scope["headers"] if key == HEADER]
        if len(found) != 1:
            return None
        try:
            fields = json.loads(b64decode(found[0], validate=True))
            secret, version = fields.pop("secret"), fields.pop("version")
            if not hmac.compare_digest(str(secret).encode(), self._secret.encode()):
                return None
            return _Origin(**fields) if version == _VERSION else None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


async def _answer(send: Send, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def _answer_lifespan(receive: Receive, send: Send) -> None:
    """Do nothing: the application's lifespan runs at the public port."""
    while True:
        message: Message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
