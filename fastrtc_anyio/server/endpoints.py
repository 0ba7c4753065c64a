"""Methods of a ``Stream`` for endpoints that the application defines itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrtc_anyio._sessions.offers import OutputListener
from fastrtc_anyio._sessions.service import SessionService
from fastrtc_anyio._signaling.requests import IceCandidate

from .options import WebOptions

if TYPE_CHECKING:  # so that a `Stream` can be made without Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket

__all__ = ["StreamEndpoints"]


class StreamEndpoints:
    """Base class of ``Stream``: its signalling, WebSockets and telephone calls."""

    _service: SessionService
    _web: WebOptions

    async def offer(self, body: object, *, identity: str | None = None) -> dict[str, str]:
        """Carry out a request of the signalling protocol: an offer, or a candidate.

        Args:
            body: ``{"type": "offer", "sdp": ..., "webrtc_id": ...}`` or ``{"type":
                "ice-candidate", "candidate": {...} | None, "webrtc_id": ...}``; or an object with
                these attributes.
            identity: the client's, as :func:`.server.admit` returned it. Only this client reaches
                the session. None: the application's own, which reaches every session.

        Returns:
            ``{"type": "answer", "sdp": ..., "webrtc_id": ...}``, with the session's id if the
            client sent none; or ``{"status": "success"}`` for a candidate.

        Raises:
            InvalidOffer, InvalidCandidate, LimitExceeded: the request is malformed or too large.
            InvalidStateError: the ``webrtc_id`` is in use.
            AdmissionError, Draining, StreamNotOpen: no session can begin now.
            HandlerContractError: the handler's ``copy()`` or methods break their contract.

        Cancellation:
            Ends the session that is being negotiated.
        """
        return await self._service.handle_request(body, identity=identity)

    async def handle_offer(
        self, body: object, set_outputs: OutputListener | None, *, identity: str | None = None
    ) -> dict[str, str]:
        """Do the same as :meth:`offer`, and call a function with all ``AdditionalOutputs``."""
        return await self._service.handle_request(body, on_outputs=set_outputs, identity=identity)

    async def add_ice_candidate(
        self, webrtc_id: str, candidate: IceCandidate | None, *, identity: str | None = None
    ) -> None:
        """Add an ICE candidate of a client, or None at their end, also before the client's offer.

        For ``identity`` see :meth:`offer`. The candidates of another client are not used.

        Raises:
            InvalidCandidate, LimitExceeded: the candidate is malformed, or one too many.
            InvalidStateError: the client is not connected over WebRTC.
        """
        await self._service.add_candidate(webrtc_id, candidate, identity)

    async def websocket_offer(self, websocket: WebSocket) -> None:
        """Serve a ``WebSocket`` that was not accepted yet, until it closes. Raises nothing."""
        from .websockets import serve_websocket

        await serve_websocket(self._service, self._web, websocket)

    async def telephone_handler(self, websocket: WebSocket) -> None:
        """Serve the WebSocket of a carrier (Twilio, Telnyx or Plivo), until it closes."""
        from .telephone import serve_telephone

        await serve_telephone(self._service, self._web, websocket)

    def describe(self, session_id: str, *, identity: str | None = None) -> dict[str, object]:
        """Describe a session for an operator.

        The result has a JSON form. It contains the state, queues, statistics and recent events of
        the session, and its tasks and busy threads with their stacks, but no words of the
        conversation, and no id by which a client could reach the session. Call it on the event
        loop. Where ``authenticate`` is set, ``GET sessions/{session_id}`` returns the same.

        A session that has ended is found as long as tasks of its handler run. If a plain function
        does not return, it is found until ``Limits.shutdown`` has passed, and the log record
        ``session.threads_abandoned`` has the stack.

        Args:
            session_id: the session's id, or the first eight characters, which the log shows; or the
                client's ``webrtc_id``.
            identity: that of the client that asks; see :meth:`.Stream.offer`.

        Raises:
            UnknownSession: there is no such session.
        """
        return self._service.describe(session_id, identity)

    async def handle_incoming_call(self, request: Request) -> Response:
        """Answer a carrier's request to ``telephone/incoming`` with XML that connects the call."""
        from .telephone import answer_incoming_call

        return await answer_incoming_call(self._service, self._web, request)
