"""Reports of a session to its observers: its connection and end, turns and replies.

A session without observers has no `SessionObservation`, so nothing is reported or measured.
"""

from __future__ import annotations

import enum
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from ._media.playout import Played


@dataclass(frozen=True)
class Turn:
    """A turn of the user that ended with a reply."""

    number: int
    """Number of the reply to it."""
    utterance_s: float
    """Seconds of audio passed to the reply function: speech, the audio before it and the pause
    after it."""
    age_s: float
    """Seconds of audio from the beginning of that audio until now."""
    latency: float | None
    """Turn latency, in seconds: the client's audio from the end of its last speech to the hop at
    which the pause was found. None if no pause was found: the utterance reached its maximum length,
    the application requested the reply, or ``determine_pause`` decides about pauses."""


class ReplyEnd(enum.Enum):
    """How a reply ended."""

    FINISHED = "finished"
    """It was played to its end, or as far as it was queued when the session hung up."""
    INTERRUPTED = "interrupted"
    """The user or the application interrupted it."""
    FAILED = "failed"
    """The reply function raised, or yielded an unsuitable value."""
    CUT_OFF = "cut_off"
    """The session ended first."""


@dataclass(frozen=True, eq=False)
class Reply:
    """A reply of a conversation."""

    number: int
    """Its number in the session, from 1."""
    turn: Turn | None
    """The turn that it replies to; None for a greeting."""


class SessionObservation(Protocol):
    """The observers of one session. The methods are called on the host's event loop."""

    def connected(self) -> None:
        """The client has connected, and the driver begins to serve it."""

    def ended(self) -> None:
        """The session has released its resources. It reports nothing from now on."""

    def turn_ended(self, turn: Turn) -> None:
        """The user's turn is over, and the reply with its number is due."""

    def reply_started(self, number: int) -> None:
        """A reply is due. Its function is called once the previous reply has unwound."""

    def reply_audible(self, number: int) -> None:
        """The first audio of a reply is handed to playout."""

    def reply_ended(self, number: int, end: ReplyEnd, played: Played) -> None:
        """A reply has ended. Idempotent."""

    def in_session(self) -> AbstractContextManager[object]:
        """The context in which the tasks of the session begin."""
        ...

    def in_reply(self, number: int) -> AbstractContextManager[object]:
        """The context in which the task of a reply begins."""
        ...
