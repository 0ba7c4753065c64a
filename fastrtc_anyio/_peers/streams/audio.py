"""Audio streams: a queue from the client bounded by age, and playout to the client."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import anyio
import numpy as np
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.options import check_number
from fastrtc_anyio._media.convert import AudioConverter
from fastrtc_anyio._media.frames import FRAMES_PER_SECOND, AudioFrame, Int16Array
from fastrtc_anyio._media.gaps import GapFiller
from fastrtc_anyio._media.playout import Played, PlayoutBuffer
from fastrtc_anyio._media.queues import LiveEdgeQueue
from fastrtc_anyio._media.read import AudioLike, read_audio
from fastrtc_anyio.abc import (
    AudioInStatistics,
    AudioOutStatistics,
    AudioReceiveStream,
    AudioSendStream,
)

from .input import Input
from .link import Link, Parking, wait_for

_WORK_AHEAD = 30.0
"""Seconds: enough for text-to-speech that generates whole sentences."""
_LIVE_MARGIN = 0.2
_STALL_S = 0.1
"""Seconds a waiting reader may be woken late before the delay counts as a stall of this process."""
_RECHECK_S = 0.05
"""Seconds between two checks whether a client can be reached again."""
_PIECES_PER_SECOND = 4
"""Pieces that a long chunk is converted in, per second of audio."""
_PIECE = 12_000
"""Most samples of such a piece."""
_SHORT_S = 0.06
"""Seconds of queued audio above which a source works ahead of playout."""


@dataclass(frozen=True)
class BufferOptions:
    """Sizes of the audio queues of a connection, in seconds, and the policy when they are full."""

    input_s: float = 1.0
    """Age limit of audio that waits for a slow reader. A reader further behind continues with the
    newest frame."""
    output_s: float = _WORK_AHEAD
    """Duration of audio that a handler may send ahead of playout before ``send`` waits."""
    live: bool | None = None
    """Whether outgoing audio follows a live source, such as the client's own voice. A delay that
    builds up during a stall is then trimmed. None: the same for a source that repeats the input;
    the delay of another one is trimmed only if it has been in real time at a lower delay before,
    and a burst of input accounts for the rise. False: nothing is trimmed."""

    def __post_init__(self) -> None:
        check_number("input_buffer_s", self.input_s, above=0, unit="seconds", finite=False)
        check_number("output_buffer_s", self.output_s, above=0, unit="seconds", finite=False)

    @classmethod
    def choose(cls, live: bool | None, output_s: float | None, input_s: float) -> BufferOptions:
        """Return the sizes for a stream; None stands for the default output size.

        A live source has at most the waiting input to send. With an output queue a little larger,
        it never waits itself and loses nothing of its input.
        """
        usual = input_s + _LIVE_MARGIN if live else _WORK_AHEAD
        return cls(input_s, usual if output_s is None else output_s, live)


class AudioInput(Input[AudioFrame, AudioInStatistics], AudioReceiveStream):
    """Audio from the client, bounded by age. Gaps in it are read as silence of the same length.

    ``heard`` returns the time of the last packet of any kind from the client, on the link's clock.
    Silence in real time ends there: a client that cannot be reached would miss the reply to it.
    ``probe`` asks the client for a packet.
    """

    def __init__(
        self,
        link: Link,
        limit_seconds: float = 1.0,
        heard: Callable[[], float] | None = None,
        probe: Callable[[], None] = lambda: None,
    ) -> None:
        self._frames = LiveEdgeQueue(limit_seconds)
        super().__init__(link, self._frames)
        self._heard = heard or link.clock
        self._probe = probe
        self._limit = limit_seconds
        self._gaps = GapFiller()
        self._awaited: float | None = None  # time at which the waiting reader is due
        self._caught_up = 0.0  # time of the last silence for a reader that had waited

    async def receive_or_silence(self) -> AudioFrame:
        self._awaited = None
        return await wait_for(
            self._link, lambda: self._pop() or self._fill(), self._arrived, self._due
        )

    def _pop(self) -> AudioFrame | None:
        frame = self._frames.pop()
        if frame is not None:
            self._link.input_lead.read(self._link.clock(), frame)
        elif self._ended:
            raise anyio.EndOfStream
        return frame

    def _fill(self) -> AudioFrame | None:
        gaps, now = self._gaps, self._link.clock()
        if self._awaited is not None:  # the reader has waited, so it is not behind
            if now - self._awaited > _STALL_S:
                # Not silence of the client: packets have arrived that this process did not read.
                gaps.stall(now - self._awaited)
            self._caught_up = now
        behind = now - self._limit
        frame = gaps.fill(min(now, self._heard()), behind if behind > self._caught_up else 0.0)
        if frame is not None:
            self._frames.count_silence(frame)
            self._link.input_lead.read(self._link.clock(), frame)
        return frame

    def _due(self) -> float | None:
        due, now = None if self._ended else self._gaps.due(), self._link.clock()
        if due is not None and due <= now:  # silence that waits for a sign of life
            self._probe()
            due = now + _RECHECK_S
        self._awaited = due
        return due

    def statistics(self) -> AudioInStatistics:
        counters = super().statistics()
        counters.skipped_seconds += self._gaps.skipped
        return counters

    def push(
        self,
        frame: AudioFrame,
        gap: float | None = None,
        concealed: bool = False,
        recovered: bool = False,
    ) -> None:
        """Transport side: queue a frame. Ignored after :meth:`end`.

        Args:
            frame: the frame.
            gap: seconds from the end of the frame pushed before to the start of this one on the
                client's clock. None if that is unknown: elapsed time then shows gaps.
            concealed: whether the frame replaces a lost one. It is dropped if silence has taken its
                place already.
            recovered: whether the frame is a lost one, decoded from redundancy.
        """
        with self._link.lock:
            if self._ended:
                return
            silence, duration = 0.0, frame.duration
            if duration:
                if concealed and self._gaps.absorb(duration):
                    return
                silence = self._gaps.arrive(self._link.clock(), frame, gap)
            self._frames.push(frame, silence)
            if concealed:
                self._frames.statistics.concealed_seconds += duration
            if recovered:
                self._frames.statistics.recovered_seconds += duration
            self._arrived.wake()

    def count_lost(self, packets: int) -> None:
        """Transport side: count packets that were lost or could not be decoded."""
        with self._link.lock:
            self._frames.statistics.lost += packets


class AudioOutput(AudioSendStream):
    """Audio to the client: a :class:`.PlayoutBuffer` with conversion and backpressure.

    With ``bound=False`` the transport's format is not known yet: the rate and channels are those
    asked for, and :meth:`send` waits for :meth:`bind`.
    """

    def __init__(
        self,
        link: Link,
        sample_rate: int,
        channels: int,
        buffers: BufferOptions,
        *,
        bound: bool = True,
    ) -> None:
        self._link = link
        self._options = buffers
        self._room = Parking(link)
        self._played = Parking(link)
        self._generation = 0
        self._ended = False
        self._turns = 0  # those of the link when audio was last queued without yielding
        self._bound = bound
        self.pushed_at: float = 0.0
        """Time of the last push for a short queue, on the link's clock: the source's pace."""
        self.needed_at: float = 0.0
        """Time of the last push before which less than a frame of 20 ms was queued."""
        self.frames_left: int = 0
        """Whole frames of 20 ms queued after the last pull."""
        self._set_format(sample_rate, channels)

    def _set_format(self, sample_rate: int, channels: int) -> None:
        options = self._options
        self._buffer = PlayoutBuffer(
            sample_rate,
            channels,
            options.output_s,
            live=bool(options.live),
            input_lead=None if options.live is False else self._link.input_lead,
        )
        self._convert = AudioConverter(sample_rate, channels)
        self._converted_generation = 0

    @property
    def sample_rate(self) -> int:
        return self._buffer.sample_rate

    @property
    def channels(self) -> int:
        return self._buffer.channels

    @property
    def position(self) -> int:
        return self._buffer.position

    async def send(self, frame: AudioLike) -> None:
        # The generation belongs to the moment of the call. No checkpoint precedes this
        # line, so a caller that was not cancelled is not behind a flush either.
        audio, generation = read_audio(frame), self._generation
        if not self._bound:
            await wait_for(self._link, self._is_bound, self._room)
        if self._converted_generation != generation:
            # The samples left in the filter were flushed with the rest.
            self._converted_generation = generation
            self._convert.reset()
        if audio.samples.shape[1] <= min(audio.sample_rate // _PIECES_PER_SECOND, _PIECE):
            samples = self._convert(audio)
        else:
            samples = await self._convert_in_pieces(audio)
        await self._queue(samples, generation)

    def _is_bound(self) -> bool | None:
        self._check_open()
        return self._bound or None

    async def _convert_in_pieces(self, audio: AudioFrame) -> Int16Array:
        """Convert a long chunk: a minute at once would block every session for seconds."""
        size = min(audio.sample_rate // _PIECES_PER_SECOND, _PIECE)
        pieces: list[Int16Array] = []
        for start in range(0, audio.samples.shape[1], size):
            await checkpoint()
            piece = audio.samples[:, start : start + size]
            pieces.append(self._convert(AudioFrame(audio.sample_rate, piece)))
        return np.concatenate(pieces, axis=1)

    async def _queue(self, samples: Int16Array, generation: int) -> None:
        """Queue samples of the stream's own format once there is room."""
        link = self._link
        if link.turns != self._turns:
            # A task of this session has waited since the last call, so other tasks have run. An
            # echo need not yield again for the same frame.
            self._turns = link.turns
            await link.host.backend.checkpoint_if_cancelled()
        else:
            await link.host.backend.checkpoint()
        with link.lock:
            done = self._put(samples, generation)
        if not done:
            await wait_for(link, lambda: self._put(samples, generation), self._room)

    def _put(self, samples: Int16Array, generation: int) -> bool | None:
        self._check_open()
        buffer = self._buffer
        if self._generation != generation:
            buffer.discard(samples)
        elif buffer.has_room:
            queued = buffer.buffered_seconds
            if queued < _SHORT_S:
                self.pushed_at = self._link.clock()
                if queued < 1 / FRAMES_PER_SECOND:
                    self.needed_at = self.pushed_at
            buffer.push(samples)
        else:
            return None
        return True

    def flush(self) -> Played:
        with self._link.lock:
            self._generation += 1
            played = self._buffer.flush()
            self._wake()
            return played

    def pause(self) -> None:
        with self._link.lock:
            self._buffer.pause()

    def resume(self) -> None:
        with self._link.lock:
            self._buffer.resume()

    def work_ahead(self) -> None:
        with self._link.lock:
            self._options = replace(self._options, live=False)
            self._buffer.trim_nothing()

    async def wait_played(self) -> None:
        rest = self._convert.flush()
        if rest.shape[1] and self._converted_generation == self._generation:
            with suppress(anyio.BrokenResourceError):
                await self._queue(rest, self._generation)
        await wait_for(self._link, lambda: self._is_played() or None, self._played)

    def _is_played(self) -> bool:
        return self._ended or self._buffer.drained

    def statistics(self) -> AudioOutStatistics:
        with self._link.lock:
            return self._buffer.statistics()

    def bind(self, sample_rate: int, channels: int) -> None:
        """Transport side: set the format, once it is known. Senders waiting for it continue."""
        with self._link.lock:
            paused = self._buffer.paused
            self._set_format(sample_rate, channels)
            if paused:
                self._buffer.pause()
            self._bound = True
            self._room.wake()

    def pull(self) -> Int16Array:
        """Transport side: take the next 20 ms, int16 ``(channels, sample_rate // 50)``."""
        with self._link.lock:
            samples = self._buffer.pull(held_back=self._room.occupied)
            self.frames_left = self._buffer.buffered_samples // samples.shape[1]
            self._wake()
            return samples

    def count_frames(self) -> int:
        """Transport side: return the number of whole frames of 20 ms that are queued."""
        with self._link.lock:
            return self._buffer.buffered_samples * FRAMES_PER_SECOND // self._buffer.sample_rate

    def skip(self, seconds: float) -> None:
        """Transport side: note that playout stood still for so long, for good."""
        with self._link.lock:
            self._link.input_lead.skip(self._link.clock(), seconds)

    def end(self) -> None:
        """Transport side: stop playout for good."""
        with self._link.lock:
            self._ended = True
            self._room.wake()
            self._played.wake()

    def _check_open(self) -> None:
        if self._ended:
            raise anyio.BrokenResourceError

    def _wake(self) -> None:
        if self._room.parked is not None and self._buffer.has_room:
            self._room.wake()
        if self._played.parked is not None and self._buffer.drained:
            self._played.wake()
