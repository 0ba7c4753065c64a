"""Measure how close speech over a lossy line is to the speech that was sent.

``python -m benchmarks.loss [--seeds 20]`` prints the tables of
docs/concepts/packet_loss.md, and ``--write`` updates that page.
The result depends only on the speech, the seeds and the codecs' versions.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrtc_anyio.testing import LinkFaults
from tests.kit.loss import CODECS, Codec, Packets, read_speech, spectral_distance

LOSSES = (0.01, 0.05, 0.2)
BURSTS = {1: "random", 3: "bursts of 3"}
NAMES = {"opus": "Opus", "opus+fec": "Opus with FEC"}
PAGE = Path(__file__).parents[1] / "docs" / "concepts" / "packet_loss.md"
MARK = "<!-- benchmarks/loss.py -->\n"


class Distance(NamedTuple):
    """Mean log-spectral distances in dB, and the share of lost time that FEC recovered."""

    lost: float
    overall: float
    recovered: float


def measure(packets: Packets, loss: float, burst: int, seeds: int, *, conceal: bool) -> Distance:
    """Send the packets over ``seeds`` lines, and compare with a line that loses nothing."""
    clean = packets.transmit(LinkFaults()).samples
    rate = clean.size * 50 // len(packets.payloads)
    lost: list[float] = []
    overall: list[float] = []
    recovered, count = 0.0, 0
    for seed in range(seeds):
        faults = LinkFaults(loss=loss, burst=burst, seed=seed)
        heard = packets.transmit(faults, conceal=conceal)
        distance = spectral_distance(heard.samples, clean, rate)
        lost += [value for value in distance[heard.lost] if not np.isnan(value)]
        overall.append(float(np.nanmean(distance)))
        recovered += heard.recovered * heard.lost.sum()
        count += heard.lost.sum()
    return Distance(float(np.mean(lost)), float(np.mean(overall)), recovered / count)


def table(codec: Codec, seeds: int) -> str:
    """Return the Markdown table of a codec."""
    packets = Packets(codec, read_speech())
    name = NAMES.get(codec, codec)
    lines = [
        f"| {name}: loss | silence: lost frames | concealed: lost frames "
        "| silence: all frames | concealed: all frames | recovered |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for loss in LOSSES:
        for burst, pattern in BURSTS.items():
            silence = measure(packets, loss, burst, seeds, conceal=False)
            concealed = measure(packets, loss, burst, seeds, conceal=True)
            lines.append(
                f"| {loss:.0%}, {pattern} | {silence.lost:.1f} | {concealed.lost:.1f} "
                f"| {silence.overall:.2f} | {concealed.overall:.2f} | {concealed.recovered:.0%} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="lines for each cell")
    parser.add_argument("--write", action="store_true", help="write the tables to the page")
    options = parser.parse_args()
    tables = "\n".join(table(codec, options.seeds) for codec in CODECS)
    if options.write:
        before, _, _ = PAGE.read_text().partition(MARK)
        PAGE.write_text(before + MARK + tables)
    else:
        print(tables)


if __name__ == "__main__":
    main()
