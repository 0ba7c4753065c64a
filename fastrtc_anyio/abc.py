"""Interfaces between a session and its transport.

A session serves a handler over a :class:`Peer` and knows nothing else of the client's connection.
WebRTC, WebSocket and in-memory peers are interchangeable behind these classes, and one conformance
suite (``fastrtc_anyio.testing.check_peer``) checks them.

Every object belongs to its host: the event loop of the session. Coroutines are for the host's
tasks; plain methods and properties may be used on any thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from anyio import EndOfStream
from anyio.abc import AsyncResource
from anyio.lowlevel import checkpoint

from ._media.frames import AudioFrame
from ._media.media_plan import MediaPlan
from ._media.statistics import (
    AudioInStatistics,
    AudioOutStatistics,
    DiscardStatistics,
    MessageStatistics,
    VideoInStatistics,
    VideoOutStatistics,
)
from ._media.video import PictureOrder, VideoFrame
from .errors import Closed

if TYPE_CHECKING:
    from ._media.playout import Played
    from ._media.read import AudioLike

__all__ = [
    "AsyncioBridge",
    "AudioInStatistics",
    "AudioOutStatistics",
    "AudioReceiveStream",
    "AudioSendStream",
    "DiscardStatistics",
    "MessageStatistics",
    "MessageStream",
    "Peer",
    "VideoInStatistics",
    "VideoOutStatistics",
    "VideoReceiveStream",
    "VideoSendStream",
]

T = TypeVar("T")


class _Iterable(Generic[T]):
    """Stream that can be iterated over; its end ends the loop."""

    async def receive(self) -> T:
        raise NotImplementedError

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except EndOfStream:
            raise StopAsyncIteration from None


class _Frames(_Iterable[AudioFrame]):
    def __init__(self, receive: Callable[[], Awaitable[AudioFrame]]) -> None:
        self._receive = receive

    async def receive(self) -> AudioFrame:
        return await self._receive()


class AudioReceiveStream(_Iterable[AudioFrame], ABC):
    """Audio from the client, at the rate and layout in which it arrives.

    Opus has neither. It is decoded at the handler's rate, or the next one that Opus has, and to the
    handler's channels.

    The queue is bounded by age. A reader that falls behind by less than the bound loses nothing. A
    reader further behind continues with the newest frame, and the frames skipped are counted.

    A gap in which the client sends nothing (a muted microphone, silence suppression, an outage) is
    read as silence of the same length, up to 60 s. The rest of a longer gap is skipped and counted.
    """

    @abstractmethod
    async def receive(self) -> AudioFrame:
        """Wait for the next frame: ``(sample_rate, int16 (channels, n))``.

        Raises:
            anyio.EndOfStream: the connection has ended and every frame was read.

        Cancellation:
            A cancelled call has not removed a frame from the queue.
        """

    async def receive_or_silence(self) -> AudioFrame:
        """Wait for the next frame, or for silence in its place.

        :meth:`receive` returns the silence of a gap when the gap has ended. This method returns it
        in real time, beginning when nothing has arrived for 0.2 s. Use it to react to a client
        that stops sending. Raises, and can be cancelled, as :meth:`receive`.
        """
        return await self.receive()

    def in_real_time(self) -> AsyncIterator[AudioFrame]:
        """Iterate over the results of :meth:`receive_or_silence`."""
        return _Frames(self.receive_or_silence)

    @abstractmethod
    def statistics(self) -> AudioInStatistics:
        """Return a copy of the counters."""


class AudioSendStream(ABC):
    """Audio to the client: a bounded queue, played in real time in frames of 20 ms.

    Silence is played while the queue is empty. :meth:`send` waits while it is full.

    The stream exists as soon as its peer does, and works from then on. Over WebRTC the codec
    decides about :attr:`sample_rate` and :attr:`channels`; until it is negotiated, :meth:`send`
    waits and every counter is zero.
    """

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Sample rate of the transport, in Hz. Audio at this rate is not resampled.

        The rate asked for until the codec of a WebRTC connection is known.
        """

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of the transport: 1 or 2. Like :attr:`sample_rate`, asked for at first."""

    @property
    @abstractmethod
    def position(self) -> int:
        """Samples per channel played so far, at :attr:`sample_rate`. Never decreases.

        A sample counts when it is handed to the transport, or on a telephone when the carrier
        confirms it. Silence between samples and the fade after a :meth:`flush` do not count, so
        the difference of two positions is the audio that was played in between.
        """

    @abstractmethod
    async def send(self, frame: AudioLike) -> None:
        """Queue audio, converted to the transport's rate and channels.

        Waits first while the queue is full. A chunk of any size is admitted when there is room.
        If the stream is flushed during the call, its audio is flushed, too.

        Args:
            frame: ``(rate, samples)`` or ``(rate, samples, layout)``; the rate from 1000 to
                384000 Hz, samples int16 or float32 (full scale 1.0) of shape ``(n,)``, ``(1, n)``
                or ``(2, n)``, the layout "mono" or "stereo".

        Raises:
            UnsupportedFormat: ``frame`` is something else. Nothing was queued.
            anyio.BrokenResourceError: the connection has ended.

        Cancellation:
            A cancelled call has queued nothing.
        """

    @abstractmethod
    def flush(self) -> Played:
        """Drop all queued audio and end a pause. The sound being played fades out within 5 ms.

        Returns:
            The audio played since the flush before: the difference of :attr:`position`.
        """

    @abstractmethod
    def pause(self) -> None:
        """Pause playout at the next frame, keeping the queue. Idempotent."""

    @abstractmethod
    def resume(self) -> None:
        """Continue playout with the sample at which it was paused. Idempotent."""

    def work_ahead(self) -> None:  # noqa: B027 - for streams that trim
        """Trim nothing from now on: the source, for instance text to speech, is not live."""

    @abstractmethod
    async def wait_played(self) -> None:
        """Wait until all audio sent was played or flushed, or the connection has ended."""

    @abstractmethod
    def statistics(self) -> AudioOutStatistics:
        """Return a copy of the counters."""


class VideoReceiveStream(_Iterable[VideoFrame], ABC):
    """Pictures from the client. Only the latest is kept, so a slow reader skips old pictures."""

    @abstractmethod
    async def receive(self) -> VideoFrame:
        """Wait for a picture that was not read yet.

        Raises:
            anyio.EndOfStream: the connection has ended and every picture was read.

        Cancellation:
            A cancelled call has not removed a picture from the queue.
        """

    @abstractmethod
    def statistics(self) -> VideoInStatistics:
        """Return a copy of the counters."""


class VideoSendStream(ABC):
    """Pictures to the client, at a limited frame rate."""

    fps: float
    """Maximum frame rate, in Hz."""

    @abstractmethod
    async def wait_ready(self, lead: float = 0.0) -> None:
        """Wait until a picture sent ``lead`` seconds from now would be shown at once.

        Call it before reading ``video_in``, with the time that processing a picture takes: the
        picture read is then as recent as possible when it is shown. If the call had to wait, and
        the picture held has become old meanwhile, it waits up to 0.1 s for a newer one.

        Raises:
            anyio.BrokenResourceError: the connection has ended.
        """

    @abstractmethod
    async def send(self, picture: object, order: PictureOrder = "bgr24") -> None:
        """Show a picture. Returns when it was handed to the transport, at its time.

        Args:
            picture: an array, uint8 or float32 (0 to 1), shape ``(height, width, 3)`` or
                ``(height, width)``; an ``av.VideoFrame``; or a :class:`VideoFrame`.
            order: order of the channels of an array.

        Raises:
            UnsupportedFormat: ``picture`` is something else. Nothing was queued.
            anyio.BrokenResourceError: the connection has ended.

        Cancellation:
            A cancelled call may have sent the picture.
        """

    @abstractmethod
    def flush(self) -> None:
        """Drop the picture that waits for its time."""

    @abstractmethod
    async def wait_played(self) -> None:
        """Wait until every picture sent was shown or flushed, or the connection has ended."""

    @abstractmethod
    def statistics(self) -> VideoOutStatistics:
        """Return a copy of the counters."""


class MessageStream(_Iterable[str], ABC):
    """Text messages in both directions: a data channel, or its equivalent on other transports."""

    @abstractmethod
    def send_nowait(self, text: str) -> None:
        """Put a message into the outbox.

        It leaves at once if the channel is open, otherwise as soon as it opens. The outbox holds
        64 messages; another one pushes out the oldest, which is counted as dropped. After the end
        of the connection the call does nothing. A lone surrogate, which no transport carries, is
        replaced by U+FFFD.
        """

    @abstractmethod
    async def receive(self) -> str:
        """Wait for the client's next message.

        The inbox holds 64 messages; another one pushes out the oldest, which is counted as
        dropped.

        Raises:
            anyio.EndOfStream: the connection has ended and every message was read.

        Cancellation:
            A cancelled call has not removed a message from the inbox.
        """

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether messages reach the client now."""

    @abstractmethod
    async def wait_open(self) -> None:
        """Wait until messages reach the client.

        Raises:
            anyio.EndOfStream: the connection has ended.
        """

    @abstractmethod
    def statistics(self) -> MessageStatistics:
        """Return a copy of the counters."""


class Peer(AsyncResource):
    """Connection to one client.

    The streams that :attr:`media` names exist from construction, and so does :attr:`messages`.
    """

    media: MediaPlan
    audio_in: AudioReceiveStream
    audio_out: AudioSendStream
    video_in: VideoReceiveStream
    video_out: VideoSendStream
    messages: MessageStream

    @abstractmethod
    async def wait_connected(self) -> None:
        """Wait until media can flow.

        Raises:
            PeerError: the connection ended before, or has ended since.
        """

    @abstractmethod
    async def wait_closed(self) -> Closed:
        """Wait until the connection has ended, and return the first reason."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection and free all its resources. Idempotent.

        Messages in the outbox have 500 ms to reach the client.

        Cancellation:
            Stops only the waiting: the close itself continues in the background.
        """

    async def run(self) -> None:
        """Carry the connection until it has ended.

        For transports that need a task of the host. For all others the call returns at once.
        """
        await checkpoint()

    async def transport_statistics(self) -> Mapping[str, Any]:
        """Return the transport's own counters under its own names; empty if it has none."""
        await checkpoint()
        return {}

    def discarded(self) -> DiscardStatistics:
        """Return the counters of malformed items, all zero if the transport counts none."""
        return DiscardStatistics()


class AsyncioBridge(Protocol):
    """Access to an asyncio event loop, for asyncio-only libraries."""

    @property
    def loop(self) -> Any:
        """The host's own loop under asyncio, else a loop in a thread, started on first use."""
        ...

    async def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await ``function(*args)`` on :attr:`loop`.

        Raises:
            RuntimeError: the coroutine was cancelled on its loop.
            Exception: the coroutine raised it.

        Cancellation:
            Cancels the coroutine and waits until it has ended.
        """
        ...
