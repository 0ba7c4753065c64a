"""Playout buffer of a transport: a queue of PCM that is read one 20 ms frame at a time.

Theory of operation. The host pushes PCM in chunks of any size. The transport pulls one frame every
20 ms and always gets a frame, padded with silence where samples are missing. Two flags decide what
a pull does:

* *sounding*: the last pull ended in real samples, so stopping now would click. A pull while
  sounding takes a full frame if the queue has one. Otherwise the pull is an underrun.
* *resuming*: a pause faded the sound out, so the next samples are faded in.

While not sounding, playout starts as soon as two frames are queued, or when the queue has already
waited through one pull: 20 to 40 ms of margin against jitter in the source. Less than a frame is
played padded, at the end of an utterance, or on its own if it has not grown since the last pull.

Every sample pushed is played, flushed, trimmed or still buffered, and counted as exactly one of
those.

A standing delay, found by :mod:`.standing_delay`, is trimmed. The cut is a crossfade of
5 ms from the samples before the gap to those behind it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._core.options import check_number

from .frames import FRAMES_PER_SECOND, Int16Array, check_channels, check_pcm, check_sample_rate
from .standing_delay import EchoDelay, InputLead, StandingDelay
from .statistics import AudioOutStatistics

# Long enough that cutting into a voice does not click, short enough to be heard as immediate.
FADE_SECONDS = 0.005
# Frames that have to be queued for playout to start without waiting through a pull.
START_FRAMES = 2


@dataclass(frozen=True)
class Played:
    """Amount of audio that was really played.

    Attributes:
        samples: samples per channel handed to the transport, silence not counted.
        seconds: the same, in seconds.
    """

    samples: int
    seconds: float


class PlayoutBuffer:
    """PCM queued for one listener, bounded by duration.

    The caller enforces the bound: it pushes while `has_room`. A chunk of any size is admitted when
    there is room, so that a text-to-speech engine may hand over whole sentences.

    Args:
        sample_rate: samples per second and channel, Hz: a multiple of 50 from 8000 to 48000.
        channels: 1 or 2.
        limit_seconds: the buffer has room while it holds less than this.
        live: whether to trim any standing delay. A delay is visible only below the limit, so the
            limit has to exceed the backlog that a source may hand over after a stall.
        input_lead: lead of the session's input, to trim what a burst of input has caused: a
            standing delay, on playout that is not live, and late silence.

    Attributes:
        position: samples per channel played, without fades after a flush. Never goes back.
        pulled: samples per channel in the frame pulled last; the rest of that frame is silence.
        paused: whether playout is paused.
        sounding: whether the last pull ended in real samples.
    """

    def __init__(
        self,
        sample_rate: int,
        channels: int,
        limit_seconds: float,
        *,
        live: bool = False,
        input_lead: InputLead | None = None,
    ) -> None:
        check_number("limit_seconds", limit_seconds, above=0, finite=False)
        self.sample_rate = check_sample_rate(sample_rate)
        self.channels = check_channels(channels)
        self.position = 0
        self.pulled = 0
        self._limit = limit_seconds
        self._frame_samples = self.sample_rate // FRAMES_PER_SECOND
        self._fade_samples = int(self.sample_rate * FADE_SECONDS)
        self._chunks: deque[Int16Array] = deque()
        self._offset = 0  # samples of the first chunk that are already played
        self._queued = 0
        self._fading_tail: Int16Array | None = None  # samples that a flush left to be played
        self._waited: int | None = None  # samples queued when the last pull held them back
        self.paused = False
        self.sounding = False
        self._resuming = False
        self._flushed_at = 0  # position at the last flush
        self._counters = AudioOutStatistics()
        self._delay: StandingDelay | None = None
        if live:
            self._delay = StandingDelay(self._frame_samples, input_lead)
        elif input_lead is not None:
            self._delay = EchoDelay(self._frame_samples, input_lead)

    def push(self, samples: Int16Array) -> None:
        """Queue a copy of samples of shape ``(channels, n)`` behind those already queued."""
        check_pcm(samples, self.channels)
        count = int(samples.shape[1])
        if count:
            self._chunks.append(samples.copy(order="C"))
            self._queued += count
            self._counters.sent += count

    def discard(self, samples: Int16Array) -> None:
        """Count samples as pushed and flushed at once: their flush came before their push."""
        self._counters.sent += int(samples.shape[1])
        self._counters.flushed += int(samples.shape[1])

    def flush(self, *, fade: bool = True) -> Played:
        """Drop all queued samples and end a pause.

        If sound is playing, up to 5 ms of the next samples are kept and faded out, so that nothing
        clicks. They count as played when they are pulled, but not in `position`. No other sample
        pushed before the flush is ever pulled.

        Args:
            fade: False to keep nothing, for a transport that cuts the sound itself.

        Returns:
            The amount played since the previous flush.
        """
        if self.sounding and fade:
            tail = self._take(self._fade_samples)
            self._fading_tail = _faded(tail, _fade_out(tail.shape[1])) if tail.size else None
        self._counters.flushed += self._queued
        self._chunks.clear()
        self._offset = 0
        self._queued = 0
        self._waited = None
        self.paused = False
        self.sounding = False
        self._resuming = False
        samples = self.position - self._flushed_at
        self._flushed_at = self.position
        return Played(samples, samples / self.sample_rate)

    def pause(self) -> None:
        """Stop playout; the next pull fades out the sound. Idempotent."""
        self.paused = True

    def resume(self) -> None:
        """Continue with the next sample, faded in over 5 ms. Idempotent."""
        self.paused = False

    def pull(self, *, held_back: bool = False) -> Int16Array:
        """Take the next 20 ms. A standing delay may be trimmed behind them.

        Args:
            held_back: whether a sender waits for room at this moment. The source then works ahead,
                so the samples queued are not a delay.

        Returns:
            A new array, int16, shape ``(channels, sample_rate // 50)``, zero where there is nothing
            to play. Never raises.
        """
        frame = np.zeros((self.channels, self._frame_samples), np.int16)
        if self._fading_tail is not None:
            self.pulled = int(self._fading_tail.shape[1])
            frame[:, : self.pulled] = self._fading_tail
            self._fading_tail = None
        else:
            if self.paused:
                self.pulled = self._fade_to_pause(frame) if self.sounding else 0
            else:
                self.pulled = self._play(frame) if self._may_play() else 0
            self.position += self.pulled
        self._counters.played += self.pulled
        if self._delay is not None:
            if self.sounding:
                self._end_delay(self._delay, held_back)
            else:
                self._delay.silence()
        return frame

    def statistics(self) -> AudioOutStatistics:
        """Return a copy of the counters."""
        return replace(
            self._counters,
            buffered=self.buffered_samples,
            latency=self.buffered_seconds,
            bytes=self._counters.sent * self.channels * 2,
        )

    @property
    def buffered_samples(self) -> int:
        """Samples per channel still to be played, a fading tail included."""
        tail = 0 if self._fading_tail is None else int(self._fading_tail.shape[1])
        return self._queued + tail

    @property
    def buffered_seconds(self) -> float:
        """Duration of those samples, in seconds."""
        return self.buffered_samples / self.sample_rate

    @property
    def has_room(self) -> bool:
        """Whether the next chunk may be pushed."""
        return self.buffered_seconds < self._limit

    @property
    def in_real_time(self) -> bool:
        """Whether the source is known to push audio in real time."""
        return isinstance(self._delay, EchoDelay) and self._delay.in_real_time

    @property
    def drained(self) -> bool:
        """Whether nothing is left to play."""
        return self.buffered_samples == 0

    def _fade_to_pause(self, frame: Int16Array) -> int:
        samples = self._take(self._fade_samples)
        count = int(samples.shape[1])
        frame[:, :count] = _faded(samples, _fade_out(count))
        self.sounding = False
        if count:
            self._resuming = True
        else:
            self._counters.underruns += 1
        return count

    def _may_play(self) -> bool:
        """Return whether this pull plays; if not, note the samples it held back."""
        queued, waited = self._queued, self._waited
        self._waited = queued or None
        if self.sounding and queued < self._frame_samples:
            # Playout stops here, at the end of an utterance or because the source is late. Play the
            # rest now: holding it back would only move the gap in front of it.
            self.sounding = False
            self._counters.underruns += 1
            return queued > 0
        if self.sounding or queued >= START_FRAMES * self._frame_samples:
            return True
        if queued >= self._frame_samples:
            # A pause left its margin in the queue: waiting again would add to the delay.
            return waited is not None or self._resuming
        # Less than a frame: while it grows, the source is still at work on it.
        return queued > 0 and queued == waited

    def _play(self, frame: Int16Array) -> int:
        samples = self._take(self._frame_samples)
        count = int(samples.shape[1])
        if self._resuming:
            fade = min(count, self._fade_samples)
            samples[:, :fade] = _faded(samples[:, :fade], _fade_out(fade)[::-1])
            self._resuming = False
        frame[:, :count] = samples
        self._waited = None
        # A padded frame ends in silence, so the next samples start a new utterance.
        self.sounding = count == self._frame_samples
        return count

    def _end_delay(self, delay: StandingDelay, held_back: bool) -> None:
        """Trim what has been found to be a delay."""
        count = delay.excess(self._queued, held_back)
        if not count and (silent := delay.silent_excess(self._queued)):
            count = self._count_silence(silent)
        if count >= self._frame_samples:
            self._trim(count)
            delay.note_trim(count)

    def _count_silence(self, limit: int) -> int:
        """Return the number of silent samples at the front, up to ``limit``."""
        count, offset = 0, self._offset
        for chunk in self._chunks:
            sounding = np.flatnonzero(chunk[:, offset:].any(axis=0))
            if sounding.size or count >= limit:
                return min(count + int(sounding[0] if sounding.size else 0), limit)
            count += chunk.shape[1] - offset
            offset = 0
        return min(count, limit)

    def _trim(self, count: int) -> None:
        """Drop ``count`` samples from the front, leaving at least a frame; crossfade the cut."""
        # Not the frame just pulled, which may be at the encoder: the fade lies in what comes next.
        fade = self._fade_samples
        taken = self._take(count + fade)
        gains = _fade_out(fade)
        across = taken[:, :fade] * gains + taken[:, -fade:] * (1 - gains)
        if self._offset:  # it counts from the first chunk, which is about to become the second
            self._chunks[0] = self._chunks[0][:, self._offset :]
            self._offset = 0
        self._chunks.appendleft(np.rint(across).astype(np.int16))
        self._queued += fade
        self._counters.trimmed += count

    def _take(self, limit: int) -> Int16Array:
        """Remove up to ``limit`` samples from the front of the queue into a new array."""
        taken = np.empty((self.channels, min(limit, self._queued)), np.int16)
        position = 0
        while position < taken.shape[1]:
            chunk = self._chunks[0]
            # An offset instead of a shorter chunk: a sentence of 30 s is not sliced 1,500 times.
            step = min(taken.shape[1] - position, chunk.shape[1] - self._offset)
            taken[:, position : position + step] = chunk[:, self._offset : self._offset + step]
            position += step
            self._offset += step
            if self._offset == chunk.shape[1]:
                self._chunks.popleft()
                self._offset = 0
        self._queued -= position
        return taken


def _fade_out(count: int) -> NDArray[np.float64]:
    """Return a raised cosine from just below 1 to exactly 0, shape ``(count,)``."""
    return 0.5 * (1 + np.cos(np.pi * np.arange(1, count + 1) / max(count, 1)))


def _faded(samples: Int16Array, gains: NDArray[np.float64]) -> Int16Array:
    return np.rint(samples * gains).astype(np.int16)
