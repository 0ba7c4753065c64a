"""Bounded queues between a source that never waits and a reader that may stall.

Both are plain containers: they neither wait nor wake anybody, and every frame that goes in is
accounted for: ``received == popped + dropped + len(queue)``.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from .frames import AudioFrame

T = TypeVar("T")

# Sums of durations are floats: fifty frames of 0.02 s add up to a little more than 1.0 s.
_ROUNDING = 1e-6


class _CountingQueue(Generic[T]):
    """A queue that knows what became of everything that was put into it."""

    def __init__(self) -> None:
        self._held: deque[T] = deque()
        self._received = 0
        self._popped = 0
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def received(self) -> int:
        """Frames pushed so far."""
        return self._received

    @property
    def popped(self) -> int:
        """Frames handed out so far."""
        return self._popped

    @property
    def dropped(self) -> int:
        """Frames dropped so far, without having been handed out."""
        return self._dropped

    def _put(self, item: T) -> None:
        self._received += 1
        self._held.append(item)

    def _take(self) -> T | None:
        if not self._held:
            return None
        self._popped += 1
        return self._held.popleft()

    def _drop_all(self) -> None:
        self._dropped += len(self._held)
        self._held.clear()


class LiveEdgeQueue(_CountingQueue[AudioFrame]):
    """Audio bounded by duration; when full it jumps to the live edge.

    A reader that stalls for less than the limit loses nothing. One that stalls for longer finds
    the newest frame and nothing older: dropping only the oldest would keep the queue full, and
    the delay with it, for ever. From the overflow until the next `pop` each `push` replaces the
    one frame held.

    At least one frame is always held, however long it is. A frame without samples is received
    and dropped at once.

    Args:
        limit_seconds: How much audio is held at most.

    Raises:
        ValueError: if the limit is not positive.
    """

    def __init__(self, limit_seconds: float = 1.0) -> None:
        if not limit_seconds > 0:
            raise ValueError(f"limit_seconds must be positive, got {limit_seconds!r}")
        super().__init__()
        self._limit = limit_seconds
        self._buffered_seconds = 0.0
        self._dropped_seconds = 0.0
        self._overflowed = False
        self._latency = 0.0

    def push(self, frame: AudioFrame) -> None:
        """Add the newest frame; drops older ones as the class says. Never raises."""
        duration = frame.duration
        if duration == 0:
            self._received += 1
            self._dropped += 1
            return
        if self._held and (
            self._overflowed or self._buffered_seconds + duration > self._limit + _ROUNDING
        ):
            self._dropped_seconds += self._buffered_seconds
            self._buffered_seconds = 0.0
            self._drop_all()
            self._overflowed = True
        self._put(frame)
        self._buffered_seconds += duration

    def pop(self) -> AudioFrame | None:
        """Take the oldest frame held, or return None if there is none."""
        frame = self._take()
        if frame is None:
            return None
        self._overflowed = False
        # Set to zero when empty, so that rounding errors never add up.
        self._buffered_seconds = self._buffered_seconds - frame.duration if self._held else 0.0
        self._latency = self._buffered_seconds
        return frame

    @property
    def buffered_seconds(self) -> float:
        """Duration of the frames held, seconds."""
        return self._buffered_seconds

    @property
    def dropped_seconds(self) -> float:
        """Duration of the frames dropped so far, seconds."""
        return self._dropped_seconds

    @property
    def latency(self) -> float:
        """How far behind the newest frame held the one popped last was, seconds of audio.

        It is `buffered_seconds` as it was right after that `pop`; 0.0 before the first.
        """
        return self._latency


class LatestQueue(_CountingQueue[tuple[T, float]], Generic[T]):
    """Holds the newest item only: a `push` replaces what is there and counts it as dropped.

    Times are seconds on any clock that does not go back, the same for both calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self._latency = 0.0

    def push(self, item: T, now: float) -> None:
        """Make ``item``, which came at ``now``, the one held. Never raises."""
        self._drop_all()
        self._put((item, now))

    def pop(self, now: float) -> T | None:
        """Take the item held, or return None if there is none."""
        taken = self._take()
        if taken is None:
            return None
        item, came = taken
        # Of two threads, the one that read the clock first may get here last.
        self._latency = max(0.0, now - came)
        return item

    @property
    def latency(self) -> float:
        """How long the item popped last had waited, seconds; 0.0 before the first `pop`."""
        return self._latency
