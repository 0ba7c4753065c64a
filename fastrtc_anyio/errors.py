"""What can go wrong, and why a session ended.

::

    FastRTCError
      WebRTCError                 raise it in a handler: the client sees the message
      SignalingError              .status_hint, an HTTP status
        InvalidOffer 400   InvalidCandidate 400   UnknownSession 404   InvalidStateError 409
        NotAuthenticated 401   NotAllowed 403
        InvalidMessage 400   LimitExceeded 408, 413 or 429
      AdmissionError 503          .limit .active
      StreamNotOpen 503
      PeerError                   .reason
        ConnectTimeout   PeerFailed   PeerClosed
        NoFreePort 503              a SignalingError, too
      CredentialsError
      MediaError
        UnsupportedFormat   HandlerContractError

On streams, anyio's own errors are used: ``ClosedResourceError`` (this side closed it),
``BrokenResourceError`` (the other side did) and ``EndOfStream`` (it ended well). An exception
raised in a handler is never wrapped: it reaches the log and the supervisor as it was.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = [
    "AdmissionError",
    "CloseReason",
    "Closed",
    "ConnectTimeout",
    "CredentialsError",
    "FastRTCError",
    "HandlerContractError",
    "InvalidCandidate",
    "InvalidMessage",
    "InvalidOffer",
    "InvalidStateError",
    "LimitExceeded",
    "MediaError",
    "NoFreePort",
    "NotAllowed",
    "NotAuthenticated",
    "PeerClosed",
    "PeerError",
    "PeerFailed",
    "SignalingError",
    "StreamNotOpen",
    "UnknownSession",
    "UnsupportedFormat",
    "WebRTCError",
]


class CloseReason(enum.Enum):
    """Why a session ended. The first reason given is kept; later ones are consequences."""

    HUNG_UP = "hung_up"
    """The client closed the connection."""
    VANISHED = "vanished"
    """No authenticated packet came from the client for the liveness time, or it took nothing of
    what was sent to it."""
    PEER_FAILED = "peer_failed"
    """ICE or DTLS failed, the transport broke, or the client broke its protocol."""
    CONNECT_TIMEOUT = "connect_timeout"
    """The offer was answered, but no connection came up in time."""
    START_UP_TIMEOUT = "start_up_timeout"
    """``start_up`` took longer than its limit."""
    TIME_LIMIT = "time_limit"
    """The session used up its ``time_limit``."""
    IDLE = "idle"
    """Nothing came from the client or went to it for the idle limit."""
    HANDLER_CLOSED = "handler_closed"
    """The handler or the application asked for the end: ``CloseStream``, ``update_connection``, a
    session function that returned, a generator that was exhausted."""
    HANDLER_ERROR = "handler_error"
    """The handler raised."""
    REJECTED = "rejected"
    """The offer could not be answered."""
    CANCELLED = "cancelled"
    """The server is stopping, or the scope that owns the session was cancelled."""


@dataclass(frozen=True)
class Closed:
    """The end of a session: the reason, and a sentence for people."""

    reason: CloseReason
    message: str = ""


class FastRTCError(Exception):
    """The root of every error this library raises itself."""


class WebRTCError(FastRTCError):
    """Raise this in a handler: the session ends and the client is shown ``message``.

    Any other exception ends the session too, but the client then sees only that there was an
    error and under which id it is in the server's log.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = str(message)


class SignalingError(FastRTCError):
    """A request about a session could not be carried out."""

    status_hint = 400
    """The HTTP status that says the same."""


class InvalidOffer(SignalingError):
    """The offer is malformed, or has nothing in common with what the stream can do."""


class InvalidCandidate(SignalingError):
    """The ICE candidate is malformed."""


class InvalidMessage(SignalingError):
    """A message on a WebSocket is not what its protocol has there."""


class UnknownSession(SignalingError):
    """No session has this id. You do not get it for a candidate that comes before its offer."""

    status_hint = 404


class InvalidStateError(SignalingError):
    """The request does not fit the state of the session, or its id is in use."""

    status_hint = 409


class LimitExceeded(SignalingError):
    """The client sends more than a setting of ``RequestLimits`` lets in."""

    status_hint = 413

    def __init__(self, message: str, status_hint: int = 413) -> None:
        super().__init__(message)
        self.status_hint = status_hint


class NotAuthenticated(SignalingError):
    """The request does not say who it is from, or ``authenticate`` refused it."""

    status_hint = 401


class NotAllowed(SignalingError):
    """It is known who the request is from, and they may not do this."""

    status_hint = 403


class StreamNotOpen(SignalingError):
    """The stream was not opened: there is no task group that could own a session."""

    status_hint = 503


class AdmissionError(SignalingError):
    """All slots of the stream are taken."""

    status_hint = 503

    def __init__(self, limit: int, active: int) -> None:
        super().__init__(limit, active)
        self.limit = limit
        self.active = active

    def __str__(self) -> str:
        return f"the limit of {self.limit} concurrent sessions is reached ({self.active} active)"


class PeerError(FastRTCError):
    """The connection to the client ended."""

    reason = CloseReason.PEER_FAILED


class ConnectTimeout(PeerError):
    """No connection came up within the connect limit."""

    reason = CloseReason.CONNECT_TIMEOUT


class PeerFailed(PeerError):
    """ICE, DTLS or the transport failed."""


class PeerClosed(PeerError):
    """The client closed the connection. You do not get it for a close of your own."""

    reason = CloseReason.HUNG_UP


class NoFreePort(PeerFailed, SignalingError):
    """No UDP port is free for another connection: all those that ``server_rtc_configuration`` lets
    it use are taken. It passes when another connection ends."""

    status_hint = 503
    reason = CloseReason.REJECTED


class CredentialsError(FastRTCError):
    """A provider gave no credentials for its TURN servers."""


class MediaError(FastRTCError):
    """Media that cannot be used."""


class UnsupportedFormat(MediaError):
    """Samples or a codec of a kind this library does not handle."""


class HandlerContractError(MediaError):
    """A handler returned or declared something its contract does not allow."""
