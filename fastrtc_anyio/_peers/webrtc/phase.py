"""Choice between the two phases at which the audio of a call can be sent.

A handler whose output follows its input pushes audio at the pace of the client, at some time
between two pulls. The best phase pulls soon after that time, and not so soon that a slightly later
push misses the pull: then the client would hear a gap.
"""

from __future__ import annotations

from .ticks import PERIOD

_WINDOW = 50
"""Pulls with a push before them that are compared: a second of audio in real time."""
_MARGIN = 0.0007
"""Seconds from a push to the pull that it has to precede."""
_EARLY = 0.98
"""Share of the pushes that has to precede the pull of the other phase."""
_SOME = 0.06
"""Share of the pushes less than 5 ms before a pull, and of those less than 5 ms after one."""
_MOST = 0.8
"""Share of both together: audio at other times would gain nothing."""
_MOVES = 4
"""Most moves in a call: a source of another pace, or with much jitter, has no best phase."""


class PhaseChoice:
    """Decides when a sender should move to the other phase, always to the pulls 10 ms before."""

    def __init__(self) -> None:
        self.moves = 0
        """Times that the sender should have moved."""
        self._pushed_at = 0.0
        self._reset()

    def _reset(self) -> None:
        self._pushes = 0
        self._early = 0  # before a pull at the other phase
        self._late = 0  # just after a pull
        self._near = 0  # just before a pull

    def changes(self, now: float, pushed_at: float) -> bool:
        """Note a pull at ``now``, before which the last push was at ``pushed_at``.

        Returns whether to move, and counts it.
        """
        if pushed_at == self._pushed_at or self.moves == _MOVES:
            return False
        self._pushed_at = pushed_at
        age = now - pushed_at
        self._pushes += 1
        if age < PERIOD / 2:
            self._near += 1
        elif age > PERIOD + _MARGIN:
            self._early += 1
            if age > PERIOD * 3 / 2:
                self._late += 1
        if self._pushes < _WINDOW:
            return False
        better = self._is_other_better()
        self._reset()
        self.moves += better
        return better

    def _is_other_better(self) -> bool:
        pushes = self._pushes
        if self._early >= _EARLY * pushes:
            return True
        around = min(self._late, self._near) >= _SOME * pushes
        return around and self._late + self._near >= _MOST * pushes
