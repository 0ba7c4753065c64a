"""What came back, compared with what was sent.

It is compared piece by piece, each wherever it is most alike: after a gap, which a busy machine
leaves, the rest comes later, and is the same sound still.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Comparison", "compare"]

_MAX_LAG = 2.0
"""Seconds. A longer round trip is not a conversation."""
_PIECE = 0.25
"""Seconds. Pieces of unlike speech correlate by 0.3."""
_MAX_PIECES = 64
"""So many tell enough of a long recording."""


@dataclass(frozen=True)
class Comparison:
    """How two recordings relate."""

    lag: float
    """Seconds by which most of the second is behind the first."""
    correlation: float
    """Of a typical piece's waveform, once its lag is taken out: 1.0 is the same sound."""


def compare(sent: NDArray[np.int16], returned: NDArray[np.int16], sample_rate: int) -> Comparison:
    """Find a recording in another.

    Args:
        sent: int16, shape ``(n,)``.
        returned: int16, shape ``(m,)``, begun at the same moment.
        sample_rate: of both, in Hz.
    """
    size = min(round(_PIECE * sample_rate), len(sent))
    reach = round(_MAX_LAG * sample_rate)
    if size == 0 or not sent.any() or not returned.any():
        return Comparison(0.0, 0.0)
    starts = np.arange(0, len(sent) - size + 1, size)
    pieces = sent[: len(starts) * size].reshape(-1, size).astype(float)
    energies = (pieces**2).sum(axis=1)
    loud = np.flatnonzero(energies >= energies.mean() / 4)  # pauses are alike everywhere
    there = np.zeros(len(sent) + reach + size)
    there[: len(returned)] = returned[: len(there)]
    quiet = (there**2).mean() * size / 100
    lags, likeness = [], []
    for i in loud[:: -(-len(loud) // _MAX_PIECES)]:
        window = there[starts[i] : starts[i] + size + reach]
        alike = _correlate(pieces[i], window, quiet)
        lags.append(int(alike.argmax()))
        likeness.append(alike.max())
    return Comparison(float(np.median(lags)) / sample_rate, float(np.median(likeness)))


def _correlate(
    piece: NDArray[np.float64], window: NDArray[np.float64], quiet: float
) -> NDArray[np.float64]:
    """How much a piece is like each part of a window, whatever their loudness.

    Args:
        piece: shape ``(n,)``.
        window: shape ``(m,)``.
        quiet: the energy below which a part counts as silence, which is like nothing.

    Returns:
        Shape ``(m - n,)``, from -1 to 1.
    """
    size, count = len(piece), len(window) - len(piece)
    points = 1 << (len(window) - 1).bit_length()  # what wraps around is behind the parts wanted
    spectrum = np.fft.rfft(window, points) * np.conj(np.fft.rfft(piece, points))
    products = np.fft.irfft(spectrum, points)[:count]
    sums = np.concatenate([[0.0], np.cumsum(window**2)])
    energies = np.maximum(sums[size : size + count] - sums[:count], quiet)
    return np.asarray(products / np.sqrt(energies * (piece**2).sum()))
