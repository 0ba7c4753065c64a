"""Peer for a client at the other end of a WebSocket: a browser, a program, or a carrier.

The peer works over any socket that sends and receives text. A message that violates the protocol
ends the connection; a malformed event is discarded. The socket sends one
message at a time. A client that reads slowly therefore holds back the audio, which waits in its
bounded queue, and the handling of the client's messages. A client that reads nothing for the stall
limit counts as vanished.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import anyio
from anyio import BrokenResourceError, CancelScope, EndOfStream, create_task_group
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._media.decode import create_pcm_decoder
from fastrtc_anyio._media.media_plan import MediaPlan
from fastrtc_anyio._media.reception import Reception
from fastrtc_anyio._media.reorder import Ordered, ReorderBuffer
from fastrtc_anyio._signaling.log_text import log_text
from fastrtc_anyio._signaling.messages import encode_message
from fastrtc_anyio._wire.events import (
    Clear,
    Event,
    Framing,
    KeyPressed,
    Malformed,
    Mark,
    Media,
    Ping,
    Pong,
    Start,
    Stop,
    Text,
)
from fastrtc_anyio._wire.payload import AudioEncoding, PayloadCodec
from fastrtc_anyio.errors import Closed, CloseReason, InvalidMessage, SignalingError

from .lifecycle import LifecyclePeer
from .streams.audio import AudioInput, BufferOptions
from .streams.link import Link
from .streams.outbox import Outbox
from .streams.paced import CLIENT_LEAD, LIVE_LEAD, PacedOutput
from .streams.phone import PHONE_LEAD, PhoneOutput

_GONE_SECONDS = 1.0
"""Time to read the end of the socket after a failed send, and to close it."""
_LIVENESS_STEPS = 5
"""Checks within the liveness limit."""
_PROBE = "liveness"
"""Name of the mark that asks a silent carrier for a sign of life. Marks of audio have numbers."""
_TIMESTAMP_TOLERANCE = 0.1
"""Seconds. Carriers take timestamps from clocks of different quality; silence lasts longer."""
NORMAL_CLOSE = 1000
"""RFC 6455 7.4.1."""
_CLOSE_CODES = {413: 1009, 503: 1013}
"""1013, "try again later", is of the IANA registry."""
_POLICY_VIOLATION = 1008


def close_code(error: SignalingError) -> int:
    """Return the code with which a WebSocket is closed for an error of its client."""
    return _CLOSE_CODES.get(error.status_hint, _POLICY_VIOLATION)


class _Chunk(NamedTuple):
    payload: bytes
    timestamp: int | None  # milliseconds


class TextSocket(Protocol):
    """An open WebSocket of any library. anyio's ``StapledObjectStream[str]`` qualifies.

    Several tasks may call :meth:`send` and :meth:`aclose` at the same time.
    """

    async def receive(self) -> str:
        """Wait for the next message.

        Raises:
            InvalidMessage: the message is not text.
            LimitExceeded: the message is too long.
            anyio.EndOfStream: the client has closed it.
            anyio.BrokenResourceError: the connection broke.
        """
        ...

    async def send(self, text: str, /) -> None:
        """Send a message, waiting while the client is slow to read.

        Raises:
            anyio.BrokenResourceError: the connection has ended.
        """

    async def aclose(self, code: int = NORMAL_CLOSE, /) -> None:
        """Close the socket with a code of RFC 6455 7.4."""


class WebSocketPeer(LifecyclePeer):
    """Session's end of a WebSocket whose ``start`` message has been read.

    :meth:`run` must run for as long as the session does.

    Args:
        socket: carries the messages.
        framing: encodes and decodes the messages.
        start: the client's ``start``.
        media: directions of the audio.
        rates: rates of audio in and out, in Hz, unless the client chooses an encoding.
        buffers: sizes of the queues.
        lead: seconds of audio to send ahead of playback; None for the usual lead.
        stall_s: seconds a client may take to read a message before it counts as vanished; None
            for no limit.
        liveness_s: seconds without any message after which a telephone counts as vanished. Other
            clients may have nothing to send: the server's pings check those.
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
        super().__init__()
        buffers = buffers or BufferOptions()
        link = Link(Host(), anyio.current_time)
        self.start = start
        self.media = media or MediaPlan()
        self._socket = socket
        self._framing = framing
        encoding_in = start.encoding or AudioEncoding("mulaw", rates[0])
        encoding_out = start.encoding_out or start.encoding or AudioEncoding("mulaw", rates[1])
        self._codec = PayloadCodec(encoding_in, encoding_out)
        self._stall = stall_s
        self._liveness = liveness_s if framing.phone else None
        kind = PhoneOutput if framing.phone else PacedOutput
        if lead is None:
            lead = LIVE_LEAD if buffers.live else PHONE_LEAD if framing.phone else CLIENT_LEAD
        rate = encoding_out.sample_rate
        self.audio_in = self._in = AudioInput(link, buffers.input_s)
        self.audio_out = self._out = kind(link, rate, buffers, lead, lambda: self._audio_news.set())
        self._outbox = Outbox(link, self._discards)
        self.messages = self._channel = self._outbox.channel
        self._audio_news = anyio.Event()
        self._unsendable = anyio.Event()
        self._held = anyio.Event()
        self._released = anyio.Event()
        self._runs = False
        self._code = NORMAL_CLOSE
        self._received = 0
        self._order: ReorderBuffer[_Chunk] = ReorderBuffer.chunks()
        self._reception = Reception(
            create_pcm_decoder(encoding_in.sample_rate, 1, clock_rate=1000),
            tolerance=_TIMESTAMP_TOLERANCE,
        )
        self._mark_connected()
        if not framing.phone:
            self._channel.mark_open()

    async def aclose(self) -> None:
        self._close(CloseReason.CANCELLED, "closed by this side")
        if not self._runs:
            await self._release()
        await self._released.wait()

    async def transport_statistics(self) -> Mapping[str, Any]:
        """Return the messages received, and the carrier's audio chunks that were missing or too
        late to be played."""
        await checkpoint()
        return {"received": self._received, "missing": self._order.lost}

    async def run(self) -> None:
        """Carry the connection until it has ended, and close the socket.

        Cancellation:
            Ends the connection at once.
        """
        if self._released.is_set():
            await checkpoint()
            return
        self._runs = True
        try:
            async with create_task_group() as tasks:
                for part in (
                    self._read,
                    self._release_held,
                    self._write_messages,
                    self._play,
                    self._watch,
                    self._await_end,
                ):
                    tasks.start_soon(part)
                await self._closed_event.wait()
                await self._outbox.drain()
                tasks.cancel_scope.cancel()
        finally:
            self._close(CloseReason.CANCELLED, "the connection was cancelled")
            await self._release()

    async def _release(self) -> None:
        self._channel.end()
        try:
            with CancelScope(shield=True), anyio.move_on_after(_GONE_SECONDS):
                await self._socket.aclose(self._code)
        except (BrokenResourceError, EndOfStream):
            pass  # the client was faster
        finally:
            self._released.set()

    def _close(self, reason: CloseReason, message: str) -> None:
        if self._mark_closed(Closed(reason, message)):
            self._deliver(self._order.flush())
            if self._codec.has_rest:
                self._discards.count("audio", "the audio ended within a sample")
            self._in.end()
            self._out.end()

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
            self._code = close_code(exc)
            self._channel.send_nowait(encode_message("error", str(exc)))
            self._close(CloseReason.PEER_FAILED, f"the client broke the protocol: {log_text(exc)}")

    async def _handle(self, event: Event) -> None:
        match event:
            case Media(payload, number, timestamp):
                now = anyio.current_time()
                self._deliver(self._order.push(number, _Chunk(payload, timestamp), now))
                if self._order.due is not None:
                    self._held.set()
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
            case Malformed(why):
                self._discards.count("events", "ignored a malformed event of a carrier", why)
            case Start():
                raise InvalidMessage('there is one "start"; got a second')

    def _deliver(self, chunks: Sequence[Ordered[_Chunk]]) -> None:
        for (payload, timestamp), lost in chunks:
            if lost and self._codec.has_rest:
                self._discards.count("audio", "a gap in the audio began within a sample")
            samples = self._codec.decode(payload, lost)
            self._in.count_lost(lost)
            for piece in self._reception.receive(samples, timestamp, lost):
                if self.media.audio_in:
                    self._in.push(*piece)

    async def _release_held(self) -> None:
        """Deliver chunks behind a missing one in time, though no other chunk may arrive."""
        while True:
            due = self._order.due
            if due is None:
                self._held = anyio.Event()
                await self._held.wait()
            else:
                await anyio.sleep_until(due)
                self._deliver(self._order.poll(anyio.current_time()))

    async def _play(self) -> None:
        out = self._out
        while self.media.audio_out:
            self._audio_news = anyio.Event()
            samples, wait = out.pull_due(anyio.current_time())
            if isinstance(out, PhoneOutput) and out.pop_clear():
                await self._send(Clear())
            if samples is not None:
                await self._send(Media(self._codec.encode(samples)))
            if isinstance(out, PhoneOutput) and (name := out.pop_mark()) is not None:
                await self._send(Mark(name))
            if samples is None:
                with CancelScope(deadline=math.inf if wait is None else wait):
                    await self._audio_news.wait()

    async def _write_messages(self) -> None:
        while True:
            text = await self._outbox.next()
            if not await self._send(Text(text)):
                self._channel.count_unsent()

    async def _watch(self) -> None:
        """End the call of a telephone that has sent nothing for the liveness limit.

        A carrier that suppresses silence sends nothing while the caller is silent, but returns a
        mark.
        """
        if self._liveness is None:
            return
        # Looking at the counter now and then is cheaper than a timer that every message resets.
        seen, still = self._received, 0
        while still < _LIVENESS_STEPS:
            if still == _LIVENESS_STEPS // 2:
                await self._send(Mark(_PROBE))
            await anyio.sleep(self._liveness / _LIVENESS_STEPS)
            still = still + 1 if self._received == seen else 0
            seen = self._received
        self._gone(CloseReason.VANISHED, f"the client sent nothing for {self._liveness:g} s")

    async def _send(self, event: Event) -> bool:
        """Send an event; return False if the protocol lacks it or the connection has ended."""
        text = self._framing.encode(event)
        if text is None or self._unsendable.is_set():
            await checkpoint()
            return False
        with anyio.move_on_after(self._stall) as scope:
            try:
                await self._socket.send(text)
            except BrokenResourceError:
                self._unsendable.set()
                return False
        if scope.cancelled_caught:
            text = f"the client has not read a message for {self._stall:g} s"
            self._gone(CloseReason.VANISHED, text)
        return not scope.cancelled_caught

    async def _await_end(self) -> None:
        """After a failed send, leave it to the reading end to find the reason, for a while."""
        await self._unsendable.wait()
        await anyio.sleep(_GONE_SECONDS)
        self._gone(CloseReason.PEER_FAILED, "the connection broke")

    def _gone(self, reason: CloseReason, message: str) -> None:
        """Close without draining the outbox: the client cannot receive messages any more."""
        self._close(reason, message)
        self._outbox.abandon()
