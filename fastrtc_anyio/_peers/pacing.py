"""Audio that is sent a little ahead of time, over a transport that has no clock of its own.

Theory of operation. What is sent is taken to be heard at once and gaplessly, so the client is
through with it at a known time, the *end*. While a whole frame is queued and the end is less than
the lead ahead of now, one more frame is due. What is less than a frame waits until the client is
about to run dry: more may come to complete it. Nothing is sent where there is nothing to play, and
nothing ticks then.

A telephone's audio lies at the carrier, which can drop it, and says by marks how far it has come.
There, sound counts as played when a mark behind it has come back. A mark follows every 100 ms of
sound, and the last sound there is: what :meth:`PhoneOutput.flush` says was played is exact to
that, and never too much.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from fastrtc_anyio._media.frames import FRAMES_PER_SECOND, Int16Array
from fastrtc_anyio._media.playout import Played
from fastrtc_anyio.abc import AudioOutStatistics

from .channels import AudioOutput, BufferOptions, Link, _wait_for

__all__ = ["CLIENT_LEAD", "LIVE_LEAD", "MARK_SECONDS", "PHONE_LEAD", "PacedOutput", "PhoneOutput"]

logger = logging.getLogger("fastrtc_anyio")

CLIENT_LEAD = 0.1
"""Seconds. Against jitter; a flush cannot take it back."""
PHONE_LEAD = 0.2
"""Seconds. The carrier takes it back when it is told to."""
LIVE_LEAD = 0.04
"""Seconds, of either, where a live source paces the sound. It has nothing to send ahead but what
piled up in a stall. Given away, that would be a delay that stays at the client for ever; in the
buffer, it is found and trimmed."""
MARK_SECONDS = 0.1
"""Sound between two marks."""
OVERDUE_SECONDS = 5.0
"""A mark that is later than that will not come: what is before it counts as played."""

_FRAME = 1 / FRAMES_PER_SECOND
_EPSILON = 1e-6


class PacedOutput(AudioOutput):
    """Audio out for a client that plays what it is sent.

    Args:
        link: to the host.
        sample_rate: of what is sent.
        buffers: how much waits.
        lead: seconds that the client has ahead.
        kick: called on the host when there is something new to send.
    """

    def __init__(
        self,
        link: Link,
        sample_rate: int,
        buffers: BufferOptions,
        lead: float,
        kick: Callable[[], None],
    ) -> None:
        super().__init__(link, sample_rate, 1, buffers.output_s, live=buffers.live)
        self._link = link
        self._lead = lead
        self._kick = kick
        self._live = buffers.live
        self._end = 0.0  # when the client will have played everything it was sent
        self._tick = 0.0  # when the buffer may be asked again, after it had nothing to give

    async def send(self, samples: Int16Array, generation: int | None = None) -> None:
        await super().send(samples, generation)
        self._kick()

    def flush(self) -> Played:
        played = super().flush()
        self._link.host.call(self._kick)
        return played

    async def wait_played(self) -> None:
        await super().wait_played()
        if not self._ended:
            await anyio.sleep_until(self._end)

    def pull_due(self, now: float) -> tuple[Int16Array | None, float | None]:
        """Transport side: the next 20 ms, or the less that there is, if they are due.

        Returns:
            The frame, or None; and without one, when to ask again: None for when kicked.
        """
        with self._lock:
            wait = self._wait(now)
            if wait is None or wait > now + _EPSILON:
                return None, wait
            before = self._buffer.played_samples
            samples = self._buffer.pull(held_back=self._room.occupied)
            count = self._buffer.played_samples - before
            self._wake_senders()
            if not count:
                self._tick = now + _FRAME
                return None, self._tick
            self._end = max(self._end, now) + count / self.sample_rate
            self._note(count)
            return samples[:, :count], None

    def _wait(self, now: float) -> float | None:
        """When the buffer is to be pulled; None: not before there is more in it."""
        queued = self._buffer.buffered_samples
        if not queued and not self._buffer.sounding:
            return None
        whole = queued * FRAMES_PER_SECOND >= self.sample_rate
        return max(self._tick, self._end + _FRAME - self._lead if whole else self._end)

    def _note(self, count: int) -> None:
        """So many samples are handed out."""


@dataclass(frozen=True)
class _OpenMark:
    name: str
    samples: int
    """Of sound since the mark before."""
    due: float


class PhoneOutput(PacedOutput):
    """Audio out for a carrier that returns marks."""

    def __init__(
        self,
        link: Link,
        sample_rate: int,
        buffers: BufferOptions,
        lead: float,
        kick: Callable[[], None],
    ) -> None:
        super().__init__(link, sample_rate, buffers, lead, kick)
        self._names = itertools.count(1)
        self._marks: deque[_OpenMark] = deque()
        self._unmarked = 0  # samples handed out since the last mark
        self._confirmed = 0
        self._confirmed_before = 0  # where the current reply begins
        self._cleared = 0  # samples handed out, then taken back
        self._clear = False

    def flush(self) -> Played:
        with self._lock:
            self._buffer.flush(fade=False)
            if waiting := self._waiting:
                self._cleared += waiting
                self._clear = True
            self._marks.clear()
            self._unmarked = 0
            self._end = self._tick = 0.0
            samples = self._confirmed - self._confirmed_before
            self._confirmed_before = self._confirmed
            self._wake_senders()
        self._link.host.call(self._kick)
        return Played(samples, samples / self.sample_rate)

    async def wait_played(self) -> None:
        def is_played() -> bool | None:
            return self._ended or (self._buffer.drained and not self._waiting) or None

        await _wait_for(self._lock, is_played, self._played)

    def statistics(self) -> AudioOutStatistics:
        with self._lock:
            buffer = self._buffer
            buffered = buffer.buffered_samples + self._waiting
            return AudioOutStatistics(
                sent=buffer.pushed_samples,
                played=self._confirmed,
                flushed=buffer.flushed_samples + self._cleared,
                trimmed=buffer.trimmed_samples,
                buffered=buffered,
                underruns=buffer.underruns,
                latency=buffered / self.sample_rate,
                bytes=buffer.pushed_samples * 2,
            )

    @property
    def _waiting(self) -> int:
        """Samples at the carrier, as far as is known."""
        return sum(mark.samples for mark in self._marks) + self._unmarked

    def pull_due(self, now: float) -> tuple[Int16Array | None, float | None]:
        overdue = self._give_up_marks(now)
        samples, wait = super().pull_due(now)
        if samples is None and overdue is not None:
            wait = overdue if wait is None else min(wait, overdue)
        return samples, wait

    def take_clear(self) -> bool:
        """Transport side: whether the carrier has to drop what it was sent, before anything else
        is sent to it."""
        with self._lock:
            wanted, self._clear = self._clear, False
            return wanted

    def take_mark(self) -> str | None:
        """Transport side: the mark to send behind what was sent so far, if it is time for one."""
        with self._lock:
            last = not self._buffer.buffered_samples and not (self._live and self._buffer.sounding)
            if not self._unmarked or (
                not last and self._unmarked < MARK_SECONDS * self.sample_rate
            ):
                return None
            name = str(next(self._names))
            self._marks.append(_OpenMark(name, self._unmarked, self._end))
            self._unmarked = 0
            return name

    def confirm(self, name: str) -> None:
        """Transport side: a mark came back. One that was sent before a flush says nothing."""
        with self._lock:
            if any(mark.name == name for mark in self._marks):
                while self._confirm_first() != name:
                    pass

    def _confirm_first(self) -> str:
        mark = self._marks.popleft()
        self._confirmed += mark.samples
        if not self._waiting:
            self._played.wake()
        return mark.name

    def _give_up_marks(self, now: float) -> float | None:
        """Count as played what a mark is overdue for; say when the next one will be."""
        with self._lock:
            while self._marks and self._marks[0].due + OVERDUE_SECONDS <= now:
                logger.warning("a mark has not come back from the carrier")
                self._confirm_first()
            return self._marks[0].due + OVERDUE_SECONDS if self._marks else None

    def _note(self, count: int) -> None:
        self._unmarked += count
