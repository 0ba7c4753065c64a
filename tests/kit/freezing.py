"""The longest gap in a call while a model works in the same process.

``python -m tests.kit.freezing MODEL`` loads the model and uses it, and prints two numbers: the
longest time without a frame in the call meanwhile, and without the model. The process is new,
so that nothing but onnxruntime is loaded before: its first import holds the GIL for 50 ms, which
nothing in this process can avoid. It exits with status 77 if the model is not installed.
"""

from __future__ import annotations

import sys
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import numpy as np

from fastrtc_anyio import get_silero_model, get_stt_model, get_tts_model, run_sync
from fastrtc_anyio.speech.energy import EnergyVad
from fastrtc_anyio.speech.vad import Vad
from fastrtc_anyio.testing import open_call, tone

from .handlers import AsyncEcho

NOT_INSTALLED = 77
RATE = 16_000
FRAME = 0.02
_RECORDING = Path(__file__).parents[2] / "examples" / "caller.wav"
_TEXT = "Once upon a time there was a task. It was born in a nursery, with many sisters. " * 3
_PHRASES = ("tell me a story", "count to ten", "go on with the story", "goodbye for now")


def read_recording(seconds: float) -> tuple[int, Any]:
    """Return the beginning of the speech of a recorded caller."""
    with wave.open(str(_RECORDING)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    return RATE, samples[3 * RATE : round((3 + seconds) * RATE)][np.newaxis]


def _judge(load: Callable[[], Vad]) -> None:
    vad = load()
    stream = vad.new_stream()
    samples = read_recording(12)[1]
    for begin in range(0, samples.shape[1] - vad.window, vad.window):
        stream.probability(samples[:, begin : begin + vad.window])


def _find_speech() -> None:
    get_silero_model().vad(read_recording(12))


def _recognise(name: Any) -> None:
    get_stt_model(name).stt(read_recording(6))


def _recognise_phrases() -> None:
    from fastrtc_anyio.speech.pocketsphinx import PocketSphinxSTT

    model = PocketSphinxSTT(_PHRASES)
    model.stt(read_recording(12))
    model.spot(read_recording(12), ["tell me a story"])


async def _speak(name: Any, **options: Any) -> None:
    model = await run_sync(partial(get_tts_model, name, **options))
    async for _ in model.stream_tts(_TEXT):
        pass
    await run_sync(model.tts, _TEXT)


async def _speak_by_service() -> None:
    """Speak with Cartesia, from a service in memory."""
    httpx = await run_sync(import_module, "httpx")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"\x00\x10" * 2000

    def answer(_request: object) -> Any:
        return httpx.Response(200, headers={"content-type": "audio/pcm"}, content=pieces())

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    model = await run_sync(partial(get_tts_model, "cartesia", api_key="key", client=client))
    async for _ in model.stream_tts(_TEXT):
        pass


WORK: dict[str, Callable[[], Awaitable[None]]] = {
    "silero": partial(run_sync, _find_speech),
    "silero, by windows": partial(run_sync, _judge, get_silero_model),
    "energy": partial(run_sync, _judge, EnergyVad),
    "moonshine/base": partial(run_sync, _recognise, "moonshine/base"),
    "moonshine/tiny": partial(run_sync, _recognise, "moonshine/tiny"),
    "pocketsphinx": partial(run_sync, _recognise, "pocketsphinx"),
    "pocketsphinx, phrases": partial(run_sync, _recognise_phrases),
    "kokoro": partial(_speak, "kokoro"),
    "espeak-ng": partial(_speak, "espeak-ng"),
    "cartesia": _speak_by_service,
}
"""Loading and using each model, by its name and what is done with it."""


class Listener(AsyncEcho):
    """Echo that measures the time between two frames of its caller."""

    longest = 0.0
    last: float | None = None

    async def receive(self, frame: tuple[int, Any]) -> None:
        now = time.monotonic()
        if self.last is not None:
            self.longest = max(self.longest, now - self.last)
        self.last = now
        await super().receive(frame)


async def measure(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Return the longest gaps in seconds while the work is done, and during as much time after."""
    listener = Listener()
    async with open_call(listener) as call, anyio.create_task_group() as tasks:
        tasks.start_soon(call.speak, tone(440, 48_000, 60.0))
        await anyio.sleep(10 * FRAME)
        listener.longest = 0.0
        began = time.monotonic()
        await work()
        await anyio.sleep(2 * FRAME)  # the frame that ends the last gap
        with_model, listener.longest = listener.longest, 0.0
        await anyio.sleep(time.monotonic() - began)
        without_model = listener.longest
        tasks.cancel_scope.cancel()
    return with_model, without_model


if __name__ == "__main__":
    with suppress(ImportError):
        import_module("onnxruntime")
    try:
        print(*anyio.run(measure, WORK[sys.argv[1]], backend="trio"))
    except (ImportError, FileNotFoundError) as exc:
        print(exc, file=sys.stderr)
        sys.exit(NOT_INSTALLED)
