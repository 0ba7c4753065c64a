"""``Switchboard``: forward requests about the sessions of other processes."""

from __future__ import annotations

import random
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.options import check_type
from fastrtc_anyio._signaling.messages import dump_json
from fastrtc_anyio._signaling.requests import failure_body
from fastrtc_anyio.errors import FastRTCError
from fastrtc_anyio.limits import RequestLimits

from ._forwarding import Forwarder, Inlet, Lost, Refused
from ._requests import BufferedRequest, Subject
from .directory import Location
from .member import Member

__all__ = ["Switchboard"]

_LEAST_SECRET = 16
_UNAVAILABLE = 503
"""Status with which a process refuses a new session."""


class Switchboard:
    """An ASGI application that serves another one in several processes.

    A request names its session in the last part of its path (WHIP and WHEP), in the query, or in
    the ``webrtc_id`` of its JSON body; so do requests to endpoints of the application. If another
    process has the session, the request is forwarded there once, with its headers, and answered
    there. A request that may come before its session, a candidate or a reader of events, waits for
    it up to ``RequestLimits.early_seconds``, if not more than ``early_clients`` do. All other
    requests, and all WebSockets, are served here. A new session that this process refuses with 503
    is offered to the others.

    Serve it where clients connect, and :attr:`inlet` at ``member.address``, which only the other
    processes may reach.

    Args:
        app: the application, with its streams.
        member: this process.
        secret: known to all processes of the cluster, and to nobody else: at least 16 characters.
        limits: the ``request_limits`` of the streams.
    """

    def __init__(
        self, app: ASGIApp, member: Member, secret: str, limits: RequestLimits | None = None
    ) -> None:
        check_type("secret", secret, str)
        check_type("limits", limits, RequestLimits, optional=True)
        if len(secret) < _LEAST_SECRET:
            raise ValueError(
                f"secret must have at least {_LEAST_SECRET} characters; got {len(secret)}"
            )
        self._app = app
        self._member = member
        self._limits = limits or RequestLimits()
        self._finding = 0
        """Requests that wait for their session."""
        self._forwarder = Forwarder(secret)
        self.inlet: ASGIApp = Inlet(app, member, secret)
        """The application for ``member.address``. It serves requests of other processes only."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = BufferedRequest(scope, receive, self._limits)
        subject = await request.find_subject()
        if not await self._forward(request, subject, send):
            await self._serve(request, subject, send)

    async def _forward(self, request: BufferedRequest, subject: Subject, send: Send) -> bool:
        """Forward a request to the process that has its session. Return whether it is answered."""
        name = subject.name
        if name is None or self._member.holds(name):
            return False
        process = await self._find(name, subject.kind == "early")
        if process is None or process.owner == self._member.name:
            return False
        try:
            is_answered = await self._forwarder.forward(request, process, "session", name, send)
        except Refused:
            await self._member.report_lost(process)
            return False
        except Lost as exc:
            _log_lost(process, exc)
            await _answer(send, 502, "the process that has this session does not answer")
            return True
        if not is_answered and request.is_spent:  # the session has just ended
            await _answer(send, 404, f"no session has the id {name!r}")
            return True
        return is_answered

    async def _find(self, name: str, is_early: bool) -> Location | None:
        """Return the process that has a session, and wait for one if not too many wait already."""
        wait = self._limits.early_seconds
        if not is_early or self._finding >= self._limits.early_clients:
            return await self._member.find(name)
        self._finding += 1
        try:
            return await self._member.find(name, wait)
        finally:
            self._finding -= 1

    async def _serve(self, request: BufferedRequest, subject: Subject, send: Send) -> None:
        request.rewind()
        is_known = subject.name is not None and self._member.holds(subject.name)
        if subject.kind != "offer" or is_known or not request.is_buffered:
            await self._app(request.scope, request.receive, send)
            return
        held = _HeldResponse(send)
        await self._app(request.scope, request.receive, held.send)
        if held.is_held:
            others = await self._member.list_others()
            random.shuffle(others)
            for process in others:
                if await self._place(request, subject, process, send):
                    return
            await held.release()

    async def _place(
        self, request: BufferedRequest, subject: Subject, process: Location, send: Send
    ) -> bool:
        """Offer a new session to another process. Return whether it has answered."""
        try:
            return await self._forwarder.forward(request, process, "place", subject.name, send)
        except Refused:
            await self._member.report_lost(process)
        except Lost as exc:
            _log_lost(process, exc)
        return False


class _HeldResponse:
    """A response that is sent at once, unless it says that the server takes no new sessions."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._messages: list[Message] = []

    @property
    def is_held(self) -> bool:
        return bool(self._messages)

    async def send(self, message: Message) -> None:
        if self._messages or message.get("status") == _UNAVAILABLE:
            self._messages.append(message)
        else:
            await self._send(message)

    async def release(self) -> None:
        for message in self._messages:
            await self._send(message)


def _log_lost(process: Location, error: Lost) -> None:
    logger.warning(
        "a request was not answered by process %s: %s",
        process.owner,
        error,
        event="cluster.request_lost",
    )


async def _answer(send: Send, status: int, text: str) -> None:
    body = dump_json(failure_body(FastRTCError(text))).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    with suppress(OSError):  # its client may have gone
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
