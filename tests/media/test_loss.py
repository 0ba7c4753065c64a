"""Speech over lossy lines is closer to the original with concealment, and closer still with FEC.

``benchmarks/loss.py`` measures the same for more lines; docs/concepts/packet_loss.md has its table.
"""

from __future__ import annotations

import numpy as np
import pytest

from fastrtc_anyio.testing import LinkFaults
from tests.kit.loss import CODECS, Codec, Packets, read_speech, spectral_distance


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("loss", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("burst", [1, 3])
def test_concealed_speech_is_closer_than_silence(codec: Codec, loss: float, burst: int) -> None:
    packets = Packets(codec, read_speech())
    clean = packets.transmit(LinkFaults()).samples
    rate = clean.size * 50 // len(packets.payloads)
    lost: dict[bool, list[float]] = {True: [], False: []}
    overall: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(3):
        for conceal in (True, False):
            faults = LinkFaults(loss=loss, burst=burst, seed=seed)
            heard = packets.transmit(faults, conceal=conceal)
            distance = spectral_distance(heard.samples, clean, rate)
            lost[conceal] += [value for value in distance[heard.lost] if not np.isnan(value)]
            overall[conceal].append(float(np.nanmean(distance)))
    assert np.mean(lost[True]) < np.mean(lost[False]) - 15
    assert np.mean(overall[True]) < np.mean(overall[False]) * 0.75


@pytest.mark.parametrize("burst", [1, 3])
def test_fec_is_closer_than_concealment(burst: int) -> None:
    distances: list[float] = []
    codecs: tuple[Codec, ...] = ("opus", "opus+fec")
    for codec in codecs:
        packets = Packets(codec, read_speech())
        clean = packets.transmit(LinkFaults()).samples
        heard = packets.transmit(LinkFaults(loss=0.1, burst=burst, seed=1))
        assert (heard.recovered > 0.2) == (codec == "opus+fec")
        # The rest is the silence behind the concealment of the longest losses.
        assert 0.9 < heard.recovered + heard.concealed <= 1.001
        distance = spectral_distance(heard.samples, clean, 48_000)[heard.lost]
        distances.append(float(np.nanmean(distance)))
    assert distances[1] < distances[0] - 2
