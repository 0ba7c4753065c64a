"""Synchronous handlers that block, in real time. The tests count frames and measure no time."""

from __future__ import annotations

import queue
import threading
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import (
    AudioFrame,
    AudioVideoStreamHandler,
    CloseReason,
    EmitType,
    Limits,
    SessionState,
    VideoEmitType,
)
from fastrtc_anyio.testing import Call, open_call
from tests.kit.handlers import AsyncEcho, Echo, SyncQuiet
from tests.kit.waiting import SECONDS, wait_until

from .echoes import check_every_frame_comes_back, threads_of


class Blocked(AudioVideoStreamHandler):
    """Blocks in one of its methods until the test releases it."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.entered = threading.Event()
        self.release = threading.Event()
        self.calls: list[str] = []

    def _at(self, where: str) -> None:
        if where == self.where:
            self.calls.append(where)
            self.entered.set()
            self.release.wait()

    def start_up(self) -> None:
        self._at("start_up")

    def receive(self, frame: Any) -> None:
        self._at("receive")

    def emit(self) -> EmitType:
        self._at("emit")
        return None

    def video_receive(self, frame: Any) -> None:
        self._at("video_receive")

    def video_emit(self) -> VideoEmitType:
        self._at("video_emit")
        return None

    def on_message(self, message: str) -> None:
        self._at("on_message")

    def shutdown(self) -> None:
        self.calls.append("called")
        self._at("shutdown")

    def copy(self) -> Blocked:
        return Blocked(self.where)


def nudge(call: Call) -> None:
    """Trigger every method of the handler."""
    call.client.send_audio(AudioFrame(48_000, np.zeros((1, 960), np.int16)))
    call.client.send_video(np.zeros((16, 16, 3), np.uint8))
    call.client.send_message("hello")


@pytest.mark.parametrize(
    "where", ["start_up", "receive", "emit", "video_receive", "video_emit", "on_message"]
)
async def test_blocked_method_is_abandoned_at_the_end(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Blocked(where)
    async with open_call(AsyncEcho(output_sample_rate=48_000), live=False) as neighbour:
        try:
            async with open_call(handler, limits=Limits(shutdown=0.2)) as call:
                nudge(call)
                await wait_until(handler.entered.is_set)
                nudge(call)
                await check_every_frame_comes_back(neighbour)
                call.client.hang_up()
                with anyio.fail_after(SECONDS):
                    await call.ended.wait()
            assert call.session.state is SessionState.CLOSED
            assert call.session.closed is not None
            assert call.session.closed.reason is CloseReason.HUNG_UP
            assert call.session.error is None
            assert call.session.abandoned_threads == 1
            (record,) = [
                r for r in caplog.records if r.__dict__.get("event") == "session.threads_abandoned"
            ]
            text, thread, *stack = record.getMessage().split("\n")
            assert text.endswith("1 threads did not return from the handler within 0.2 s:")
            assert thread == f"Blocked.{where}"
            assert any(line.endswith(f", in {where}") for line in stack)
            assert stack[-1].strip() == "self.release.wait()"
            await check_every_frame_comes_back(neighbour)
        finally:
            handler.release.set()
    await wait_until(lambda: not threads_of("Blocked"))
    assert handler.calls == [where, "called"]


async def test_blocked_shutdown_is_abandoned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = Blocked("shutdown")
    async with open_call(AsyncEcho(output_sample_rate=48_000), live=False) as neighbour:
        try:
            async with open_call(handler, limits=Limits(shutdown=0.2)) as call:
                await call.client.receive_audio()  # the call has begun
                call.client.hang_up()
                await wait_until(handler.entered.is_set)
                with anyio.fail_after(SECONDS):
                    await call.ended.wait()
            assert call.session.state is SessionState.CLOSED
            # shutdown has used the time in which the other threads could have ended
            assert call.session.abandoned_threads >= 1
            assert "shutdown exceeded 0.2 s" in caplog.text
            await check_every_frame_comes_back(neighbour)
        finally:
            handler.release.set()
    await wait_until(lambda: not threads_of("Blocked"))
    assert handler.calls == ["called", "shutdown"]


class Waiting(SyncQuiet):
    """FastRTC's textbook handler: ``emit`` blocks in an empty queue."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: queue.Queue[EmitType] = queue.Queue()
        self.emitting = threading.Event()
        self.returned = threading.Event()

    def emit(self) -> EmitType:
        self.emitting.set()
        emission = self.queue.get()
        self.returned.set()
        return emission

    def shutdown(self) -> None:
        self.queue.put(None)


async def test_d15_200_blocked_handlers_do_not_starve_a_neighbour() -> None:
    """FastRTC: six idle synchronous handlers starve an unrelated client to 0 frames a second."""
    handlers = [Waiting() for _ in range(200)]
    calls: list[Call] = []
    async with anyio.create_task_group() as tg:
        done = anyio.Event()

        async def hold(handler: Waiting) -> None:
            async with open_call(handler) as call:
                calls.append(call)
                await done.wait()

        for handler in handlers:
            tg.start_soon(hold, handler)
        for handler in handlers:
            await wait_until(handler.emitting.is_set)
        for kind in (AsyncEcho, Echo):
            async with open_call(kind(output_sample_rate=48_000), live=False) as call:
                await check_every_frame_comes_back(call)
        assert not any(handler.returned.is_set() for handler in handlers)
        assert len(threads_of("Waiting.emit")) == 200
        done.set()
    assert [call.session.abandoned_threads for call in calls] == [0] * 200
    await wait_until(lambda: not threads_of("Waiting"))
    assert all(handler.returned.is_set() for handler in handlers)
