"""What a transport is to a session.

A session drives a handler against a :class:`Peer` and knows nothing else of how the client is
connected. WebRTC, WebSocket and in-memory peers are interchangeable behind these classes, and one
conformance suite (``fastrtc_anyio.testing.check_peer``) holds them to it.

All of it belongs to the host: the event loop the session runs on. What is a coroutine is for its
tasks; the plain methods may be called from any thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from anyio import EndOfStream
from anyio.abc import AsyncResource
from anyio.lowlevel import checkpoint

from ._media.frames import AudioFrame, Int16Array
from ._media.media_plan import MediaPlan
from ._media.video import VideoFrame
from .errors import Closed

if TYPE_CHECKING:
    from ._media.playout import Played

__all__ = [
    "AsyncioBridge",
    "AudioInStatistics",
    "AudioOutStatistics",
    "AudioReceiveStream",
    "AudioSendStream",
    "MessageStatistics",
    "MessageStream",
    "Peer",
    "VideoInStatistics",
    "VideoOutStatistics",
    "VideoReceiveStream",
    "VideoSendStream",
]

T = TypeVar("T")


@dataclass(frozen=True)
class AudioInStatistics:
    """Counters of an :class:`AudioReceiveStream`. ``received == read + dropped + buffered``."""

    received: int
    """Frames that came from the client."""
    dropped: int
    """Frames skipped because the reader was further behind than the bound."""
    buffered: int
    """Frames waiting to be read."""
    buffered_seconds: float
    latency: float
    """Seconds by which the frame read last was behind the newest one."""
    bytes: int
    """Of PCM received."""


@dataclass(frozen=True)
class AudioOutStatistics:
    """Counters of an :class:`AudioSendStream`, in samples for each channel.

    ``sent == played + flushed + trimmed + buffered``.
    """

    sent: int
    """Samples given to :meth:`AudioSendStream.send`."""
    played: int
    """Samples handed to the transport. Silence played for want of samples is not counted."""
    flushed: int
    """Samples dropped by :meth:`AudioSendStream.flush`."""
    trimmed: int
    """Samples of a live stream that were skipped to end a standing delay."""
    buffered: int
    """Samples waiting to be played."""
    underruns: int
    """How often the samples ran out while playing."""
    latency: float
    """Seconds until what is sent now is played."""
    bytes: int
    """Of PCM sent."""


@dataclass(frozen=True)
class VideoInStatistics:
    """Counters of a :class:`VideoReceiveStream`. ``received == read + dropped + buffered``."""

    received: int
    """Frames that came from the client."""
    dropped: int
    """Frames that a newer one replaced before anybody read them."""
    buffered: int
    """Frames waiting to be read: 0 or 1."""
    latency: float
    """Seconds that the frame read last had waited."""


@dataclass(frozen=True)
class VideoOutStatistics:
    """Counters of a :class:`VideoSendStream`. ``sent == played + flushed + buffered``."""

    sent: int
    """Frames given to :meth:`VideoSendStream.send`."""
    played: int
    """Frames handed to the transport; a still picture that is sent again is not counted."""
    flushed: int
    """Frames dropped by :meth:`VideoSendStream.flush`, or left over when the connection ended."""
    buffered: int
    """Frames waiting for their time: 0 or 1."""
    latency: float
    """Seconds that the frame played last had waited."""


@dataclass(frozen=True)
class MessageStatistics:
    """Counters of a :class:`MessageStream`, in messages."""

    sent: int
    received: int
    dropped_out: int
    """Sent, but never handed to the client: the outbox was full, the message longer than the
    client takes, or the connection over."""
    dropped_in: int
    """Received, but pushed out of the full inbox before anybody read them."""
    waiting_out: int
    """In the outbox now."""
    waiting_in: int
    """In the inbox now."""
    bytes_sent: int
    bytes_received: int
    """Of text in UTF-8."""


class _Iterable(Generic[T]):
    """What is received can be iterated over; the end of the stream ends the loop."""

    async def receive(self) -> T:
        raise NotImplementedError

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except EndOfStream:
            raise StopAsyncIteration from None


class AudioReceiveStream(_Iterable[AudioFrame], ABC):
    """Audio from the client, at the rate and layout it came in.

    Bounded by age. A reader that falls behind by less than the bound loses nothing; one that falls
    behind further finds the newest frame next, and what was skipped is counted.
    """

    @abstractmethod
    async def receive(self) -> AudioFrame:
        """Wait for the next frame: ``(sample_rate, int16 (channels, n))``.

        Raises:
            anyio.EndOfStream: when the connection has ended and everything was read.

        Cancellation:
            A cancelled call has taken nothing.
        """

    @abstractmethod
    def statistics(self) -> AudioInStatistics:
        """Counters so far."""


class AudioSendStream(ABC):
    """Audio to the client: a bounded queue, played in real time, 20 ms after 20 ms.

    When it runs dry, silence is played; when it is full, :meth:`send` waits.
    """

    sample_rate: int
    """Rate of what :meth:`send` takes, in Hz: the transport's choice, made to suit the codec."""
    channels: int
    """Channels of what :meth:`send` takes: 1 or 2."""

    @property
    @abstractmethod
    def generation(self) -> int:
        """How often it was flushed."""

    @abstractmethod
    async def send(self, samples: Int16Array, generation: int | None = None) -> None:
        """Queue samples; wait first while the queue is full. One chunk of any size always fits.

        What waits while somebody flushes is flushed, too.

        Args:
            samples: int16, shape ``(channels, n)``, at :attr:`sample_rate`.
            generation: the one the samples belong to; that of the call, if it is not given.

        Raises:
            anyio.BrokenResourceError: the connection has ended.

        Cancellation:
            A cancelled call has queued nothing.
        """

    @abstractmethod
    def flush(self) -> Played:
        """Drop everything queued; what is being played fades out within 5 ms.

        Returns:
            How much had been handed to the transport since the flush before.
        """

    @abstractmethod
    def pause(self) -> None:
        """Play silence from the next frame on and keep the queue. Twice is once."""

    @abstractmethod
    def resume(self) -> None:
        """Play on from the sample where :meth:`pause` stopped. Twice is once."""

    @abstractmethod
    async def wait_played(self) -> None:
        """Wait until everything queued was handed to the transport, flushed, or cannot be any more
        because the connection has ended."""

    @abstractmethod
    def statistics(self) -> AudioOutStatistics:
        """Counters so far."""


class VideoReceiveStream(_Iterable[VideoFrame], ABC):
    """Pictures from the client. The latest frame wins: a slow reader sees fewer, never old ones."""

    @abstractmethod
    async def receive(self) -> VideoFrame:
        """Wait for a picture that was not read yet.

        Raises:
            anyio.EndOfStream: when the connection has ended and everything was read.

        Cancellation:
            A cancelled call has taken nothing.
        """

    @abstractmethod
    def statistics(self) -> VideoInStatistics:
        """Counters so far."""


class VideoSendStream(ABC):
    """Pictures to the client, at most :attr:`fps` a second."""

    fps: float

    @abstractmethod
    async def wait_ready(self, lead: float = 0.0) -> None:
        """Wait until a picture is wanted: one that is sent ``lead`` seconds from now is shown at
        once.

        Who waits before picking a picture to work on picks the newest there can be.

        Raises:
            anyio.BrokenResourceError: the connection has ended.
        """

    @abstractmethod
    async def send(self, frame: VideoFrame) -> None:
        """Show a picture. Returns when its time has come and it was handed to the transport.

        Raises:
            anyio.BrokenResourceError: the connection has ended.

        Cancellation:
            A cancelled call may have sent the picture.
        """

    @abstractmethod
    def flush(self) -> None:
        """Drop the picture that waits for its time."""

    @abstractmethod
    async def wait_played(self) -> None:
        """Wait until everything sent was handed to the transport, flushed, or cannot be any more
        because the connection has ended."""

    @abstractmethod
    def statistics(self) -> VideoOutStatistics:
        """Counters so far."""


class MessageStream(_Iterable[str], ABC):
    """Text messages both ways: the data channel, or its like on another transport."""

    @abstractmethod
    def send_nowait(self, text: str) -> None:
        """Put a message into the outbox.

        It leaves as soon as the channel is open, and at once if it is. The outbox holds 64: one
        more pushes the oldest out, which is counted. After the end nothing happens.
        """

    @abstractmethod
    async def receive(self) -> str:
        """Wait for the client's next message. The inbox holds 64; one more pushes the oldest out.

        Raises:
            anyio.EndOfStream: when the connection has ended and everything was read.
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
        """Counters so far."""


class Peer(AsyncResource):
    """One client, connected somehow. It has the streams that its :attr:`media` names."""

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
            PeerError: it never will.
        """

    @abstractmethod
    async def wait_closed(self) -> Closed:
        """Wait until the connection has ended, and say why."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection and free everything it holds. Twice is once.

        Messages in the outbox are given 500 ms to reach the client.

        Cancellation:
            The close is not cancelled, only waited for no longer: it goes on by itself.
        """

    async def run(self) -> None:
        """Carry the connection until it has ended. For transports that do not run by themselves;
        of others it returns at once."""
        await checkpoint()

    async def transport_statistics(self) -> Mapping[str, Any]:
        """What the transport itself counts, in its own words; empty where there is nothing."""
        await checkpoint()
        return {}


class AsyncioBridge(Protocol):
    """Where asyncio-only libraries run."""

    @property
    def loop(self) -> Any:
        """The host's own loop if that is asyncio's; else one in a thread beside it, started now."""
        ...

    async def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await ``function(*args)`` on :attr:`loop`.

        Raises:
            What the coroutine raises. A ``RuntimeError`` if it was cancelled there.

        Cancellation:
            Cancels the coroutine and waits until it has ended.
        """
        ...
