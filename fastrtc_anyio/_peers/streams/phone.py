"""Audio to a telephone's carrier, which buffers it and confirms playback by marks.

The carrier can drop the audio it holds, and returns a mark when it has played everything before it.
Samples count as played when the mark behind them has come back. A mark follows every 100 ms of
audio, and the last samples queued, so the amount that :meth:`PhoneOutput.flush` reports is exact to
100 ms and never too large.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._media.playout import Played
from fastrtc_anyio.abc import AudioOutStatistics

from .audio import AudioOutput, BufferOptions
from .link import Link
from .paced import PacedOutput

PHONE_LEAD = 0.2
"""Seconds sent ahead. The carrier drops them on request."""
MARK_SECONDS = 0.1
"""Seconds of audio between two marks."""
OVERDUE_SECONDS = 5.0
"""Seconds after which a missing mark is ignored: the samples before it then count as played."""


@dataclass(frozen=True)
class _OpenMark:
    name: str
    samples: int
    """Samples since the mark before."""
    due: float


class PhoneOutput(PacedOutput):
    """Audio out for a carrier that returns marks."""

    def __init__(
        self,
        link: Link,
        sample_rate: int,
        buffers: BufferOptions,
        lead: float,
        notify: Callable[[], None],
    ) -> None:
        super().__init__(link, sample_rate, buffers, lead, notify)
        self._names = itertools.count(1)
        self._marks: deque[_OpenMark] = deque()
        self._unmarked = 0  # samples sent since the last mark
        self._confirmed = 0
        self._flushed_at = 0  # samples confirmed at the last flush
        self._cleared = 0  # samples sent, then dropped by the carrier
        self._clear = False

    @property
    def position(self) -> int:
        return self._confirmed

    def flush(self) -> Played:
        with self._link.lock:
            self._generation += 1
            # No fade: the carrier is going to cut the sound in the middle anyway.
            self._buffer.flush(fade=False)
            if waiting := self._unconfirmed:
                self._cleared += waiting
                self._clear = True
            # A carrier returns the marks of audio it drops, too. They say nothing about playback.
            self._marks.clear()
            self._unmarked = 0
            self._end = self._tick = 0.0
            samples = self._confirmed - self._flushed_at
            self._flushed_at = self._confirmed
            self._wake()
        self._link.host.call(self._notify)
        return Played(samples, samples / self.sample_rate)

    async def wait_played(self) -> None:
        # Without the sleep of PacedOutput: the last mark comes back when playback has ended.
        await AudioOutput.wait_played(self)

    def _is_played(self) -> bool:
        return self._ended or (self._buffer.drained and not self._unconfirmed)

    def statistics(self) -> AudioOutStatistics:
        with self._link.lock:
            counters = self._buffer.statistics()
            buffered = counters.buffered + self._unconfirmed
            return replace(
                counters,
                played=self._confirmed,
                flushed=counters.flushed + self._cleared,
                buffered=buffered,
                latency=buffered / self.sample_rate,
            )

    @property
    def _unconfirmed(self) -> int:
        """Samples at the carrier, as far as is known."""
        return sum(mark.samples for mark in self._marks) + self._unmarked

    def pull_due(self, now: float) -> tuple[Int16Array | None, float | None]:
        overdue = self._give_up_marks(now)
        samples, due = super().pull_due(now)
        if samples is None and overdue is not None:
            due = overdue if due is None else min(due, overdue)
        return samples, due

    def pop_clear(self) -> bool:
        """Transport side: whether to have the carrier drop its audio before anything else is
        sent. True once per flush."""
        with self._link.lock:
            wanted, self._clear = self._clear, False
            return wanted

    def pop_mark(self) -> str | None:
        """Transport side: the mark to send behind the audio sent so far, if one is due."""
        with self._link.lock:
            live = self._options.live
            # Audio of a live source goes on while it sounds: an empty buffer is not its end.
            last = not self._buffer.buffered_samples and not (live and self._buffer.sounding)
            if not self._unmarked or (
                not last and self._unmarked < MARK_SECONDS * self.sample_rate
            ):
                return None
            name = str(next(self._names))
            self._marks.append(_OpenMark(name, self._unmarked, self._end))
            self._unmarked = 0
            return name

    def confirm(self, name: str) -> None:
        """Transport side: a mark came back. A mark sent before the last flush is ignored."""
        with self._link.lock:
            if any(mark.name == name for mark in self._marks):
                while self._confirm_first() != name:
                    pass

    def _confirm_first(self) -> str:
        mark = self._marks.popleft()
        self._confirmed += mark.samples
        if not self._unconfirmed:
            self._played.wake()
        return mark.name

    def _give_up_marks(self, now: float) -> float | None:
        """Count the samples before overdue marks as played; return when the next is overdue."""
        with self._link.lock:
            while self._marks and self._marks[0].due + OVERDUE_SECONDS <= now:
                logger.warning(
                    "the carrier has not returned a mark in time", event="telephone.mark_missing"
                )
                self._confirm_first()
            return self._marks[0].due + OVERDUE_SECONDS if self._marks else None

    def _note_sent(self, count: int) -> None:
        self._unmarked += count
