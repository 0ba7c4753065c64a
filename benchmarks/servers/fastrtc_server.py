"""Echo servers of FastRTC, as its documentation writes them."""

from __future__ import annotations

import asyncio
import queue
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aioice import ice
from fastrtc import (  # pyright: ignore[reportMissingImports]
    AsyncStreamHandler,
    ReplyOnPause,
    Stream,
    StreamHandler,
)
from fastrtc.pause_detection.silero import (  # pyright: ignore[reportMissingImports]
    SileroVADModel,
)

from benchmarks.servers.lines import LOOPBACK, Answers, answer_offers
from benchmarks.servers.reply import reply


class Echo(AsyncStreamHandler):  # type: ignore[misc]
    def __init__(self, rate: int) -> None:
        super().__init__(input_sample_rate=rate, output_sample_rate=rate)
        self.rate = rate
        self.frames: asyncio.Queue[Any] = asyncio.Queue()

    async def receive(self, frame: Any) -> None:
        await self.frames.put(frame)

    async def emit(self) -> Any:
        return await self.frames.get()

    async def start_up(self) -> None:
        pass

    async def shutdown(self) -> None:
        pass

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
            await asyncio.sleep(0.5)
        await super().receive(frame)

    def copy(self) -> StoppingEcho:
        StoppingEcho.copies += 1
        return StoppingEcho(self.rate, StoppingEcho.copies)


class SyncEcho(StreamHandler):  # type: ignore[misc]
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


HANDLERS = {"async": Echo, "sync": SyncEcho, "stopping": StoppingEcho}


def make_handler(handler: str, rate: int) -> Any:
    if handler == "video":
        return lambda picture: picture
    if handler != "silero":
        return HANDLERS[handler](rate)
    # FastRTC downloads the model; the wheel of faster-whisper contains the same version.
    spec = find_spec("faster_whisper")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "assets" / "silero_vad.onnx"
    SileroVADModel.download_model = staticmethod(lambda: str(path))
    return ReplyOnPause(reply)


def serve(handler: str, rate: int, backend: str) -> None:
    assert backend == "asyncio", "FastRTC runs on asyncio alone"
    ice.get_host_addresses = lambda **options: [LOOPBACK]
    asyncio.run(_serve(handler, rate))


async def _serve(handler: str, rate: int) -> None:
    answers = Answers()
    stream = Stream(
        make_handler(handler, rate),
        modality="video" if handler == "video" else "audio",
        mode="send-receive",
        concurrency_limit=1000,
        server_rtc_configuration={"iceServers": []},
        verbose=False,
    )

    async def answer(sdp: str, identifier: str) -> str:
        body = {"type": "offer", "sdp": sdp, "webrtc_id": identifier}
        reply = await stream.handle_offer(body, stream.set_additional_outputs(identifier))
        if handler == "video":  # as FastRTC's page does; without it, no function is called
            stream.set_input(identifier, "__webrtc_value__")
        return str(reply["sdp"])

    await answer_offers(answers, answer)
