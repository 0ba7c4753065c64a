"""Echo servers of fastrtc_anyio. Public names only: they also run with older source trees."""

from __future__ import annotations

import queue
from typing import Any

import anyio
from anyio import create_task_group

from benchmarks.servers.lines import LOOPBACK, Answers, answer_offers
from benchmarks.servers.reply import reply
from fastrtc_anyio import (
    AsyncStreamHandler,
    Limits,
    ReplyOnPause,
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


class StoppingEcho(Echo):
    """Every fourth copy stops for half a second: runs/recovery.py."""

    copies = 0

    def __init__(self, rate: int, number: int = 0) -> None:
        super().__init__(rate)
        self.number = number
        self.received = 0

    async def receive(self, frame: Any) -> None:
        self.received += 1
        if self.received == 250 and self.number % 4 == 0:
            await anyio.sleep(0.5)
        await super().receive(frame)

    def copy(self) -> StoppingEcho:
        StoppingEcho.copies += 1
        return StoppingEcho(self.rate, StoppingEcho.copies)


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


HANDLERS = {"async": Echo, "sync": SyncEcho, "stopping": StoppingEcho}


SCRAPE_SECONDS = 5.0
"""Seconds between two scrapes of an observed server; Prometheus waits 15 s or longer."""


def make_handler(handler: str, rate: int) -> Any:
    match handler.partition("+")[0]:
        case "session":
            return echo_session
        case "video":
            return lambda picture: picture
        case "energy":
            from fastrtc_anyio.speech.energy import EnergyVad

            return ReplyOnPause(reply, model=EnergyVad())
        case "silero":
            return ReplyOnPause(reply)
        case name:
            return HANDLERS[name](rate)


def observability(mode: str) -> dict[str, Any]:
    """Return the arguments of a stream without any observability ("off") or with all ("on").

    Without a mode, the stream admits calls without limit, as the servers of other libraries do.
    """
    match mode:
        case "off":
            # Older source trees have no watchdog.
            block: dict[str, Any] = {"block": None} if hasattr(Limits, "block") else {}
            return {"limits": Limits(**block)}
        case "on":
            from opentelemetry.sdk.trace import TracerProvider

            from fastrtc_anyio.observability import Metrics, Tracing

            return {"observers": [Metrics(), Tracing(TracerProvider())]}
        case _:
            return {"limits": Limits(lag=None)}


async def scrape(metrics: Any) -> None:
    """Read the metrics of a stream again and again."""
    while True:
        await anyio.sleep(SCRAPE_SECONDS)
        metrics.render()


def serve(handler: str, rate: int, backend: str) -> None:
    anyio.run(_serve, handler, rate, backend=backend)


async def _serve(handler: str, rate: int) -> None:
    answers, options = Answers(), observability(handler.partition("+")[2])
    stream = Stream(
        make_handler(handler, rate),
        modality="video" if handler == "video" else "audio",
        mode="send-receive",
        concurrency_limit=None,
        server_rtc_configuration=RtcConfiguration(addresses=(LOOPBACK,)),
        verbose=False,
        **options,
    )

    async def answer(sdp: str, identifier: str) -> str:
        reply = await stream.offer({"type": "offer", "sdp": sdp, "webrtc_id": identifier})
        return str(reply["sdp"])

    async with stream, create_task_group() as tasks:
        for metrics in options.get("observers", [])[:1]:
            tasks.start_soon(scrape, metrics)
        await answer_offers(answers, answer)
        tasks.cancel_scope.cancel()
