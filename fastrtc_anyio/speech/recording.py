"""Check and convert recordings that applications pass to speech models."""

from __future__ import annotations

import numpy as np

from fastrtc_anyio._media.frames import Int16Array, as_int16, mix_channels
from fastrtc_anyio.audio import MAX_RATE, MIN_RATE
from fastrtc_anyio.errors import UnsupportedFormat

__all__ = ["read_mono"]


def read_mono(audio: object) -> tuple[int, Int16Array]:
    """Check a recording and mix it to one channel.

    Args:
        audio: ``(sample_rate, samples)``: a rate in Hz, and int16 or float32 (full scale 1.0) of
            shape ``(n,)``, ``(1, n)`` or ``(2, n)``.

    Returns:
        The rate, and int16 of shape ``(1, n)``.

    Raises:
        UnsupportedFormat: for anything else; states the expected and the given value.
    """
    if not isinstance(audio, tuple) or len(audio) != 2:
        raise UnsupportedFormat(
            f"expected a tuple (sample_rate, samples), got {type(audio).__name__}"
        )
    rate, samples = audio
    if (
        isinstance(rate, bool)
        or not isinstance(rate, int | np.integer)
        or not MIN_RATE <= rate <= MAX_RATE
    ):
        raise UnsupportedFormat(
            f"the sample rate must be an int from {MIN_RATE} to {MAX_RATE} Hz; got {rate!r}"
        )
    return int(rate), mix_channels(as_int16(samples), 1)
