"""What a transport plays next: a queue of PCM that is read one 20 ms frame at a time.

Theory of operation. The host pushes PCM in whatever chunks the handler makes; the transport pulls
one frame every 20 ms and always gets one: samples where there are some, silence where not. Two
flags decide what a pull does:

* *sounding*: the last pull ended in real samples, so stopping now would click. A pull while
  sounding takes a full frame if there is one. If there is none, that is an underrun.
* *resuming*: a pause faded the sound out, so what comes next has to be faded in.

While not sounding, playing starts as soon as two frames are there, or what is there has already
waited through one pull: 20 to 40 ms of margin against jitter in the source. Less than a frame is
played padded: at the end of an utterance, or alone if it has not grown since the last pull.

Every sample pushed is played, flushed, trimmed or still buffered, and counted as exactly one of
those.

Live playout trims a standing delay, which :mod:`.standing_delay` finds. The cut is a crossfade of
5 ms from what would have come next to what comes after the gap.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio.errors import UnsupportedFormat

from .frames import FRAMES_PER_SECOND, MAX_CHANNELS, Int16Array, check_pcm, check_sample_rate
from .standing_delay import StandingDelay

# Long enough that cutting into a voice does not click, short enough to be heard as at once.
FADE_SECONDS = 0.005
# Frames that have to be there before playing starts at once.
START_FRAMES = 2


@dataclass(frozen=True)
class Played:
    """How much was really played.

    Attributes:
        samples: Samples per channel handed to the transport, silence not counted.
        seconds: The same, in seconds.
    """

    samples: int
    seconds: float


class PlayoutBuffer:
    """PCM queued for one listener, bounded by duration.

    The bound is for the host to keep: it pushes while `has_room`. One chunk of any size is
    admitted when there is room, so that a text-to-speech engine may hand over whole sentences.

    Args:
        sample_rate: Samples per second and channel, Hz; a multiple of 50 from 8000 to 48000.
        channels: 1 or 2.
        limit_seconds: There is room while less than this is buffered.
        live: Whether a standing delay is trimmed. It can only be seen below the limit, so this
            has to be longer than the backlog a source may hand over after it stalled.

    Raises:
        TypeError: if the sample rate is not a whole number.
        ValueError: if the sample rate or the limit is out of range.
        UnsupportedFormat: if there are not 1 or 2 channels.
    """

    def __init__(
        self, sample_rate: int, channels: int, limit_seconds: float, *, live: bool = False
    ) -> None:
        self._rate = check_sample_rate(sample_rate)
        if not 1 <= channels <= MAX_CHANNELS:
            raise UnsupportedFormat(f"expected 1 or 2 channels, got {channels}")
        if not limit_seconds > 0:
            raise ValueError(f"limit_seconds must be positive, got {limit_seconds!r}")
        self._channels = channels
        self._limit = limit_seconds
        self._frame_samples = self._rate // FRAMES_PER_SECOND
        self._fade_samples = int(self._rate * FADE_SECONDS)
        self._chunks: deque[Int16Array] = deque()
        self._offset = 0  # samples of the first chunk that are already played
        self._queued = 0
        self._fading_tail: Int16Array | None = None  # what a flush left to be played
        self._waited: int | None = None  # how much was queued when the last pull held it back
        self._paused = False
        self._sounding = False
        self._resuming = False
        self._pushed_samples = 0
        self._played_samples = 0
        self._flushed_samples = 0
        self._trimmed_samples = 0
        self._played_before = 0  # value of played_samples where the current reply begins
        self._underruns = 0
        self._generation = 0
        self._delay = StandingDelay(self._frame_samples) if live else None

    # -- the host's side

    def push(self, samples: Int16Array) -> None:
        """Queue samples behind those already there. They are copied.

        Args:
            samples: int16, shape ``(channels, n)``; ``n`` may be 0.

        Raises:
            UnsupportedFormat: for another dtype or shape.
        """
        check_pcm(samples, self._channels)
        count = int(samples.shape[1])
        if count:
            self._chunks.append(samples.copy(order="C"))
            self._queued += count
            self._pushed_samples += count

    def discard(self, samples: Int16Array) -> None:
        """Count samples as pushed and flushed: they came too late for the flush they belong to.

        Raises:
            UnsupportedFormat: for another dtype or shape.
        """
        check_pcm(samples, self._channels)
        self._pushed_samples += int(samples.shape[1])
        self._flushed_samples += int(samples.shape[1])

    def flush(self, *, fade: bool = True) -> Played:
        """Drop everything queued, end a pause, and begin a new reply.

        If sound is playing, at most 5 ms of what would have come next is kept and faded out, so
        that nothing clicks. It counts as played when it is pulled, and to no reply. Nothing else
        that was pushed before is ever pulled.

        Args:
            fade: False to keep nothing: the transport itself cuts what is sounding.

        Returns:
            What was played since the previous flush.
        """
        if self._sounding and fade:
            tail = self._take(self._fade_samples)
            self._fading_tail = _faded(tail, _fade_out(tail.shape[1])) if tail.size else None
        self._flushed_samples += self._queued
        self._chunks.clear()
        self._offset = 0
        self._queued = 0
        self._waited = None
        self._paused = False
        self._sounding = False
        self._resuming = False
        self._generation += 1
        samples = self._played_samples - self._played_before
        self._played_before = self._played_samples
        return Played(samples, samples / self._rate)

    def pause(self) -> None:
        """Stop consuming; the next pull fades out what is sounding. Idempotent."""
        self._paused = True

    def resume(self) -> None:
        """Go on from the very next sample, faded in over 5 ms. Idempotent."""
        self._paused = False

    # -- the transport's side

    def pull(self, *, held_back: bool = False) -> Int16Array:
        """Take the next 20 ms. If playout is live, a standing delay may be trimmed behind them.

        Args:
            held_back: Whether somebody waits for room at this moment. Then the source works ahead
                and what is queued is no delay. Only live playout asks.

        Returns:
            A new array, int16, shape ``(channels, sample_rate // 50)``; zeros where there is
            nothing to play. Never raises.
        """
        frame = np.zeros((self._channels, self._frame_samples), np.int16)
        if self._fading_tail is not None:
            self._play_fading_tail(frame)
        elif self._paused:
            if self._sounding:
                self._fade_to_pause(frame)
        elif self._may_play():
            self._play(frame)
        if self._delay is not None:
            if self._sounding:
                self._trim(self._delay.excess(self._queued, held_back))
            else:
                self._delay.silence()
        return frame

    def _play_fading_tail(self, frame: Int16Array) -> None:
        assert self._fading_tail is not None
        count = self._fading_tail.shape[1]
        frame[:, :count] = self._fading_tail
        self._fading_tail = None
        self._played_samples += count
        self._played_before += count

    def _fade_to_pause(self, frame: Int16Array) -> None:
        samples = self._take(self._fade_samples)
        count = samples.shape[1]
        frame[:, :count] = _faded(samples, _fade_out(count))
        self._played_samples += count
        self._sounding = False
        if count:
            self._resuming = True
        else:
            self._underruns += 1

    def _may_play(self) -> bool:
        """Whether this pull plays; if not, notes what it held back."""
        queued, waited = self._queued, self._waited
        self._waited = queued or None
        if self._sounding and queued < self._frame_samples:
            # Playing stops here, be it the end of an utterance or a source that is late: what is
            # there is played now, as holding it back would only put the gap before it.
            self._sounding = False
            self._underruns += 1
            return queued > 0
        if self._sounding or queued >= START_FRAMES * self._frame_samples:
            return True
        if queued >= self._frame_samples:
            return waited is not None or self._resuming
        return queued > 0 and queued == waited

    def _play(self, frame: Int16Array) -> None:
        samples = self._take(self._frame_samples)
        count = samples.shape[1]
        if self._resuming:
            fade = min(count, self._fade_samples)
            samples[:, :fade] = _faded(samples[:, :fade], _fade_out(fade)[::-1])
            self._resuming = False
        frame[:, :count] = samples
        self._played_samples += count
        self._waited = None
        # A padded frame ends in silence: whatever comes next is a new beginning.
        self._sounding = count == self._frame_samples

    def _trim(self, count: int) -> None:
        """Drop ``count`` samples from the front, which leaves at least a frame; fade across."""
        if not count:
            return
        fade = self._fade_samples
        taken = self._take(count + fade)
        gains = _fade_out(fade)
        across = taken[:, :fade] * gains + taken[:, -fade:] * (1 - gains)
        if self._offset:
            self._chunks[0] = self._chunks[0][:, self._offset :]
            self._offset = 0
        self._chunks.appendleft(np.rint(across).astype(np.int16))
        self._queued += fade
        self._trimmed_samples += count

    def _take(self, limit: int) -> Int16Array:
        """Remove at most ``limit`` samples from the front of the queue into a new array."""
        taken = np.empty((self._channels, min(limit, self._queued)), np.int16)
        position = 0
        while position < taken.shape[1]:
            chunk = self._chunks[0]
            step = min(taken.shape[1] - position, chunk.shape[1] - self._offset)
            taken[:, position : position + step] = chunk[:, self._offset : self._offset + step]
            position += step
            self._offset += step
            if self._offset == chunk.shape[1]:
                self._chunks.popleft()
                self._offset = 0
        self._queued -= position
        return taken

    # -- what can be asked

    @property
    def sample_rate(self) -> int:
        """Samples per second and channel, Hz."""
        return self._rate

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self._channels

    @property
    def buffered_samples(self) -> int:
        """Samples per channel that are still to be played, a fading tail included."""
        tail = 0 if self._fading_tail is None else int(self._fading_tail.shape[1])
        return self._queued + tail

    @property
    def buffered_seconds(self) -> float:
        """The same, in seconds."""
        return self.buffered_samples / self._rate

    @property
    def has_room(self) -> bool:
        """Whether the next chunk may be pushed."""
        return self.buffered_seconds < self._limit

    @property
    def drained(self) -> bool:
        """Whether nothing is left to play."""
        return self.buffered_samples == 0

    @property
    def sounding(self) -> bool:
        """Whether the last pull ended in real samples."""
        return self._sounding

    @property
    def paused(self) -> bool:
        """Whether playing is paused."""
        return self._paused

    @property
    def pushed_samples(self) -> int:
        """Samples per channel pushed so far."""
        return self._pushed_samples

    @property
    def played_samples(self) -> int:
        """Samples per channel handed out so far, silence not counted. Never goes back."""
        return self._played_samples

    @property
    def flushed_samples(self) -> int:
        """Samples per channel dropped by `flush` so far."""
        return self._flushed_samples

    @property
    def trimmed_samples(self) -> int:
        """Samples per channel dropped so far to end a standing delay; 0 if not live."""
        return self._trimmed_samples

    @property
    def underruns(self) -> int:
        """How often playing stopped for want of samples, the end of an utterance included."""
        return self._underruns

    @property
    def generation(self) -> int:
        """Number of flushes so far."""
        return self._generation


def _fade_out(count: int) -> NDArray[np.float64]:
    """A raised cosine from just below 1 to exactly 0, shape ``(count,)``."""
    if count == 0:
        return np.empty(0)
    return 0.5 * (1 + np.cos(np.pi * np.arange(1, count + 1) / count))


def _faded(samples: Int16Array, gains: NDArray[np.float64]) -> Int16Array:
    return np.rint(samples * gains).astype(np.int16)
