"""``Switchboard``: forward requests about the sessions of other processes."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress

from anyio import CancelScope
from starlette.types import ASGIApp, Receive, Scope, Send

from fastrtc_anyio._core.options import check_type
from fastrtc_anyio._signaling.messages import dump_json
from fastrtc_anyio._signaling.requests import failure_body
from fastrtc_anyio.errors import FastRTCError
from fastrtc_anyio.limits import RequestLimits

from ._forwarding import Inlet, Lost
from ._requests import BufferedRequest, Subject
from ._survey import HeldResponse, Others, Survey, is_unavailable
from .directory import Location
from .member import Member

__all__ = ["Switchboard"]

_LEAST_SECRET = 16


class Switchboard:
    """An ASGI application that serves another one in several processes.

    A request names its session in the last part of its path (WHIP and WHEP), in the query, or in
    the ``webrtc_id`` of its JSON body; so do requests to endpoints of the application. If another
    process has the session, the request is forwarded there once, with its headers, and answered
    there. A request that may come before its session, a candidate or a reader of events, waits for
    it up to ``RequestLimits.early_seconds``. If more than ``early_clients`` wait, the oldest of the
    client with the most is served here. So are all other requests, and all WebSockets. A new
    session that this process refuses with 503 is offered to the others.

    Two requests concern all processes. ``GET /metrics`` returns the metrics of each with the label
    ``process``, and ``fastrtc_process_up``, which is 0 for a process that does not answer within
    3 s. ``GET /health/ready`` of a process that is full or overloaded is answered by one that is
    ready, if there is any.

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
        self._finding: dict[CancelScope, str] = {}
        """Requests that wait for their session, and the addresses of their clients."""
        self._others = Others(member, secret)
        self._survey = Survey(app, self._others, member.name)
        self.inlet: ASGIApp = Inlet(app, member, secret)
        """The application for ``member.address``. It serves requests of other processes only."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = BufferedRequest(scope, receive, self._limits)
        subject = await request.find_subject()
        if subject.kind == "metrics":
            await self._survey.answer_metrics(request, send)
        elif subject.kind == "ready":
            await self._survey.answer_readiness(request, send)
        elif not await self._forward(request, subject, send):
            await self._serve(request, subject, send)

    async def _forward(self, request: BufferedRequest, subject: Subject, send: Send) -> bool:
        """Forward a request to the process that has its session. Return whether it is answered."""
        name = subject.name
        if name is None or self._member.holds(name):
            return False
        process = await self._find(name, request.scope, subject.kind == "early")
        if process is None or process.owner == self._member.name:
            return False
        try:
            is_answered = await self._others.ask(process, request, "session", send, name)
        except Lost:
            await _answer(send, 502, "the process that has this session does not answer")
            return True
        if not is_answered and request.is_spent:  # the session has just ended
            await _answer(send, 404, f"no session has the id {name!r}")
            return True
        return is_answered

    async def _find(self, name: str, scope: Scope, is_early: bool) -> Location | None:
        """Return the process that has a session, and wait for one if the request may be early."""
        if not is_early:
            return await self._member.find(name)
        client = scope.get("client")
        with CancelScope() as waiting:
            self._finding[waiting] = client[0] if client else ""
            if len(self._finding) > self._limits.early_clients:
                self._end_oldest_wait()
            try:
                return await self._member.find(name, self._limits.early_seconds)
            finally:
                self._finding.pop(waiting, None)
        return None

    def _end_oldest_wait(self) -> None:
        """Serve the oldest waiting request of the client that has the most of them."""
        counts = Counter(self._finding.values())
        most = max(counts.values())
        oldest = next(one for one, client in self._finding.items() if counts[client] == most)
        del self._finding[oldest]
        oldest.cancel()

    async def _serve(self, request: BufferedRequest, subject: Subject, send: Send) -> None:
        request.rewind()
        is_known = subject.name is not None and self._member.holds(subject.name)
        if subject.kind != "offer" or is_known or not request.is_buffered:
            await self._app(request.scope, request.receive, send)
            return
        held = HeldResponse(send, is_unavailable)
        await self._app(request.scope, request.receive, held.send)
        if held.messages:
            others = await self._others.list()
            random.shuffle(others)
            for process in others:
                with suppress(Lost):
                    if await self._others.ask(process, request, "place", send, subject.name):
                        return
            await held.release()


async def _answer(send: Send, status: int, text: str) -> None:
    body = dump_json(failure_body(FastRTCError(text))).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    with suppress(OSError):  # its client may have gone
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
