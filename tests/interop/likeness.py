"""Whether two recordings are of the same sound, when one has been through codecs and buffers."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._media.frames import Int16Array

__all__ = ["likeness", "read_wav"]

_PIECE = 0.25
"""Seconds. A player's jitter buffer stretches and shortens sound: no more of it keeps its time."""
_QUIET = 300.0
"""int16: pieces whose effective value is below are pauses."""


def read_wav(path: Path) -> Int16Array:
    """The samples of a WAV file with one channel: int16, shape ``(n,)``."""
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def likeness(heard: Int16Array, said: Int16Array, rate: int) -> float:
    """How like what is said over and over what is heard is.

    Args:
        heard: int16, shape ``(n,)``, with at least a second of sound in it.
        said: int16, shape ``(m,)``, at the same rate.
        rate: in Hz.

    Returns:
        The normalised correlation, 0 to 1, at the best place, of the median piece.
    """
    size = int(rate * _PIECE)
    source = np.concatenate([said, said[:size]]).astype(np.float64)
    energies = _sums(source, size)
    length = 1 << (source.size + size).bit_length()
    spectrum = np.fft.rfft(source, length)
    found: list[float] = []
    for start in range(0, heard.size - size + 1, size):
        piece = heard[start : start + size].astype(np.float64)
        if np.sqrt((piece**2).mean()) < _QUIET:
            continue
        products = np.fft.irfft(spectrum * np.conj(np.fft.rfft(piece, length)), length)
        scale = np.sqrt(energies * (piece**2).sum() + 1.0)
        found.append(float((products[: energies.size] / scale).max()))
    assert len(found) * _PIECE >= 1, f"{len(found)} pieces of {_PIECE} s were no silence"
    return float(np.median(found))


def _sums(source: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The energy of every ``size`` samples in a row."""
    total: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(source**2)])
    sums: NDArray[np.float64] = total[size:] - total[:-size]
    return sums
