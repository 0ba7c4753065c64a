"""Handlers with the shapes of those in FastRTC's demos: each keeps a connection to a service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np

from fastrtc_anyio import (
    AdditionalOutputs,
    AsyncAudioVideoStreamHandler,
    AsyncStreamHandler,
    wait_for_item,
)
from fastrtc_anyio.utils import audio_to_int16

RATE = 24_000
VOICE = np.full((1, RATE // 2), 4000, np.int16)
"""Audio from the text-to-speech service: half a second."""


class Service:
    """A connection to a speech-to-speech service: answers once, after half a second of audio."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.frames = 0
        self.closed = False

    async def send(self, text: str) -> None:
        if json.loads(text)["type"] == "audio":
            self.frames += 1
        if self.frames == 25:
            self.frames += 1
            for event in ("speech_started", "transcript", "audio"):
                await self.events.put({"type": event})

    async def close(self) -> None:
        self.closed = True

    def __aiter__(self) -> Service:
        return self

    async def __anext__(self) -> dict[str, Any]:
        return await self.events.get()


@asynccontextmanager
async def connect(**_: Any) -> AsyncGenerator[Service]:
    yield Service()


class ServiceHandler(AsyncStreamHandler):
    """Keeps a connection open in ``start_up``, and forwards audio with asyncio's queues."""

    def __init__(self) -> None:
        super().__init__("mono", output_sample_rate=RATE, input_sample_rate=16_000)
        self.connection: Service | None = None
        self.output_queue: asyncio.Queue[Any] = asyncio.Queue()

    def copy(self) -> ServiceHandler:
        return type(self)()

    async def start_up(self) -> None:
        async with connect() as self.connection:
            await self.forward(self.connection)

    async def forward(self, connection: Service) -> None:
        async for event in connection:
            if event["type"] == "speech_started":
                self.clear_queue()
            elif event["type"] == "transcript":
                message = {"role": "assistant", "content": "hello"}
                await self.output_queue.put(AdditionalOutputs(message))
            else:
                await self.output_queue.put((self.output_sample_rate, VOICE))

    async def receive(self, frame: tuple[int, Any]) -> None:
        if self.connection is not None:
            samples = audio_to_int16(frame[1].squeeze())
            await self.connection.send(json.dumps({"type": "audio", "size": samples.size}))

    async def emit(self) -> Any:
        return await wait_for_item(self.output_queue)

    async def shutdown(self) -> None:
        if self.connection:
            await self.connection.close()
            self.connection = None
        return super().shutdown()  # type: ignore[return-value]


class TaskHandler(ServiceHandler):
    """Starts a task in ``start_up``, which returns."""

    async def start_up(self) -> None:
        self.connection = Service()
        self.task = asyncio.create_task(self.forward(self.connection))


class ArgumentsHandler(ServiceHandler):
    """Waits for the inputs of the page before it connects."""

    async def start_up(self) -> None:
        if not self.phone_mode:
            await self.wait_for_args()
            key, voice = self.latest_args[1:]
            assert (key, voice) == ("secret", "Ada")
        await super().start_up()


class StreamingHandler(ServiceHandler):
    """Passes a generator to the service, which ends when an asyncio event is set."""

    def __init__(self) -> None:
        super().__init__()
        self.input_queue: asyncio.Queue[Any] = asyncio.Queue()
        self.quit = asyncio.Event()

    async def stream(self) -> AsyncGenerator[Any]:
        while not self.quit.is_set():
            with suppress(TimeoutError):
                yield await asyncio.wait_for(self.input_queue.get(), 0.1)

    async def start_up(self) -> None:
        count = 0
        async for _ in self.stream():
            count += 1
            if count == 25:
                self.output_queue.put_nowait((RATE, VOICE[0]))

    async def receive(self, frame: tuple[int, Any]) -> None:
        self.input_queue.put_nowait(frame[1].squeeze())

    def shutdown(self) -> None:  # type: ignore[override]
        self.quit.set()


class PictureHandler(AsyncAudioVideoStreamHandler):
    """Answers audio with audio and pictures with the newest picture; a picture is an input."""

    def __init__(self) -> None:
        super().__init__("mono", output_sample_rate=RATE, input_sample_rate=16_000)
        self.audio_queue: asyncio.Queue[Any] = asyncio.Queue()
        self.video_queue: asyncio.Queue[Any] = asyncio.Queue()

    def copy(self) -> PictureHandler:
        return PictureHandler()

    async def start_up(self) -> None:
        await self.wait_for_args()
        assert self.latest_args[1] is None

    async def receive(self, frame: tuple[int, Any]) -> None:
        self.audio_queue.put_nowait(frame[1])

    async def emit(self) -> Any:
        samples = await wait_for_item(self.audio_queue, 0.01)
        return None if samples is None else (16_000, samples)

    async def video_receive(self, frame: Any) -> None:
        self.video_queue.put_nowait(frame)

    async def video_emit(self) -> Any:
        frame = await wait_for_item(self.video_queue, 0.01)
        return np.zeros((100, 100, 3), np.uint8) if frame is None else frame
