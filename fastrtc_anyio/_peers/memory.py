"""Peer for a client in the same process: no network, no codec, no thread.

The client receives a frame exactly every 20 ms on the host's clock, so a conversation on a virtual
clock is as exact as arithmetic, and as fast. Lines between peer and client may lose and delay
frames. A lost frame of audio is concealed, as G.711 is over WebRTC.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Generic, Protocol, Self, TypeVar

import anyio
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._media.decode import create_pcm_decoder
from fastrtc_anyio._media.frames import FRAMES_PER_SECOND, AudioFrame, Int16Array
from fastrtc_anyio._media.media_plan import MediaPlan
from fastrtc_anyio._media.reception import Reception
from fastrtc_anyio._media.video import VideoFrame, as_video_frame
from fastrtc_anyio.abc import (
    AudioReceiveStream,
    AudioSendStream,
    MessageStream,
    VideoReceiveStream,
    VideoSendStream,
)
from fastrtc_anyio.errors import Closed, CloseReason

from .lifecycle import LifecyclePeer
from .streams.audio import AudioInput, AudioOutput, BufferOptions
from .streams.link import Link
from .streams.messages import MessageChannel
from .streams.video import VideoInput, VideoOutput

T = TypeVar("T")

SEEN_LIMIT = 64
"""Received pictures that the client keeps."""


class Line(Protocol):
    """One direction of a network with faults."""

    def transmit(self, now: float, /) -> float | None:
        """Return the arrival time of a frame sent at ``now``; None if it is lost.

        Both times are in seconds since the start of the call.
        """


class MemoryPeer(LifecyclePeer):
    """Session's end of the connection. :meth:`open` carries it; the client has to connect.

    Args:
        media: directions of the media; audio in both by default.
        sample_rate: rate of the audio to the client, in Hz.
        channels: channels of the audio to the client: 1 or 2.
        fps: maximum frame rate of the video to the client, in Hz.
        buffers: sizes of the audio queues.
        uplink: faults of frames from the client; None for a perfect line.
        downlink: faults of frames to the client; None for a perfect line.
        phone: whether the client is a telephone, which takes no messages.

    Attributes:
        client: the client's end.
    """

    def __init__(
        self,
        *,
        media: MediaPlan | None = None,
        sample_rate: int = 24_000,
        channels: int = 1,
        fps: float = 30,
        buffers: BufferOptions | None = None,
        uplink: Line | None = None,
        downlink: Line | None = None,
        phone: bool = False,
    ) -> None:
        super().__init__()
        self._phone = phone
        link = Link(Host(), anyio.current_time)
        buffers = buffers or BufferOptions()
        self.media: MediaPlan = media or MediaPlan()
        self._in = AudioInput(link, buffers.input_s)
        self._out = AudioOutput(link, sample_rate, channels, buffers)
        self._video_in = VideoInput(link)
        self._picture = anyio.Event()
        self._video_out = VideoOutput(link, fps, self._video_in, lambda: self._picture.set())
        self._channel = MessageChannel(link, self._deliver, self._discards)
        self.audio_in: AudioReceiveStream = self._in
        self.audio_out: AudioSendStream = self._out
        self.video_in: VideoReceiveStream = self._video_in
        self.video_out: VideoSendStream = self._video_out
        self.messages: MessageStream = self._channel
        self.client: MemoryClient = MemoryClient(self)
        heard = _AudioReceiver(self.client.audio_in, self.client.heard.append)
        self._up_audio = _Carrier(uplink, _AudioReceiver(self._in).receive)
        self._up_video = _Carrier[VideoFrame](uplink, lambda frame, _: self._video_in.push(frame))
        self._down_audio = _Carrier(downlink, heard.receive)
        self._down_video = _Carrier[VideoFrame](downlink, lambda frame, _: self.client._see(frame))

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Self, None]:
        """Carry the connection while the block runs."""
        async with create_task_group() as tg:
            for carrier in (self._up_audio, self._up_video, self._down_audio, self._down_video):
                if carrier.line is not None:
                    tg.start_soon(carrier.run)
            if self.media.audio_out:
                tg.start_soon(self._play)
            if self.media.video_out:
                tg.start_soon(self._show)
            try:
                yield self
            finally:
                self._end(Closed(CloseReason.CANCELLED, "the call is over"))
                tg.cancel_scope.cancel()

    async def aclose(self) -> None:
        self._end(Closed(CloseReason.CANCELLED, "closed by this side"))
        await checkpoint()

    def _deliver(self) -> None:
        if self._channel.is_open:
            while (text := self._channel.pop_outgoing()) is not None:
                if not self._phone:
                    self.client.inbox.push(text)

    def _end(self, closed: Closed) -> None:
        if self._mark_closed(closed):
            for stream in (self._in, self._out, self._video_in, self._video_out, self._channel):
                stream.end()
            for stream in (self.client.audio_in, self.client.video_in, self.client.inbox):
                stream.end()

    async def _play(self) -> None:
        await self._connected.wait()
        due = anyio.current_time()
        while self._closed is None:
            self._down_audio.send(AudioFrame(self._out.sample_rate, self._out.pull()))
            due += 1 / FRAMES_PER_SECOND
            await anyio.sleep_until(due)

    async def _show(self) -> None:
        await self._connected.wait()
        while self._closed is None:
            self._picture = anyio.Event()
            frame = self._video_out.pull()
            if frame is None:
                await self._picture.wait()
                continue
            self._down_video.send(frame)
            if not self._video_out.draining and self._video_out.due is not None:
                await anyio.sleep_until(self._video_out.due)


class MemoryClient:
    """Client's end of the connection, used by tests.

    Attributes:
        audio_in: audio from the session, in frames of 20 ms.
        heard: all of that audio since the start, int16 ``(channels, n)`` each.
        video_in: pictures from the session, of which the latest is kept.
        seen: the last 64 pictures.
        pictures: number of pictures received.
        inbox: messages from the session.
    """

    def __init__(self, peer: MemoryPeer) -> None:
        link = Link(Host(), anyio.current_time)
        self._peer = peer
        self.audio_in: AudioInput = AudioInput(link, float("inf"))
        self.heard: list[Int16Array] = []
        self.video_in: VideoInput = VideoInput(link)
        self.seen: deque[VideoFrame] = deque(maxlen=SEEN_LIMIT)
        self.pictures: int = 0
        self.inbox: MessageChannel = MessageChannel(link)

    def connect(self, *, channel: bool = True) -> None:
        """Connect; with ``channel``, open the data channel, too."""
        self._peer._mark_connected()
        if channel:
            self.open_channel()

    def open_channel(self) -> None:
        """Open the data channel."""
        self._peer._channel.mark_open()
        self.inbox.mark_open()
        self._peer._deliver()

    def send_audio(self, frame: AudioFrame) -> None:
        """Send audio of any duration. It arrives at once, or when the uplink delivers it."""
        self._peer._up_audio.send(frame)

    async def receive_audio(self) -> AudioFrame:
        """Wait for the next 20 ms from the session.

        Raises:
            anyio.EndOfStream: the call has ended.
        """
        return await self.audio_in.receive()

    def send_video(self, picture: object) -> None:
        """Send a picture, of any type that ``video_emit`` may return."""
        self._peer._up_video.send(as_video_frame(picture))

    async def receive_video(self) -> VideoFrame:
        """Wait for the session's next picture. A slow reader skips old pictures.

        Raises:
            anyio.EndOfStream: the call has ended.
        """
        return await self.video_in.receive()

    def send_message(self, text: str) -> None:
        """Send a message over the data channel."""
        self._peer._channel.push(text)

    async def receive_message(self) -> str:
        """Wait for the session's next message.

        Raises:
            anyio.EndOfStream: the call has ended.
        """
        return await self.inbox.receive()

    def hang_up(self, reason: CloseReason = CloseReason.HUNG_UP) -> None:
        """End the call on the client's side."""
        self._peer._end(Closed(reason, "the client hung up"))

    def _see(self, frame: VideoFrame) -> None:
        self.pictures += 1
        self.seen.append(frame)
        self.video_in.push(frame)


class _Carrier(Generic[T]):
    """Carries frames over a line.

    Each frame that arrives is delivered with the number of frames lost directly before it.
    """

    def __init__(self, line: Line | None, deliver: Callable[[T, int], None]) -> None:
        self.line = line
        self._deliver = deliver
        self._under_way: deque[tuple[float, T, int]] = deque()
        self._lost = 0
        self._news = anyio.Event()
        self._began = anyio.current_time()

    def send(self, frame: T) -> None:
        if self.line is None:
            self._deliver(frame, 0)
            return
        arrival = self.line.transmit(anyio.current_time() - self._began)
        if arrival is None:
            self._lost += 1
            return
        self._under_way.append((arrival, frame, self._lost))
        self._lost = 0
        self._news.set()

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            while self._under_way:
                arrival, frame, lost = self._under_way.popleft()
                await anyio.sleep_until(self._began + arrival)
                self._deliver(frame, lost)


class _AudioReceiver:
    """Receiving end of an audio line. Lost frames are concealed, as in the other peers."""

    def __init__(self, audio: AudioInput, hear: Callable[[Int16Array], None] = lambda _: None):
        self._audio = audio
        self._hear = hear
        self._format = 0, 0
        self._reception: Reception[Int16Array] | None = None

    def receive(self, frame: AudioFrame, lost: int) -> None:
        rate, channels = frame.sample_rate, frame.channels
        if self._reception is None or self._format != (rate, channels):
            decoder = create_pcm_decoder(rate, channels, rate)
            self._reception = Reception(decoder, tolerance=0.0)
            self._format = rate, channels
        self._audio.count_lost(lost)
        for piece in self._reception.receive(frame.samples.copy(), None, lost):
            self._hear(piece.frame.samples)
            self._audio.push(*piece)
