"""What is told of a conversation, and what is asked: see :class:`.ReplyOnPause`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._media.playout import Played

__all__ = [
    "Interruption",
    "InterruptionJudge",
    "InterruptionRejected",
    "ReplyFinished",
    "ReplyInterrupted",
    "ReplyStarted",
    "StopWordHeard",
    "TurnEvent",
    "TurnListener",
    "UserStartedSpeaking",
    "UserStoppedSpeaking",
]


@dataclass(frozen=True)
class TurnEvent:
    """Something happened in a conversation.

    Attributes:
        at: seconds since the conversation began.
    """

    at: float


@dataclass(frozen=True)
class UserStartedSpeaking(TurnEvent):
    """The user began to talk, over a reply or not."""


@dataclass(frozen=True)
class UserStoppedSpeaking(TurnEvent):
    """The user paused. It follows on each :class:`UserStartedSpeaking`."""


@dataclass(frozen=True)
class StopWordHeard(TurnEvent):
    """The user said a stop word: what is said from now on is for us."""


@dataclass(frozen=True)
class ReplyStarted(TurnEvent):
    """The reply function was called, or is about to be when the one before has unwound.

    Attributes:
        reply: its number in this conversation, from 1.
        utterance_s: seconds of audio that it is given.
    """

    reply: int
    utterance_s: float


@dataclass(frozen=True)
class ReplyInterrupted(TurnEvent):
    """A reply was cancelled, and what was queued of it dropped.

    Attributes:
        reply: its number.
        played: how much of it had been played; exact to the 20 ms that leave at a time.
    """

    reply: int
    played: Played


@dataclass(frozen=True)
class InterruptionRejected(TurnEvent):
    """What was said over a reply was judged to be no interruption: the reply goes on.

    Attributes:
        reply: its number.
    """

    reply: int


@dataclass(frozen=True)
class ReplyFinished(TurnEvent):
    """A reply was played to its end.

    Attributes:
        reply: its number.
        played: how much there was of it.
    """

    reply: int
    played: Played


@dataclass(frozen=True)
class Interruption:
    """Somebody speaks over a reply, whose playout is paused until it is judged.

    Attributes:
        audio: what was said so far, with up to 0.3 s before: ``(rate, int16 (1, n))``.
        user_paused: whether the user has fallen silent again.
        reply: number of the reply.
    """

    audio: tuple[int, Int16Array]
    user_paused: bool
    reply: int


InterruptionJudge: TypeAlias = Callable[[Interruption], bool | Awaitable[bool | None] | None]
TurnListener: TypeAlias = Callable[[TurnEvent], object]
