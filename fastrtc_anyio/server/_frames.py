"""A WebSocket (RFC 6455) on a connection of the server, as ASGI's ``receive`` and ``send``.

No extension is accepted: a compressed message could be a thousand times as large as its frames.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha1
from http import HTTPStatus

import anyio
import h11
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, WouldBlock
from anyio.lowlevel import checkpoint
from starlette.types import Message, Receive, Send
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

from fastrtc_anyio._core.spacing import Spacing

from ._sockets import ClientSocket

__all__ = ["WebSocketExchange", "check_handshake", "is_handshake"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_QUEUED = 4
"""Messages that wait for the application."""
_CLOSE_SECONDS = 2.0
"""Seconds for the client to answer a close frame."""
_EVENTS = 32
"""Frames of a burst to process before a pause."""


def is_handshake(request: h11.Request) -> bool:
    """Whether a request asks for a WebSocket."""
    return (
        request.method == b"GET"
        and b"websocket" in _tokens(request, b"upgrade")
        and b"upgrade" in _tokens(request, b"connection")
    )


def check_handshake(request: h11.Request) -> tuple[int, str] | None:
    """Return the status and the reason with which to refuse a handshake; None to go on."""
    headers = dict(request.headers)
    if headers.get(b"sec-websocket-version", b"").strip() != b"13":
        return HTTPStatus.UPGRADE_REQUIRED, "the server speaks version 13 of WebSocket"
    if request.http_version != b"1.1":
        return HTTPStatus.BAD_REQUEST, "a WebSocket needs HTTP/1.1"
    if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
        return HTTPStatus.BAD_REQUEST, "the handshake of a WebSocket has no body"
    try:
        key = b64decode(headers.get(b"sec-websocket-key", b"").strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 16:
        return HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64"
    return None


def _tokens(request: h11.Request, name: bytes) -> set[bytes]:
    values = [value for key, value in request.headers if key == name]
    return {token.strip().lower() for token in b",".join(values).split(b",")}


class WebSocketExchange:
    """One WebSocket.

    A task reads as long as the application takes the messages, answers pings and notices the
    client's close. ``websocket.disconnect`` has the code and the reason of the close frame; 1006
    stands for a connection that broke. It has the key ``violation`` if the client has violated the
    protocol.
    """

    def __init__(
        self, parser: h11.Connection, client_socket: ClientSocket, request: h11.Request, limit: int
    ) -> None:
        self._parser = parser
        self._socket = client_socket
        self._key = dict(request.headers)[b"sec-websocket-key"].strip()
        self._limit = limit
        self._frames: Connection | None = None
        self._denial: Message | None = None
        self._response_over = False
        self._connected = False
        self._disconnect: Message = {}
        self._set_end(CloseReason.ABNORMAL_CLOSURE)
        self._message = bytearray()
        self._to_app, self._from_client = anyio.create_memory_object_stream[Message](_QUEUED)
        self._tasks = anyio.create_task_group()
        self._ended = anyio.Event()

    async def run(self, call: Callable[[Receive, Send], Awaitable[str]]) -> bool:
        """Serve the WebSocket; return whether the output must leave before the connection ends."""
        with self._to_app, self._from_client:
            async with self._tasks:
                outcome = await call(self.receive, self.send)
                self._from_client.close()  # from here on messages are dropped
                if self._frames is None:
                    if self._denial is None:
                        stopped = outcome == "cancelled"
                        self._respond(503 if stopped else 500 if outcome == "failed" else 403)
                    return self._response_over
                code = {
                    "failed": CloseReason.INTERNAL_ERROR,
                    "cancelled": CloseReason.GOING_AWAY,
                }.get(outcome, CloseReason.NORMAL_CLOSURE)
                self._send_frame(CloseConnection(code=code))
                with anyio.move_on_after(_CLOSE_SECONDS):
                    await self._ended.wait()
                self._tasks.cancel_scope.cancel()
        return True

    async def receive(self) -> Message:
        if not self._connected:
            await checkpoint()
            self._connected = True
            return {"type": "websocket.connect"}
        try:
            return await self._from_client.receive()
        except (EndOfStream, ClosedResourceError):
            return self._disconnect

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept" and self._can_respond:
            self._accept(message)
        elif kind == "websocket.close" and self._can_respond:
            self._respond(403)
        elif kind == "websocket.http.response.start" and self._can_respond:
            self._denial = message
        elif kind == "websocket.http.response.body" and self._denial and not self._response_over:
            self._respond_body(message)
        elif kind == "websocket.close" and self._frames is not None:
            code = int(message.get("code") or CloseReason.NORMAL_CLOSURE)
            self._send_frame(CloseConnection(code=code, reason=message.get("reason") or None))
        elif kind == "websocket.send" and self._frames is not None:
            data = message.get("bytes")
            text = TextMessage(data=message["text"]) if data is None else None
            frame = text or BytesMessage(data=bytes(data or b""))
            if not self._send_frame(frame) or self._socket.is_broken:
                raise OSError("the WebSocket is closed")
        else:
            raise RuntimeError(f"{kind} is out of order")
        await self._socket.flush()

    @property
    def _can_respond(self) -> bool:
        return self._frames is None and self._denial is None and not self._response_over

    def _accept(self, message: Message) -> None:
        accept = b64encode(sha1(self._key + _GUID, usedforsecurity=False).digest())
        headers = [
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Accept", accept),
        ]
        if message.get("subprotocol"):
            headers.append((b"Sec-WebSocket-Protocol", str(message["subprotocol"]).encode()))
        headers += [(bytes(name), bytes(value)) for name, value in message.get("headers") or ()]
        response = h11.InformationalResponse(status_code=101, headers=headers)
        self._socket.write(self._parser.send(response) or b"")
        early, _ = self._parser.trailing_data
        self._frames = Connection(ConnectionType.SERVER, [], early)
        self._tasks.start_soon(self._read, self._frames)

    def _respond(self, status: int) -> None:
        self._denial = {"status": status, "headers": [(b"Content-Length", b"0")]}
        self._respond_body({})

    def _respond_body(self, message: Message) -> None:
        assert self._denial is not None
        parts: list[h11.Event] = []
        if self._parser.our_state is not h11.SEND_BODY:
            headers = [(bytes(n), bytes(v)) for n, v in self._denial.get("headers") or ()]
            headers.append((b"Connection", b"close"))
            parts.append(h11.Response(status_code=self._denial["status"], headers=headers))
        if body := message.get("body"):
            parts.append(h11.Data(data=bytes(body)))
        if not message.get("more_body"):
            parts.append(h11.EndOfMessage())
        self._socket.write(b"".join(self._parser.send(part) or b"" for part in parts))
        self._response_over = not message.get("more_body")

    def _send_frame(self, event: Event) -> bool:
        """Send a frame; return False if a close frame has been sent before."""
        assert self._frames is not None
        try:
            self._socket.write(self._frames.send(event))
        except LocalProtocolError:
            return False
        return True

    async def _read(self, frames: Connection) -> None:
        """Read until the connection or the WebSocket has ended."""
        spacing = Spacing(_EVENTS)
        try:
            while True:
                for event in frames.events():
                    if await self._handle(frames, event):
                        return
                    await spacing.wait()
                data = await self._socket.receive()
                if not data:
                    return
                frames.receive_data(data)
        finally:
            self._to_app.close()
            self._ended.set()

    async def _handle(self, frames: Connection, event: Event) -> bool:
        """Handle a frame; return whether it is the last one."""
        match event:
            case CloseConnection():
                # In the state OPEN, the event is wsproto's report of a malformed frame.
                violation = frames.state is ConnectionState.OPEN
                code, reason = int(event.code), "" if violation else event.reason or ""
                if self._send_frame(CloseConnection(code=code, reason=reason or None)):
                    self._set_end(code, reason, violation=violation)
                elif frames.state is ConnectionState.CLOSED:
                    self._set_end(code, reason)
                return True
            case TextMessage() | BytesMessage():
                return await self._handle_message(frames, event)
            case Ping():
                if self._send_frame(event.response()):
                    await self._socket.flush()
            case _:
                pass
        return False

    async def _handle_message(self, frames: Connection, event: TextMessage | BytesMessage) -> bool:
        if frames.state is not ConnectionState.OPEN:
            return False  # the application has closed the WebSocket
        data = event.data
        self._message += data.encode() if isinstance(data, str) else data
        if len(self._message) > self._limit:
            self._send_frame(CloseConnection(code=CloseReason.MESSAGE_TOO_BIG))
            self._set_end(CloseReason.MESSAGE_TOO_BIG, violation=True)
            return True
        if event.message_finished:
            content, self._message = bytes(self._message), bytearray()
            body = {"text": content.decode()} if isinstance(data, str) else {"bytes": content}
            message = {"type": "websocket.receive", **body}
            with suppress(BrokenResourceError):  # the application has ended
                try:
                    self._to_app.send_nowait(message)  # without a checkpoint: the next read has one
                except WouldBlock:
                    await self._to_app.send(message)
        return False

    def _set_end(self, code: int, reason: str = "", *, violation: bool = False) -> None:
        end = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._disconnect = {**end, "violation": True} if violation else end
