"""Playout buffer of a transport: a queue of PCM that is read one 20 ms frame at a time.

Theory of operation. The host pushes PCM in chunks of any size. The transport pulls one frame every
20 ms and always gets a frame, padded with silence where samples are missing. Two flags decide what
a pull does:

* *sounding*: the last pull ended in real samples, so stopping now would click. A pull while
  sounding takes a full frame if the queue has one. Otherwise the pull is an underrun.
* *fading in*: a pause has faded the sound out, or an underrun has cut it off, so the next samples
  are faded in.

Playout starts with the first frame queued. A source with jitter then causes an underrun, and the
silence of 20 ms played in its place is the margin from then on: the buffer holds as much as the
jitter of the source has proven to need, on a steady source nothing. Less than a frame is played
padded, at the end of an utterance, or on its own if it has not grown since the last pull.

After the last sample before an underrun, its mirror image of 5 ms is faded out, so that the sound
does not end in a click. It is not part of the source and not counted.

Every sample pushed is played, flushed, trimmed or still buffered, and counted as exactly one of
those.

A standing delay, found by :mod:`.standing_delay`, is trimmed before the next pull takes its frame:
also a margin that is no longer needed. The cut is a crossfade of 5 ms from the samples before the
gap to those behind it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._core.options import check_number

from .frames import FRAMES_PER_SECOND, Int16Array, check_channels, check_pcm, check_sample_rate
from .input_lead import InputLead
from .standing_delay import EchoDelay, StandingDelay
from .statistics import AudioOutStatistics

# Long enough that cutting into a voice does not click, short enough to sound immediate.
FADE_SECONDS = 0.005


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
        pulled: samples per channel in the frame pulled last; the rest of that frame is silence, or
            the end of a sound that an underrun has cut off.
        silence: the frame returned, read-only, while there is nothing to play.
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
        self.silence: Int16Array = np.zeros((self.channels, self._frame_samples), np.int16)
        self.silence.flags.writeable = False
        self._chunks: deque[Int16Array] = deque()
        self._offset = 0  # samples of the first chunk that are already played
        self._queued = 0
        self._fading_tail: Int16Array | None = None  # samples that a flush left to be played
        self._tail_samples = 0  # of them that were queued
        self._waited: int | None = None  # samples queued when the last pull held them back
        self.paused = False
        self.sounding = False
        self._fading_in = False
        self._last: Int16Array = np.zeros((self.channels, 0), np.int16)  # end of the last frame
        self._flushed_at = 0  # position at the last flush
        self._excess = 0  # samples to trim before the next frame
        self._counters = AudioOutStatistics()
        self._input_lead = input_lead
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
            self._count_sent(samples)

    def discard(self, samples: Int16Array) -> None:
        """Count samples as pushed and flushed at once: their flush came before their push."""
        self._count_sent(samples)
        self._counters.flushed += int(samples.shape[1])

    def _count_sent(self, samples: Int16Array) -> None:
        self._counters.sent += int(samples.shape[1])
        if self._input_lead is not None:
            self._input_lead.send(samples, self.sample_rate)

    def flush(self, *, fade: bool = True) -> Played:
        """Drop all queued samples and end a pause.

        If sound is playing, up to 5 ms of the next samples are kept and faded out, so that nothing
        clicks; what is missing of them is the mirror image of the last sound. They count as played
        when they are pulled, but not in `position`. No other sample pushed before the flush is ever
        pulled.

        Args:
            fade: False to keep nothing, for a transport that cuts the sound itself.

        Returns:
            The amount played since the previous flush.
        """
        if self.sounding and fade:
            tail = self._take(self._fade_samples)
            self._tail_samples = int(tail.shape[1])
            # An echo has little or nothing queued: the last sound is continued, mirrored.
            sound = np.concatenate([self._last, tail], axis=1)[:, ::-1]
            tail = np.concatenate([tail, sound], axis=1)[:, : self._fade_samples]
            self._fading_tail = _faded(tail, _fade_out(tail.shape[1]))
        self._counters.flushed += self._queued
        self._chunks.clear()
        self._offset = 0
        self._queued = 0
        self._waited = None
        self._excess = 0
        self.paused = False
        self.sounding = False
        self._fading_in = False
        samples = self.position - self._flushed_at
        self._flushed_at = self.position
        return Played(samples, samples / self.sample_rate)

    def pause(self) -> None:
        """Stop playout; the next pull fades out the sound. Idempotent."""
        self.paused = True

    def resume(self) -> None:
        """Continue with the next sample, faded in over 5 ms. Idempotent."""
        self.paused = False

    def trim_nothing(self) -> None:
        """Trim no standing delay from now on."""
        self._delay = None
        self._excess = 0

    def pull(self, *, held_back: bool = False) -> Int16Array:
        """Take the next 20 ms. A standing delay may be trimmed before them.

        Args:
            held_back: whether a sender waits for room at this moment. The source then works ahead,
                so the samples queued are not a delay.

        Returns:
            int16, shape ``(channels, sample_rate // 50)``, zero where there is nothing to play. A
            new array, unless it is `silence`. Never raises.
        """
        if self._fading_tail is not None:
            frame = self._pad(self._fading_tail)
            self.pulled = self._tail_samples
            self._fading_tail, self._tail_samples = None, 0
        else:
            frame = self._next_frame()
            self.position += self.pulled
        self._counters.played += self.pulled
        if self._delay is not None:
            if self.sounding:
                self._excess = self._find_excess(self._delay, held_back)
            else:
                self._excess = 0
                self._delay.silence()
        return frame

    def _next_frame(self) -> Int16Array:
        """Return the next frame, and set `pulled`."""
        if self.paused:
            return self._fade_to_pause()
        queued, waited = self._queued, self._waited
        if queued >= self._frame_samples:
            return self._play(self._frame_samples)
        if self.sounding:
            # Playout stops here, at the end of an utterance or because the source is late. Play the
            # rest now: holding it back would only move the gap in front of it.
            self._counters.underruns += 1
            return self._play_rest(queued)
        self._waited = queued or None
        if queued and queued == waited:  # it does not grow: the source has stopped
            return self._play_rest(queued)
        self.pulled = 0
        return self.silence

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
        return self._queued + self._tail_samples

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

    def _fade_to_pause(self) -> Int16Array:
        self.pulled = 0
        if not self.sounding:
            return self.silence
        self.sounding = False
        if not self._queued:
            self._counters.underruns += 1
            return self._fade_cut(0, np.zeros_like(self.silence))
        samples = self._take(self._fade_samples)
        self.pulled = int(samples.shape[1])
        self._fading_in = True
        return self._pad(_faded(samples, _fade_out(self.pulled)))

    def _play(self, count: int) -> Int16Array:
        """Return the next samples of the queue, faded in after a cut."""
        if self._excess and self._queued >= count + self._excess:
            self._trim(self._excess)
        frame = self._take(count)
        if self._fading_in:
            fade = min(count, self._fade_samples)
            frame[:, :fade] = _faded(frame[:, :fade], _fade_out(fade)[::-1])
            self._fading_in = False
        self.pulled = count
        self._waited = None
        self._last = frame[:, -self._fade_samples :]
        self.sounding = True
        return frame

    def _play_rest(self, count: int) -> Int16Array:
        """Return the rest of the queue, and the end of the sound."""
        before = self._last if self.sounding else self._last[:, :0]
        frame = self._pad(self._play(count)) if count else np.zeros_like(self.silence)
        self.pulled = count
        if count < self._fade_samples:
            self._last = np.concatenate([before, frame[:, :count]], axis=1)
        # A padded frame ends in silence, so the next samples start a new utterance.
        self.sounding = False
        return self._fade_cut(count, frame)

    def _fade_cut(self, count: int, frame: Int16Array) -> Int16Array:
        """Continue the last sound behind ``count`` samples of a frame, mirrored and faded out."""
        room = min(self._fade_samples, self._frame_samples - count, self._last.shape[1])
        real_time = self._delay is not None and self._delay.follows_input
        if room and real_time and self._last[:, -1].any():
            mirrored = self._last[:, : -room - 1 : -1]
            frame[:, count : count + room] = _faded(mirrored, _fade_out(room))
            self._fading_in = True
        elif not count:
            return self.silence
        return frame

    def _pad(self, samples: Int16Array) -> Int16Array:
        frame = np.zeros_like(self.silence)
        frame[:, : samples.shape[1]] = samples
        return frame

    def _find_excess(self, delay: StandingDelay, held_back: bool) -> int:
        """Return the samples that have been found to be a delay."""
        count = delay.excess(self._queued, held_back)
        if count or not self._chunks or self._chunks[0][0, self._offset]:  # no silence in front
            return count
        if silent := delay.silent_excess(self._queued):
            # The crossfade must not reach the sound behind the silence.
            silence = self._count_silence(silent + self._fade_samples) - self._fade_samples
            count = max(0, min(silence, silent))
        return count

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
        """Drop ``count`` samples from the front of a frame and more; crossfade the cut."""
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
        self._excess = 0
        if self._delay is not None:
            self._delay.note_trim(count)

    def _take(self, limit: int) -> Int16Array:
        """Remove up to ``limit`` samples from the front of the queue, into an own array."""
        if not self._offset and self._chunks and self._chunks[0].shape[1] == limit:
            self._queued -= limit
            return self._chunks.popleft()
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
