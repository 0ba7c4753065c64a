"""States of a turn, the steps of the turn machine, and the transition table.

The table is the one description of whose turn it is. ``docs/concepts/states.md`` holds the diagram
that ``docs/diagrams/states.py`` draws from it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from fastrtc_anyio._media.frames import Int16Array

__all__ = [
    "CandidateRejected",
    "Interrupted",
    "InterruptionCandidate",
    "ReplyDue",
    "ReplyEnded",
    "ReplyStep",
    "SpeechStarted",
    "SpeechStopped",
    "Step",
    "TRANSITIONS",
    "TurnState",
    "TurnStep",
]


class TurnState(enum.Enum):
    """Whose turn it is."""

    LISTENING = "listening"
    """Neither the user nor a reply has the turn."""
    USER_SPEAKING = "user speaking"
    """The user has the turn."""
    REPLYING = "replying"
    """From the moment a reply is due until it has been played out."""
    INTERRUPTING = "interrupting"
    """The user speaks over a reply, and the judge has not decided yet."""


@dataclass(frozen=True)
class Step:
    """Base class of steps. Places in the input are samples since the first sample pushed.

    Attributes:
        at: place in the input at which the step was taken.
    """

    at: int


@dataclass(frozen=True)
class ReplyStep(Step):
    """Base class of the steps of an active reply.

    Attributes:
        reply: number of the reply.
    """

    reply: int


@dataclass(frozen=True)
class SpeechStarted(Step):
    """The user began to speak.

    Attributes:
        speech_at: place of the first speech that counted. The utterance begins earlier, by the
            pre-roll.
    """

    speech_at: int


@dataclass(frozen=True)
class SpeechStopped(Step):
    """The user paused, or the machine no longer listens: the candidate was rejected, or replies
    cannot be interrupted.

    Each `SpeechStarted` is followed by one `SpeechStopped` before the next `SpeechStarted`.
    """


@dataclass(frozen=True, eq=False)
class ReplyDue:
    """An utterance is complete, or a reply was requested: start the reply now.

    No other reply is active: an `Interrupted` precedes it if there was one.

    Attributes:
        reply: number of the reply, for `TurnMachine.reply_finished`.
        utterance: copy of the input from ``started_at`` to ``stopped_at``: int16, shape
            ``(1, stopped_at - started_at)``. Empty if a reply was requested during silence.
        started_at: place of its first sample.
        stopped_at: place after its last sample.
        silence: samples from the end of the last speech to the pause. None if no pause ended the
            utterance, or if the rule does not know.
    """

    reply: int
    utterance: Int16Array
    started_at: int
    stopped_at: int
    silence: int | None = None


@dataclass(frozen=True)
class InterruptionCandidate(ReplyStep):
    """The user speaks over a reply: pause its playout and ask the judge.

    Answer with `TurnMachine.confirm` or `TurnMachine.reject`, at once or later.
    """


@dataclass(frozen=True)
class Interrupted(ReplyStep):
    """A reply was interrupted: cancel it and flush its playout."""


@dataclass(frozen=True)
class CandidateRejected(ReplyStep):
    """The judge rejected the candidate: resume the reply."""


@dataclass(frozen=True)
class ReplyEnded(ReplyStep):
    """A reply ended by itself: it was played out, or it failed."""


TurnStep: TypeAlias = (
    SpeechStarted
    | SpeechStopped
    | ReplyDue
    | InterruptionCandidate
    | Interrupted
    | CandidateRejected
    | ReplyEnded
)

S = TurnState

TRANSITIONS: dict[TurnState, dict[type[TurnStep], TurnState]] = {
    S.LISTENING: {SpeechStarted: S.USER_SPEAKING, ReplyDue: S.REPLYING},
    S.USER_SPEAKING: {SpeechStopped: S.LISTENING, ReplyDue: S.REPLYING},
    S.REPLYING: {
        # Speech over a reply gives the user no turn before it interrupts the reply.
        SpeechStarted: S.REPLYING,
        SpeechStopped: S.REPLYING,
        InterruptionCandidate: S.INTERRUPTING,
        # Without a candidate: without a judge, or because the utterance reached its maximum length
        # or the application requested a reply.
        Interrupted: S.USER_SPEAKING,
        ReplyEnded: S.LISTENING,
    },
    S.INTERRUPTING: {
        Interrupted: S.USER_SPEAKING,
        CandidateRejected: S.REPLYING,
        # No reply is left to interrupt: the user has the turn.
        ReplyEnded: S.USER_SPEAKING,
    },
}
