"""Check and convert recordings that applications pass to speech models."""

from __future__ import annotations

from fastrtc_anyio._media.frames import Int16Array, mix_channels
from fastrtc_anyio._media.read import read_audio

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
    rate, samples = read_audio(audio)
    return rate, mix_channels(samples, 1)
