"""A picture of an echo: the sound sent, the sound returned, and the delay between them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .measure import Delays, find_delays

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 1200
_SENT, _RETURNED, _DELAY = "#2a6fb0", "#d9622b", "#2e8b57"


def draw_echo(
    path: Path, sent: NDArray[np.int16], returned: NDArray[np.int16], sample_rate: int
) -> None:
    """Write a PNG file. The samples have the shape ``(n,)``.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.2), dpi=120, layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[1, 1, 1.1])
    both = np.concatenate([sent, returned]) / 32768
    limit = 1.1 * float(np.abs(both).max(initial=0.01))
    seconds = max(sent.size, returned.size) / sample_rate
    for axes, samples, color, name in (
        (top, sent, _SENT, "sent"),
        (middle, returned, _RETURNED, "returned"),
    ):
        _draw_waveform(axes, samples / 32768, sample_rate, color)
        axes.set(ylabel=name, ylim=(-limit, limit))
    delays = find_delays(sent, returned, sample_rate)
    _draw_delays(bottom, delays)
    bottom.set(xlabel="time (s)", xlim=(0, seconds))
    for axes in (top, middle, bottom):
        axes.grid(alpha=0.3, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Echo over WebRTC: speech sent, speech returned, round-trip latency")
    figure.savefig(path, format="png")


def _draw_waveform(axes: Axes, samples: NDArray[np.float64], rate: int, color: str) -> None:
    """Draw the envelope: the lowest and highest sample of each column."""
    size = max(1, samples.size // _COLUMNS)
    columns = samples[: samples.size // size * size].reshape(-1, size)
    times = np.arange(len(columns)) * size / rate
    low, high = columns.min(axis=1), columns.max(axis=1)
    axes.fill_between(times, low, high, color=color, linewidth=0.6, edgecolor=color)


def _draw_delays(axes: Axes, delays: Delays) -> None:
    good = delays.correlations >= 0.5
    milliseconds = delays.lags[good] * 1000
    axes.plot(delays.times[good], milliseconds, "o-", color=_DELAY, markersize=4, linewidth=1)
    axes.set(ylabel="latency (ms)")
    highest = float(milliseconds.max()) if milliseconds.size else 100.0
    axes.set_ylim(0, max(50.0, 1.25 * highest))
    if milliseconds.size:
        median = float(np.median(milliseconds))
        axes.axhline(median, color=_DELAY, linestyle=":", linewidth=1)
        axes.text(
            0.99,
            0.06,
            f"median {median:.0f} ms",
            ha="right",
            transform=axes.transAxes,
            color=_DELAY,
        )
