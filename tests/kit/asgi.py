"""Requests and WebSockets of an application in the same task, without a server or a socket."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from starlette.types import ASGIApp, Message

Headers = Sequence[tuple[bytes, bytes]]

HOST = (b"host", b"127.0.0.1")


@dataclass(frozen=True)
class Reply:
    """The response to a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


async def request(
    app: ASGIApp,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Headers = (),
    query: bytes = b"",
) -> Reply:
    """Send a request, and return the response.

    Raises:
        Exception: the application raised it, for which a server would answer 500.
    """
    sent: list[Message] = []
    ended = anyio.Event()
    bodies: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        await checkpoint()
        if bodies:
            return bodies.pop()
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await checkpoint()
        sent.append(message)

    scope = _scope("http", path, query, headers) | {"method": method, "scheme": "http"}
    await app(scope, receive, send)
    ended.set()
    start = sent[0]
    found = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in start["headers"]}
    return Reply(start["status"], found, b"".join(one.get("body", b"") for one in sent[1:]))


@dataclass
class SocketLog:
    """The server's side of a WebSocket.

    Attributes:
        accepted: whether the handshake was accepted.
        status: HTTP status of a refused handshake.
        refusal: the text of that response.
        texts: messages of the server.
        code: its close code; None if the client closed the WebSocket.
    """

    accepted: bool = False
    status: int | None = None
    refusal: bytes = b""
    texts: list[str] = field(default_factory=list)
    code: int | None = None


async def websocket(
    app: ASGIApp,
    path: str,
    messages: Iterable[str | bytes],
    headers: Headers = (),
    *,
    pause: float = 0.02,
    code: int = 1000,
) -> SocketLog:
    """Open a WebSocket, send messages ``pause`` seconds apart, and close it with ``code``.

    Raises:
        Exception: the application raised it.
    """
    log = SocketLog()
    coming = iter(messages)
    connected = False

    async def receive() -> Message:
        nonlocal connected
        if not connected:
            await checkpoint()
            connected = True
            return {"type": "websocket.connect"}
        await anyio.sleep(pause)
        message = next(coming, None)
        if message is None:
            return {"type": "websocket.disconnect", "code": code, "reason": ""}
        if isinstance(message, bytes):
            return {"type": "websocket.receive", "bytes": message}
        return {"type": "websocket.receive", "text": message}

    async def send(message: Message) -> None:
        await checkpoint()
        match message["type"]:
            case "websocket.accept":
                log.accepted = True
            case "websocket.send":
                log.texts.append(message["text"])
            case "websocket.close":
                log.code = message.get("code", 1000)
            case "websocket.http.response.start":
                log.status = message["status"]
            case "websocket.http.response.body":
                log.refusal += message.get("body", b"")

    extensions: dict[str, object] = {"websocket.http.response": {}}
    scope = _scope("websocket", path, b"", headers)
    scope |= {"scheme": "ws", "subprotocols": [], "extensions": extensions}
    await app(scope, receive, send)
    return log


def _scope(kind: str, path: str, query: bytes, headers: Headers) -> dict[str, Any]:
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [*([] if any(name == b"host" for name, _ in headers) else [HOST]), *headers],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
    }
