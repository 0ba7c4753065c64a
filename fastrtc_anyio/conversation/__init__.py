"""Turn taking in voice conversations.

:class:`ReplyOnPause` calls a generator function whenever the user pauses and plays the audio it
yields; :class:`ReplyOnStopWords` does so only after a stop word. A user who speaks over a reply
interrupts it. ``on_event`` receives a :class:`TurnEvent` for every change of turn.

From the outside in:

* :mod:`.handlers` - the two handlers
* :mod:`.events` - events for the application, and the question to a judge of interruptions
* :mod:`.machine` - the turn machine: speech probabilities in, utterances and interruptions out
* :mod:`.turn_table` - its states, steps and transition table
* :mod:`.segmentation` - its audio buffer
* :mod:`.pause_rules`, :mod:`.stop_words`, :mod:`.custom_rule` - rules for the start of speech and
  for pauses
* :mod:`.foreground` - the speaker's voice, told from background voices
* :mod:`.utterances` - turn taking for session functions
* :mod:`.reply_calls` - functions of a conversation, and their arguments
"""

from .custom_rule import AppState
from .events import (
    Interruption,
    InterruptionJudge,
    InterruptionRejected,
    ReplyFinished,
    ReplyInterrupted,
    ReplyStarted,
    StopWordHeard,
    TurnEvent,
    TurnListener,
    UserStartedSpeaking,
    UserStoppedSpeaking,
)
from .handlers import ReplyOnPause, ReplyOnStopWords
from .pause_rules import AlgoOptions
from .utterances import Utterance, Utterances

__all__ = [
    "AlgoOptions",
    "AppState",
    "Interruption",
    "InterruptionJudge",
    "InterruptionRejected",
    "ReplyFinished",
    "ReplyInterrupted",
    "ReplyOnPause",
    "ReplyOnStopWords",
    "ReplyStarted",
    "StopWordHeard",
    "TurnEvent",
    "TurnListener",
    "UserStartedSpeaking",
    "UserStoppedSpeaking",
    "Utterance",
    "Utterances",
]
