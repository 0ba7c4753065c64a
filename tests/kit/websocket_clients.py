"""The client side of a WebSocket: a browser or a carrier, with its own playback clock."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import numpy as np
from anyio import create_task_group
from anyio.streams.stapled import StapledObjectStream

from fastrtc_anyio._media.convert import AudioConverter
from fastrtc_anyio._media.frames import AudioFrame, Int16Array
from fastrtc_anyio._peers.websocket import WebSocketPeer
from fastrtc_anyio._wire.events import (
    Clear,
    Event,
    Framing,
    KeyPressed,
    Mark,
    Media,
    Pong,
    Start,
    Stop,
    Text,
)
from fastrtc_anyio._wire.fastrtc import FastRTCFraming
from fastrtc_anyio._wire.payload import MULAW_8K, AudioEncoding, PayloadCodec

FRAME = 0.02
BUFFER = 10_000


class MemorySocket(StapledObjectStream[str]):
    """End of a WebSocket in memory. ``code`` is the code it was closed with here."""

    code: int | None = None

    async def aclose(self, code: int = 1000) -> None:
        self.code = self.code or code
        await super().aclose()


def memory_sockets(room: float = BUFFER) -> tuple[Any, Any]:
    """Both ends of a WebSocket in memory; ``room`` is the buffer of messages to the client."""
    to_server, from_client = anyio.create_memory_object_stream[str](BUFFER)
    to_client, from_server = anyio.create_memory_object_stream[str](room)
    return MemorySocket(to_client, from_client), MemorySocket(to_server, from_server)


class Client:
    """Plays received audio at its own clock, and silence while there is none.

    Attributes:
        heard: the audio it has played, without the silence.
        arrivals: the times at which media arrived, seconds.
        events: the received events other than media.
    """

    def __init__(self, socket: Any, framing: Framing, encoding: AudioEncoding) -> None:
        self.socket = socket
        self.framing = framing
        self.encoding = encoding
        self.codec = PayloadCodec(encoding, encoding)
        self.queue: deque[Int16Array | Mark] = deque()
        self.heard: list[Int16Array] = []
        self.arrivals: list[float] = []
        self.events: list[Event] = []
        self.ended = anyio.Event()
        self._out_send, self._out = anyio.create_memory_object_stream[str](BUFFER)
        self._texts_send, self._texts = anyio.create_memory_object_stream[str](BUFFER)
        self._converter = AudioConverter(encoding.sample_rate, 1)
        self._due = anyio.current_time()
        self._chunk = 0

    async def run(self) -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(self._write)
            try:
                while True:
                    await self._take(self.framing.decode(await self.socket.receive()))
            except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
                self.ended.set()
                self._texts_send.close()
                tasks.cancel_scope.cancel()

    async def _take(self, event: Event) -> None:
        match event:
            case Media(payload):
                self.arrivals.append(anyio.current_time())
                self.queue.append(self.codec.decode(payload))
                return
            case Mark():
                self.queue.append(event)
                self._return_marks()
            case Clear():
                for mark in [item for item in self.queue if isinstance(item, Mark)]:
                    self.send(mark)
                self.queue.clear()
            case Text(text):
                self._texts_send.send_nowait(text)
            case _:
                pass
        self.events.append(event)

    async def _write(self) -> None:
        with suppress(anyio.BrokenResourceError):  # run() ends at the same error
            async for text in self._out:
                await self.socket.send(text)

    def send(self, event: Event) -> None:
        text = self.framing.encode(event)
        assert text is not None
        self._out_send.send_nowait(text)

    def say(self, text: str) -> None:
        """Send text that no framing has encoded."""
        self._out_send.send_nowait(text)

    def press(self, digit: str) -> None:
        self.send(KeyPressed(digit))

    def send_audio(self, frame: AudioFrame) -> None:
        self._chunk += 1
        payload = self.codec.encode(self._converter(frame))
        self.send(Media(payload, self._chunk if self.framing.phone else None))

    async def receive_audio(self) -> AudioFrame:
        """Play the next 20 ms."""
        self._due = max(self._due, anyio.current_time()) + FRAME
        await anyio.sleep_until(self._due)
        size = round(self.encoding.sample_rate * FRAME)
        samples = np.zeros((1, size), np.int16)
        if self.queue:
            played = self.queue.popleft()
            assert not isinstance(played, Mark)
            samples = played
            self.heard.append(samples)
        self._return_marks()
        return AudioFrame(self.encoding.sample_rate, samples)

    def _return_marks(self) -> None:
        while self.queue and isinstance(self.queue[0], Mark):
            self.send(self.queue.popleft())  # type: ignore[arg-type]

    async def listen(self) -> None:
        """Play until cancelled."""
        while True:
            await self.receive_audio()

    async def speak(self, samples: Int16Array, rate: int) -> None:
        size = round(rate * FRAME)
        due = anyio.current_time()
        for start in range(0, samples.shape[1], size):
            self.send_audio(AudioFrame(rate, samples[:, start : start + size]))
            due += FRAME
            await anyio.sleep_until(due)

    def send_message(self, text: str) -> None:
        self.send(Text(text))

    async def receive_message(self) -> str:
        return await self._texts.receive()

    def hang_up(self) -> None:
        self.send(Stop())

    def close(self) -> None:
        for stream in (self._out_send, self._out, self._texts_send, self._texts):
            stream.close()

    @property
    def sound(self) -> Int16Array:
        return np.concatenate([np.empty((1, 0), np.int16), *self.heard], axis=1)


@asynccontextmanager
async def open_pair(
    make_framing: Callable[[], Framing] = FastRTCFraming,
    encoding: AudioEncoding | None = MULAW_8K,
    room: float = BUFFER,
    **settings: Any,
) -> AsyncGenerator[tuple[WebSocketPeer, Client], None]:
    """Open a peer and its client, connected in memory."""
    ours, theirs = memory_sockets(room)
    client = Client(theirs, make_framing(), encoding or AudioEncoding("mulaw", 24_000))
    start = Start("me", encoding)
    framing = make_framing()
    text = client.framing.encode(start)
    assert text is not None
    async with create_task_group() as tasks:
        peer = WebSocketPeer(ours, framing, _as_start(framing.decode(text)), **settings)
        tasks.start_soon(peer.run)
        tasks.start_soon(client.run)
        try:
            yield peer, client
        finally:
            tasks.cancel_scope.cancel()
    client.close()
    await ours.aclose()
    await theirs.aclose()


def _as_start(event: Event) -> Start:
    assert isinstance(event, Start)
    return event


def media_of(message: str) -> bytes:
    body = json.loads(message)
    assert body["event"] == "media"
    return bytes(body["media"]["payload"], "ascii")


__all__ = ["BUFFER", "FRAME", "Client", "Pong", "media_of", "memory_sockets", "open_pair"]
