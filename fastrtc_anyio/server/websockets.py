"""WebSockets that carry audio, from the handshake to the close."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import replace

import anyio
from anyio import BrokenResourceError, EndOfStream
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketState

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.spacing import Spacing
from fastrtc_anyio._media.media_plan import MediaNeeds
from fastrtc_anyio._overload import as_overloaded
from fastrtc_anyio._peers.streams.audio import BufferOptions
from fastrtc_anyio._peers.websocket import NORMAL_CLOSE, WebSocketPeer, close_code
from fastrtc_anyio._sessions.service import SessionService
from fastrtc_anyio._signaling.log_text import log_error, log_text
from fastrtc_anyio._signaling.messages import encode_message
from fastrtc_anyio._signaling.requests import failure_body
from fastrtc_anyio._user_code import contain_exits
from fastrtc_anyio._wire.events import Connected, Framing, Malformed, Other, Ping, Pong, Start, Stop
from fastrtc_anyio._wire.fastrtc import FastRTCFraming
from fastrtc_anyio.errors import (
    AdmissionError,
    Draining,
    FastRTCError,
    InvalidMessage,
    InvalidStateError,
    SignalingError,
    WebRTCError,
)
from fastrtc_anyio.limits import MessageRate, RequestLimits, check_message

from .access import Visitor
from .http import HIDDEN, admit_visitor, retry_headers
from .options import WebOptions

__all__ = ["Socket", "admit_websocket", "refuse", "serve_audio", "serve_websocket"]

_ABNORMAL = 1006  # RFC 6455 7.1.5: the connection ended without a close frame
_SERVER_ERROR = 1011
_REPORT_SECONDS = 1.0
"""Time for the last message and for the close of a WebSocket that is not served."""
_BATCH = 16
"""Messages of a burst to handle before a pause."""
_NO_VISITOR = Visitor()


async def serve_websocket(
    service: SessionService, options: WebOptions, websocket: WebSocket
) -> None:
    """Serve a WebSocket of FastRTC's protocol from its handshake to its end."""
    visitor = await admit_websocket(options, websocket)
    if visitor is not None:
        await serve_audio(service, websocket, FastRTCFraming(), visitor, waiting=visitor.client)


async def admit_websocket(
    options: WebOptions, websocket: WebSocket, *, check_access: bool = True
) -> Visitor | None:
    """Return the client of a WebSocket; None if it is not admitted, and its handshake refused.

    Without ``check_access`` the client need not authenticate.
    """
    try:
        return await admit_visitor(options, websocket, check_access=check_access)
    except SignalingError as exc:
        await refuse(websocket, exc, exc.status_hint)
        return None
    except Exception as exc:
        if (refusal := as_overloaded(exc)) is not None:
            await refuse(websocket, refusal, refusal.status_hint)
            return None
        logger.exception("a WebSocket could not be admitted", event="websocket.failed")
        await refuse(websocket, FastRTCError(HIDDEN), 500)
        return None


async def refuse(websocket: WebSocket, error: FastRTCError, status: int) -> None:
    """Answer a handshake with a status and an error, and log the error."""
    level = logging.INFO if isinstance(error, Draining) else logging.WARNING
    log_error(level, "a WebSocket was refused", error=error, event="websocket.refused")
    try:
        if "websocket.http.response" in websocket.scope.get("extensions", {}):
            response = PlainTextResponse(str(error), status, retry_headers(error))
            await websocket.send_denial_response(response)
        else:
            await websocket.close()
    except Exception as exc:
        _log_failed_handshake(exc)


def _log_failed_handshake(error: Exception) -> None:
    # The client is gone, or sent a message too early. Servers raise different exceptions.
    logger.info(
        "a WebSocket's handshake could not be answered: %s",
        log_text(error),
        event="websocket.handshake_failed",
    )
    logger.debug(
        "a WebSocket's handshake could not be answered: %r",
        error,
        event="websocket.handshake_failed",
    )


async def serve_audio(
    service: SessionService,
    websocket: WebSocket,
    framing: Framing,
    visitor: Visitor = _NO_VISITOR,
    *,
    waiting: str | None = None,
) -> None:
    """Accept a WebSocket that was admitted, and serve it until it is closed.

    ``waiting`` is ``visitor.client`` until the start, if that may prove who the client is.
    """
    socket = Socket(websocket, service.request_limits)
    try:
        service.check_draining()
        await websocket.accept()
    except Draining as exc:
        await refuse(websocket, exc, exc.status_hint)
        return
    except Exception as exc:
        _log_failed_handshake(exc)
        return
    try:
        try:
            with service.observers.watch_refusals(FastRTCError):
                start = await _wait_start(service, socket, framing, waiting)
        except (EndOfStream, BrokenResourceError):
            return  # the client disconnected before its start
        if start is not None:
            with contain_exits("the handler"):
                await _serve(service, socket, framing, start, visitor)
    except SignalingError as exc:
        await _report_failure(socket, framing, exc, close_code(exc))
    except Exception as exc:
        if (refusal := as_overloaded(exc)) is not None:
            await _report_failure(socket, framing, refusal, close_code(refusal))
            return
        logger.exception("a WebSocket could not be served", event="websocket.failed")
        shown = exc if isinstance(exc, WebRTCError) else FastRTCError("the server has met an error")
        await _report_failure(socket, framing, shown, _SERVER_ERROR)
    finally:
        await _close(socket)


async def _wait_start(
    service: SessionService, socket: Socket, framing: Framing, waiting: str | None
) -> Start | None:
    limit = service.limits.connect
    with service.admission.pending.hold(waiting, limit) as scope:
        start = await _read_start(socket, framing)
    if scope.cancelled_caught:
        raise InvalidMessage(f"no start came within {limit:g} s (Limits.connect)")
    return start


async def _read_start(socket: Socket, framing: Framing) -> Start | None:
    while True:
        match event := framing.decode(await socket.receive()):
            case Start():
                return event
            case Stop():
                return None
            case Ping():
                await socket.send(framing.encode(Pong()) or "")
            case Connected() | Other() | Malformed():
                pass
            case _:
                raise InvalidMessage(
                    f'the first message must be "start"; got {type(event).__name__.lower()}'
                )


async def _serve(
    service: SessionService, socket: Socket, framing: Framing, start: Start, visitor: Visitor
) -> None:
    media = service.media
    if not media.audio:
        raise InvalidStateError("this stream carries video, which a WebSocket cannot")

    def make_peer(wanted: MediaNeeds, buffers: BufferOptions) -> WebSocketPeer:
        return WebSocketPeer(
            socket,
            framing,
            start,
            media=replace(media, video_in=False, video_out=False),
            rates=(wanted.input_sample_rate, wanted.sample_rate),
            buffers=buffers,
            stall_s=service.limits.stall,
            liveness_s=service.limits.liveness,
        )

    await service.serve(
        make_peer,
        alias=start.id,
        phone=framing.phone,
        websocket=socket.websocket,
        identity=visitor.identity,
        client=visitor.client,
    )


async def _report_failure(socket: Socket, framing: Framing, error: FastRTCError, code: int) -> None:
    if isinstance(error, AdmissionError):
        text = json.dumps(failure_body(error))  # FastRTC's clients expect this form
    else:
        text = encode_message("error", str(error))
    log_error(logging.INFO, "a WebSocket was closed", error=error, event="websocket.closed")
    with anyio.move_on_after(_REPORT_SECONDS), suppress(BrokenResourceError):
        if not framing.phone:
            await socket.send(text)
    await _close(socket, code)


async def _close(socket: Socket, code: int = NORMAL_CLOSE) -> None:
    """Close a WebSocket whose client may be gone, or may have stopped reading."""
    with anyio.move_on_after(_REPORT_SECONDS), suppress(BrokenResourceError):
        await socket.aclose(code)


class Socket:
    """Starlette's WebSocket as a :class:`.TextSocket`.

    One task sends at a time: Hypercorn on trio fails otherwise. It still does if a client closes
    the connection at that moment.
    """

    def __init__(self, websocket: WebSocket, limits: RequestLimits) -> None:
        self.websocket = websocket
        self._limits = limits
        self._rate = MessageRate(limits, anyio.current_time)
        self._spacing = Spacing(_BATCH)
        self._writing = anyio.Lock(fast_acquire=True)
        self._closed = False

    async def receive(self) -> str:
        message = await self.websocket.receive()
        if message["type"] == "websocket.disconnect":
            self._closed = True
            if message.get("violation"):  # reported by ``launch`` alone
                raise InvalidMessage(f"the server has closed the WebSocket with {message['code']}")
            # Hypercorn 0.18 reports 1006, without a reason, for every close that a client begins.
            # Servers that report a reason (ASGI 2.5) use 1006 as RFC 6455 defines it. Without one
            # the frequent case is assumed: the client has closed.
            if message.get("code") == _ABNORMAL and "reason" in message:
                raise BrokenResourceError
            raise EndOfStream
        self._rate.count()
        await self._spacing.wait()
        text = message.get("text")
        if text is None:
            raise InvalidMessage("the protocol has text messages only; got a binary one")
        check_message(len(text.encode("utf-8", "surrogatepass")), self._limits)
        return str(text)

    async def send(self, text: str, /) -> None:
        async with self._writing:
            try:
                await self.websocket.send_text(text)
            except Exception as exc:  # servers raise different exceptions
                raise BrokenResourceError from exc

    async def aclose(self, code: int = NORMAL_CLOSE, /) -> None:
        async with self._writing:
            if self._closed or self.websocket.application_state is not WebSocketState.CONNECTED:
                return
            self._closed = True
            try:
                await self.websocket.close(code)
            except Exception as exc:
                raise BrokenResourceError from exc
