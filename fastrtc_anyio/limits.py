"""What a client may send, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from .errors import LimitExceeded

__all__ = ["Limits", "RequestLimits", "check_candidates", "check_message"]


@dataclass(frozen=True)
class Limits:
    """Deadlines of a session, in seconds; None is no limit. The same on every transport."""

    connect: float | None = 30.0
    """From the answer to the connection."""
    start_up: float | None = None
    """For ``start_up``, which many handlers use to hold a connection open: no limit by default."""
    time_limit: float | None = None
    """For the whole connected time."""
    idle: float | None = None
    """Without anything coming from the client or going to it: no audio, video or message. A muted
    microphone sends silence, which is something; a client that only listens is idle while the
    handler is."""
    shutdown: float = 5.0
    """For ``shutdown``, and for threads to come back from the handler. Not None."""
    close: float = 5.0
    """For the connection to close. Not None."""
    liveness: float | None = 5.0
    """Without an authenticated packet, after which the client counts as vanished; on a telephone,
    without a message. Over a WebSocket a client may be silent for as long as it likes."""

    stall: float | None = 5.0
    """For a client at the other end of a WebSocket to read what it is sent."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            if value is None and field.name not in ("shutdown", "close"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"Limits.{field.name} is a number of seconds; got {value!r}")
            if not value > 0:
                raise ValueError(f"Limits.{field.name} must be above 0 s; got {value!r}")


@dataclass(frozen=True)
class RequestLimits:
    """How much a client may ask for, over HTTP, a WebSocket or a data channel.

    What is more is refused, with an error that names the setting, and nothing but that request or
    that connection is touched.
    """

    body_bytes: int = 524_288
    """Of an HTTP request's body. A browser's offer with every codec and many candidates is below
    30,000."""
    body_seconds: float = 10.0
    """For a body to come in."""
    head_seconds: float = 5.0
    """For the next request of a connection to begin, with the whole of its head. The server of
    ``launch`` keeps it, and closes the connection; another server has a setting of its own."""
    sections: int = 32
    """Of an offer."""
    lines: int = 2000
    """Of an offer, candidates aside. A browser's has below 500. The time to read it goes with the
    square of their number, and meanwhile every other connection waits."""
    candidates: int = 100
    """Of a client's, in its offer and after it. Each costs connectivity checks; RFC 8445 6.1.2.5
    stops at as many."""
    early_clients: int = 64
    """Whose candidates are kept until their offers come: one more pushes the oldest out. And as
    many readers of outputs wait for their sessions."""
    early_seconds: float = 10.0
    """For which they are kept, or wait."""
    message_bytes: int = 262_144
    """Of a message. Clients send 20 to 100 ms of audio at a time: 20,000 at most."""
    event_streams: int = 16
    """Of a session's outputs, that are read over HTTP at a time."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            kind = int if field.type == "int" else int | float
            if isinstance(value, bool) or not isinstance(value, kind):
                wanted = "a whole number" if kind is int else "a number of seconds"
                raise TypeError(f"RequestLimits.{field.name} is {wanted}; got {value!r}")
            if not value > 0:
                raise ValueError(f"RequestLimits.{field.name} must be above 0; got {value!r}")


def check_message(size: int, limits: RequestLimits) -> None:
    """Refuse a message of more bytes than are taken.

    Raises:
        LimitExceeded: says how many it has.
    """
    if size > limits.message_bytes:
        raise LimitExceeded(
            f"the message has {size} bytes; at most {limits.message_bytes} are taken "
            "(RequestLimits.message_bytes)"
        )


def check_candidates(count: int, limits: RequestLimits) -> None:
    """Refuse one candidate more of a client that has sent so many.

    Raises:
        LimitExceeded: it has sent as many as are taken.
    """
    if count >= limits.candidates:
        text = f"{limits.candidates} candidates of a client are taken (RequestLimits.candidates)"
        raise LimitExceeded(text, 429)
