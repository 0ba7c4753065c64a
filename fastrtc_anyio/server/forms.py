"""The page's inputs and outputs: ``POST {path}/input_hook`` and ``GET {path}/outputs``.

The routes exist where the stream declares ``additional_inputs`` or ``additional_outputs``. An
endpoint of the application with the same path takes precedence, wherever it is added: programs
written for FastRTC bring their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial

from anyio import CancelScope, move_on_after
from anyio.lowlevel import checkpoint
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._sessions.service import SessionService
from fastrtc_anyio._signaling.messages import dump_json
from fastrtc_anyio._signaling.requests import MAX_ID_LENGTH
from fastrtc_anyio._user_code import call_user_function
from fastrtc_anyio.errors import HandlerContractError, LimitExceeded, UnknownSession
from fastrtc_anyio.outputs import OutputStream

from .access import Visitor
from .http import JSON, guard_json, read_json
from .last_route import LastRoute
from .options import WebOptions
from .page.components import InvalidInput, OutputsHandler, parse_inputs

__all__ = ["OutputEvents", "field_routes"]

_KEEP_ALIVE_S = 15.0
"""Seconds between comments on an idle stream of events. Proxies close one after a minute."""
_COMMENT = ":\n\n"
_MAX_REPR = 10_000
_MAX_DEPTH = 4
"""Levels of a value without a JSON form that are converted one by one."""


def field_routes(
    service: SessionService, options: WebOptions, prefix: str, others: Sequence[BaseRoute]
) -> list[Route]:
    """Create the routes that the declared components need; ``others`` take precedence."""
    routes: list[Route] = []
    if options.additional_inputs:
        endpoint = guard_json(options, partial(_set_input, service, options))
        routes.append(LastRoute(f"{prefix}/input_hook", endpoint, ["POST", "OPTIONS"], others))
    if options.additional_outputs:
        endpoint = guard_json(options, partial(_stream_outputs, service, options))
        routes.append(LastRoute(f"{prefix}/outputs", endpoint, ["GET", "OPTIONS"], others))
    return routes


async def _set_input(
    service: SessionService, options: WebOptions, request: Request, visitor: Visitor
) -> Response:
    body = await read_json(request, service.request_limits)
    values = body if isinstance(body, dict) else {}
    webrtc_id = values.get("webrtc_id")
    if not isinstance(webrtc_id, str) or len(webrtc_id) > MAX_ID_LENGTH:
        raise InvalidInput('the body must be a JSON object with a "webrtc_id"')
    handler = service.registry.get_handler(webrtc_id, visitor.identity)
    hidden = options.hidden_values(service.registry.get(webrtc_id, visitor.identity))
    handler.set_args(parse_inputs(options.additional_inputs, values, hidden))
    return JSON({"status": "success"})


async def _stream_outputs(
    service: SessionService, options: WebOptions, request: Request, visitor: Visitor
) -> Response:
    webrtc_id = request.query_params.get("webrtc_id", "")
    if not webrtc_id:
        raise UnknownSession("the URL must name a session: append ?webrtc_id=...")
    reader = service.read_outputs(webrtc_id, visitor.identity, visitor.client)
    await reader.wait_begun()
    limit = service.request_limits.event_streams
    session = service.registry.get(webrtc_id, visitor.identity)
    if session.outputs.statistics().readers > limit:
        await reader.aclose()
        text = f"{limit} streams of outputs are being read already (RequestLimits.event_streams)"
        raise LimitExceeded(text, 429)
    return _EventStream(reader, options, options.hidden_values(session))


class _EventStream(StreamingResponse):
    """A stream of server-sent events that closes its reader when the client disconnects."""

    def __init__(
        self, reader: OutputStream, options: WebOptions, hidden: dict[str, object]
    ) -> None:
        super().__init__(
            OutputEvents(reader, options, hidden),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):  # closing does not wait
                await self._reader.aclose()


class OutputEvents(AsyncIterator[str]):
    """Server-sent events: ``output`` with all values by name, ``problem``, and ``end``.

    Not a generator: one that a client leaves unfinished would wait for the garbage collector.
    """

    def __init__(
        self,
        reader: OutputStream,
        options: WebOptions,
        hidden: dict[str, object] | None = None,
    ) -> None:
        self._reader = reader
        self._options = options
        self._hidden = {} if hidden is None else hidden
        self._names = [component.name for component in options.additional_outputs]
        self._values = [
            self._hidden.get(component.name, component.initial)
            for component in options.additional_outputs
        ]
        self._begun = self._ended = False

    async def __anext__(self) -> str:
        if self._ended:
            raise StopAsyncIteration
        if not self._begun:  # the response's head leaves with the first bytes of its body
            self._begun = True
            await checkpoint()
            return _COMMENT
        outputs = None
        try:
            with move_on_after(_KEEP_ALIVE_S):
                outputs = await anext(self._reader)
        except StopAsyncIteration:
            self._ended = True
            return _event("end", None)
        return _COMMENT if outputs is None else await self._show(outputs.args)

    async def _show(self, args: Sequence[object]) -> str:
        handler = self._options.additional_outputs_handler
        try:
            self._values = await _update(handler, self._values, args)
            values = dict(zip(self._names, self._values, strict=True))
            hidden = self._hidden.keys() & values.keys()
            self._hidden.update({name: values.pop(name) for name in hidden})
            # calls the values' own __repr__
            return _event("output", {name: _to_json(values[name]) for name in values})
        except Exception:
            logger.exception("outputs could not be shown", event="outputs.failed")
            return _event("problem", "The outputs could not be shown: see the server's log.")


async def _update(
    handler: OutputsHandler | None, values: list[object], args: Sequence[object]
) -> list[object]:
    """Return the next values: FastRTC's rule is ``handler(*values, *args)``."""
    if handler is None:
        given = list(args[: len(values)])
        return given + values[len(given) :]
    made: object = await call_user_function(handler, *values, *args)
    if len(values) == 1:
        return [made]
    if not isinstance(made, list | tuple) or len(made) != len(values):
        raise HandlerContractError(
            f"additional_outputs_handler must return {len(values)} values, one for each of "
            f"additional_outputs; got {type(made).__name__}"
        )
    return list(made)


def _event(kind: str, data: object) -> str:
    return f"event: {kind}\ndata: {dump_json(data)}\n\n"


def _to_json(value: object, depth: int = 0) -> object:
    """Return ``value`` with a JSON form: what has none becomes its ``repr``.

    The messages of a conversation may be objects, and their contents may be components of Gradio.
    """
    try:
        dump_json(value)
    except (TypeError, ValueError, RecursionError):
        if depth < _MAX_DEPTH:
            if isinstance(value, Mapping):
                return {str(key): _to_json(value[key], depth + 1) for key in value}
            if isinstance(value, list | tuple):
                return [_to_json(item, depth + 1) for item in value]
            if is_dataclass(value) and not isinstance(value, type):
                return _to_json(vars(value), depth + 1)
            if hasattr(value, "label") and hasattr(value, "value"):
                return f"[{type(value).__name__}]"
        return repr(value)[:_MAX_REPR]
    return value
