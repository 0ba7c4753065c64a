"""A pause of video costs little, and aiortc notices the same rates."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from aiortc import RTCRtpReceiver
from aiortc.rate import RateCounter
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._peers.webrtc import media_internals


class CountingList(list[Any]):
    read = 0

    def __getitem__(self, index: Any) -> Any:
        self.read += 1
        return super().__getitem__(index)


def bounded_counter() -> RateCounter:
    transport: Any = SimpleNamespace(state="new")
    receiver: Any = RTCRtpReceiver("video", transport)
    media_internals.bound_pauses(receiver)
    counter: RateCounter = receiver._RTCRtpReceiver__remote_bitrate_estimator.incoming_bitrate
    return counter


def test_video_after_a_long_pause_costs_little() -> None:
    counter = bounded_counter()
    counter.add(1000, 0)
    counter._buckets = buckets = CountingList(counter._buckets)
    assert counter.rate(3_600_000) is None
    assert buckets.read <= 2001


@given(st.lists(st.integers(0, 50) | st.integers(900, 5000), max_size=30))
def test_rates_are_those_of_aiortc(pauses: list[int]) -> None:
    counter, plain = bounded_counter(), RateCounter(1000, 8000)
    now = 0
    for pause in pauses:
        now += pause
        assert counter.rate(now) == plain.rate(now)
        counter.add(100 + pause, now)
        plain.add(100 + pause, now)
        assert counter.rate(now) == plain.rate(now)
