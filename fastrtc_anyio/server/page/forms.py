"""The page's inputs and outputs: ``POST {path}/input_hook`` and ``GET {path}/outputs``.

They are there where the stream declares ``additional_inputs`` or ``additional_outputs``. Endpoints
of the application with the same path come first, wherever they are added: programs written for
FastRTC bring their own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from anyio import move_on_after
from anyio.lowlevel import checkpoint
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Match, Route

from fastrtc_anyio._core.threads import run_sync
from fastrtc_anyio._core.user_code import is_coroutine_function
from fastrtc_anyio._signaling.requests import MAX_ID_LENGTH
from fastrtc_anyio.errors import HandlerContractError, LimitExceeded, UnknownSession
from fastrtc_anyio.outputs import OutputReader
from fastrtc_anyio.server.http import JSON, read_json, respond

from .components import InvalidInput, parse_inputs

if TYPE_CHECKING:
    from fastrtc_anyio.stream import Stream

__all__ = ["OutputEvents", "add_field_routes", "describe_fields"]

logger = logging.getLogger("fastrtc_anyio")

_SIGN_OF_LIFE_S = 15.0
"""Proxies end an answer that says nothing for a minute."""
_NOTHING = ":\n\n"
"""A comment of such a stream."""
_MAX_REPR = 10_000


def add_field_routes(stream: Stream, app: Any, prefix: str) -> None:
    """Add the endpoints that the stream's declarations ask for."""

    async def take_inputs(request: Request) -> Response:
        return await _take_inputs(stream, request)

    async def stream_outputs(request: Request) -> Response:
        return await _stream_outputs(stream, request)

    async def input_hook(request: Request) -> Response:
        return await respond(stream, request, take_inputs)

    async def outputs(request: Request) -> Response:
        return await respond(stream, request, stream_outputs)

    routes: list[Any] = app.router.routes
    if stream.additional_inputs:
        routes.append(_LastRoute(f"{prefix}/input_hook", input_hook, "POST", routes))
    if stream.additional_outputs:
        routes.append(_LastRoute(f"{prefix}/outputs", outputs, "GET", routes))


def describe_fields(stream: Stream) -> dict[str, Any]:
    """The declarations, as the page reads them."""
    return {
        "inputs": [component.describe() for component in stream.additional_inputs],
        "outputs": [component.describe() for component in stream.additional_outputs],
    }


class _LastRoute(Route):
    """A route that any other one with the same path and method replaces."""

    def __init__(self, path: str, endpoint: Any, method: str, routes: list[Any]) -> None:
        super().__init__(path, endpoint, methods=[method, "OPTIONS"])
        self._method = method
        self._routes = routes

    def matches(self, scope: Any) -> tuple[Match, Any]:
        for other in self._routes:
            same = getattr(other, "path", None) == self.path and not isinstance(other, _LastRoute)
            if same and self._method in (getattr(other, "methods", None) or ()):
                return Match.NONE, {}
        return super().matches(scope)


async def _take_inputs(stream: Stream, request: Request) -> Response:
    body = await read_json(request, stream.request_limits)
    webrtc_id = body.get("webrtc_id") if isinstance(body, dict) else None
    if not isinstance(webrtc_id, str) or len(webrtc_id) > MAX_ID_LENGTH:
        raise InvalidInput('the body must be a JSON object with a "webrtc_id"')
    stream.set_input(webrtc_id, *parse_inputs(stream.additional_inputs, body))
    return JSON({"status": "success"})


async def _stream_outputs(stream: Stream, request: Request) -> Response:
    webrtc_id = request.query_params.get("webrtc_id", "")
    if not webrtc_id:
        raise UnknownSession("whose outputs? The address lacks ?webrtc_id=...")
    reader = stream.output_stream(webrtc_id)
    await reader.wait_begun()
    limit = stream.request_limits.event_streams
    if stream.session(webrtc_id).outputs.statistics().readers > limit:
        await reader.aclose()
        text = f"{limit} streams of outputs are being read already (RequestLimits.event_streams)"
        raise LimitExceeded(text, 429)
    return StreamingResponse(
        OutputEvents(stream, reader),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


class OutputEvents(AsyncIterator[str]):
    """Server-sent events: ``output`` with all values by name, ``problem``, and ``end``.

    No generator: one that a client leaves unfinished would be left to the garbage collector.
    """

    def __init__(self, stream: Stream, reader: OutputReader) -> None:
        self._stream = stream
        self._reader = reader
        self._names = [component.name for component in stream.additional_outputs]
        self._values = [component.initial for component in stream.additional_outputs]
        self._begun = self._ended = False

    async def __anext__(self) -> str:
        if self._ended:
            raise StopAsyncIteration
        if not self._begun:  # the head goes out with the first bytes
            self._begun = True
            await checkpoint()
            return _NOTHING
        outputs = None
        try:
            with move_on_after(_SIGN_OF_LIFE_S):
                outputs = await anext(self._reader)
        except StopAsyncIteration:
            self._ended = True
            return _event("end", None)
        return _NOTHING if outputs is None else await self._show(outputs.args)

    async def _show(self, args: Sequence[Any]) -> str:
        try:
            self._values = await _update(self._stream, self._values, args)
        except Exception:
            logger.exception("additional_outputs_handler")
            return _event("problem", "The outputs could not be shown: see the server's log.")
        shown = map(_showable, self._values)
        return _event("output", dict(zip(self._names, shown, strict=True)))


async def _update(stream: Stream, values: list[Any], args: Sequence[Any]) -> list[Any]:
    """The values to show next, by FastRTC's rule: ``handler(*values, *args)`` makes them."""
    handler = stream.additional_outputs_handler
    if handler is None:
        given = list(args[: len(values)])
        return given + values[len(given) :]
    if is_coroutine_function(handler):
        made = await handler(*values, *args)
    else:
        made = await run_sync(handler, *values, *args)
    if len(values) == 1:
        return [made]
    if not isinstance(made, list | tuple) or len(made) != len(values):
        raise HandlerContractError(
            f"additional_outputs_handler must return {len(values)} values, one for each of "
            f"additional_outputs; got {made!r}"
        )
    return list(made)


def _event(kind: str, data: object) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def _showable(value: object) -> object:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value)[:_MAX_REPR]
    return value
