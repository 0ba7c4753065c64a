"""What the tests measure on sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from fastrtc_anyio.testing import tone_snr

T = TypeVar("T")


def typical_snr(samples: Any, frequency: int, rate: int) -> float:
    """The SNR that 70 % of all 60 ms windows reach.

    Where threads or a network are at work a frame now and then comes too late to be played, which
    spoils a window or two. A click at the frame borders, a wrong rate or a lossy conversion spoils
    all.
    """
    size = rate * 60 // 1000
    loud = np.flatnonzero(np.abs(samples) > 1000)
    body = samples[loud[0] + rate // 5 : loud[-1] - rate // 20]
    windows = [body[i : i + size] for i in range(0, body.size - size, size)]
    return float(np.quantile([tone_snr(w, frequency, rate) for w in windows], 0.3))


def measure_until(is_good: Callable[[T], bool], measure: Callable[[], T], attempts: int = 3) -> T:
    """The first measurement that is good, or the last of all attempts.

    A busy machine spoils a measurement now and then. A defect spoils every one.
    """
    for _ in range(attempts - 1):
        measured = measure()
        if is_good(measured):
            return measured
    return measure()
