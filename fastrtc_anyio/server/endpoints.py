"""Methods of a ``Stream`` for endpoints that the application defines itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrtc_anyio._sessions.service import SessionService

from .options import WebOptions

if TYPE_CHECKING:  # so that a `Stream` can be made without Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket

__all__ = ["StreamEndpoints"]


class StreamEndpoints:
    """Base class of ``Stream``: its WebSockets and telephone calls."""

    _service: SessionService
    _web: WebOptions

    async def websocket_offer(self, websocket: WebSocket) -> None:
        """Serve a ``WebSocket`` that was not accepted yet, until it closes. Raises nothing."""
        from .websockets import serve_websocket

        await serve_websocket(self._service, self._web, websocket)

    async def telephone_handler(self, websocket: WebSocket) -> None:
        """Serve the WebSocket of a carrier (Twilio, Telnyx or Plivo), until it closes."""
        from .telephone import serve_telephone

        await serve_telephone(self._service, self._web, websocket)

    async def handle_incoming_call(self, request: Request) -> Response:
        """Answer a carrier's request to ``telephone/incoming`` with XML that connects the call."""
        from .telephone import answer_incoming_call

        return await answer_incoming_call(self._service, self._web, request)
