"""Stalled handlers add no lasting latency, and idle sessions end at their limit."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest

from fastrtc_anyio import AudioFrame, CloseReason, EmitType, Limits, Session
from fastrtc_anyio.testing import Call, open_call
from tests.kit.handlers import AsyncEcho, Quiet


async def send_numbered_frames(call: Call, frames: int) -> None:
    """Send 20 ms frames in real time, each filled with its own number."""
    for number in range(frames):
        call.client.send_audio(AudioFrame(48_000, np.full((1, 960), number, np.int16)))
        await anyio.sleep(0.02)


class StallsOnce(Quiet):
    """Blocks in ``receive`` for some seconds, once, after 50 frames."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.heard: list[int] = []

    async def receive(self, frame: Any) -> None:
        self.heard.append(int(frame[1][0, 0]))
        if len(self.heard) == 50:
            await anyio.sleep(self.seconds)


async def test_long_stall_jumps_to_live_edge_and_counts_dropped_frames() -> None:
    handler = StallsOnce(5)
    async with open_call(handler) as call:
        await send_numbered_frames(call, 400)
        counted = call.session.statistics().audio_in
    after = handler.heard[50]
    assert after - 49 >= 5 * 50 - 2, "the frame after the stall is at the live edge"
    assert handler.heard[50:] == list(range(after, 400))
    assert counted is not None
    assert counted.dropped == after - 50
    assert counted.received == 400 == len(handler.heard) + counted.dropped + counted.buffered


async def test_short_stall_drops_no_frame() -> None:
    handler = StallsOnce(0.9)
    async with open_call(handler) as call:
        await send_numbered_frames(call, 200)
        counted = call.session.statistics().audio_in
    assert handler.heard == list(range(200))
    assert counted is not None
    assert counted.dropped == 0


def clicks(frames: int, every: int = 25) -> list[Any]:
    """Return silent frames with a click in every 25th, from which to measure latency."""
    silence, click = np.zeros((1, 960), np.int16), np.full((1, 960), 9000, np.int16)
    return [click if i % every == 0 else silence for i in range(frames)]


def latencies(call: Call, every: int = 25) -> dict[int, int]:
    """Map each click's frame number to its latency at the client, in frames."""
    out = call.peer.audio_out.sample_rate // 50
    loud = np.flatnonzero(np.abs(call.heard[0]) > 4000) // out
    starts = [int(i) for k, i in enumerate(loud) if k == 0 or i - loud[k - 1] > 1]
    found: dict[int, int] = {}
    for start in starts:
        sent = start // every * every
        found[sent] = start - sent
    return found


@pytest.mark.parametrize("stall", [0.3, 0.8, 5.0])
@pytest.mark.parametrize("kind", ["session function", "handler"])
async def test_echo_returns_to_its_latency_after_stall(stall: float, kind: str) -> None:
    stalled = False

    async def echo(session: Session) -> None:
        nonlocal stalled
        count = 0
        async for frame in session.audio_in:
            await session.audio_out.send(frame)
            count += 1
            if count == 100:
                stalled = True
                await anyio.sleep(stall)

    class Echo(Quiet):
        def __init__(self) -> None:
            super().__init__()
            self.frames: list[Any] = []
            self.count = 0

        async def receive(self, frame: Any) -> None:
            self.frames.append(frame)
            self.count += 1
            if self.count == 100:
                await anyio.sleep(stall)

        async def emit(self) -> EmitType:
            return self.frames.pop(0) if self.frames else None

    handler: Any = echo if kind == "session function" else Echo()
    async with open_call(handler) as call:
        for samples in clicks(500):
            call.client.send_audio(AudioFrame(48_000, samples))
            await anyio.sleep(0.02)
        out = call.session.statistics().audio_out
    found = latencies(call)
    usual = found[50]
    resumed = 100 + round((stall + 2) * 50)
    after = {sent: late for sent, late in found.items() if sent >= resumed}
    assert after
    assert all(abs(late - usual) <= 2 for late in after.values()), (usual, found)
    assert out is not None
    assert out.sent == out.played + out.trimmed + out.buffered


@pytest.mark.parametrize("outages", [[0.3], [1.0], [3.0], [0.3, 0.4, 0.2, 1.0]], ids=str)
@pytest.mark.parametrize("lost", [False, True], ids=["late", "lost"])
async def test_echo_handler_returns_to_its_latency_after_outages(
    outages: list[float], lost: bool
) -> None:
    """Audio sent in an outage arrives in a burst at its end, or never."""
    ends, begins = [], 4.0
    for outage in outages:
        ends.append((begins, begins + outage))
        begins += outage + 0.7
    resumed = ends[-1][1] + 2
    async with open_call(AsyncEcho()) as call:
        start = anyio.current_time()
        for number, samples in enumerate(clicks(round((resumed + 2) * 50))):
            sent = number / 50
            arrives = next((end for begin, end in ends if begin <= sent < end), sent)
            if lost and arrives != sent:
                continue
            await anyio.sleep_until(start + arrives)
            call.client.send_audio(AudioFrame(48_000, samples))
            await anyio.lowlevel.checkpoint()
        out = call.session.statistics().audio_out
    found = latencies(call)
    before = {late for sent, late in found.items() if 50 <= sent < 200}
    after = {late for sent, late in found.items() if sent >= resumed * 50}
    assert after
    assert max(after) <= max(before) + 2, (found, out)
    assert out is not None
    assert out.buffered <= 4 * 480


async def test_echo_returns_to_its_latency_after_it_has_held_back_its_input() -> None:
    """The same samples prove that its output is an echo: nothing else accounts for the delay."""

    class Echo(AsyncEcho):
        def __init__(self) -> None:
            super().__init__()
            self.input_sample_rate = self.output_sample_rate = 48_000
            self.count = 0

        async def emit(self) -> EmitType:
            self.count += 1
            if self.count == 100:
                await anyio.sleep(0.4)
            return await super().emit()

    async with open_call(Echo()) as call:
        for samples in clicks(300):
            call.client.send_audio(AudioFrame(48_000, samples))
            await anyio.sleep(0.02)
    found = latencies(call)
    assert found[100] >= found[50] + 15
    assert found[275] <= found[50] + 2


async def test_handler_that_is_declared_not_live_loses_nothing() -> None:
    async with open_call(AsyncEcho(), live=False) as call:
        await send_numbered_frames(call, 200)
        for _ in range(40):
            call.client.send_audio(AudioFrame(48_000, np.ones((1, 960), np.int16)))
        await send_numbered_frames(call, 200)
        out = call.session.statistics().audio_out
    assert out is not None
    assert out.trimmed == 0
    assert out.latency >= 0.7


async def test_live_source_faster_than_real_time_loses_no_sample() -> None:
    total = 10 * 24_000

    async def talk(session: Session) -> None:
        for start in range(0, total, 2400):
            samples = np.arange(start, start + 2400) % 3000 + 1
            await session.audio_out.send((session.audio_out.sample_rate, samples.astype(np.int16)))
        await session.audio_out.wait_played()

    async with open_call(talk, live=True) as call:
        await call.ended.wait()
    heard = call.heard[0]
    spoken = heard[np.flatnonzero(heard)]
    assert np.array_equal(spoken, np.arange(total) % 3000 + 1)


class Talks(Quiet):
    def __init__(self, every: float) -> None:
        super().__init__()
        self.every = every

    async def emit(self) -> EmitType:
        await anyio.sleep(self.every)
        return (24_000, np.ones((1, 480), np.int16))


@pytest.mark.parametrize("does", ["speaks", "writes", "listens to talk"])
async def test_activity_keeps_session_open_beyond_idle_limit(does: str) -> None:
    handler = Talks(3) if does == "listens to talk" else Quiet()
    async with open_call(handler, limits=Limits(idle=10)) as call:
        for _ in range(20):
            if does == "speaks":  # a muted microphone sends silence
                call.client.send_audio(AudioFrame(48_000, np.zeros((1, 960), np.int16)))
            if does == "writes":
                call.client.send_message("still here")
            await anyio.sleep(1)
        assert not call.ended.is_set()


async def test_silent_session_ends_at_idle_limit() -> None:
    async with open_call(Quiet(), limits=Limits(idle=10)) as call:
        began = anyio.current_time()
        await call.ended.wait()
        assert 9.99 <= anyio.current_time() - began <= 10.6
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.IDLE
    assert "10 s" in call.session.closed.message


@pytest.mark.parametrize("value", [0, -1, True, "1", float("nan"), 10**400])
@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
def test_unsuitable_limit_raises(name: str, value: Any) -> None:
    ending = "" if name in ("shutdown", "close") else ", or None"
    expected = f"Limits.{name} must be a number above 0 s{ending}; got "
    with pytest.raises((TypeError, ValueError), match=expected):
        Limits(**{name: value})
