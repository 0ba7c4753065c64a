"""A subclass's ``determine_pause`` as a rule of the turn machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.errors import HandlerContractError

from .handlers import AppState, ReplyOnPause
from .pause_rules import Verdict

__all__ = ["OwnAlgorithm"]

# Of what an algorithm never declares to be judged, so much is kept.
LONGEST_BUFFER_S = 60.0


class OwnAlgorithm:
    """A :class:`.PauseRule` that says what ``determine_pause`` said.

    That may take its time, so :meth:`judge` calls it on a thread, and :meth:`push`, which the turn
    machine calls right after it, has the verdict. A reset in between makes the verdict void.

    Args:
        handler: whose algorithm it is.
    """

    def __init__(self, handler: ReplyOnPause) -> None:
        self._handler = handler
        self._rate = handler.input_sample_rate
        self._longest = round(LONGEST_BUFFER_S * self._rate)
        self.responding = False
        """Whether a reply goes on, for the algorithm to know."""
        self.reset()

    def reset(self) -> None:
        """Begin a new turn."""
        self._state = self._handler.state = self._handler.state.new()
        self._verdict = Verdict.SILENCE
        self._lookback = 0
        self._judged: _Judgement | None = None

    @property
    def lookback(self) -> int:
        """Samples since the beginning of the audio in which talking was found to have started."""
        return self._lookback

    def judge(self, samples: Int16Array) -> None:
        """Hear 20 ms more; called on a thread.

        Args:
            samples: int16, shape ``(1, n)``.

        Raises:
            HandlerContractError: the algorithm returned no bool.
        """
        state = self._state
        state.sampling_rate = self._rate
        state.responding = self.responding
        before = [] if state.buffer is None else [state.buffer]
        state.buffer = np.concatenate([*before, samples[0]])[-self._longest :]
        heard = int(state.buffer.size)
        if self._verdict is Verdict.PAUSE:
            return
        paused = self._handler.determine_pause(state.buffer, self._rate, state)
        if not isinstance(paused, bool | np.bool_):
            raise HandlerContractError(f"determine_pause must return a bool; got {paused!r}")
        state.pause_detected = bool(paused)
        self._judged = _Judgement(state, heard, bool(paused))

    def push(self, samples: Int16Array, probability: float, over_reply: bool = False) -> Verdict:
        """Say what was found."""
        judged, self._judged = self._judged, None
        if judged is None or judged.state is not self._state:  # the turn has ended meanwhile
            return self._verdict
        speaking = self._verdict is not Verdict.SILENCE
        self._lookback = self._lookback + int(samples.shape[1]) if speaking else judged.heard
        if judged.paused:
            self._verdict = Verdict.PAUSE
        elif judged.state.started_talking:
            self._verdict = Verdict.SPEECH
        return self._verdict


@dataclass(frozen=True)
class _Judgement:
    """What the algorithm said, and of which turn."""

    state: AppState
    heard: int
    paused: bool
