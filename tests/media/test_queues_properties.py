"""Queues: bounds, the live edge, and a complete account of every frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._media.frames import AudioFrame
from fastrtc_anyio._media.queues import LatestQueue, LiveEdgeQueue

RATE = 1000


def frame(number: int, milliseconds: int = 20) -> AudioFrame:
    return AudioFrame(RATE, np.full((1, milliseconds), number, np.int16))


def number_of(popped: AudioFrame | None) -> int | None:
    return None if popped is None else int(popped.samples[0, 0])


@given(
    limit=st.integers(1, 300),
    steps=st.lists(st.one_of(st.none(), st.integers(0, 120)), max_size=150),
)
def test_live_edge_queue_matches_a_model(limit: int, steps: list[int | None]) -> None:
    queue = LiveEdgeQueue(limit / 1000)
    held: list[tuple[int, int]] = []
    overflowed = False
    received = popped = dropped = latency_ms = 0
    for number, step in enumerate(steps):
        if step is None:
            overflowed = False
            wanted = held.pop(0)[0] if held else None
            assert number_of(queue.pop()) == wanted
            if wanted is not None:
                popped += 1
                latency_ms = sum(ms for _, ms in held)
        else:
            received += 1
            queue.push(frame(number, step))
            if step == 0:
                dropped += 1
            else:
                if held and (overflowed or sum(ms for _, ms in held) + step > limit):
                    dropped += len(held)
                    held.clear()
                    overflowed = True
                held.append((number, step))
        assert len(queue) == queue.statistics.buffered == len(held)
        assert queue.statistics.buffered_seconds == pytest.approx(sum(ms for _, ms in held) / 1000)
        assert len(queue) <= 1 or queue.statistics.buffered_seconds <= limit / 1000 + 1e-9
        assert (queue.statistics.received, queue.statistics.dropped) == (received, dropped)
        assert queue.statistics.received == popped + queue.statistics.dropped + len(queue)
        assert queue.statistics.latency == pytest.approx(latency_ms / 1000)


@given(stall=st.integers(1, 50))
def test_stall_within_the_limit_loses_nothing(stall: int) -> None:
    queue = LiveEdgeQueue(1.0)
    for number in range(stall):
        queue.push(AudioFrame(48000, np.full((1, 960), number, np.int16)))
    assert [number_of(queue.pop()) for _ in range(stall)] == list(range(stall))
    assert queue.pop() is None
    assert queue.statistics.dropped == 0
    assert queue.statistics.buffered_seconds == 0


@given(stall=st.integers(51, 400), later=st.integers(1, 50))
def test_stall_beyond_the_limit_jumps_to_the_live_edge(stall: int, later: int) -> None:
    queue = LiveEdgeQueue(1.0)
    for number in range(stall):
        queue.push(frame(number))
    assert len(queue) == 1
    assert queue.statistics.dropped == stall - 1
    assert number_of(queue.pop()) == stall - 1
    # The pop has ended the overflow, so frames are held again.
    for number in range(later):
        queue.push(frame(number))
    assert [number_of(queue.pop()) for _ in range(later)] == list(range(later))


def test_frame_longer_than_the_limit_is_held() -> None:
    queue = LiveEdgeQueue(0.1)
    queue.push(frame(1, 500))
    assert len(queue) == 1
    queue.push(frame(2, 500))
    assert number_of(queue.pop()) == 2


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_limit_must_be_positive(limit: float) -> None:
    with pytest.raises(ValueError, match="limit_seconds must be a number above 0"):
        LiveEdgeQueue(limit)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 10)), max_size=100))
def test_latest_queue_holds_the_newest(steps: list[tuple[bool, float]]) -> None:
    queue: LatestQueue[int] = LatestQueue(lambda: now)
    held: tuple[int, float] | None = None
    read = 0
    now = latency = 0.0
    for number, (push, elapsed) in enumerate(steps):
        now += elapsed
        if push:
            queue.push(number)
            held = number, now
        else:
            popped = queue.pop()
            assert popped == (None if held is None else held[0])
            if held is not None:
                latency = now - held[1]
                read += 1
            held = None
        assert len(queue) == queue.statistics.buffered == (held is not None)
        assert queue.statistics.received == read + queue.statistics.dropped + len(queue)
        assert queue.statistics.latency == latency


def test_latency_is_never_negative() -> None:
    times = iter([10.0, 9.999])
    queue: LatestQueue[str] = LatestQueue(lambda: next(times))
    queue.push("picture")
    assert queue.pop() == "picture"
    assert queue.statistics.latency == 0
