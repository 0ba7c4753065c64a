"""Audio for tests of conversations: a voice that `LoudVad` detects, and replies to recognise."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import AudioFrame
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.conversation.events import TurnEvent
from fastrtc_anyio.conversation.handlers import ReplyOnPause
from fastrtc_anyio.testing import Call, tone

RATE = 16_000
OUT = 24_000
FRAME = 0.02
HOP = 512 / RATE
"""Seconds of one hop."""
FADE = round(0.005 * OUT)
"""Samples of a fade at the client."""
AGENTS = pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "plain"])


class LoudVad:
    """Classifies loud windows as speech. The window size is Silero's."""

    sample_rate = RATE
    window = 512
    blocking = False

    def new_stream(self) -> LoudVad:
        return self

    def probability(self, window: Int16Array) -> float:
        return float(np.abs(window).max() > 1000)


class LoudBatchModel:
    """A model with FastRTC's interface: returns the seconds of loud samples."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int]] = []

    def vad(self, audio: tuple[int, Any], options: Any) -> tuple[float, list[Any]]:
        rate, samples = audio
        self.heard.append((rate, len(samples)))
        return float(np.count_nonzero(np.abs(samples) > 1000)) / rate, []

    def warmup(self) -> None: ...


def voice(seconds: float, level: int = 8000) -> Int16Array:
    """Speech for a `LoudVad`: every sample is loud."""
    return np.full((1, round(seconds * RATE)), level, np.int16)


def silence(seconds: float) -> Int16Array:
    return np.zeros((1, round(seconds * RATE)), np.int16)


def words(seconds: float) -> tuple[int, Int16Array]:
    """A reply: a tone without a zero sample."""
    samples = tone(440, OUT, seconds, amplitude=0.3)
    samples[samples == 0] = 1
    return OUT, samples


async def nothing() -> AsyncGenerator[Any, None]:
    """An empty reply."""
    words: tuple[Any, ...] = ()
    for word in words:
        yield word


async def say(call: Call, *parts: Int16Array) -> None:
    await call.speak(np.concatenate(parts, axis=1), RATE)


async def say_in_pieces(call: Call, audio: Int16Array, sizes: Sequence[int]) -> None:
    """Send audio in real time, in pieces of these numbers of samples, repeatedly."""
    place = 0
    for count in cycle(sizes):
        if place >= audio.shape[1]:
            break
        call.client.send_audio(AudioFrame(RATE, audio[:, place : place + count]))
        place += count
        await anyio.sleep(count / RATE)


def heard_samples(call: Call) -> int:
    """Number of samples other than zero in the audio that the client received."""
    return int(np.count_nonzero(call.heard))


@dataclass
class Log:
    """The events of a conversation."""

    events: list[TurnEvent] = field(default_factory=list)

    def __call__(self, event: TurnEvent) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def agent(fn: Any, **settings: Any) -> ReplyOnPause:
    """A handler with a `LoudVad` and the sample rate of these voices."""
    settings.setdefault("model", LoudVad())
    return ReplyOnPause(fn, input_sample_rate=RATE, **settings)


def answering(seconds: float, asynchronous: bool = True, log: list[Any] | None = None) -> Any:
    """Make a reply function that yields ``seconds`` of audio, and logs its argument and its end."""
    said = [] if log is None else log

    async def reply_async(audio: Any) -> AsyncGenerator[Any, None]:
        said.append(audio)
        try:
            yield words(seconds)
        finally:
            said.append("closed")

    def reply(audio: Any) -> Generator[Any, None, None]:
        said.append(audio)
        try:
            yield words(seconds)
        finally:
            said.append("closed")

    return reply_async if asynchronous else reply
