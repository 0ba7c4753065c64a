"""Announcements of a conversation: messages for the client and events for the application."""

from __future__ import annotations

import logging

import anyio

from fastrtc_anyio._media.playout import Played
from fastrtc_anyio._signaling.messages import encode_message
from fastrtc_anyio.conversation.events import (
    InterruptionRejected,
    ReplyFinished,
    ReplyInterrupted,
    ReplyStarted,
    TurnEvent,
    UserStartedSpeaking,
    UserStoppedSpeaking,
)
from fastrtc_anyio.conversation.handlers import ReplyOnPause
from fastrtc_anyio.conversation.turn_table import (
    CandidateRejected,
    Interrupted,
    InterruptionCandidate,
    ReplyDue,
    ReplyEnded,
    SpeechStarted,
    SpeechStopped,
    TurnStep,
)

from .run import HandlerRun
from .user_code import user_code

logger = logging.getLogger("fastrtc_anyio")

_NOTHING_PLAYED = Played(0, 0.0)


class Announcer:
    """Announces a conversation to the client and to the application.

    Args:
        run: the handler, whose ``on_event`` receives the events, and its session.
    """

    def __init__(self, run: HandlerRun[ReplyOnPause]) -> None:
        self._session = run.session
        self._handler = run.handler
        self._began = anyio.current_time()

    @property
    def now(self) -> float:
        """Seconds since the conversation began."""
        return anyio.current_time() - self._began

    def announce(self, step: TurnStep, played: Played = _NOTHING_PLAYED) -> None:
        """Announce a step of the turn machine.

        Args:
            step: the step.
            played: audio played of the reply that it ended, if any.
        """
        message, event = self._describe(step, self.now, played)
        if message is not None:
            self.log(message)
        if event is not None:
            self.tell(event)

    def log(self, message: str) -> None:
        """Send the client a log message of FastRTC's protocol."""
        self._session.messages.send_nowait(encode_message("log", message))

    def tell(self, event: TurnEvent) -> None:
        """Pass an event to the application."""
        logger.debug("session %s: %r", self._session.id, event)
        if self._handler.on_event is not None:
            with user_code("on_event"):
                self._handler.on_event(event)

    def _describe(
        self, step: TurnStep, at: float, played: Played
    ) -> tuple[str | None, TurnEvent | None]:
        """Map a step to FastRTC's log message and to the public event."""
        match step:
            case SpeechStarted():
                return "started_talking", UserStartedSpeaking(at)
            case SpeechStopped():
                return None, UserStoppedSpeaking(at)
            case ReplyDue():
                seconds = step.utterance.shape[1] / self._handler.input_sample_rate
                return "pause_detected", ReplyStarted(at, step.reply, seconds)
            case InterruptionCandidate():
                return None, None  # only the judge learns of it
            case Interrupted():
                return None, ReplyInterrupted(at, step.reply, played)
            case CandidateRejected():
                return None, InterruptionRejected(at, step.reply)
            case ReplyEnded():
                return None, ReplyFinished(at, step.reply, played)
