"""Read and write the WAV files of a call."""

from __future__ import annotations

import re
import wave
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fastrtc_anyio._media.frames import Int16Array, mix_channels
from fastrtc_anyio._media.resample import StreamResampler
from fastrtc_anyio.errors import UnsupportedFormat


class WavError(Exception):
    """A WAV file cannot be read or written."""


def read_wav(path: Path, sample_rate: int) -> Int16Array:
    """Read a WAV file of 16-bit PCM as int16 samples of shape ``(1, n)`` at ``sample_rate``."""
    try:
        with wave.open(str(path)) as file:
            if file.getsampwidth() != 2:
                raise WavError(
                    f"{path} must have 16 bits per sample; got {8 * file.getsampwidth()}"
                )
            data = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
            samples = mix_channels(data.reshape(-1, file.getnchannels()).T, 1)
            resampler = StreamResampler(file.getframerate(), sample_rate, 1)
        return np.concatenate([resampler.push(samples), resampler.flush()], axis=1)
    except (EOFError, OSError, UnsupportedFormat, ValueError, wave.Error) as exc:
        raise WavError(f"{path} cannot be read as WAV: {describe_error(exc)}") from exc


def write_wav(path: Path, samples: Int16Array, sample_rate: int) -> None:
    """Write int16 samples of shape ``(1, n)``."""
    with _writing(path), path.open("wb") as opened, wave.open(opened, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.tobytes())


def check_writable(path: Path) -> None:
    """Check that a file can be written, before a call whose recording would be lost."""
    with _writing(path):
        new = not path.exists()
        path.open("ab").close()
        if new:
            path.unlink()


@contextmanager
def _writing(path: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as exc:
        raise WavError(f"{path} cannot be written: {describe_error(exc)}") from exc


def describe_error(error: Exception) -> str:
    """Return the message of an error without its error number."""
    if isinstance(error, EOFError):
        return "unexpected end of file"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return re.sub(r"^\[Errno -?\d+\] ", "", text) or type(error).__name__
