"""An artificial echo has the latency, the losses and the late frames that it was made with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.load.analysis import Counts, Echo, Packet, count, find_echo
from benchmarks.load.speech import FRAME, RATE, prepare_speech

FRAMES = 300
BEGAN = 1_000.0
LOOK_AHEAD = 312 / RATE
"""Delay of libopus. The sent packets come back, so only the client's encoder delays them."""


def sent_times() -> list[float]:
    return [BEGAN + number * 0.02 for number in range(FRAMES)]


def echo_of(delay: Callable[[int], float | None], first: int = 0) -> Echo:
    """Return the echo of a server that sends the client's packets back, each after ``delay``."""
    speech = prepare_speech()
    packets = [
        Packet(sent + late, (number - first) * FRAME, speech.packets[number % len(speech.packets)])
        for number, sent in enumerate(sent_times())
        if number >= first and (late := delay(number)) is not None
    ]
    return find_echo(speech, sent_times(), packets)


def counts_of(echo: Echo) -> Counts:
    """Count all frames but those of the first second and of the last."""
    return count(echo, sent_times(), BEGAN + 1, BEGAN + FRAMES * 0.02 - 1)


@pytest.mark.parametrize("delay", [0.0, 0.0037, 0.25, 1.5])
def test_known_delay_is_found(delay: float) -> None:
    counts = counts_of(echo_of(lambda number: delay))
    assert counts.expected == counts.latencies.size == FRAMES - 100
    assert (counts.missed, counts.late) == (0, 0)
    # The decoder returns a packet's first sample as the packet arrives, 20 ms after its capture.
    np.testing.assert_allclose(counts.latencies, 0.02 + LOOK_AHEAD + delay, atol=0.0005)


def test_latency_does_not_depend_on_the_first_packet() -> None:
    counts = counts_of(echo_of(lambda number: 0.1, first=17))
    np.testing.assert_allclose(counts.latencies, 0.12 + LOOK_AHEAD, atol=0.0005)


def test_each_lost_packet_is_counted() -> None:
    lost = {60, 61, 100, 170, 171, 172}
    counts = counts_of(echo_of(lambda number: None if number in lost else 0.05))
    assert (counts.missed, counts.late) == (len(lost), 0)


def test_late_packets_are_counted_with_their_latency() -> None:
    late = range(120, 130)
    counts = counts_of(echo_of(lambda number: 0.25 if number in late else 0.05))
    assert (counts.missed, counts.late) == (0, len(late))
    assert np.sum(np.isclose(counts.latencies, 0.27 + LOOK_AHEAD, atol=0.0005)) == len(late)


def test_silence_is_missed() -> None:
    silence = bytes.fromhex("d8fffe")
    packets = [Packet(sent, number * FRAME, silence) for number, sent in enumerate(sent_times())]
    counts = counts_of(find_echo(prepare_speech(), sent_times(), packets))
    assert counts.missed == counts.expected == FRAMES - 100


def test_call_without_echo_misses_all_frames() -> None:
    counts = counts_of(find_echo(prepare_speech(), sent_times(), []))
    assert counts.missed == counts.expected == FRAMES - 100
