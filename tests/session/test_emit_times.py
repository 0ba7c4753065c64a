"""When ``emit`` is called: an ``emit`` without audio, on virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import AsyncStreamHandler, AudioFrame, EmitType, StreamHandler
from fastrtc_anyio.testing import Call, open_call

RATE = 24_000


class _Polled:
    def __init__(self) -> None:
        super().__init__(input_sample_rate=RATE)  # type: ignore[call-arg]
        self.frames: list[Any] = []
        self.silent = False
        self.calls = 0  # of emit

    def take(self) -> EmitType:
        self.calls += 1
        return self.frames.pop(0) if self.frames and not self.silent else None


class Polled(_Polled, StreamHandler):
    """A sync echo whose ``emit`` never waits."""

    def receive(self, frame: Any) -> None:
        self.frames.append(frame)

    def emit(self) -> EmitType:
        return self.take()

    def copy(self) -> Polled:
        return Polled()


class AsyncPolled(_Polled, AsyncStreamHandler):
    """An async echo whose ``emit`` never waits."""

    async def receive(self, frame: Any) -> None:
        self.frames.append(frame)

    async def emit(self) -> EmitType:
        return self.take()

    def copy(self) -> AsyncPolled:
        return AsyncPolled()


@pytest.fixture(params=[Polled, AsyncPolled])
def handler(request: pytest.FixtureRequest) -> Any:
    return request.param()


def speak(call: Call) -> None:
    call.client.send_audio(AudioFrame(RATE, np.full((1, RATE // 50), 1000, np.int16)))


async def test_frame_received_is_emitted_without_delay(handler: Any) -> None:
    async with open_call(handler) as call:
        for delay in (0.107, 0.019, 0.0205, 0.033, 0.001):
            await anyio.sleep(delay)
            before = call.session.audio_out.statistics().sent
            speak(call)
            await anyio.sleep(0.0001)
            assert call.session.audio_out.statistics().sent == before + RATE // 50


async def test_idle_emit_is_called_every_20_ms(handler: Any) -> None:
    async with open_call(handler):
        await anyio.sleep(0.1)
        before = handler.calls
        await anyio.sleep(1)
        assert 48 <= handler.calls - before <= 51


async def test_emit_without_audio_is_called_once_for_each_frame_received(handler: Any) -> None:
    handler.silent = True
    async with open_call(handler) as call:
        await anyio.sleep(0.1)
        before = handler.calls
        for _ in range(50):
            speak(call)
            await anyio.sleep(0.02)
        # An emit that is running when receive returns is followed by another one.
        assert 48 <= handler.calls - before <= 2 * 50 + 2
