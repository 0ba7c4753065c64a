"""Compare a recorded response with the speech that was sent.

The comparison aligns each piece of the speech separately, because a gap, as a busy machine leaves
it, delays the rest without changing it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MAX_LAG = 2.0  # seconds; a conversation is not possible with more
_PIECE = 0.25  # seconds; pieces of different speech correlate by 0.3
_MAX_PIECES = 64  # of a long recording


@dataclass(frozen=True)
class Comparison:
    """Median delay in seconds and median correlation of the pieces; 1.0 is the same sound."""

    lag: float
    correlation: float


@dataclass(frozen=True)
class Delays:
    """Delays of the pieces of a speech: their times, delays in seconds, and correlations."""

    times: NDArray[np.float64]
    lags: NDArray[np.float64]
    correlations: NDArray[np.float64]


def compare(sent: NDArray[np.int16], returned: NDArray[np.int16], sample_rate: int) -> Comparison:
    """Find ``sent`` in ``returned``, which was recorded from the same moment on.

    Both have the shape ``(n,)`` and may differ in length.
    """
    found = find_delays(sent, returned, sample_rate)
    if not found.lags.size:
        return Comparison(0.0, 0.0)
    return Comparison(float(np.median(found.lags)), float(np.median(found.correlations)))


def find_delays(sent: NDArray[np.int16], returned: NDArray[np.int16], sample_rate: int) -> Delays:
    """Find each piece of ``sent`` that is loud enough in ``returned``, as :func:`compare` does."""
    size = min(round(_PIECE * sample_rate), len(sent))
    reach = round(_MAX_LAG * sample_rate)
    returned = returned[: len(sent) + reach + size]  # an answer may begin later
    if size == 0 or not sent.any() or not returned.any():
        return Delays(np.zeros(0), np.zeros(0), np.zeros(0))
    starts = np.arange(0, len(sent) - size + 1, size)
    pieces = sent[: len(starts) * size].reshape(-1, size).astype(float)
    energies = (pieces**2).sum(axis=1)
    loud = np.flatnonzero(energies >= energies.mean() / 4)  # pauses match anywhere
    padded = np.zeros(len(sent) + reach + size)
    padded[: len(returned)] = returned
    quiet = (padded**2).mean() * size / 100
    lags, peaks = [], []
    chosen = loud[:: -(-len(loud) // _MAX_PIECES)]
    for i in chosen:
        window = padded[starts[i] : starts[i] + size + reach]
        correlations = _correlate(pieces[i], window, quiet)
        lags.append(int(correlations.argmax()))
        peaks.append(correlations.max())
    middles = (starts[chosen] + size / 2) / sample_rate
    return Delays(middles, np.array(lags) / sample_rate, np.array(peaks))


def _correlate(
    piece: NDArray[np.float64], window: NDArray[np.float64], quiet: float
) -> NDArray[np.float64]:
    """Compute the normalised correlation of a piece with each part of a window, from -1 to 1.

    It fades out for parts with less energy than ``quiet``, which are silence.
    """
    size, count = len(piece), len(window) - len(piece)
    points = 1 << (len(window) - 1).bit_length()  # circular only beyond the result
    spectrum = np.fft.rfft(window, points) * np.conj(np.fft.rfft(piece, points))
    products = np.fft.irfft(spectrum, points)[:count]
    sums = np.concatenate([[0.0], np.cumsum(window**2)])
    energies = np.maximum(sums[size : size + count] - sums[:count], quiet)
    return np.asarray(products / np.sqrt(energies * (piece**2).sum()))
