"""Pictures that a client sends are recognised when they come back."""

from __future__ import annotations

import numpy as np

from benchmarks.load.analysis import Packet
from benchmarks.load.pictures import find_pictures, prepare_pictures

COUNT = 60


def test_delays_of_first_and_last_packets_and_missed_pictures_are_found() -> None:
    frames = prepare_pictures(320, 240).frames[:COUNT]
    sent = [10 + number / 30 for number in range(COUNT)]
    lost = {58, 59}  # the last ones: later pictures would refer to them
    packets: list[Packet] = []
    for number, payloads in enumerate(frames):
        for place, payload in enumerate(payloads):
            last = place == len(payloads) - 1
            arrives = sent[number] + (0.04 if last else 0.03)
            packets.append(Packet(arrives, number * 3_000, payload, len(packets)))
    kept = [packet for packet in packets if packet.timestamp // 3_000 not in lost]
    found = find_pictures(sent, kept[::-1], 10.49, 12)
    assert found.sent == 45
    assert found.last.size == 45 - len(lost)
    np.testing.assert_allclose(found.last, 0.04, atol=1e-6)
    assert set(np.round(found.first, 6)) <= {0.03, 0.04}
