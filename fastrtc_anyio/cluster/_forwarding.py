"""Send a request to another process, and receive it there.

The request keeps its path, query, headers and body. One header is added: it proves that a process
of the cluster sends the request, and says from which connection it came.
"""

from __future__ import annotations

import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

import anyio
import httpx
from anyio import create_task_group
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastrtc_anyio._core.groups import collapse_groups

from ._requests import BufferedRequest
from .directory import Location
from .member import Member

__all__ = ["ELSEWHERE", "Forwarder", "Inlet", "Purpose", "Refused"]

HEADER = b"x-fastrtc-cluster"
_VERSION = 1
_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 30.0
"""Seconds between two pieces of a response. A GET may wait for outputs for any time."""
_HOP_BY_HOP = {
    b"connection",
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
"""Headers of one connection (RFC 9110 7.6.1), and that of a client that waits to send its body."""
ELSEWHERE = 421
"""Status (RFC 9110 15.5.20) of a request about a session that a process does not have any more."""

Purpose = Literal["session", "place"]
"""Whether a request is about a session of the receiver, or shall begin one there."""


class Refused(Exception):
    """No process listens at an address."""


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
    """Sends requests to other processes of a cluster.

    Connections are not used twice: a request that is lost because its connection had just been
    closed could not be repeated.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret
        # Neither proxies nor credentials of the environment.
        self._client = httpx.AsyncClient(
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def forward(
        self, request: BufferedRequest, to: Location, purpose: Purpose, name: str | None, send: Send
    ) -> bool:
        """Forward a request, and pass the response on, unless its status says to try elsewhere.

        Returns:
            Whether the request has been answered. If not, nothing has been sent.

        Raises:
            Refused: no process listens there. Nothing has been sent.
            httpx.HTTPError: the process has ended, or does not answer. Nothing has been sent.
            ConnectionError: the process has ended while it answered.
        """
        request.rewind()
        body = _Body(request)
        outgoing = self._make_request(request.scope, to, purpose, name, body)
        is_answered = True  # also if the client leaves
        with collapse_groups():
            async with create_task_group() as tasks:
                tasks.start_soon(body.cancel_when_client_leaves, tasks.cancel_scope)
                is_answered = await self._exchange(outgoing, to, purpose, send)
                tasks.cancel_scope.cancel()
        return is_answered

    async def _exchange(
        self, outgoing: httpx.Request, to: Location, purpose: Purpose, send: Send
    ) -> bool:
        try:
            response = await self._client.send(outgoing, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise Refused(to.address) from exc
        try:
            if response.status_code == (ELSEWHERE if purpose == "session" else 503):
                return False
            await _relay(response, to, send)
            return True
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    def _make_request(
        self, scope: Scope, to: Location, purpose: Purpose, name: str | None, body: _Body
    ) -> httpx.Request:
        origin = _Origin.of(scope, purpose, name)
        text = json.dumps({"version": _VERSION, "secret": self._secret, **vars(origin)})
        headers = [
            *(pair for pair in scope["headers"] if pair[0] not in _HOP_BY_HOP | {HEADER}),
            (HEADER, b64encode(text.encode())),
        ]
        raw_path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        query: bytes = scope["query_string"]
        url = httpx.URL(to.address).copy_with(raw_path=raw_path + (b"?" + query if query else b""))
        has_body = any(
            key in (b"content-length", b"transfer-encoding") for key, _ in scope["headers"]
        )
        if not has_body:
            body.skip()
        answer = None if scope["method"] == "GET" else _ANSWER_SECONDS
        timeout = httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS, read=answer)
        return httpx.Request(
            scope["method"],
            url,
            headers=headers,
            content=body if has_body else b"",
            extensions={"timeout": timeout.as_dict()},
        )


class _Body:
    """The body of a request, for httpx."""

    def __init__(self, request: BufferedRequest) -> None:
        self._request = request
        self._is_read = anyio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise httpx.WriteError("the client has gone")
            more = message.get("more_body", False)
            if message.get("body"):
                yield message["body"]
        self._is_read.set()

    def skip(self) -> None:
        """Note that there is no body to read."""
        self._is_read.set()

    async def cancel_when_client_leaves(self, scope: anyio.CancelScope) -> None:
        """Cancel a scope if the client closes its connection after the request."""
        await self._is_read.wait()
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        scope.cancel()


async def _relay(response: httpx.Response, sender: Location, send: Send) -> None:
    headers = [pair for pair in response.headers.raw if pair[0].lower() not in _HOP_BY_HOP]
    headers = [(key.lower(), value) for key, value in headers]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    try:
        async for chunk in response.aiter_raw():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except httpx.HTTPError as exc:
        raise ConnectionError(f"process {sender.owner} has ended while it answered") from exc
    await send({"type": "http.response.body", "body": b""})


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
            await _answer(send, ELSEWHERE, b"this process has no such session")
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
        except (ValueError, TypeError, KeyError, AttributeError):
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
