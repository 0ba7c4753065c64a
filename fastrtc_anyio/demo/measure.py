"""What came back, compared with what was sent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Comparison", "compare"]

_MAX_LAG = 2.0
"""Seconds. A longer round trip is not a conversation."""


@dataclass(frozen=True)
class Comparison:
    """How two recordings relate."""

    lag: float
    """Seconds by which the second is behind the first."""
    correlation: float
    """Pearson's, once the lag is taken out: 1.0 is the same sound."""


def compare(sent: NDArray[np.int16], returned: NDArray[np.int16], sample_rate: int) -> Comparison:
    """Find a recording in another.

    Args:
        sent: int16, shape ``(n,)``.
        returned: int16, shape ``(m,)``, begun at the same moment.
        sample_rate: of both, in Hz.
    """
    size = len(sent) + len(returned)
    spectrum = np.fft.rfft(returned, size) * np.conj(np.fft.rfft(sent, size))
    similarity = np.fft.irfft(spectrum, size)[: round(_MAX_LAG * sample_rate)]
    lag = int(np.argmax(similarity))
    overlap = min(len(sent), len(returned) - lag)
    if overlap <= 0 or not np.any(returned):
        return Comparison(0.0, 0.0)
    a, b = sent[:overlap].astype(float), returned[lag : lag + overlap].astype(float)
    return Comparison(lag / sample_rate, float(np.corrcoef(a, b)[0, 1]))
