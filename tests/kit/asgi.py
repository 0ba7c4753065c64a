"""Requests and WebSockets of an application in the same task, without a server or a socket."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
from anyio.abc import TaskGroup
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


class StreamingTransport(httpx.AsyncBaseTransport):
    """Sends httpx's requests to an application in memory, and streams its responses.

    ``httpx.ASGITransport`` returns a response once it is complete. Closing a response disconnects
    the client. Timeouts for reading are those of the request.
    """

    def __init__(self, app: ASGIApp, tasks: TaskGroup) -> None:
        self.app = app
        self._tasks = tasks

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(await request.aread(), request.extensions["timeout"]["read"])
        scope = _scope("http", request.url.path, request.url.query, request.headers.raw)
        scope |= {"method": request.method, "scheme": "http"}
        scope["asgi"]["spec_version"] = "2.3"  # http.disconnect tells that the client has left
        self._tasks.start_soon(exchange.run, self.app, scope)
        start = await exchange.read()
        return httpx.Response(start["status"], headers=start["headers"], stream=exchange)


class _Exchange(httpx.AsyncByteStream):
    """A request, and its response."""

    def __init__(self, body: bytes, seconds: float | None) -> None:
        self._sender, self._sent = anyio.create_memory_object_stream[Message](float("inf"))
        self._body: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._left = anyio.Event()
        self._seconds = seconds

    async def run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        with self._sender:
            await app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        await checkpoint()
        message, self._body = self._body, None
        if message is None:
            await self._left.wait()
            return {"type": "http.disconnect"}
        return message

    async def _send(self, message: Message) -> None:
        await checkpoint()
        if not self._left.is_set():
            self._sender.send_nowait(message)

    async def read(self) -> Message:
        try:
            with anyio.fail_after(self._seconds):
                return await self._sent.receive()
        except TimeoutError:
            raise httpx.ReadTimeout("") from None
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            raise httpx.ReadError("the connection was closed") from None

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        more = True
        while more:
            message = await self.read()
            more = message.get("more_body", False)
            yield message.get("body", b"")

    async def aclose(self) -> None:
        self._left.set()
        self._sent.close()


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
    messages: Iterable[str | bytes | float],
    headers: Headers = (),
    *,
    pause: float = 0.02,
    code: int = 1000,
) -> SocketLog:
    """Open a WebSocket, send messages ``pause`` seconds apart, and close it with ``code``.

    A number in place of a message is a longer pause, in seconds.

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
        while isinstance(message := next(coming, None), float):
            await anyio.sleep(message)
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
