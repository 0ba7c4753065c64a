"""Base class for your own transport: a :class:`~fastrtc_anyio.abc.Peer` without the wire.

``Stream.serve_peer`` serves it, and ``fastrtc_anyio.testing.check_peer`` tests it.
"""

from __future__ import annotations

from abc import abstractmethod

import anyio
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, create_task_group
from anyio.lowlevel import checkpoint

from ._core.groups import collapse_groups
from ._core.host import Host
from ._media.frames import FRAMES_PER_SECOND, Int16Array
from ._media.media_plan import MediaNeeds, MediaPlan
from ._media.read import AudioLike, read_audio
from ._peers.lifecycle import LifecyclePeer
from ._peers.streams.audio import AudioInput, AudioOutput, BufferOptions
from ._peers.streams.link import Link
from ._peers.streams.outbox import Outbox
from .abc import AudioReceiveStream, AudioSendStream, MessageStream
from .errors import Closed, CloseReason

__all__ = ["BufferOptions", "MediaNeeds", "MediaPlan", "QueuedPeer"]

_LATE_SECONDS = 0.2
"""Delay of a transport's own from which it skips time, and sends no burst."""


class QueuedPeer(LifecyclePeer):
    """Peer with ready queues for audio and messages. A subclass moves their content.

    Override :meth:`carry`. It passes everything that the client sends to :meth:`push_audio` and
    :meth:`push_message`, and sends what :meth:`next_audio` and :meth:`next_message` return.

    The peer is connected as soon as it exists. All methods belong to the event loop of the session.

    Args:
        needs: formats that the handler needs. They decide the rate and channels of
            :meth:`next_audio`.
        buffers: sizes of the queues.
        media: directions of the audio; both by default.
        messages: whether the transport carries text messages.
    """

    def __init__(
        self,
        needs: MediaNeeds | None = None,
        buffers: BufferOptions | None = None,
        *,
        media: MediaPlan | None = None,
        messages: bool = True,
    ) -> None:
        super().__init__()
        needs, buffers = needs or MediaNeeds(), buffers or BufferOptions()
        link = Link(Host(), anyio.current_time)
        self.media: MediaPlan = media or MediaPlan()
        self._in = AudioInput(link, buffers.input_s)
        self._out = AudioOutput(link, needs.sample_rate, needs.channels, buffers)
        self._outbox = Outbox(link, self._discards)
        self._channel = self._outbox.channel
        self.audio_in: AudioReceiveStream = self._in
        self.audio_out: AudioSendStream = self._out
        self.messages: MessageStream = self._channel
        self._due = anyio.current_time()
        self._runs = False
        self._released = anyio.Event()
        self._mark_connected()
        if messages:
            self._channel.mark_open()
        else:
            self._outbox.abandon()

    @abstractmethod
    async def carry(self) -> None:
        """Carry the connection, and return when the client has hung up.

        ``EndOfStream`` is the same as a return. ``BrokenResourceError``, ``ClosedResourceError``
        and ``OSError`` end the session with ``PEER_FAILED``.

        Cancellation:
            Ends the connection: release its resources.
        """

    def push_audio(self, frame: AudioLike) -> None:
        """Pass on audio from the client; ignored if the stream receives none.

        Args:
            frame: ``(rate, samples)``: the rate from 1000 to 384000 Hz, samples int16 or float32
                (full scale 1.0) of shape ``(n,)``, ``(1, n)`` or ``(2, n)``, of any duration.

        Raises:
            UnsupportedFormat: ``frame`` is something else.
        """
        audio = read_audio(frame)
        if self.media.audio_in:
            self._in.push(audio)

    def push_message(self, text: str) -> None:
        """Pass on a message from the client."""
        self._channel.push(text)

    async def next_audio(self) -> Int16Array:
        """Wait until the next 20 ms are due, and return them.

        Returns:
            int16, shape ``(channels, sample_rate // 50)``, of ``audio_out``'s rate and channels.
            Silence while there is nothing to play.
        """
        now = anyio.current_time()
        self._due += 1 / FRAMES_PER_SECOND
        if now - self._due > _LATE_SECONDS:
            self._due = now
        await anyio.sleep_until(self._due)
        return self._out.pull()

    async def next_message(self) -> str:
        """Wait for the next message to the client.

        Cancellation:
            A cancelled call has not removed a message from the outbox.
        """
        return await self._outbox.next()

    async def run(self) -> None:
        """Run :meth:`carry` until the connection has ended."""
        if self._closed is not None:
            await checkpoint()
            return
        self._runs = True
        try:
            async with create_task_group() as tasks:
                tasks.start_soon(self._carry)
                await self._closed_event.wait()
                await self._outbox.drain()
                tasks.cancel_scope.cancel()
        finally:
            self._end(CloseReason.CANCELLED, "the connection was cancelled")
            self._channel.end()
            self._released.set()

    async def aclose(self) -> None:
        self._end(CloseReason.CANCELLED, "closed by this side")
        if not self._runs:
            self._channel.end()
            self._released.set()
        await self._released.wait()

    async def _carry(self) -> None:
        try:
            with collapse_groups():
                await self.carry()
        except (BrokenResourceError, ClosedResourceError, OSError):
            self._end(CloseReason.PEER_FAILED, "the connection broke")
        except EndOfStream:
            self._end(CloseReason.HUNG_UP, "the client hung up")
        else:
            self._end(CloseReason.HUNG_UP, "the client hung up")
        self._outbox.abandon()

    def _end(self, reason: CloseReason, message: str) -> None:
        if self._mark_closed(Closed(reason, message)):
            self._in.end()
            self._out.end()
