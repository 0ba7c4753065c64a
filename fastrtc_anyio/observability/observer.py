"""``Observer``: the base class of objects that observe a stream."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from fastrtc_anyio import errors
from fastrtc_anyio._media.playout import Played
from fastrtc_anyio._observation import Reply, ReplyEnd, Turn
from fastrtc_anyio.errors import FastRTCError, SignalingError
from fastrtc_anyio.session import Session

__all__ = ["LoopLoad", "ObservedStream", "Observer", "refusal_reason", "refusal_reasons"]

_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Places between the words of a class name."""
_OTHER = "error"


@dataclass(frozen=True)
class LoopLoad:
    """Load of an event loop."""

    lag: float
    """Seconds by which the loop was late in the last second, or is late now: the second worst of
    ten measurements, or four times their average."""
    busy: float
    """Share of the time for which the loop's thread computes, averaged over half a second."""


class ObservedStream(Protocol):
    """An open stream, as its observers see it."""

    def measure_loops(self) -> Mapping[str, LoopLoad]:
        """Return the load of ``"host"``, the application's event loop, and of ``"portal"``, which
        carries WebRTC connections. Thread-safe."""
        ...


class Observer:
    """Base class of observers. Each method does nothing: override those that you need.

    The methods are plain functions and are called on the application's event loop, so they must not
    block. An exception in one is logged and affects nothing else. Methods that are not overridden
    are not called. One observer may observe several streams.
    """

    def stream_opened(self, stream: ObservedStream) -> None:
        """The stream has opened."""

    def stream_closed(self, stream: ObservedStream) -> None:
        """The stream has closed, and all of its sessions have ended."""

    def refused(self, reason: str, error: Exception) -> None:
        """A request was refused, and no session began.

        Called for requests to begin a session, and for requests to any endpoint that access control
        or the rate limit refused.

        Args:
            reason: name of the error's class in :mod:`fastrtc_anyio.errors`, in lower case:
                ``"admission_error"``, ``"not_authenticated"``. ``"error"`` for other exceptions.
            error: the error that the client received, or that caused its status 500.
        """

    def session_admitted(self, session: Session) -> None:
        """A session was admitted. Its client has not connected yet.

        Each admitted session ends: :meth:`session_ended` is called once for it.
        """

    def session_connected(self, session: Session, seconds: float) -> None:
        """The client has connected, ``seconds`` after it was admitted."""

    def session_ended(self, session: Session, seconds: float | None) -> None:
        """A session has ended, and its handler was shut down.

        Args:
            session: the session. ``session.closed`` is the reason, or None if it was cancelled
                before it began.
            seconds: seconds since the client connected. None if it never connected.
        """

    def turn_ended(self, session: Session, turn: Turn) -> None:
        """The user's turn is over, and a reply is due."""

    def reply_started(self, session: Session, reply: Reply) -> None:
        """A reply is due. Each reply that starts also ends: see :meth:`reply_ended`."""

    def reply_audible(self, session: Session, reply: Reply, latency: float) -> None:
        """The first audio of a reply is handed to playout, which begins with the next 20 ms.

        Args:
            session: the session.
            reply: the reply.
            latency: reply latency, in seconds: the time since the reply was due.
        """

    def reply_ended(self, session: Session, reply: Reply, end: ReplyEnd, played: Played) -> None:
        """A reply has ended; ``played`` is the audio of it that was played."""

    def in_session(self, session: Session) -> AbstractContextManager[object]:
        """Return a context manager for context variables that the session's code shall see.

        It is entered while the tasks of the session are started. Other effects are not supported.
        """
        return nullcontext()

    def in_reply(self, session: Session, reply: Reply) -> AbstractContextManager[object]:
        """Return a context manager for context variables that a reply function shall see.

        It is entered while the task of the reply is started. Other effects are not supported.
        """
        return nullcontext()


def refusal_reason(error: Exception) -> str:
    """Return the reason of a refusal: the class of the error in the package's exception tree."""
    if isinstance(error, FastRTCError):
        for kind in type(error).__mro__:
            if kind.__module__ == errors.__name__ and not kind.__name__.startswith("_"):
                return _name(kind)
    return _OTHER


def refusal_reasons() -> list[str]:
    """Return the reasons of the package's own refusals, and the one of all other exceptions."""
    kinds = [
        kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, SignalingError) and not name.startswith("_")
    ]
    return [_OTHER, *map(_name, kinds)]


def _name(kind: type) -> str:
    return _WORDS.sub("_", kind.__name__).lower()
