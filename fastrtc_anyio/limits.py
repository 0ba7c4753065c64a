"""Deadlines of a session, and limits on what a client may send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from ._core.budget import Budget
from ._core.options import check_number
from .errors import LimitExceeded

__all__ = [
    "Limits",
    "MessageRate",
    "RequestLimits",
    "check_candidates",
    "check_limit",
    "check_message",
]

_RATE_SECONDS = 10
"""Seconds over which rates are averaged: a network may deliver the messages of seconds at once."""


@dataclass(frozen=True)
class Limits:
    """Deadlines of a session, in seconds. None disables one. The same on every transport."""

    connect: float | None = 10.0
    """Seconds from the answer to the connection; over a WebSocket, to the first message. Until then
    a client occupies no slot of ``concurrency_limit``, but one of
    ``RequestLimits.pending_sessions``."""
    start_up: float | None = None
    """Seconds for ``start_up``. No limit by default: many handlers hold a connection open in it."""
    time_limit: float | None = None
    """Seconds a session may stay connected."""
    idle: float | None = None
    """Seconds without audio, video or a message in either direction.

    The silence of a muted microphone counts as audio. A client that only listens is idle while the
    handler is."""
    shutdown: float = 5.0
    """Seconds for ``shutdown``, and for the handler's threads to return. Not None."""
    close: float = 5.0
    """Seconds for the connection to close. Not None."""
    liveness: float | None = 5.0
    """Seconds without an authenticated packet after which a client counts as vanished; on a
    telephone, without a message or a returned mark. Does not apply to other WebSockets, which may
    stay silent."""
    stall: float | None = 5.0
    """Seconds for a WebSocket client to read what the server has sent."""
    resume: float | None = 120.0
    """Seconds after a lost connection in which its client may continue in another session, if the
    handler has saved something."""
    lag: float | None = 0.1
    """Seconds by which the server's event loops may be late more than once in a second, and a
    quarter of it on average. While they are later, or compute for more than 85 % of the time,
    further sessions are refused."""
    block: float | None = 0.2
    """Seconds for which code of a session may hold the event loop. Code that holds it for longer is
    logged with its stack, once for each session. The others wait meanwhile."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            optional = field.name not in ("shutdown", "close")
            finite = field.name == "resume"  # the time for which a store keeps something
            check_number(
                f"Limits.{field.name}", value, above=0, finite=finite, unit="s", optional=optional
            )


@dataclass(frozen=True)
class RequestLimits:
    """Limits on the requests and messages of one client.

    A request that exceeds one is refused with an error that names it. Others are unaffected.
    """

    body_bytes: int = 524_288
    """Maximum size of an HTTP request's body, in bytes. A browser's offer with every codec and many
    candidates is smaller than 30,000."""
    body_seconds: float = 10.0
    """Seconds to receive a request's body."""
    head_seconds: float = 5.0
    """Seconds to receive the complete head of the next request of a connection. The server of
    ``launch`` enforces it; other servers have their own setting."""
    connections: int = 1000
    """Maximum concurrent connections of the server of ``launch``: never more than half of the
    process's file descriptors, and a quarter of the limit from one address. Further connections
    get a 503."""
    sections: int = 32
    """Maximum media sections of an offer."""
    lines: int = 2000
    """Maximum lines of an offer, without candidates, and of an SDP fragment. A browser's offer has
    fewer than 500."""
    candidates: int = 100
    """Maximum ICE candidates of one client. Each costs connectivity checks; RFC 8445 6.1.2.5 sets
    the same limit."""
    restarts: int = 20
    """Maximum ICE restarts of one client in a minute. Each costs connectivity checks."""
    early_clients: int = 64
    """Maximum ids with early candidates, and maximum waiting readers of outputs. A further id
    replaces the oldest of the client that sends candidates for the most; a further reader is
    refused."""
    early_seconds: float = 10.0
    """Seconds to keep early candidates and waiting readers."""
    message_bytes: int = 262_144
    """Maximum size of a message, in bytes. Clients send 20 to 100 ms of audio in one: 20,000 at
    most."""
    messages_per_second: int = 500
    """Maximum messages of one client in a second, averaged over ten seconds: data channel messages,
    or WebSocket messages, which include its audio."""
    picture_pixels: int = 9_437_184
    """Maximum width times height of a picture from a client, before cropping: by default 4096 x
    2304. Its header is read before it is decoded."""
    pending_sessions: int = 64
    """Maximum clients that have not connected yet: sessions that were offered, and WebSockets
    without a ``start``. A further client replaces the oldest."""
    client_pending: int = 32
    """Maximum such clients from one address, or with one identity or ``client_key``. Also limits
    its readers of outputs that wait for their session."""
    client_sessions: int = 100
    """Maximum connected sessions of one client, as defined for ``client_pending``."""
    client_requests: int = 1200
    """Maximum HTTP requests and WebSocket handshakes of one client in a minute."""
    event_streams: int = 16
    """Maximum concurrent HTTP readers of one session's outputs."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            integer = field.type == "int"
            check_number(
                f"RequestLimits.{field.name}", value, above=0, integer=integer, finite=False
            )


def check_limit(text: str, count: int, name: str, limits: RequestLimits) -> None:
    """Raise :class:`LimitExceeded`, which begins with ``text``, if ``count`` exceeds a limit."""
    limit: int = getattr(limits, name)
    if count > limit:
        text = f"{text}; at most {limit} are allowed (RequestLimits.{name})"
        raise LimitExceeded(text)


def check_message(size: int, limits: RequestLimits) -> None:
    """Raise :class:`LimitExceeded` if a message of ``size`` bytes is too large."""
    check_limit(f"the message has {size} bytes", size, "message_bytes", limits)


class MessageRate:
    """Counts the messages of one client.

    Args:
        limits: the maximum rate.
        clock: returns the time in seconds.
    """

    def __init__(self, limits: RequestLimits, clock: Callable[[], float]) -> None:
        self._rate = limits.messages_per_second
        self._clock = clock
        self._budget = Budget(self._rate, self._rate * _RATE_SECONDS)

    def count(self) -> None:
        """Count a message.

        Raises:
            LimitExceeded: the client has sent too many.
        """
        if not self._budget.take(self._clock()):
            text = f"a client may send {self._rate} messages per second"
            raise LimitExceeded(f"{text} (RequestLimits.messages_per_second)", 429)


def check_candidates(count: int, limits: RequestLimits) -> None:
    """Raise :class:`LimitExceeded` if a client that has sent ``count`` may send no more."""
    if count >= limits.candidates:
        text = f"a client may send {limits.candidates} candidates (RequestLimits.candidates)"
        raise LimitExceeded(text, 429)
