"""Choice between the two phases at which the audio of a call can be sent.

A handler whose output follows its input pushes audio at the pace of the client, at some time
between two pulls. The best phase pulls soon after that time, and not so soon that a slightly later
push misses the pull: then the client would hear a gap.

On a line with jitter, pushes come at any time, and playout keeps the margin that the latest of them
need. The phase also moves if all frames of the last seconds were early enough for the other phase.
Some of them must have come after the pull before their own: otherwise a few losses have caused the
margin, and the next loss may need all of it.
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
_SPARE = 100
"""Pulls, from the first frame that came late, for which the other phase would have sufficed. The
number doubles with each move: one that was wrong has cost a gap."""
_LATE = 5
"""Frames among them that came after the pull before theirs."""
_MOVES = 4
"""Most moves in a call: a source of another pace, or with much jitter, has no best phase."""


class PhaseChoice:
    """Decides when a sender should move to the other phase, always to the pulls 10 ms before."""

    def __init__(self) -> None:
        self.moves = 0
        """Times that the sender should have moved."""
        self._pushed_at = 0.0
        self._spare = 0
        self._in_need = 0
        self._reset()

    def _reset(self) -> None:
        self._pushes = 0
        self._early = 0  # before a pull at the other phase
        self._late = 0  # just after a pull
        self._near = 0  # just before a pull

    def changes(self, now: float, pushed_at: float, needed_at: float) -> bool:
        """Note a pull at ``now``, and return whether to move, which is counted.

        Args:
            now: time of the pull.
            pushed_at: time of the last push.
            needed_at: time of the last push without which there was less than a frame.
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
        moves = self._has_spare(now, needed_at)
        if moves or self._pushes == _WINDOW:
            moves = moves or self._is_other_better()
            self._reset()
        if moves:
            self._spare = self._in_need = 0
        self.moves += moves
        return moves

    def _has_spare(self, now: float, needed_at: float) -> bool:
        """Note whether a frame came in time for the other phase; return whether all lately did."""
        age = now - needed_at
        if age <= PERIOD + _MARGIN:
            self._spare = self._in_need = 0
            return False
        self._in_need += age <= 2 * PERIOD
        self._spare += self._in_need > 0
        return self._in_need >= _LATE and self._spare >= _SPARE << self.moves

    def _is_other_better(self) -> bool:
        pushes = self._pushes
        if self._early >= _EARLY * pushes:
            return True
        around = min(self._late, self._near) >= _SOME * pushes
        return around and self._late + self._near >= _MOST * pushes
