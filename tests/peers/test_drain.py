"""Audio that another thread reads without waiting: the same as with a waiting task."""

from __future__ import annotations

import itertools

import anyio
import numpy as np
import pytest
from anyio import create_task_group
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._media.frames import AudioFrame, Int16Array
from fastrtc_anyio._peers.streams.audio import AudioInput
from fastrtc_anyio._peers.streams.drain import DrainableAudioInput
from fastrtc_anyio._peers.streams.link import Link

RATE = 8000
FRAME = RATE // 50


def frame(value: int, seconds: float = 0.02) -> AudioFrame:
    return AudioFrame(RATE, np.full((1, round(seconds * RATE)), value, np.int16))


def make_input(limit: float = 1.0) -> DrainableAudioInput:
    return DrainableAudioInput(Link(Host(), anyio.current_time), limit)


def joined(frames: list[AudioFrame]) -> list[int]:
    parts: list[Int16Array] = [frame.samples for frame in frames]
    return np.concatenate(parts, axis=1)[0].tolist() if parts else []


def runs(frames: list[AudioFrame]) -> tuple[list[int], list[int]]:
    """Return the value of each frame other than silence, and the samples of silence before it."""
    samples = joined(frames)
    starts = [i for i in range(0, len(samples), FRAME) if samples[i]]
    gaps = [b - a - FRAME for a, b in itertools.pairwise([-FRAME, *starts])]
    return [samples[i] for i in starts], gaps


@settings(max_examples=30)
@given(
    gaps=st.lists(st.sampled_from([0, 0, 0, 1, 5, 30, 100]), min_size=1, max_size=12),
    timestamps=st.booleans(),
    late=st.lists(st.floats(0.001, 0.03), min_size=1, max_size=5),
    silence=st.booleans(),
)
async def test_drained_audio_is_that_of_a_waiting_reader(
    gaps: list[int], timestamps: bool, late: list[float], silence: bool
) -> None:
    """A client sends frames with gaps of some frames before them."""
    waited: list[AudioFrame] = []
    drained: list[AudioFrame] = []
    usual, audio = AudioInput(Link(Host(), anyio.current_time)), make_input()

    async def wait() -> None:
        async for received in usual.in_real_time() if silence else usual:
            waited.append(received)

    async def drain() -> None:
        for place in range(10_000):
            await anyio.sleep(late[place % len(late)])
            try:
                drained.extend(audio.drain(1.0, silence))
            except anyio.EndOfStream:
                return

    async with create_task_group() as tasks:
        tasks.start_soon(wait)
        tasks.start_soon(drain)
        for value, gap in enumerate(gaps, 1):
            await anyio.sleep((gap + 1) * 0.02)
            for stream in (usual, audio):
                known = (gap * 0.02 if value > 1 else None) if timestamps else None
                stream.push(frame(value), known)
        await anyio.sleep(0.1)
        usual.end()
        audio.end()
    if not silence:
        assert joined(drained) == joined(waited)
        assert audio.statistics() == usual.statistics()
        return
    (sound, gaps_drained), (expected, gaps_waited) = runs(drained), runs(waited)
    assert sound == expected
    # The last silence before a frame may be due before the frame and be read after it.
    assert gaps_drained == pytest.approx(gaps_waited, abs=2 * FRAME)


async def test_drain_returns_no_more_than_the_limit_and_one_frame() -> None:
    audio = make_input()
    for value in range(10):
        audio.push(frame(value))
    audio.end()
    for begin in range(0, 10, 3):
        expected = [v for v in range(begin, min(begin + 3, 10)) for _ in range(FRAME)]
        assert joined(audio.drain(0.05, False)) == expected
    with pytest.raises(anyio.EndOfStream):
        audio.drain(0.05, False)


async def test_reader_is_notified_of_frames_and_of_the_end() -> None:
    audio = make_input()
    calls: list[int] = []
    audio.set_notify(lambda: calls.append(len(calls)))
    audio.push(frame(1))
    audio.push(frame(2))
    assert calls == [0, 1]
    audio.end()
    assert calls == [0, 1, 2]
    audio.set_notify(None)
    audio.push(frame(3))
    assert calls == [0, 1, 2]


async def test_late_drain_does_not_take_waiting_audio_for_silence() -> None:
    """Silence stands for what the client did not send, not for what this process read late."""
    audio = make_input(limit=5.0)
    heard: list[AudioFrame] = []
    for value in range(1, 101):
        audio.push(frame(value))
        if value < 20 or value > 80:
            heard += audio.drain(1.0, True)
        await anyio.sleep(0.02)
    while more := audio.drain(1.0, False):
        heard += more
    assert joined(heard) == [value for value in range(1, 101) for _ in range(FRAME)]


async def test_stalled_reader_gets_no_silence_for_the_stall() -> None:
    """Packets have arrived that this process did not read."""
    audio = make_input()
    audio.push(frame(1))
    assert len(audio.drain(1.0, True)) == 1
    await anyio.sleep(2)
    silence = sum(heard.duration for heard in audio.drain(5.0, True))
    assert silence == pytest.approx(0.2, abs=0.05)  # up to the time at which it stalled


async def test_silence_after_audio_that_was_read_late_begins_in_time() -> None:
    audio = make_input()
    for value in range(1, 41):
        audio.push(frame(value))
        if value == 1:
            audio.drain(1.0, True)
        await anyio.sleep(0.02)
    assert len(audio.drain(1.0, True)) == 39
    await anyio.sleep(0.21)
    assert audio.drain(1.0, True) != []
