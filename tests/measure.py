"""What the tests measure on sound."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrtc_anyio.testing import tone_snr


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
