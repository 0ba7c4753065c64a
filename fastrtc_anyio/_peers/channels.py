"""The queues between a transport and its session, the same for every transport.

The host side is async and belongs to the session's event loop. The transport side is made of plain
calls that never wait, so that it may run on another thread. What is plain on the host side, such as
``flush``, any thread may call too.

A waiting host task is woken once for any number of frames: it parks, the next frame posts one
wake-up, and then everything that has come is read without parking again. Under load this costs a
third of a wake-up for each frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from fastrtc_anyio._core.host import Host, Lock
from fastrtc_anyio._media.frames import AudioFrame, Int16Array
from fastrtc_anyio._media.playout import Played, PlayoutBuffer
from fastrtc_anyio._media.queues import LatestQueue, LiveEdgeQueue
from fastrtc_anyio._media.video import VideoFrame
from fastrtc_anyio.abc import (
    AudioInStatistics,
    AudioOutStatistics,
    AudioReceiveStream,
    AudioSendStream,
    MessageStatistics,
    MessageStream,
    VideoInStatistics,
    VideoOutStatistics,
    VideoReceiveStream,
    VideoSendStream,
)

__all__ = [
    "OUTBOX_LIMIT",
    "AudioInput",
    "AudioOutput",
    "BufferOptions",
    "Link",
    "MessageChannel",
    "VideoInput",
    "VideoOutput",
]

OUTBOX_LIMIT = 64
"""Messages kept in each direction."""


T = TypeVar("T")

_WORK_AHEAD = 30.0
"""Seconds: enough for text-to-speech that makes whole sentences."""
_LIVE_MARGIN = 0.2


class Link:
    """How a transport, on whatever thread, and the host share data: a lock, and the way home.

    Args:
        host: where the session runs.
        clock: seconds, the same on both sides.
    """

    def __init__(self, host: Host, clock: Callable[[], float]) -> None:
        self.lock = Lock()
        self.host = host
        self.clock = clock


@dataclass(frozen=True)
class BufferOptions:
    """Sizes of a connection's audio queues, in seconds, and what happens when they are full."""

    input_s: float = 1.0
    """Audio that waits for a slow reader. One that is further behind finds the newest next."""
    output_s: float = 30.0
    """Audio that a handler may work ahead of what is played; then it waits."""
    live: bool = False
    """Whether audio out is paced by a live source, such as the client's own voice: what piles up
    after a stall is then skipped."""

    def __post_init__(self) -> None:
        for name in ("input_s", "output_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)!r}")

    @classmethod
    def choose(cls, live: bool, output_s: float | None, input_s: float) -> BufferOptions:
        """The sizes for a stream. A live source never has more to send than what it hears has
        waited, and a little; then it never waits itself, and loses nothing it has heard."""
        usual = input_s + _LIVE_MARGIN if live else _WORK_AHEAD
        return cls(input_s, usual if output_s is None else output_s, live)


class _Parking:
    """Where host tasks wait for news. All of it is called under the lock."""

    def __init__(self, link: Link) -> None:
        self._host = link.host
        self._event: anyio.Event | None = None

    def park(self) -> anyio.Event:
        if self._event is None:
            self._event = anyio.Event()
        return self._event

    @property
    def occupied(self) -> bool:
        """Whether somebody waits."""
        return self._event is not None and self._event.statistics().tasks_waiting > 0

    def wake(self) -> None:
        event, self._event = self._event, None
        if event is not None:
            self._host.call(event.set)


async def _wait_for(lock: Lock, take: Callable[[], T | None], parking: _Parking) -> T:
    """Wait until ``take``, which is called under the lock, gives something.

    A checkpoint on every path, and no second one for a caller that had to wait. A call that is
    cancelled has taken nothing.
    """
    await checkpoint_if_cancelled()
    waited = False
    while True:
        with lock:
            taken = take()
            news = parking.park() if taken is None else None
        if taken is not None:
            if not waited:
                await cancel_shielded_checkpoint()
            return taken
        assert news is not None
        await news.wait()
        waited = True


class _Input(Generic[T]):
    """What comes from the client, until it ends."""

    def __init__(self, link: Link) -> None:
        self._lock = link.lock
        self._news = _Parking(link)
        self._ended = False

    async def receive(self) -> T:
        return await _wait_for(self._lock, self._take, self._news)

    def _take(self) -> T | None:
        item = self._pop()
        if item is None and self._ended:
            raise anyio.EndOfStream
        return item

    def _pop(self) -> T | None:
        raise NotImplementedError

    def end(self) -> None:
        """Transport side: nothing more will come."""
        with self._lock:
            self._ended = True
            self._news.wake()


class AudioInput(_Input[AudioFrame], AudioReceiveStream):
    """Audio from the client, bounded by age."""

    def __init__(self, link: Link, limit_seconds: float = 1.0) -> None:
        super().__init__(link)
        self._queue = LiveEdgeQueue(limit_seconds)
        self._bytes = 0

    def _pop(self) -> AudioFrame | None:
        return self._queue.pop()

    def statistics(self) -> AudioInStatistics:
        with self._lock:
            queue = self._queue
            return AudioInStatistics(
                received=queue.received,
                dropped=queue.dropped,
                buffered=len(queue),
                buffered_seconds=queue.buffered_seconds,
                latency=queue.latency,
                bytes=self._bytes,
            )

    def push(self, frame: AudioFrame) -> None:
        """Transport side: a frame came. After :meth:`end` it is ignored."""
        with self._lock:
            if not self._ended:
                self._queue.push(frame)
                self._bytes += frame.samples.nbytes
                self._news.wake()


class AudioOutput(AudioSendStream):
    """Audio to the client: the playout buffer with somebody waiting at its door."""

    def __init__(
        self,
        link: Link,
        sample_rate: int,
        channels: int,
        limit_seconds: float = 30.0,
        *,
        live: bool = False,
    ) -> None:
        self.sample_rate = sample_rate
        self.channels = channels
        self._lock = link.lock
        self._room = _Parking(link)
        self._played = _Parking(link)
        self._buffer = PlayoutBuffer(sample_rate, channels, limit_seconds, live=live)
        self._ended = False

    @property
    def generation(self) -> int:
        return self._buffer.generation

    async def send(self, samples: Int16Array, generation: int | None = None) -> None:
        own = self.generation if generation is None else generation

        def put() -> bool | None:
            if self._ended:
                raise anyio.BrokenResourceError
            if self._buffer.generation != own:
                self._buffer.discard(samples)
                return True
            if not self._buffer.has_room:
                return None
            self._buffer.push(samples)
            return True

        await _wait_for(self._lock, put, self._room)

    def flush(self) -> Played:
        with self._lock:
            played = self._buffer.flush()
            self._wake_senders()
            return played

    def pause(self) -> None:
        with self._lock:
            self._buffer.pause()

    def resume(self) -> None:
        with self._lock:
            self._buffer.resume()

    async def wait_played(self) -> None:
        await _wait_for(
            self._lock, lambda: (self._ended or self._buffer.drained) or None, self._played
        )

    def statistics(self) -> AudioOutStatistics:
        with self._lock:
            buffer = self._buffer
            return AudioOutStatistics(
                sent=buffer.pushed_samples,
                played=buffer.played_samples,
                flushed=buffer.flushed_samples,
                trimmed=buffer.trimmed_samples,
                buffered=buffer.buffered_samples,
                underruns=buffer.underruns,
                latency=buffer.buffered_seconds,
                bytes=buffer.pushed_samples * self.channels * 2,
            )

    def pull(self) -> Int16Array:
        """Transport side: the next 20 ms to play, int16 ``(channels, sample_rate // 50)``."""
        with self._lock:
            samples = self._buffer.pull(held_back=self._room.occupied)
            self._wake_senders()
            return samples

    def end(self) -> None:
        """Transport side: nothing more will be played."""
        with self._lock:
            self._ended = True
            self._room.wake()
            self._played.wake()

    def _wake_senders(self) -> None:
        if self._buffer.has_room:
            self._room.wake()
        if self._buffer.drained:
            self._played.wake()


class VideoInput(_Input[VideoFrame], VideoReceiveStream):
    """Pictures from the client: the latest."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._clock = link.clock
        self._queue: LatestQueue[VideoFrame] = LatestQueue()

    def _pop(self) -> VideoFrame | None:
        return self._queue.pop(self._clock())

    def statistics(self) -> VideoInStatistics:
        with self._lock:
            queue = self._queue
            return VideoInStatistics(queue.received, queue.dropped, len(queue), queue.latency)

    def push(self, frame: VideoFrame) -> None:
        """Transport side: a picture came. After :meth:`end` it is ignored."""
        with self._lock:
            if not self._ended:
                self._queue.push(frame, self._clock())
                self._news.wake()


class VideoOutput(VideoSendStream):
    """Pictures to the client: one that waits for its time, and one that is being sent.

    The transport pulls a picture when :attr:`due` has come, and pulls again when it has sent it.
    """

    def __init__(self, link: Link, fps: float, kick: Callable[[], None] = lambda: None) -> None:
        """``kick`` is called on the host whenever there is a picture to show, or nothing more."""
        self.fps = fps
        self.due: float | None = None
        """When the next picture may be shown, by the link's clock; None before the first pull."""
        self._link = link
        self._kick = kick
        self._news = _Parking(link)
        self._waiting: tuple[VideoFrame, float] | None = None
        self._being_sent = False
        self._draining = 0
        self._sent = self._played = self._flushed = 0
        self._latency = 0.0
        self._ended = False

    async def send(self, frame: VideoFrame) -> None:
        def put() -> int | None:
            self._check_open()
            if self._waiting is not None:
                return None
            self._waiting = (frame, self._link.clock())
            self._sent += 1
            return self._sent

        number = await _wait_for(self._link.lock, put, self._news)
        self._kick()

        def is_taken() -> bool | None:
            return True if self._played + self._flushed >= number else None

        await _wait_for(self._link.lock, is_taken, self._news)

    async def wait_ready(self, lead: float = 0.0) -> None:
        def next_due() -> float | None:
            self._check_open()
            return self.due if self._waiting is None else None

        due = await _wait_for(self._link.lock, next_due, self._news)
        early = due - lead - self._link.clock()
        if early > 0:
            await anyio.sleep(early)

    def flush(self) -> None:
        with self._link.lock:
            self._drop()

    async def wait_played(self) -> None:
        def is_played() -> bool | None:
            return True if self._ended or not (self._waiting or self._being_sent) else None

        self._draining += 1
        self._kick()
        try:
            await _wait_for(self._link.lock, is_played, self._news)
        finally:
            self._draining -= 1

    @property
    def draining(self) -> bool:
        """Transport side: whether no more is to come, and somebody waits for the last to arrive."""
        return self._draining > 0 and self._waiting is None

    def statistics(self) -> VideoOutStatistics:
        with self._link.lock:
            return VideoOutStatistics(
                sent=self._sent,
                played=self._played,
                flushed=self._flushed,
                buffered=int(self._waiting is not None),
                latency=self._latency,
            )

    def pull(self) -> VideoFrame | None:
        """Transport side: the next picture, if there is one. The one before it has been sent."""
        with self._link.lock:
            now = self._link.clock()
            self._news.wake()
            self._being_sent = False
            if self._waiting is None:
                self.due = now if self.due is None else self.due
                return None
            (frame, since), self._waiting = self._waiting, None
            self._being_sent = True
            self._latency = now - since
            self._played += 1
            # One that was late may be followed sooner: on the average the rate is kept.
            self.due = max((now if self.due is None else self.due) + 1 / self.fps, now)
            return frame

    def end(self) -> None:
        """Transport side: nothing more will be shown."""
        with self._link.lock:
            self._ended = True
            self._drop()

    def _check_open(self) -> None:
        if self._ended:
            raise anyio.BrokenResourceError

    def _drop(self) -> None:
        if self._waiting is not None:
            self._waiting = None
            self._flushed += 1
        self._news.wake()


class MessageChannel(MessageStream):
    """Text messages, kept until the channel is open and until somebody reads them."""

    def __init__(self, link: Link, kick: Callable[[], None]) -> None:
        """``kick`` is called on the host whenever the outbox has something new."""
        self._lock = link.lock
        self._kick = kick
        self._outbox: deque[str] = deque()
        self._inbox: deque[str] = deque()
        self._news = _Parking(link)
        self._opened = _Parking(link)
        self._open = False
        self._ended = False
        self._sent = self._received = self._dropped_out = self._dropped_in = 0
        self._bytes_sent = self._bytes_received = 0

    def send_nowait(self, text: str) -> None:
        with self._lock:
            if self._ended:
                return
            self._sent += 1
            self._bytes_sent += _size(text)
            if len(self._outbox) == OUTBOX_LIMIT:
                self._outbox.popleft()
                self._dropped_out += 1
            self._outbox.append(text)
        self._kick()

    async def receive(self) -> str:
        def take() -> str | None:
            if self._inbox:
                return self._inbox.popleft()
            if self._ended:
                raise anyio.EndOfStream
            return None

        return await _wait_for(self._lock, take, self._news)

    @property
    def is_open(self) -> bool:
        return self._open and not self._ended

    async def wait_open(self) -> None:
        def look() -> bool | None:
            if self._ended:
                raise anyio.EndOfStream
            return self._open or None

        await _wait_for(self._lock, look, self._opened)

    def statistics(self) -> MessageStatistics:
        with self._lock:
            return MessageStatistics(
                sent=self._sent,
                received=self._received,
                dropped_out=self._dropped_out,
                dropped_in=self._dropped_in,
                waiting_out=len(self._outbox),
                waiting_in=len(self._inbox),
                bytes_sent=self._bytes_sent,
                bytes_received=self._bytes_received,
            )

    def refuse(self) -> None:
        """Transport side: a message that was taken could not be sent."""
        with self._lock:
            self._dropped_out += 1

    def take(self) -> str | None:
        """Transport side: the next message to send."""
        with self._lock:
            return self._outbox.popleft() if self._outbox else None

    @property
    def has_outgoing(self) -> bool:
        """Transport side: whether :meth:`take` has something to give."""
        return bool(self._outbox)

    def push(self, text: str) -> None:
        """Transport side: a message came. After :meth:`end` it is ignored."""
        with self._lock:
            if self._ended:
                return
            self._received += 1
            self._bytes_received += _size(text)
            if len(self._inbox) == OUTBOX_LIMIT:
                self._inbox.popleft()
                self._dropped_in += 1
            self._inbox.append(text)
            self._news.wake()

    def open(self) -> None:
        """Transport side: from now on messages reach the client."""
        with self._lock:
            self._open = True
            self._opened.wake()

    def shut(self) -> None:
        """Transport side: until :meth:`open`, messages do not reach the client any more."""
        with self._lock:
            self._open = False

    def end(self) -> None:
        """Transport side: the channel is gone. What is unsent counts as dropped."""
        with self._lock:
            self._ended = True
            self._dropped_out += len(self._outbox)
            self._outbox.clear()
            self._news.wake()
            self._opened.wake()


def _size(text: str) -> int:
    """Bytes in UTF-8; half a surrogate pair, which no transport can carry, counts as it is."""
    return len(text.encode("utf-8", "surrogatepass"))
