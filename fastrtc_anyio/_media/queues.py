"""Bounded queues between a source that never waits and a reader that may stall.

Plain containers: no locks and no waiting. Every frame is counted:
``received + silent == popped + dropped + len(queue)``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from fastrtc_anyio._core.options import check_number

from .frames import AudioFrame
from .statistics import AudioInStatistics, VideoInStatistics

T = TypeVar("T")

# Sums of durations are floats: fifty frames of 0.02 s add up to a little more than 1.0 s.
_ROUNDING = 1e-6


class LiveEdgeQueue:
    """Audio queue bounded by duration that jumps to the live edge when full.

    A reader that stalls for less than the limit loses nothing. After a longer stall it finds the
    newest frame only. Dropping just the oldest frames would keep the queue full, and the delay
    with it, until the end of the call. From the overflow until the next `pop`, each `push`
    replaces the one frame held.

    The queue holds at least one frame, of any duration. A frame without samples counts as
    received and dropped. Silence before a frame takes no space: `pop` produces it, in frames no
    longer than the frame behind it.

    Attributes:
        statistics: counters, updated by every call.
    """

    def __init__(self, limit_seconds: float = 1.0) -> None:
        check_number("limit_seconds", limit_seconds, above=0, finite=False)
        self.statistics = AudioInStatistics()
        self._limit = limit_seconds
        self._held: deque[AudioFrame] = deque()
        self._silence: deque[int] = deque()  # samples before each frame held
        self._overflowed = False

    def __len__(self) -> int:
        return len(self._held)

    def push(self, frame: AudioFrame, silence: float = 0.0) -> None:
        """Add the newest frame, and the seconds of silence before it. Never raises.

        Drops older frames when the limit is exceeded.
        """
        counters = self.statistics
        counters.received += 1
        counters.bytes += frame.samples.nbytes
        duration = frame.duration
        if duration == 0:
            counters.dropped += 1
            return
        if self._held and (
            self._overflowed or counters.buffered_seconds + duration > self._limit + _ROUNDING
        ):
            counters.dropped += len(self._held)
            counters.buffered_seconds = 0.0
            counters.skipped_seconds += sum(self._silence) / self._held[0].sample_rate + silence
            silence = 0.0
            self._held.clear()
            self._silence.clear()
            self._overflowed = True
        self._held.append(frame)
        self._silence.append(round(silence * frame.sample_rate))
        counters.buffered = len(self._held)
        counters.buffered_seconds += duration

    def pop(self) -> AudioFrame | None:
        """Remove and return the oldest frame, or return None if the queue is empty."""
        if not self._held:
            return None
        counters = self.statistics
        self._overflowed = False
        if silence := self._silence[0]:
            return self._pop_silence(silence)
        frame = self._held.popleft()
        self._silence.popleft()
        counters.buffered = len(self._held)
        # Set to zero when empty, so that rounding errors never add up.
        counters.buffered_seconds = (
            counters.buffered_seconds - frame.duration if self._held else 0.0
        )
        counters.latency = counters.buffered_seconds
        return frame

    def _pop_silence(self, remaining: int) -> AudioFrame:
        rate, samples = self._held[0]
        silence = AudioFrame(rate, np.zeros_like(samples[:, :remaining]))
        self._silence[0] -= silence.samples.shape[1]
        self.count_silence(silence)
        return silence

    def count_silence(self, frame: AudioFrame) -> None:
        """Count a frame of silence that is being read."""
        self.statistics.silent += 1
        self.statistics.silence_seconds += frame.duration


class LatestQueue(Generic[T]):
    """Queue of one item: `push` replaces the item held and counts it as dropped.

    Args:
        clock: monotonic clock, seconds.

    Attributes:
        statistics: counters, updated by every call.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.statistics = VideoInStatistics()
        self._clock = clock
        self._held: tuple[T, float] | None = None

    def __len__(self) -> int:
        return self.statistics.buffered

    @property
    def age(self) -> float:
        """Seconds since the item held has arrived; 0 if the queue is empty."""
        return 0.0 if self._held is None else self._clock() - self._held[1]

    def push(self, item: T) -> None:
        """Hold ``item``, which has just arrived. Never raises."""
        counters = self.statistics
        counters.received += 1
        counters.dropped += counters.buffered
        counters.buffered = 1
        self._held = item, self._clock()

    def pop(self) -> T | None:
        """Remove and return the item held, or return None if the queue is empty."""
        if self._held is None:
            return None
        (item, arrived), self._held = self._held, None
        self.statistics.buffered = 0
        # Pusher and reader are two threads: the one that read the clock first may get here last.
        self.statistics.latency = max(0.0, self._clock() - arrived)
        return item
