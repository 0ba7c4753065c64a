"""The reply of conversations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Audio = tuple[int, NDArray[np.int16]]

_RATE = 24_000
_TONE = 16_000 * np.sin(np.arange(_RATE) * (2 * np.pi * 440 / _RATE))


def reply(audio: Audio) -> Iterator[Audio]:
    """Answer with a tone of one second."""
    yield _RATE, np.asarray(_TONE, np.int16)[np.newaxis]
