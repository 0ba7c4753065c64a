"""Test audio, and measurements of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._core.options import check_number
from fastrtc_anyio._media.frames import Int16Array

__all__ = ["speech_like", "tone", "tone_snr"]


def tone(
    frequency: float, sample_rate: int, seconds: float, *, amplitude: float = 0.25
) -> Int16Array:
    """Generate a sine wave.

    Args:
        frequency: frequency in Hz.
        sample_rate: sample rate in Hz.
        seconds: duration in seconds.
        amplitude: fraction of full scale.

    Returns:
        int16, shape ``(1, n)``.

    Raises:
        TypeError: an argument is not a number.
        ValueError: ``sample_rate`` or ``seconds`` is out of range.
    """
    check_number("frequency", frequency, unit="Hz")
    _check_duration(sample_rate, seconds)
    n = np.arange(round(seconds * sample_rate))
    wave = amplitude * 32767 * np.sin(2 * np.pi * frequency * n / sample_rate)
    return np.round(wave).astype(np.int16)[np.newaxis]


def speech_like(sample_rate: int, seconds: float, *, seed: int = 0) -> Int16Array:
    """Generate noise with the spectrum and the syllable rhythm of speech, reproducible by ``seed``.

    Returns:
        int16, shape ``(1, n)``.

    Raises:
        TypeError: ``sample_rate`` or ``seconds`` is not a number.
        ValueError: one of them is out of range.
    """
    _check_duration(sample_rate, seconds)
    count = round(seconds * sample_rate)
    noise = np.random.default_rng(seed).standard_normal(count)
    spectrum = np.fft.rfft(noise)
    frequencies = np.fft.rfftfreq(count, 1 / sample_rate)
    spectrum *= (frequencies > 100) / np.maximum(frequencies, 500)
    wave = np.fft.irfft(spectrum, count)
    syllables = 0.55 - 0.45 * np.cos(2 * np.pi * 4 * np.arange(count) / sample_rate)
    wave *= syllables / (np.max(np.abs(wave)) or 1)
    return np.round(wave * 0.5 * 32767).astype(np.int16)[np.newaxis]


def _check_duration(sample_rate: float, seconds: float) -> None:
    check_number("sample_rate", sample_rate, above=0, unit="Hz")
    check_number("seconds", seconds, at_least=0, unit="s")


def tone_snr(samples: NDArray[np.int16], frequency: float, sample_rate: int) -> float:
    """Return the signal-to-noise ratio of a tone in dB.

    Amplitude, phase and offset are fitted, and the residual counts as noise. Silence and a constant
    offset have 0 dB.

    Args:
        samples: int16, shape ``(n,)``.
        frequency: frequency of the tone in Hz.
        sample_rate: sample rate in Hz.
    """
    signal = samples.astype(np.float64)
    angle = 2 * np.pi * frequency * np.arange(signal.size) / sample_rate
    basis = np.stack([np.sin(angle), np.cos(angle), np.ones_like(angle)], axis=1)
    sine, cosine, offset = np.linalg.lstsq(basis, signal, rcond=None)[0]
    fitted = basis[:, :2] @ (sine, cosine)
    noise = np.sum((signal - offset - fitted) ** 2)
    return float(10 * np.log10(max(np.sum(fitted**2), 1e-9) / max(noise, 1e-9)))
