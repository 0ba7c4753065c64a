"""Exceptions, and reasons for which a session ends.

::

    FastRTCError
      WebRTCError                 raise it in a handler: the client sees the message
      HandlerContractError        a function of the application broke its contract
      InvalidTransition           a state machine received an event out of order
      SignalingError              .status_hint, an HTTP status
        InvalidOffer 400   InvalidCandidate 400   InvalidBody 400   InvalidMessage 400
        UnknownSession 404   InvalidStateError 409   NotAuthenticated 401   NotAllowed 403
        LimitExceeded 408, 413 or 429
        AdmissionError 503          .limit .active
        Overloaded 503              .retry_after
        Draining 503                .retry_after
        StreamNotOpen 503
      PeerError                   .reason
        ConnectTimeout   PeerFailed   PeerClosed
        NoFreePort 503              also a SignalingError
      CredentialsError
      SaveFailed
      MediaError
        UnsupportedFormat

Streams raise anyio's own errors: ``ClosedResourceError`` (this side closed the stream),
``BrokenResourceError`` (the other side did) and ``EndOfStream`` (a clean end). The library never
wraps an exception raised in a handler: the log and the supervisor receive the original.
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
    "Draining",
    "FastRTCError",
    "HandlerContractError",
    "InvalidBody",
    "InvalidCandidate",
    "InvalidMessage",
    "InvalidOffer",
    "InvalidStateError",
    "InvalidTransition",
    "LimitExceeded",
    "MediaError",
    "NoFreePort",
    "NotAllowed",
    "NotAuthenticated",
    "Overloaded",
    "PeerClosed",
    "PeerError",
    "PeerFailed",
    "SaveFailed",
    "SignalingError",
    "StreamNotOpen",
    "UnknownSession",
    "UnsupportedFormat",
    "WebRTCError",
]


class CloseReason(enum.Enum):
    """Why a session ended. The first reason stays; later ones are consequences."""

    HUNG_UP = "hung_up"
    """The client closed the connection."""
    VANISHED = "vanished"
    """The client sent no authenticated packet for the liveness time, or stopped reading."""
    PEER_FAILED = "peer_failed"
    """ICE or DTLS failed, the transport broke, or the client violated the protocol."""
    CONNECT_TIMEOUT = "connect_timeout"
    """The server answered the offer, but no connection came up in time."""
    START_UP_TIMEOUT = "start_up_timeout"
    """``start_up`` exceeded its limit."""
    TIME_LIMIT = "time_limit"
    """The session reached its ``time_limit``."""
    IDLE = "idle"
    """No media and no message passed in either direction for the idle limit."""
    HANDLER_CLOSED = "handler_closed"
    """The handler or the application ended the session: ``hang_up``, ``CloseStream``,
    ``update_connection``, a session function that returned, an exhausted generator."""
    HANDLER_ERROR = "handler_error"
    """The handler raised."""
    REJECTED = "rejected"
    """The server could not answer the offer, or had no slot for the client when it connected, or
    dropped it before it connected: too many other clients were connecting."""
    CANCELLED = "cancelled"
    """The server is stopping, ``drain_timeout`` has passed, or the application cancelled the scope
    that owns the session."""


@dataclass(frozen=True)
class Closed:
    """The end of a session: its reason, and a sentence for people."""

    reason: CloseReason
    message: str = ""

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.message}" if self.message else self.reason.value


class FastRTCError(Exception):
    """Base class of every error that this library raises."""


class WebRTCError(FastRTCError):
    """Raise this in a handler to end the session and show ``message`` to the client.

    Any other exception ends the session too, but shows the client only an id of the log entry.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message: str = str(message)


class HandlerContractError(FastRTCError):
    """A handler or another function of the application broke its contract.

    For example, ``emit`` returned an unsupported type, or ``copy()`` the same object.
    """


class InvalidTransition(FastRTCError):
    """A state machine received an event that its state does not accept, and did not change."""


class SignalingError(FastRTCError):
    """The server could not carry out a request about a session."""

    status_hint: int = 400
    """The matching HTTP status."""
    retry_after: float | None = None
    """Seconds after which the request may succeed; None if it would fail again."""
    rule = ""
    """The violated rule, without anything that the client sent: the text for logs, if there is one.
    The message is for the client."""


class InvalidOffer(SignalingError):
    """The offer is malformed, or shares no media or codec with the stream."""


class InvalidCandidate(SignalingError):
    """The ICE candidate is malformed."""


class InvalidBody(SignalingError):
    """The body of an HTTP request is not JSON."""


class _RuleViolation(SignalingError):
    """A violation of a rule.

    Args:
        rule: the rule. It must not quote the client, because it is logged.
        got: a description of what the client sent.
    """

    def __init__(self, rule: str, got: str | None = None) -> None:
        super().__init__(rule if got is None else f"{rule}; got {got}")
        self.rule = rule


class InvalidMessage(_RuleViolation):
    """A WebSocket message violates its protocol."""


class UnknownSession(SignalingError):
    """No session has this id. Not raised for a candidate that arrives before its offer."""

    status_hint: int = 404


class InvalidStateError(SignalingError):
    """The request conflicts with the state of the session, or its id is in use."""

    status_hint: int = 409


class LimitExceeded(_RuleViolation):
    """The client exceeded a limit of ``RequestLimits``."""

    status_hint: int = 413

    def __init__(
        self, message: str, status_hint: int = 413, *, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status_hint = status_hint
        self.retry_after = retry_after


class NotAuthenticated(_RuleViolation):
    """The request carries no valid credentials: ``authenticate`` refused it."""

    status_hint: int = 401


class NotAllowed(_RuleViolation):
    """The client may not do this with any credentials."""

    status_hint: int = 403


class StreamNotOpen(SignalingError):
    """The stream is not open, so no task group can own a session."""

    status_hint: int = 503


class AdmissionError(SignalingError):
    """The stream has as many sessions as its ``concurrency_limit`` allows."""

    status_hint: int = 503
    retry_after: float | None = 5.0

    def __init__(self, limit: int, active: int) -> None:
        super().__init__(limit, active)
        self.limit = limit
        self.active = active
        self.rule: str = str(self)

    def __str__(self) -> str:
        return f"the limit of {self.limit} concurrent sessions is reached ({self.active} active)"


class Overloaded(SignalingError):
    """The server has too much load, or too few file descriptors, threads or memory."""

    status_hint: int = 503

    def __init__(self, message: str, *, retry_after: float | None = 5.0) -> None:
        super().__init__(message)
        self.rule = message
        self.retry_after: float | None = retry_after


class Draining(SignalingError):
    """The stream is draining: the server restarts, and new sessions are refused."""

    status_hint: int = 503
    retry_after: float | None = 5.0
    rule: str = "the server is restarting and takes no new calls; call again in a few seconds"

    def __init__(self) -> None:
        super().__init__(self.rule)


class PeerError(FastRTCError):
    """The connection to the client ended."""

    reason = CloseReason.PEER_FAILED


class ConnectTimeout(PeerError):
    """No connection came up within the connect limit."""

    reason = CloseReason.CONNECT_TIMEOUT


class PeerFailed(PeerError):
    """ICE, DTLS or the transport failed."""


class PeerClosed(PeerError):
    """The client closed the connection. Not raised when this side closes it."""

    reason = CloseReason.HUNG_UP


class NoFreePort(PeerFailed, SignalingError):
    """All UDP ports that ``server_rtc_configuration`` allows are in use for now."""

    status_hint: int = 503
    retry_after: float | None = 5.0
    reason = CloseReason.REJECTED


class CredentialsError(FastRTCError):
    """A provider of TURN servers returned no credentials."""


class SaveFailed(FastRTCError):
    """What a session was to save is not in the store, or not yet: see ``Session.save``."""


class MediaError(FastRTCError):
    """The media cannot be used."""


class UnsupportedFormat(MediaError, TypeError):
    """The library does not support this sample format or codec."""
