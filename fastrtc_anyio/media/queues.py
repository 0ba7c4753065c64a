"""Bounded queues between a source that never waits and a reader that may stall.

Both are plain containers: they neither wait nor wake anybody, and every frame that goes in is
accounted for: ``received == popped + dropped + len(queue)``.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from fastrtc_anyio.media.frames import AudioFrame

T = TypeVar("T")

# Sums of durations are floats: fifty frames of 0.02 s add up to a little more than 1.0 s.
_ROUNDING = 1e-6


class LiveEdgeQueue:
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
        self._limit = limit_seconds
        self._frames: deque[AudioFrame] = deque()
        self._buffered_seconds = 0.0
        self._overflowed = False
        self._received = 0
        self._popped = 0
        self._dropped = 0
        self._dropped_seconds = 0.0

    def push(self, frame: AudioFrame) -> None:
        """Add the newest frame; drops older ones as the class says. Never raises."""
        self._received += 1
        duration = frame.duration
        if duration == 0:
            self._dropped += 1
            return
        if self._frames and (
            self._overflowed or self._buffered_seconds + duration > self._limit + _ROUNDING
        ):
            self._dropped += len(self._frames)
            self._dropped_seconds += self._buffered_seconds
            self._frames.clear()
            self._buffered_seconds = 0.0
            self._overflowed = True
        self._frames.append(frame)
        self._buffered_seconds += duration

    def pop(self) -> AudioFrame | None:
        """Take the oldest frame held, or return None if there is none."""
        if not self._frames:
            return None
        self._overflowed = False
        self._popped += 1
        frame = self._frames.popleft()
        # Set to zero when empty, so that rounding errors never add up.
        self._buffered_seconds = self._buffered_seconds - frame.duration if self._frames else 0.0
        return frame

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def buffered_seconds(self) -> float:
        """Duration of the frames held, seconds."""
        return self._buffered_seconds

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
        """Frames dropped so far."""
        return self._dropped

    @property
    def dropped_seconds(self) -> float:
        """Duration of the frames dropped so far, seconds."""
        return self._dropped_seconds


class LatestQueue(Generic[T]):
    """Holds the newest item only: a `push` replaces what is there and counts it as dropped."""

    def __init__(self) -> None:
        self._items: deque[T] = deque(maxlen=1)
        self._received = 0
        self._popped = 0
        self._dropped = 0

    def push(self, item: T) -> None:
        """Make ``item`` the one held. Never raises."""
        self._received += 1
        self._dropped += len(self._items)
        self._items.append(item)

    def pop(self) -> T | None:
        """Take the item held, or return None if there is none."""
        if not self._items:
            return None
        self._popped += 1
        return self._items.popleft()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def received(self) -> int:
        """Items pushed so far."""
        return self._received

    @property
    def popped(self) -> int:
        """Items handed out so far."""
        return self._popped

    @property
    def dropped(self) -> int:
        """Items replaced before anybody took them."""
        return self._dropped
