"""A client in the same process: no network, no codec, no thread.

What the session plays is heard by the client exactly 20 ms after 20 ms on the host's clock, so
under a virtual clock a conversation is as exact as arithmetic, and as fast.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from fastrtc_anyio.abc import Peer
from fastrtc_anyio.errors import Closed, CloseReason, PeerClosed, PeerError, PeerFailed
from fastrtc_anyio.media.frames import FRAMES_PER_SECOND, AudioFrame, Int16Array
from fastrtc_anyio.workers import Host

from ._channels import AudioInput, AudioOutput, Link, MessageChannel

__all__ = ["MemoryClient", "MemoryPeer", "open_memory_peer"]


class MemoryPeer(Peer):
    """The session's end. Made by :func:`open_memory_peer`."""

    def __init__(
        self, sample_rate: int, channels: int, output_buffer_s: float, input_buffer_s: float
    ) -> None:
        link = Link(Host())
        self.audio_in = self._in = AudioInput(link, input_buffer_s)
        self.audio_out = self._out = AudioOutput(link, sample_rate, channels, output_buffer_s)
        self.messages = self._channel = MessageChannel(link, self._deliver)
        self.client = MemoryClient(self, link)
        self._connected = anyio.Event()
        self._closed_event = anyio.Event()
        self._closed: Closed | None = None

    async def wait_connected(self) -> None:
        await self._connected.wait()
        if self._closed is not None:
            kind: type[PeerError] = (
                PeerClosed if self._closed.reason is CloseReason.HUNG_UP else PeerFailed
            )
            raise kind(self._closed.message)

    async def wait_closed(self) -> Closed:
        await self._closed_event.wait()
        assert self._closed is not None
        return self._closed

    async def aclose(self) -> None:
        self._end(Closed(CloseReason.CANCELLED, "closed by this side"))
        await checkpoint()

    def _deliver(self) -> None:
        if self._channel.is_open:
            while (text := self._channel.take()) is not None:
                self.client.inbox.push(text)

    def _end(self, closed: Closed) -> None:
        if self._closed is None:
            self._closed = closed
            self._in.end()
            self._out.end()
            self._channel.end()
            self.client.audio_in.end()
            self.client.inbox.end()
            self._connected.set()
            self._closed_event.set()

    async def _play(self) -> None:
        await self._connected.wait()
        due = anyio.current_time()
        while self._closed is None:
            self.client._hear(self._out.pull())
            due += 1 / FRAMES_PER_SECOND
            await anyio.sleep_until(due)


class MemoryClient:
    """The client's end, for a test to act through.

    Attributes:
        audio_in: what the client hears, 20 ms after 20 ms.
        heard: the same from the beginning, int16 ``(channels, n)`` each.
        inbox: messages from the session.
    """

    def __init__(self, peer: MemoryPeer, link: Link) -> None:
        self._peer = peer
        self.audio_in = AudioInput(link, float("inf"))
        self.heard: list[Int16Array] = []
        self.inbox = MessageChannel(link, lambda: None)

    def connect(self, *, channel: bool = True) -> None:
        """Come up; with ``channel``, the data channel too."""
        self._peer._connected.set()
        if channel:
            self.open_channel()

    def open_channel(self) -> None:
        """Open the data channel."""
        self._peer._channel.open()
        self.inbox.open()
        self._peer._deliver()

    def send_audio(self, frame: AudioFrame) -> None:
        """Send audio of any duration; it arrives at once."""
        self._peer._in.push(frame)

    async def receive_audio(self) -> AudioFrame:
        """Wait for the next 20 ms that the client hears.

        Raises:
            anyio.EndOfStream: the call has ended.
        """
        return await self.audio_in.receive()

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
        """End the call from the client's side."""
        self._peer._end(Closed(reason, "the client hung up"))

    def _hear(self, samples: Int16Array) -> None:
        self.heard.append(samples)
        self.audio_in.push(AudioFrame(self._peer._out.sample_rate, samples))


@asynccontextmanager
async def open_memory_peer(
    *,
    sample_rate: int = 24_000,
    channels: int = 1,
    output_buffer_s: float = 30.0,
    input_buffer_s: float = 1.0,
) -> AsyncGenerator[MemoryPeer, None]:
    """Make a peer whose client is ``peer.client``. Not connected until the client connects.

    Args:
        sample_rate: rate in Hz at which the client hears.
        channels: 1 or 2, likewise.
        output_buffer_s: seconds of audio that can be queued for playout.
        input_buffer_s: seconds of audio that wait for a slow reader.
    """
    peer = MemoryPeer(sample_rate, channels, output_buffer_s, input_buffer_s)
    async with create_task_group() as tg:
        tg.start_soon(peer._play)
        try:
            yield peer
        finally:
            peer._end(Closed(CloseReason.CANCELLED, "the call is over"))
            tg.cancel_scope.cancel()
