"""Echo servers of fastrtc_anyio. Public names only: they also run with older source trees."""

from __future__ import annotations

import queue
from typing import Any

import anyio

from benchmarks.servers.lines import LOOPBACK, Answers, answer_offers
from fastrtc_anyio import (
    AsyncStreamHandler,
    Limits,
    RtcConfiguration,
    Session,
    Stream,
    StreamHandler,
)


class Echo(AsyncStreamHandler):
    def __init__(self, rate: int) -> None:
        super().__init__(input_sample_rate=rate, output_sample_rate=rate)
        self.rate = rate
        self.to_client, self.from_client = anyio.create_memory_object_stream[Any](50)

    async def receive(self, frame: Any) -> None:
        await self.to_client.send(frame)

    async def emit(self) -> Any:
        return await self.from_client.receive()

    async def shutdown(self) -> None:
        self.to_client.close()
        self.from_client.close()

    def copy(self) -> Echo:
        return Echo(self.rate)


class SyncEcho(StreamHandler):
    def __init__(self, rate: int) -> None:
        super().__init__(input_sample_rate=rate, output_sample_rate=rate)
        self.rate = rate
        self.frames: queue.Queue[Any] = queue.Queue()

    def receive(self, frame: Any) -> None:
        self.frames.put(frame)

    def emit(self) -> Any:
        return self.frames.get()

    def shutdown(self) -> None:
        self.frames.put(None)

    def copy(self) -> SyncEcho:
        return SyncEcho(self.rate)


async def echo_session(session: Session) -> None:
    async for frame in session.audio_in:
        await session.audio_out.send(frame)


HANDLERS = {"async": Echo, "sync": SyncEcho}


def serve(handler: str, rate: int, backend: str) -> None:
    anyio.run(_serve, handler, rate, backend=backend)


async def _serve(handler: str, rate: int) -> None:
    answers = Answers()
    stream = Stream(
        echo_session if handler == "session" else HANDLERS[handler](rate),
        modality="audio",
        mode="send-receive",
        concurrency_limit=None,
        server_rtc_configuration=RtcConfiguration(addresses=(LOOPBACK,)),
        limits=Limits(lag=None),  # the others admit calls without limit
        verbose=False,
    )

    async def answer(sdp: str, identifier: str) -> str:
        reply = await stream.offer({"type": "offer", "sdp": sdp, "webrtc_id": identifier})
        return str(reply["sdp"])

    async with stream:
        await answer_offers(answers, answer)
