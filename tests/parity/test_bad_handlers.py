"""Misbehaving handlers on virtual time, beside a call that must not lose or delay a frame.

Synchronous handlers that block forever need real time: ``real_time/test_bad_handlers.py``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import (
    AsyncAudioVideoStreamHandler,
    AsyncStreamHandler,
    AudioFrame,
    AudioVideoStreamHandler,
    CloseReason,
    EmitType,
    HandlerContractError,
    Limits,
    SessionState,
    StreamHandler,
    StreamHandlerBase,
    VideoEmitType,
)
from fastrtc_anyio.testing import Call, open_call
from tests.kit.handlers import AsyncEcho

FRAMES = 100
MANY = 400_000
"""Samples of a long emission, 8 s and more."""


@asynccontextmanager
async def neighbour() -> AsyncGenerator[None, None]:
    """Call an echo for two seconds while the block runs.

    Every frame must come back on time: the first one in the frame that is played after it was sent,
    the others without a gap.
    """
    async with open_call(AsyncEcho(output_sample_rate=48_000)) as call:
        async with anyio.create_task_group() as tg:
            tg.start_soon(_talk, call)
            yield
        await anyio.sleep(0.05)
    levels = [int(piece[0, 0]) for piece in call.client.heard]
    assert levels[: FRAMES + 1] == [0, *range(1, FRAMES + 1)]
    # The last one fades out.
    assert all((piece == piece[0, 0]).all() for piece in call.client.heard[: FRAMES + 1])


async def _talk(call: Call) -> None:
    due = anyio.current_time() + 0.01  # between two playout frames
    for level in range(1, FRAMES + 1):
        await anyio.sleep_until(due)
        call.client.send_audio(AudioFrame(48_000, np.full((1, 960), level, np.int16)))
        due += 0.02


async def _nudge(call: Call) -> None:
    """Trigger every method of a handler."""
    if call.session.media.audio_in:
        call.client.send_audio(AudioFrame(48_000, np.zeros((1, 960), np.int16)))
    if call.session.media.video_in:
        call.client.send_video(np.zeros((16, 16, 3), np.uint8))
    call.client.send_message("hello")
    await anyio.sleep(0.1)


async def over(call: Call) -> None:
    """Wait until a call has ended."""
    with anyio.fail_after(10):
        await call.ended.wait()


class Misbehaving(AsyncAudioVideoStreamHandler):
    """Misbehaves in one method."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.reached = 0
        self.shutdowns = 0

    async def misbehave(self) -> None:
        raise NotImplementedError

    async def _at(self, where: str) -> None:
        if where == self.where:
            self.reached += 1
            await self.misbehave()

    async def start_up(self) -> None:
        await self._at("start_up")

    async def receive(self, frame: Any) -> None:
        await self._at("receive")

    async def emit(self) -> EmitType:
        await self._at("emit")
        return None

    async def video_receive(self, frame: Any) -> None:
        await self._at("video_receive")

    async def video_emit(self) -> VideoEmitType:
        await self._at("video_emit")
        return None

    async def on_message(self, message: str) -> None:
        await self._at("on_message")

    async def shutdown(self) -> None:
        self.shutdowns += 1
        await self._at("shutdown")

    def copy(self) -> Misbehaving:
        return type(self)(self.where)


PARTS = ["start_up", "receive", "emit", "video_receive", "video_emit", "on_message"]


class BlockedForEver(Misbehaving):
    async def misbehave(self) -> None:
        await anyio.sleep_forever()


@pytest.mark.parametrize("where", PARTS)
async def test_method_that_never_returns_is_cancelled_at_hang_up(where: str) -> None:
    handler = BlockedForEver(where)
    async with neighbour(), open_call(handler) as call:
        await _nudge(call)
        await _nudge(call)
        began = anyio.current_time()
        call.client.hang_up()
        await over(call)
        assert anyio.current_time() == began
    assert (handler.reached, handler.shutdowns) == (1, 1)
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HUNG_UP
    assert call.session.error is None


async def test_shutdown_that_never_returns_is_cancelled_at_its_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler, limits = BlockedForEver("shutdown"), Limits(shutdown=0.7)
    async with neighbour(), open_call(handler, limits=limits) as call:
        await _nudge(call)
        began = anyio.current_time()
        call.client.hang_up()
        await over(call)
        assert anyio.current_time() - began == pytest.approx(0.7)
    assert call.session.state is SessionState.CLOSED
    assert "shutdown exceeded 0.7 s" in caplog.text


class SwallowsCancellation(Misbehaving):
    times = 20

    async def misbehave(self) -> None:
        for _ in range(self.times):
            with suppress(BaseException):
                await anyio.sleep_forever()


@pytest.mark.parametrize("where", PARTS)
async def test_method_that_swallows_some_cancellations_ends_with_the_call(where: str) -> None:
    handler = SwallowsCancellation(where)
    async with neighbour(), open_call(handler) as call:
        await _nudge(call)
        call.client.hang_up()
        await over(call)
    assert handler.reached == handler.shutdowns == 1
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HUNG_UP
    assert call.session.error is None


@pytest.mark.parametrize("where", PARTS)
async def test_client_is_closed_while_a_method_swallows_every_cancellation(
    where: str,
) -> None:
    class Undying(Misbehaving):
        dead = False

        async def misbehave(self) -> None:
            while not self.dead:
                with suppress(BaseException):
                    await anyio.sleep_forever()

    handler = Undying(where)
    async with open_call(handler, limits=Limits(time_limit=1)) as call:
        await _nudge(call)
        with anyio.fail_after(10):
            closed = await call.peer.wait_closed()
        assert closed.reason is CloseReason.CANCELLED
        assert json.loads(await call.client.receive_message())["type"] == "end_stream"
        assert not call.ended.is_set()
        handler.dead = True
        await over(call)
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.TIME_LIMIT


class Emits(StreamHandlerBase):
    """Emits the same object at every call."""

    def __init__(self, emission: Any) -> None:
        super().__init__(output_sample_rate=48_000)
        self.emission = emission
        self.emitted = 0

    def emission_again(self) -> Any:
        self.emitted += 1
        return self.emission

    def copy(self) -> Any:
        return type(self)(self.emission)


class Emitting(Emits, AsyncStreamHandler):
    async def receive(self, frame: Any) -> None: ...

    async def emit(self) -> EmitType:
        return self.emission_again()  # type: ignore[no-any-return]


class EmittingOnAThread(Emits, StreamHandler):
    def receive(self, frame: Any) -> None: ...

    def emit(self) -> EmitType:
        return self.emission_again()  # type: ignore[no-any-return]


EMITTING = pytest.mark.parametrize("kind", [Emitting, EmittingOnAThread])

INVALID_AUDIO = {
    "int32": (24_000, np.zeros(480, np.int32)),
    "float64": (24_000, np.zeros(480)),
    "complex": (24_000, np.zeros(480, np.complex64)),
    "objects": (24_000, np.array([None] * 480)),
    "text": (24_000, np.array(["a"] * 480)),
    "NaN": (24_000, np.full(480, np.nan, np.float32)),
    "one NaN": (24_000, np.array([0.0] * 479 + [np.nan], np.float32)),
    "3-D": (24_000, np.zeros((1, 1, 480), np.int16)),
    "0-D": (24_000, np.array(1, np.int16)),
    "interleaved": (24_000, np.zeros((480, 2), np.int16)),
    "zero rate": (0, np.zeros(480, np.int16)),
    "negative rate": (-24_000, np.zeros(480, np.int16)),
    "rate NaN": (float("nan"), np.zeros(480, np.int16)),
    "rate as text": ("24000", np.zeros(480, np.int16)),
    "swapped": (np.zeros(480, np.int16), 24_000),
    "list": (24_000, [0] * 480),
    "bytes": b"\0" * 960,
    "array alone": np.zeros(480, np.int16),
    "class": EmittingOnAThread,
    "exception": ValueError("returned, not raised"),
    "coroutine function": _nudge,
}


@EMITTING
@pytest.mark.parametrize("invalid", INVALID_AUDIO)
async def test_invalid_audio_ends_the_call_with_error(kind: Any, invalid: str) -> None:
    handler = kind(INVALID_AUDIO[invalid])
    async with neighbour(), open_call(handler, raise_errors=False) as call:
        await over(call)
        told = json.loads(await call.client.receive_message())
    assert handler.emitted == 1
    assert told["type"] == "error"
    assert isinstance(call.session.error, HandlerContractError)
    assert f"{kind.__name__}.emit" in str(call.session.error)
    assert len(str(call.session.error)) < 500
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_ERROR
    assert not np.any(call.heard)


@EMITTING
@pytest.mark.parametrize("shape", [(0,), (1, 0), (2, 0)])
async def test_empty_audio_waits_one_frame(kind: Any, shape: tuple[int, ...]) -> None:
    handler = kind((24_000, np.zeros(shape, np.int16)))
    async with neighbour(), open_call(handler) as call:
        await anyio.sleep(1)
    assert 45 <= handler.emitted <= 52
    assert call.session.error is None


@EMITTING
@pytest.mark.parametrize(("dtype", "rate"), [(np.int16, 48_000), (np.float32, 44_100)])
async def test_many_samples_at_once_are_played(kind: Any, dtype: Any, rate: int) -> None:
    level = 1000 if dtype is np.int16 else 1000 / 32768
    handler = kind((rate, np.full(MANY, level, dtype)))
    async with neighbour(), open_call(handler) as call:
        await anyio.sleep(12)
        statistics = call.session.statistics().audio_out
    assert statistics is not None
    # The queue holds 30 s and one more chunk, and emit may have returned another one.
    chunk = MANY * 48_000 / rate
    assert statistics.buffered <= 30 * 48_000 + chunk
    assert handler.emitted <= 7
    loud = np.flatnonzero(np.abs(call.heard[0].astype(int) - 1000) <= 5)
    assert loud.size == pytest.approx(12 * 48_000, abs=4800)
    assert np.all(np.diff(loud) == 1) or rate != 48_000
    assert statistics.underruns == 0


@EMITTING
async def test_many_queued_samples_do_not_delay_the_end(kind: Any) -> None:
    handler = kind((8_000, np.ones(MANY, np.int16)))
    async with neighbour(), open_call(handler) as call:
        await anyio.sleep(1)
        began = anyio.current_time()
        call.client.hang_up()
        await over(call)
        assert anyio.current_time() == began
    assert call.session.error is None


class Showing(Emits, AsyncAudioVideoStreamHandler):
    """Emits the same picture at every call."""

    async def receive(self, frame: Any) -> None: ...

    async def emit(self) -> EmitType:
        return None

    async def video_receive(self, frame: Any) -> None: ...

    async def video_emit(self) -> VideoEmitType:
        return self.emission_again()  # type: ignore[no-any-return]


class ShowingOnAThread(Emits, AudioVideoStreamHandler):
    def receive(self, frame: Any) -> None: ...

    def emit(self) -> EmitType:
        return None

    def video_receive(self, frame: Any) -> None: ...

    def video_emit(self) -> VideoEmitType:
        return self.emission_again()  # type: ignore[no-any-return]


INVALID_PICTURES = {
    "int32": np.zeros((48, 64, 3), np.int32),
    "float64": np.zeros((48, 64, 3)),
    "NaN": np.full((48, 64, 3), np.nan, np.float32),
    "RGBA": np.zeros((48, 64, 4), np.uint8),
    "1-D": np.zeros(64, np.uint8),
    "4-D": np.zeros((1, 48, 64, 3), np.uint8),
    "0-D": np.array(1, np.uint8),
    "no rows": np.zeros((0, 64, 3), np.uint8),
    "no columns": np.zeros((48, 0, 3), np.uint8),
    "too wide": np.zeros((1, 8193, 3), np.uint8),
    "list": [[0]],
    "audio": (24_000, np.zeros(480, np.int16)),
    "bytes": b"\xff\xd8\xff",
    "text": "picture.png",
}


@pytest.mark.parametrize("kind", [Showing, ShowingOnAThread])
@pytest.mark.parametrize("invalid", INVALID_PICTURES)
async def test_invalid_picture_ends_the_call_with_error(kind: Any, invalid: str) -> None:
    handler = kind(INVALID_PICTURES[invalid])
    async with neighbour(), open_call(handler, raise_errors=False) as call:
        await over(call)
        told = json.loads(await call.client.receive_message())
    assert handler.emitted == 1
    assert told["type"] == "error"
    assert isinstance(call.session.error, HandlerContractError)
    assert f"{kind.__name__}.video_emit" in str(call.session.error)
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_ERROR


@pytest.mark.parametrize("kind", [Showing, ShowingOnAThread])
async def test_endless_pictures_are_sent_at_the_frame_rate(kind: Any) -> None:
    handler = kind(np.full((48, 64, 3), 7, np.uint8))
    async with neighbour(), open_call(handler) as call:
        await anyio.sleep(1)
    assert 28 <= call.client.pictures <= 31
    assert handler.emitted <= call.client.pictures + 3


@pytest.mark.parametrize("invalid", [None, 3, "text", np.zeros((2, 2), np.int32), b""])
async def test_return_values_of_other_methods_are_ignored(invalid: Any) -> None:
    class Returning(Misbehaving):
        async def _at(self, where: str) -> Any:
            return invalid

        async def start_up(self) -> Any:
            return invalid

        async def receive(self, frame: Any) -> Any:
            return invalid

        async def video_receive(self, frame: Any) -> Any:
            return invalid

        async def on_message(self, message: str) -> Any:
            return invalid

        async def shutdown(self) -> Any:
            return invalid

    async with neighbour(), open_call(Returning("nowhere")) as call:
        await _nudge(call)
        await _nudge(call)
    assert call.session.error is None
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HUNG_UP
