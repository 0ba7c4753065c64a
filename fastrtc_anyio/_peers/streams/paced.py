"""Audio sent slightly ahead of playback, over a transport that has no clock.

Theory of operation. The client is assumed to play audio on arrival and without gaps, so the time at
which it will have played everything sent is known: the *end*. While the queue holds a whole frame
and the end is less than the lead ahead of now, the next frame is due. Less than a frame waits until
the client is about to run dry, because more samples may complete the frame. Nothing is sent while
the queue is empty, and no timer runs then.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from fastrtc_anyio._media.frames import FRAMES_PER_SECOND, Int16Array
from fastrtc_anyio._media.playout import Played

from .audio import AudioOutput, BufferOptions
from .link import Link

CLIENT_LEAD = 0.1
"""Seconds sent ahead against jitter. A flush cannot take them back."""
LIVE_LEAD = 0.04
"""Seconds sent ahead when a source in real time paces the audio. Such a source has nothing to send
ahead but the backlog of a stall. At the client, that backlog would be a permanent delay; in the
buffer it is detected and trimmed."""

_FRAME = 1 / FRAMES_PER_SECOND
_EPSILON = 1e-6


class PacedOutput(AudioOutput):
    """Audio out, sent ``lead`` seconds ahead, for a client that plays what it receives.

    ``notify`` is called on the host when there may be something new to send.
    """

    def __init__(
        self,
        link: Link,
        sample_rate: int,
        buffers: BufferOptions,
        lead: float,
        notify: Callable[[], None],
    ) -> None:
        super().__init__(link, sample_rate, 1, buffers)
        self._lead = lead
        self._notify = notify
        self._end = 0.0  # when the client will have played everything sent
        self._tick = 0.0  # when to ask the buffer again, after it had nothing to play, or held it

    async def _queue(self, samples: Int16Array, generation: int) -> None:
        if not self._buffer.buffered_samples:  # until now there was nothing to play
            self._tick = max(self._tick, self._link.clock())
        await super()._queue(samples, generation)
        self._notify()

    def flush(self) -> Played:
        played = super().flush()
        self._link.host.call(self._notify)
        return played

    async def wait_played(self) -> None:
        await super().wait_played()
        if not self._ended:
            await anyio.sleep_until(self._end)

    def pull_due(self, now: float) -> tuple[Int16Array | None, float | None]:
        """Transport side: take the next 20 ms, or the rest of the queue, if it is due.

        Returns:
            The samples, or None. Without samples, the time to ask again; None to wait for
            ``notify``.
        """
        with self._link.lock:
            due = self._next_due()
            if due is None or due > now + _EPSILON:
                return None, due
            # Seconds in which the client was dry beside a queue: the process was stopped, or a send
            # was slow.
            stood_still = now - max(self._end, self._tick)
            if stood_still > 0:
                self._link.input_lead.skip(now, stood_still)
            samples = self._buffer.pull(held_back=self._room.occupied)
            count = self._buffer.pulled
            self._wake()
            if not count:
                # The buffer held its samples back. A frame later it will have waited one pull.
                self._tick = now + _FRAME
                return None, self._tick
            # From now if the client ran dry in the meantime: its gap is not made up for.
            self._end = max(self._end, now) + count / self.sample_rate
            self._note_sent(count)
            return samples[:, :count], None

    def _next_due(self) -> float | None:
        """Return when to pull the buffer; None: not before it has more samples."""
        queued = self._buffer.buffered_samples
        # While sounding, an empty buffer is pulled once more: it has to note the underrun.
        if not queued and not self._buffer.sounding:
            return None
        whole = queued * FRAMES_PER_SECOND >= self.sample_rate
        lead = min(self._lead, LIVE_LEAD) if self._buffer.in_real_time else self._lead
        return max(self._tick, self._end + _FRAME - lead if whole else self._end)

    def _note_sent(self, count: int) -> None:
        """Note the number of samples just taken. Called with the lock held."""
