"""Gaps between packets of video cost little, and aiortc notices the same losses and rates."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from aiortc import RTCRtpReceiver
from aiortc.rate import RateCounter
from aiortc.rtcrtpreceiver import NackGenerator
from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._peers.webrtc import media_internals


class CountingSet(set[int]):
    added = 0

    def add(self, element: int) -> None:
        self.added += 1
        super().add(element)


class CountingList(list[Any]):
    read = 0

    def __getitem__(self, index: Any) -> Any:
        self.read += 1
        return super().__getitem__(index)


def bounded_parts() -> tuple[NackGenerator, RateCounter]:
    transport: Any = SimpleNamespace(state="new")
    receiver: Any = RTCRtpReceiver("video", transport)
    media_internals.bound_gaps(receiver)
    estimator = receiver._RTCRtpReceiver__remote_bitrate_estimator
    return receiver._RTCRtpReceiver__nack_generator, estimator.incoming_bitrate


def numbered(number: int) -> RtpPacket:
    return RtpPacket(sequence_number=number % 65536)


def test_each_gap_in_the_numbers_costs_little() -> None:
    generator, _ = bounded_parts()
    generator.missing = missing = CountingSet()
    for i in range(100):
        generator.add(numbered(32_767 * i))
    assert missing.added <= 100 * 128


def test_video_after_a_long_pause_costs_little() -> None:
    _, counter = bounded_parts()
    counter.add(1000, 0)
    counter._buckets = buckets = CountingList(counter._buckets)
    assert counter.rate(3_600_000) is None
    assert buckets.read <= 2001


@given(st.lists(st.integers(-300, 300) | st.integers(0, 65535), max_size=30))
def test_losses_are_those_of_aiortc(steps: list[int]) -> None:
    (generator, _), plain = bounded_parts(), NackGenerator()
    number = 0
    for step in steps:
        number += step
        assert generator.add(numbered(number)) == plain.add(numbered(number))
        assert generator.missing == plain.missing
        assert generator.max_seq == plain.max_seq


@given(st.lists(st.integers(0, 50) | st.integers(900, 5000), max_size=30))
def test_rates_are_those_of_aiortc(pauses: list[int]) -> None:
    (_, counter), plain = bounded_parts(), RateCounter(1000, 8000)
    now = 0
    for pause in pauses:
        now += pause
        assert counter.rate(now) == plain.rate(now)
        counter.add(100 + pause, now)
        plain.add(100 + pause, now)
        assert counter.rate(now) == plain.rate(now)
