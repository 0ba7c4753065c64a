"""FastRTC's reference programs with only their import changed."""

from __future__ import annotations

import asyncio
import json
import queue
from typing import Any

import anyio
import numpy as np

from fastrtc_anyio import (
    AdditionalOutputs,
    AsyncStreamHandler,
    CloseStream,
    EmitType,
    StreamHandler,
    wait_for_item,
)
from fastrtc_anyio.testing import tone

RATE = 24_000


class EchoHandler(StreamHandler):
    """The first program of "Stream Handlers": ``emit`` blocks until audio is queued."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: queue.Queue[Any] = queue.Queue()

    def receive(self, frame: tuple[int, Any]) -> None:
        self.queue.put(frame)

    def emit(self) -> EmitType:
        return self.queue.get()  # type: ignore[no-any-return]

    def copy(self) -> EchoHandler:
        return EchoHandler()

    def shutdown(self) -> None:
        self.queue.put(None)

    def start_up(self) -> None:
        pass


class PoliteEchoHandler(EchoHandler):
    """The echo of "Stream Handlers" whose ``emit`` returns None instead of blocking."""

    def emit(self) -> EmitType:
        try:
            return self.queue.get_nowait()  # type: ignore[no-any-return]
        except queue.Empty:
            return None

    def copy(self) -> PoliteEchoHandler:
        return PoliteEchoHandler()


class AsyncEchoHandler(AsyncStreamHandler):
    """ "Async Stream Handlers": an asyncio queue, created before any loop runs."""

    def __init__(self) -> None:
        super().__init__(input_sample_rate=24000)
        self.queue: asyncio.Queue[Any] = asyncio.Queue()

    async def receive(self, frame: tuple[int, Any]) -> None:
        await self.queue.put(frame)

    async def emit(self) -> EmitType:
        return await wait_for_item(self.queue)

    def copy(self) -> AsyncEchoHandler:
        return AsyncEchoHandler()

    async def shutdown(self) -> None:
        pass

    async def start_up(self) -> None:
        pass


class MemoryStreamEchoHandler(AsyncStreamHandler):
    """The echo of "Async Stream Handlers" with an anyio memory stream, for both backends."""

    def __init__(self) -> None:
        super().__init__(input_sample_rate=24000)
        self.send, self.queue = anyio.create_memory_object_stream[Any](100)

    async def receive(self, frame: tuple[int, Any]) -> None:
        await self.send.send(frame)

    async def emit(self) -> EmitType:
        return await wait_for_item(self.queue)

    def copy(self) -> MemoryStreamEchoHandler:
        return MemoryStreamEchoHandler()

    async def shutdown(self) -> None:
        self.send.close()
        self.queue.close()

    async def start_up(self) -> None:
        pass


class RealtimeAPI:
    """A connection to a speech service that answers every half second of audio, in less time."""

    PERIOD = RATE // 2
    SIZE = RATE * 2 // 5

    def __init__(self) -> None:
        self.log: list[str] = []
        self._send, self._events = anyio.create_memory_object_stream[dict[str, Any]](100)
        self._heard = 0

    async def __aenter__(self) -> RealtimeAPI:
        self.log.append("connected")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.log.append("disconnected")
        self._send.close()
        self._events.close()

    def __aiter__(self) -> RealtimeAPI:
        return self

    async def __anext__(self) -> dict[str, Any]:
        return await self._events.receive()

    async def append(self, samples: Any) -> None:
        before, self._heard = self._heard // self.PERIOD, self._heard + samples.size
        if self._heard // self.PERIOD > before:
            self.log.append("answered")
            answer = np.full((1, self.SIZE), 1000, np.int16)
            await self._send.send({"type": "audio", "samples": answer})
            await self._send.send({"type": "transcript", "text": f"answer {len(self.log) - 1}"})


class RealtimeHandler(AsyncStreamHandler):
    """ "Talk to OpenAI": ``start_up`` holds the connection for the whole call."""

    def __init__(self, api: RealtimeAPI) -> None:
        super().__init__("mono", output_sample_rate=RATE, input_sample_rate=RATE)
        self.api = api
        self.connection: RealtimeAPI | None = None
        self.send, self.output_queue = anyio.create_memory_object_stream[Any](100)

    def copy(self) -> RealtimeHandler:
        return RealtimeHandler(self.api)

    async def start_up(self) -> None:
        async with self.api as connection:
            self.connection = connection
            async for event in connection:
                if event["type"] == "audio":
                    await self.send.send((self.output_sample_rate, event["samples"]))
                else:
                    message = {"role": "assistant", "content": event["text"]}
                    await self.send.send(AdditionalOutputs(message))

    async def receive(self, frame: tuple[int, Any]) -> None:
        if self.connection is None:
            return
        _, array = frame
        await self.connection.append(array.squeeze())

    async def emit(self) -> EmitType:
        return await wait_for_item(self.output_queue)

    async def shutdown(self) -> None:
        self.connection = None
        self.send.close()
        self.output_queue.close()


class FarewellHandler(StreamHandler):
    """Emits three sentences of one second, the last one with ``CloseStream``."""

    def __init__(self) -> None:
        super().__init__(output_sample_rate=RATE)
        self.sentences = [tone(frequency, RATE, 1.0) for frequency in (440, 550, 660)]

    def receive(self, frame: tuple[int, Any]) -> None:
        pass

    def emit(self) -> EmitType:
        samples = self.sentences.pop(0)
        if self.sentences:
            return RATE, samples
        return (RATE, samples), CloseStream("Goodbye!")

    def copy(self) -> FarewellHandler:
        return FarewellHandler()


class InstructedHandler(AsyncStreamHandler):
    """ "Requesting Inputs": ``start_up`` waits for the client's inputs."""

    def __init__(self) -> None:
        super().__init__(output_sample_rate=RATE)

    async def start_up(self) -> None:
        if not self.phone_mode:
            await self.wait_for_args()
        await self.send_message(json.dumps({"type": "log", "data": self.latest_args}))

    async def receive(self, frame: tuple[int, Any]) -> None:
        pass

    async def emit(self) -> EmitType:
        return None

    def copy(self) -> InstructedHandler:
        return InstructedHandler()


class PlainInstructedHandler(StreamHandler):
    """ "Requesting Inputs" with synchronous methods: ``emit`` waits for the inputs."""

    def __init__(self) -> None:
        super().__init__(output_sample_rate=RATE)
        self.asked = False

    def receive(self, frame: tuple[int, Any]) -> None:
        pass

    def emit(self) -> EmitType:
        if not self.asked:
            self.asked = True
            self.wait_for_args_sync()
            self.send_message_sync(json.dumps({"type": "log", "data": self.latest_args}))
        return None

    def copy(self) -> PlainInstructedHandler:
        return PlainInstructedHandler()
