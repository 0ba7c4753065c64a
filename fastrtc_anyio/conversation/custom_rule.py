"""A subclass's ``determine_pause`` as a pause rule of the turn machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.errors import HandlerContractError

from .pause_rules import Verdict

__all__ = ["AppState", "CustomPauseRule", "PauseDetector"]

LONGEST_BUFFER_S = 60.0
"""Maximum audio in seconds that ``state.buffer`` keeps if ``determine_pause`` never resets it."""


@dataclass
class AppState:
    """State of ``determine_pause`` between calls; a new one for each turn.

    Attributes:
        buffer: int16, shape ``(n,)``: audio that has not been judged yet. Set it to None to start
            a new buffer.
        stream: int16, shape ``(n,)``: the utterance so far, for algorithms that collect it.
        sampling_rate: rate of both in Hz.
        started_talking: whether the user has begun to speak. A pause counts only once this is set.
        pause_detected: result of the previous call.
        responding: whether a reply is active.
    """

    stream: NDArray[np.int16] | None = None
    sampling_rate: int = 0
    pause_detected: bool = False
    started_talking: bool = False
    responding: bool = False
    stopped: bool = False
    buffer: NDArray[np.int16] | None = None
    responded_audio: bool = False

    def new(self) -> AppState:
        """Make the state of the next turn."""
        return type(self)()


class PauseDetector(Protocol):
    """The part of a handler that a custom rule uses."""

    state: AppState
    input_sample_rate: int

    def determine_pause(
        self, audio: NDArray[np.int16], sampling_rate: int, state: AppState, /
    ) -> bool:
        """Return whether the user has spoken and has paused."""
        ...


class CustomPauseRule:
    """A :class:`.PauseRule` with the verdicts of a handler's ``determine_pause``.

    ``determine_pause`` may block, so the driver calls :meth:`judge` on a thread. The turn machine
    then calls :meth:`push`, which returns the verdict. A reset in between discards the verdict.
    """

    silence: int | None = None
    """Not known: ``determine_pause`` returns no places of speech."""

    def __init__(self, handler: PauseDetector) -> None:
        self._handler = handler
        self._rate = handler.input_sample_rate
        self._longest = round(LONGEST_BUFFER_S * self._rate)
        self.responding = False
        """Whether a reply is active, for ``AppState.responding``."""
        self.reset()

    def reset(self) -> None:
        """Begin a new turn."""
        self._state = self._handler.state = self._handler.state.new()
        self._verdict = Verdict.SILENCE
        self.lookback: int = 0
        """Samples since the beginning of the audio in which speech was detected."""
        # State of a turn, and the samples and result of its last `determine_pause`.
        self._judged: tuple[AppState, int, bool] | None = None

    def judge(self, samples: Int16Array) -> None:
        """Call ``determine_pause`` with 20 ms more audio; called on a thread.

        Args:
            samples: int16, shape ``(1, n)``.

        Raises:
            HandlerContractError: ``determine_pause`` did not return a bool.
        """
        state = self._state
        state.sampling_rate = self._rate
        state.responding = self.responding
        before = [] if state.buffer is None else [state.buffer]
        state.buffer = np.concatenate([*before, samples[0]])[-self._longest :]
        count = int(state.buffer.size)
        if self._verdict is Verdict.PAUSE:
            return
        paused = self._handler.determine_pause(state.buffer, self._rate, state)
        if not isinstance(paused, bool | np.bool_):
            raise HandlerContractError(f"determine_pause must return a bool; got {paused!r}")
        state.pause_detected = bool(paused)
        self._judged = (state, count, bool(paused))

    def push(self, samples: Int16Array, probability: float, over_reply: bool = False) -> Verdict:
        """Return the verdict of the last :meth:`judge`."""
        judged, self._judged = self._judged, None
        # Another state: the turn ended while determine_pause ran.
        if judged is None or judged[0] is not self._state:
            return self._verdict
        state, count, paused = judged
        speaking = self._verdict is not Verdict.SILENCE
        self.lookback = self.lookback + int(samples.shape[1]) if speaking else count
        if paused:
            self._verdict = Verdict.PAUSE
        elif state.started_talking:
            self._verdict = Verdict.SPEECH
        return self._verdict
