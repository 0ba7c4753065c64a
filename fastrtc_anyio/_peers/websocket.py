"""A client at the other end of a WebSocket: a browser, a program, or a telephone's carrier.

The socket itself is somebody else's: anything that sends and receives text will do. Whatever is
sent goes through one lock, so a client that is slow to read holds back the audio, which waits in
its bounded queue, and the reading of what it sends. One that reads nothing for
as long as a stall may last has vanished.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import anyio
from anyio import BrokenResourceError, CancelScope, EndOfStream, create_task_group
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._media.frames import AudioFrame, Int16Array
from fastrtc_anyio._media.media_plan import MediaPlan
from fastrtc_anyio._signaling.messages import encode_message
from fastrtc_anyio._wire.events import (
    Clear,
    Event,
    Framing,
    KeyPressed,
    Mark,
    Media,
    Ping,
    Pong,
    Start,
    Stop,
    Text,
)
from fastrtc_anyio._wire.ordering import ChunkOrder
from fastrtc_anyio._wire.payload import AudioEncoding
from fastrtc_anyio.abc import Peer
from fastrtc_anyio.errors import (
    Closed,
    CloseReason,
    InvalidMessage,
    PeerClosed,
    PeerFailed,
    SignalingError,
)

from .channels import AudioInput, BufferOptions, Link, MessageChannel
from .pacing import CLIENT_LEAD, LIVE_LEAD, PHONE_LEAD, PacedOutput, PhoneOutput

__all__ = ["TextSocket", "WebSocketPeer"]

_DRAIN_SECONDS = 0.5
_GONE_SECONDS = 1.0
"""How long after a failed send the end of the socket may take to be read."""
_LIVENESS_STEPS = 5


class TextSocket(Protocol):
    """An open WebSocket, of whatever library. anyio's ``StapledObjectStream[str]`` is one."""

    async def receive(self) -> str:
        """Wait for the next message.

        Raises:
            InvalidMessage: it is not text.
            LimitExceeded: it is too long.
            anyio.EndOfStream: the client has closed it.
            anyio.BrokenResourceError: the connection broke.
        """
        ...

    async def send(self, text: str, /) -> None:
        """Send a message; wait while the client is slow.

        Raises:
            anyio.BrokenResourceError: the connection has ended.
        """

    async def aclose(self) -> None:
        """Close it."""


class WebSocketPeer(Peer):
    """The session's end of a WebSocket whose ``start`` has been read.

    :meth:`run` has to be running while the session does.

    Args:
        socket: what the messages go through.
        framing: what they look like.
        start: the client's ``start``.
        media: which audio flows.
        rates: of audio in and out in Hz, where the client has no wish of its own.
        buffers: sizes of the queues.
        lead: seconds of audio that the client is given ahead of time.
        stall_s: seconds a client may take to read what it is sent before it has vanished; None
            is no limit.
        liveness_s: seconds without any message after which a telephone has vanished. Other
            clients may have nothing to say: the server's pings find out whether they are there.
    """

    def __init__(
        self,
        socket: TextSocket,
        framing: Framing,
        start: Start,
        *,
        media: MediaPlan | None = None,
        rates: tuple[int, int] = (48_000, 24_000),
        buffers: BufferOptions | None = None,
        lead: float | None = None,
        stall_s: float | None = 5.0,
        liveness_s: float | None = None,
    ) -> None:
        buffers = buffers or BufferOptions()
        link = Link(Host(), anyio.current_time)
        self.start = start
        self.media = media or MediaPlan()
        self._socket = socket
        self._framing = framing
        self._encoding_in = start.encoding or AudioEncoding("mulaw", rates[0])
        self._encoding_out = (
            start.encoding_out or start.encoding or AudioEncoding("mulaw", rates[1])
        )
        self._stall = stall_s
        self._liveness = liveness_s if framing.phone else None
        kind = PhoneOutput if framing.phone else PacedOutput
        if lead is None:
            lead = LIVE_LEAD if buffers.live else PHONE_LEAD if framing.phone else CLIENT_LEAD
        rate = self._encoding_out.sample_rate
        self.audio_in = self._in = AudioInput(link, buffers.input_s)
        self.audio_out = self._out = kind(link, rate, buffers, lead, self._kick_audio)
        self.messages = self._channel = MessageChannel(link, self._kick_messages)
        self._sending = anyio.Lock()
        self._audio_news = anyio.Event()
        self._message_news = anyio.Event()
        self._closed: Closed | None = None
        self._closing = anyio.Event()
        self._drained = anyio.Event()
        self._released = anyio.Event()
        self._runs = False
        self._received = 0
        self._order = ChunkOrder[Int16Array]()
        if not framing.phone:
            self._channel.open()

    # -- what the session asks for

    async def wait_connected(self) -> None:
        await checkpoint()
        if self._closed is not None:
            kind = PeerClosed if self._closed.reason is CloseReason.HUNG_UP else PeerFailed
            raise kind(self._closed.message)

    async def wait_closed(self) -> Closed:
        await self._closing.wait()
        assert self._closed is not None
        return self._closed

    async def aclose(self) -> None:
        self._close(CloseReason.CANCELLED, "closed by this side")
        if not self._runs:
            await self._release()
        await self._released.wait()

    async def transport_statistics(self) -> Mapping[str, Any]:
        """Messages received, and how many of a carrier's chunks of audio were missing: those that
        came too late to be heard among them."""
        await checkpoint()
        return {"received": self._received, "missing": self._order.missing}

    # -- the connection

    async def run(self) -> None:
        """Carry the connection until it has ended, and close the socket.

        Cancellation:
            Ends it at once.
        """
        if self._released.is_set():
            await checkpoint()
            return
        self._runs = True
        try:
            async with create_task_group() as tasks:
                for part in (self._read, self._write_messages, self._play, self._watch):
                    tasks.start_soon(part)
                await self._closing.wait()
                with anyio.move_on_after(_DRAIN_SECONDS):
                    self._kick_messages()
                    await self._drained.wait()
                tasks.cancel_scope.cancel()
        finally:
            self._close(CloseReason.CANCELLED, "the connection was cancelled")
            await self._release()

    async def _release(self) -> None:
        self._channel.end()
        try:
            with CancelScope(shield=True), anyio.move_on_after(_GONE_SECONDS):
                await self._socket.aclose()
        except (BrokenResourceError, EndOfStream):
            pass  # it is gone already
        finally:
            self._released.set()

    def _close(self, reason: CloseReason, message: str) -> None:
        if self._closed is None:
            self._closed = Closed(reason, message)
            self._hear(self._order.flush())
            self._in.end()
            self._out.end()
            self._closing.set()

    async def _read(self) -> None:
        try:
            while True:
                text = await self._socket.receive()
                self._received += 1
                await self._handle(self._framing.decode(text))
        except EndOfStream:
            self._gone(CloseReason.HUNG_UP, "the client hung up")
        except BrokenResourceError:
            self._gone(CloseReason.PEER_FAILED, "the connection broke")
        except SignalingError as exc:
            self._channel.send_nowait(encode_message("error", str(exc)))
            self._close(CloseReason.PEER_FAILED, f"the client broke the protocol: {exc}")

    async def _handle(self, event: Event) -> None:
        match event:
            case Media():
                samples = self._encoding_in.decode(event.payload)
                self._hear(self._order.push(event.chunk, samples))
            case Mark(name):
                if isinstance(self._out, PhoneOutput):
                    self._out.confirm(name)
            case KeyPressed(digit):
                self._channel.push(encode_message("dtmf", digit))
            case Text(text):
                self._channel.push(text)
            case Ping():
                await self._send(Pong())
            case Stop():
                self._gone(CloseReason.HUNG_UP, "the client hung up")
            case Start():
                raise InvalidMessage('there is one "start"; got a second')
            case _:
                pass

    def _hear(self, chunks: list[Int16Array]) -> None:
        if self.media.audio_in:
            for samples in chunks:
                self._in.push(AudioFrame(self._encoding_in.sample_rate, samples))

    async def _play(self) -> None:
        out = self._out
        while self.media.audio_out:
            self._audio_news = anyio.Event()
            samples, wait = out.pull_due(anyio.current_time())
            if isinstance(out, PhoneOutput) and out.take_clear():
                await self._send(Clear())
            if samples is not None:
                await self._send(Media(self._encoding_out.encode(samples)))
            if isinstance(out, PhoneOutput) and (name := out.take_mark()) is not None:
                await self._send(Mark(name))
            if samples is None:
                with CancelScope(deadline=math.inf if wait is None else wait):
                    await self._audio_news.wait()

    async def _write_messages(self) -> None:
        while True:
            self._message_news = anyio.Event()
            while (text := self._channel.take()) is not None:
                if not await self._send(Text(text)):
                    self._channel.refuse()
            if self._closed is not None:
                self._drained.set()
            await self._message_news.wait()

    async def _watch(self) -> None:
        """A telephone always sends: 50 messages a second, silence or not."""
        if self._liveness is None:
            return
        seen, still = self._received, 0
        while still < _LIVENESS_STEPS:
            await anyio.sleep(self._liveness / _LIVENESS_STEPS)
            still = still + 1 if self._received == seen else 0
            seen = self._received
        self._gone(CloseReason.VANISHED, f"nothing came for {self._liveness:g} s")

    async def _send(self, event: Event) -> bool:
        """Send an event; False if the protocol has no word for it, or nobody is there any more."""
        text = self._framing.encode(event)
        if text is None:
            await checkpoint()
            return False
        with anyio.move_on_after(self._stall) as scope:
            async with self._sending:
                try:
                    await self._socket.send(text)
                except BrokenResourceError:
                    # Why, the end of the socket says.
                    with anyio.move_on_after(_GONE_SECONDS):
                        await self._closing.wait()
                    self._gone(CloseReason.PEER_FAILED, "the connection broke")
                    return False
        if scope.cancelled_caught:
            text = f"the client has not taken what was sent to it for {self._stall:g} s"
            self._gone(CloseReason.VANISHED, text)
        return not scope.cancelled_caught

    def _gone(self, reason: CloseReason, message: str) -> None:
        """The client is not there to be told anything."""
        self._close(reason, message)
        self._drained.set()

    def _kick_audio(self) -> None:
        self._audio_news.set()

    def _kick_messages(self) -> None:
        self._message_news.set()
