"""Requests whose answer concerns all processes: their metrics, and whether one has room."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import anyio
from anyio import create_task_group, current_time, move_on_after
from anyio.lowlevel import checkpoint
from starlette.types import ASGIApp, Message, Scope, Send

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._signaling.messages import load_json

from ._forwarding import Forwarder, Incomplete, Lost, Purpose, Refused
from ._metrics import Families, label_metrics, merge_metrics
from ._requests import BufferedRequest
from .directory import Location
from .member import Member

__all__ = ["HeldResponse", "Others", "Survey", "is_unavailable"]

_SECONDS = 3.0
"""Seconds for the metrics of another process. Prometheus waits for 10 s."""
_OK = 200
_FRESH = 1.0
"""Seconds for which an answer about readiness is used again."""
_TEXT_FORMAT = (b"text/plain", b"version=0.0.4")
_NOT_COPIED = (b"accept", b"accept-encoding", b"content-length", b"transfer-encoding")


class HeldResponse:
    """A response that is sent on, unless it is one to hold back.

    Args:
        send: receives it.
        is_one_to_hold: called with its first message.
    """

    def __init__(self, send: Send, is_one_to_hold: Callable[[Message], bool]) -> None:
        self._send = send
        self._is_one_to_hold = is_one_to_hold
        self.messages: list[Message] = []
        """The messages that are held."""

    @property
    def is_complete(self) -> bool:
        """Whether a whole response is held."""
        return len(self.messages) > 1 and not self.messages[-1].get("more_body", False)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    async def send(self, message: Message) -> None:
        is_first = message["type"] == "http.response.start"
        if self.messages or (is_first and self._is_one_to_hold(message)):
            await checkpoint()
            self.messages.append(message)
        else:
            await self._send(message)

    async def release(self) -> None:
        for message in self.messages:
            await self._send(message)


def is_unavailable(start: Message) -> bool:
    """Return whether a response says that a process takes no new sessions."""
    return bool(start["status"] == 503)


class Others:
    """The other processes of a cluster.

    Args:
        member: this process.
        secret: of the cluster.
    """

    def __init__(self, member: Member, secret: str) -> None:
        self._member = member
        self._forwarder = Forwarder(secret)

    async def list(self) -> list[Location]:
        return await self._member.list_others()

    async def ask(
        self,
        process: Location,
        request: BufferedRequest,
        purpose: Purpose,
        send: Send,
        name: str | None = None,
    ) -> bool:
        """Send a request to another process. Return whether it has answered, at least in part.

        Raises:
            Lost: it does not answer, though it may be alive.
        """
        try:
            return await self._forwarder.forward(request, process, purpose, name, send)
        except Refused:
            await self._member.report_lost(process)
            return False
        except Lost as exc:
            _log_lost(process, exc)
            raise
        except Incomplete as exc:
            _log_lost(process, exc)
            return True


def _log_lost(process: Location, error: Lost | Incomplete) -> None:
    logger.warning(
        "a request was not answered by process %s: %s",
        process.owner,
        error,
        event="cluster.request_lost",
    )


class Survey:
    """Answers requests that concern all processes of a cluster.

    Args:
        app: the application of this process.
        others: the other processes.
        name: of this process.
    """

    def __init__(self, app: ASGIApp, others: Others, name: str) -> None:
        self._app = app
        self._others = others
        self._name = name
        self._asking = anyio.Lock()
        self._ready: dict[str, _Readiness] = {}
        """What the other processes have answered, by the path of the request."""

    async def answer_metrics(self, request: BufferedRequest, send: Send) -> None:
        """Answer with the metrics of all processes, if the application's are in the text format."""
        request = BufferedRequest(_request_text(request.scope), request.receive)
        held = HeldResponse(send, _is_metrics)
        await self._app(request.scope, request.receive, held.send)
        if not held.messages:
            return
        try:
            found: dict[str, Families | None] = {
                self._name: label_metrics(held.body.decode(), self._name)
            }
        except ValueError:
            await held.release()
            return
        async with create_task_group() as tasks:
            for process in await self._others.list():
                found[process.owner] = None
                tasks.start_soon(self._read_metrics, process, request.scope, found)
        await _send_text(held.messages[0], merge_metrics(found), send)

    async def _read_metrics(
        self, process: Location, scope: Scope, found: dict[str, Families | None]
    ) -> None:
        with move_on_after(_SECONDS):
            held = await self._ask(process, scope, "all")
            if held is not None and _is_metrics(held.messages[0]):
                with suppress(ValueError):
                    text = held.body.decode()
                    found[process.owner] = label_metrics(text, process.owner)

    async def _ask(self, process: Location, scope: Scope, purpose: Purpose) -> HeldResponse | None:
        """Return the response of another process; None if there is none."""
        held = HeldResponse(_send_nothing, lambda _: True)
        request = BufferedRequest(scope, _receive_nothing)
        with suppress(Lost):
            await self._others.ask(process, request, purpose, held.send)
        return held if held.is_complete else None

    async def answer_readiness(self, request: BufferedRequest, send: Send) -> None:
        """Answer that the cluster is ready if any process is: it takes what this one refuses."""
        held = HeldResponse(send, is_unavailable)
        await self._app(request.scope, request.receive, held.send)
        if not held.messages:
            return
        found = await self._find_ready(request.scope) if _has_no_room(held) else None
        for message in (found or held).messages:
            await send(message)

    async def _find_ready(self, scope: Scope) -> HeldResponse | None:
        """Return the response of a process that is ready; None if there is none.

        Anyone may send such requests: the processes are asked once a second.
        """
        path = scope["path"].rstrip("/")
        async with self._asking:
            now = current_time()
            self._ready = {key: one for key, one in self._ready.items() if one.expires > now}
            if path not in self._ready:
                found = await self._ask_for_readiness(scope)
                self._ready[path] = _Readiness(current_time() + _FRESH, found)
            return self._ready[path].found

    async def _ask_for_readiness(self, scope: Scope) -> HeldResponse | None:
        found: list[HeldResponse] = []

        async def ask(process: Location) -> None:
            held = await self._ask(process, scope, "place")
            if held is not None and held.messages[0]["status"] == _OK:
                found.append(held)
                tasks.cancel_scope.cancel()

        with move_on_after(_SECONDS):
            async with create_task_group() as tasks:
                for process in await self._others.list():
                    tasks.start_soon(ask, process)
        return found[0] if found else None


class _Readiness(NamedTuple):
    expires: float
    found: HeldResponse | None
    """The response of a process that is ready."""


def _has_no_room(held: HeldResponse) -> bool:
    """Return whether a process is not ready only because of its present sessions.

    A process that drains or is closed is about to end: its own clients should learn it.
    """
    try:
        found = load_json(held.body)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("reason") in ("full", "overloaded")


def _request_text(scope: Scope) -> Scope:
    """Return a request for metrics in the text format, without a body.

    Prometheus prefers a format whose texts cannot be joined, and compression.
    """
    accepted = b",".join(value for key, value in scope["headers"] if key == b"accept")
    headers = [pair for pair in scope["headers"] if pair[0] not in _NOT_COPIED]
    accept = b";".join(_TEXT_FORMAT) if b"openmetrics" in accepted else accepted or b"*/*"
    return {**scope, "headers": [*headers, (b"accept", accept)]}


def _is_metrics(start: Message) -> bool:
    types = b"".join(
        value for key, value in start.get("headers", ()) if key.lower() == b"content-type"
    )
    return start["status"] == _OK and all(part in types for part in _TEXT_FORMAT)


async def _send_text(start: Message, text: str, send: Send) -> None:
    """Send a response with the status and the headers of another one."""
    body = text.encode()
    headers = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
    length = (b"content-length", b"%d" % len(body))
    await send({**start, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def _receive_nothing() -> Message:
    await anyio.sleep_forever()
    raise AssertionError


async def _send_nothing(_message: Message) -> None:
    await checkpoint()
