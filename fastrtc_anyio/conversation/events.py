"""Events of a conversation, and the question to a judge of interruptions.

:class:`.ReplyOnPause` passes events to ``on_event`` and questions to ``confirm_interruption``.
"""

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
    """Base class of the events of a conversation.

    Attributes:
        at: seconds since the conversation began.
    """

    at: float


@dataclass(frozen=True)
class UserStartedSpeaking(TurnEvent):
    """The user began to speak, during a reply or not."""


@dataclass(frozen=True)
class UserStoppedSpeaking(TurnEvent):
    """The user paused. Each :class:`UserStartedSpeaking` is followed by one of these."""


@dataclass(frozen=True)
class StopWordHeard(TurnEvent):
    """The user said a stop word: the speech after it is addressed to the handler."""


@dataclass(frozen=True)
class _ReplyEvent(TurnEvent):
    """Base class of the events of a reply.

    Attributes:
        reply: number of the reply in this conversation, from 1.
    """

    reply: int


@dataclass(frozen=True)
class ReplyStarted(_ReplyEvent):
    """A reply started. Its function is called once the previous reply has unwound.

    Attributes:
        utterance_s: seconds of audio passed to the reply function.
    """

    utterance_s: float


@dataclass(frozen=True)
class ReplyInterrupted(_ReplyEvent):
    """A reply was cancelled, and its queued audio dropped.

    Attributes:
        played: audio of the reply that was played; exact to one 20 ms frame.
        text: text of that audio, to the word. Empty if nothing noted the text: the voices of
            :func:`get_tts_model` do, others by :func:`note_speech`.
    """

    played: Played
    text: str = ""


@dataclass(frozen=True)
class InterruptionRejected(_ReplyEvent):
    """The judge rejected speech over a reply as an interruption: the reply continues."""


@dataclass(frozen=True)
class ReplyFinished(_ReplyEvent):
    """A reply was played to its end.

    Attributes:
        played: audio of the reply.
        text: text of that audio; see :class:`ReplyInterrupted`.
    """

    played: Played
    text: str = ""


@dataclass(frozen=True)
class Interruption:
    """Speech over a reply, whose playout is paused until the judge decides.

    Attributes:
        audio: the speech so far, with up to 0.3 s before it: ``(rate, int16 (1, n))``.
        user_paused: whether the user has paused.
        reply: number of the reply.
    """

    audio: tuple[int, Int16Array]
    user_paused: bool
    reply: int


InterruptionJudge: TypeAlias = Callable[[Interruption], bool | Awaitable[bool | None] | None]
TurnListener: TypeAlias = Callable[[TurnEvent], object]
