"""Outgoing audio before the format is known, its position, and checkpoints, on virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import numpy as np
import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from fastrtc_anyio import UnsupportedFormat
from fastrtc_anyio._core.host import Host
from fastrtc_anyio._media.frames import AudioFrame
from fastrtc_anyio._media.statistics import AudioOutStatistics
from fastrtc_anyio._peers.memory import MemoryPeer
from fastrtc_anyio._peers.streams.audio import AudioInput, AudioOutput, BufferOptions
from fastrtc_anyio._peers.streams.link import Link

RATE = 24_000
FRAME = RATE // 50


def make_output(bound: bool = True) -> AudioOutput:
    link = Link(Host(), anyio.current_time)
    return AudioOutput(link, RATE, 1, BufferOptions(), bound=bound)


def audio(seconds: float, rate: int = RATE) -> tuple[int, Any]:
    return rate, np.full((1, round(seconds * rate)), 1000, np.int16)


async def test_send_waits_until_the_format_is_bound() -> None:
    out = make_output(bound=False)
    sent_at: list[float] = []

    async def send() -> None:
        await out.send(audio(1))
        sent_at.append(anyio.current_time())

    async with create_task_group() as tasks:
        began = anyio.current_time()
        tasks.start_soon(send)
        await anyio.sleep(5)
        assert out.statistics() == AudioOutStatistics()
        assert (out.sample_rate, out.channels, out.position) == (RATE, 1, 0)
        out.bind(48_000, 2)
    assert sent_at == [began + 5]
    assert (out.sample_rate, out.channels) == (48_000, 2)
    assert abs(out.statistics().sent - 48_000) < 200  # the rest is in the filter


async def test_send_before_the_format_is_bound_raises_at_the_end() -> None:
    out = make_output(bound=False)

    async def send() -> None:
        with pytest.raises(anyio.BrokenResourceError):
            await out.send(audio(1))

    async with create_task_group() as tasks:
        tasks.start_soon(send)
        await anyio.sleep(1)
        out.end()
    await out.wait_played()


async def test_flush_and_pause_before_the_format_is_bound_take_effect() -> None:
    out = make_output(bound=False)
    async with create_task_group() as tasks:
        tasks.start_soon(out.send, audio(1))
        await anyio.sleep(1)
        assert out.flush().samples == 0
        out.pause()
        out.bind(RATE, 1)
    assert out.statistics().flushed == RATE
    await out.send(audio(1))
    assert not any(out.pull().any() for _ in range(10))
    out.resume()
    assert any(out.pull().any() for _ in range(3))


async def test_position_excludes_fades_and_never_decreases() -> None:
    out = make_output()
    await out.send(audio(1))
    for _ in range(10):
        out.pull()
    before = out.position
    assert before == 10 * FRAME
    assert out.flush().samples == before
    assert out.pull().any()  # the fade
    assert out.position == before
    assert out.statistics().played > before
    await out.send(audio(1))
    for _ in range(5):
        out.pull()
    assert out.flush().samples == out.position - before == 5 * FRAME


async def test_flush_discards_audio_left_in_the_filter() -> None:
    out = make_output()
    await out.send((48_000, np.full((1, 960), 20_000, np.int16)))
    out.flush()
    await out.send((48_000, np.zeros((1, 4800), np.int16)))
    assert not any(out.pull().any() for _ in range(20))


async def test_unsupported_audio_changes_nothing() -> None:
    out = make_output()
    with pytest.raises(UnsupportedFormat, match="audio must be"):
        await out.send(np.zeros(480, np.int16))  # type: ignore[arg-type]
    assert out.statistics() == AudioOutStatistics()


async def test_memory_peer_has_one_stream_for_session_and_transport() -> None:
    async with MemoryPeer(sample_rate=RATE).open() as peer:
        peer.client.connect()
        await peer.audio_out.send(audio(0.5, 48_000))
        await peer.audio_out.wait_played()
        assert peer.audio_out.position == peer.audio_out.statistics().played == RATE // 2


async def test_client_out_of_reach_is_not_silent() -> None:
    """Turn taking waits for the network. The time of the outage then counts as silence at once."""
    link = Link(Host(), anyio.current_time)
    heard = anyio.current_time()
    audio_in = AudioInput(link, heard=lambda: heard)
    audio_in.push(AudioFrame(RATE, np.ones((1, FRAME), np.int16)))
    await audio_in.receive_or_silence()
    with anyio.move_on_after(3) as outage:
        await audio_in.receive_or_silence()
    assert outage.cancelled_caught
    heard = anyio.current_time()
    with anyio.move_on_after(0.2):
        while True:
            assert not (await audio_in.receive_or_silence()).samples.any()
    counted = audio_in.statistics()
    assert counted.silence_seconds == pytest.approx(3, abs=0.05)
    assert counted.skipped_seconds == 0


async def test_reader_behind_skips_silence() -> None:
    audio_in = AudioInput(Link(Host(), anyio.current_time))
    audio_in.push(AudioFrame(RATE, np.ones((1, FRAME), np.int16)))
    await audio_in.receive_or_silence()
    await anyio.sleep(5)
    with anyio.move_on_after(0.01):
        while True:
            await audio_in.receive_or_silence()
    counted = audio_in.statistics()
    assert counted.silence_seconds == pytest.approx(1, abs=0.05)
    assert counted.skipped_seconds == pytest.approx(4, abs=0.05)


async def test_repeated_sends_let_other_tasks_run() -> None:
    out = make_output()
    runs = sends = 0

    async def run() -> None:
        nonlocal runs
        while sends < 50:
            await checkpoint()
            runs += 1

    async with create_task_group() as tasks:
        tasks.start_soon(run)
        for _ in range(50):
            await out.send(audio(0.02))
            sends += 1
    assert runs >= 45


async def test_echo_yields_once_for_a_frame() -> None:
    link = Link(Host(), anyio.current_time)
    audio_in, out = AudioInput(link), AudioOutput(link, RATE, 1, BufferOptions())
    echoed = turn = 0

    async def echo() -> None:
        nonlocal echoed
        async for frame in audio_in:
            began = turn
            await out.send(frame)
            assert turn == began
            for _ in range(10):
                await out.send(frame)
            assert turn >= began + 9
            echoed += 1

    async with create_task_group() as tasks:
        tasks.start_soon(echo)
        await anyio.wait_all_tasks_blocked()
        for count in range(1, 4):
            audio_in.push(AudioFrame(*audio(0.02)))
            while echoed < count:
                await checkpoint()
                turn += 1
            await anyio.wait_all_tasks_blocked()
        audio_in.end()
    assert out.statistics().sent == 33 * FRAME


async def test_cancelled_send_queues_nothing_whether_it_would_yield_or_not() -> None:
    link = Link(Host(), anyio.current_time)
    audio_in, out = AudioInput(link), AudioOutput(link, RATE, 1, BufferOptions())
    async with create_task_group() as tasks:
        tasks.start_soon(audio_in.receive)
        await anyio.wait_all_tasks_blocked()
        audio_in.push(AudioFrame(*audio(0.02)))
    for _ in range(2):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await out.send(audio(0.02))
        assert scope.cancelled_caught
    assert out.statistics().sent == 0


async def test_cancelled_receive_has_not_taken_a_frame() -> None:
    audio_in = AudioInput(Link(Host(), anyio.current_time))
    for waits in (True, False):
        with anyio.CancelScope() as scope:
            scope.cancel()
            if not waits:
                audio_in.push(AudioFrame(*audio(0.02)))
            await audio_in.receive()
        assert scope.cancelled_caught
    assert (await audio_in.receive()).samples.shape == (1, FRAME)


async def test_two_readers_share_the_frames() -> None:
    """Both are woken for one frame: the one that finds none waits again."""
    audio_in = AudioInput(Link(Host(), anyio.current_time))
    frames: list[AudioFrame] = []

    async def read() -> None:
        async for frame in audio_in:
            frames.append(frame)

    async with create_task_group() as tasks:
        tasks.start_soon(read)
        tasks.start_soon(read)
        for count in range(1, 6):
            await anyio.wait_all_tasks_blocked()
            audio_in.push(AudioFrame(*audio(0.02)))
            await anyio.wait_all_tasks_blocked()
            assert len(frames) == count
        audio_in.end()
