"""Compare recordings of the same sound, one of which passed codecs and jitter buffers."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._media.frames import Int16Array

__all__ = ["likeness", "read_wav", "write_wav"]

_PIECE = 0.25
"""Length of a compared piece, seconds. Jitter buffers stretch longer ones."""
_QUIET = 300.0
"""Maximum RMS of a pause, int16."""


def read_wav(path: Path) -> Int16Array:
    """Read a WAV file with one channel: int16, shape ``(n,)``."""
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def write_wav(path: Path, samples: Int16Array, rate: int = 48_000) -> Path:
    """Write int16 samples, shape ``(channels, n)``, and return the path."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[0])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.T.tobytes())
    return path


def likeness(heard: Int16Array, said: Int16Array, rate: int) -> float:
    """Measure how well a recording matches a sound that was played repeatedly.

    Args:
        heard: The recording, int16, shape ``(n,)``, with at least one second of sound.
        said: The sound, int16, shape ``(m,)``, at the same rate.
        rate: Sample rate in Hz.

    Returns:
        The normalised correlation of a piece at its best position, 0 to 1; the upper quartile of
        all pieces, because jitter buffers stretch some of them.
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
    return float(np.quantile(found, 0.75))


def _sums(source: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The energy of each window of ``size`` samples."""
    total: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(source**2)])
    sums: NDArray[np.float64] = total[size:] - total[:-size]
    return sums
