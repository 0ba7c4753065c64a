"""The library's form of PCM, and conversions from and to other forms.

Inside the library audio is always int16, C-contiguous, of shape ``(channels, n)``, with one or two
channels. Handlers may use float32 or a flat array; `as_int16` converts those.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio.errors import UnsupportedFormat

# One packetisation interval: the default ptime of RFC 3551 4.2, and of Opus (RFC 7587 4.2).
FRAME_MS = 20
FRAMES_PER_SECOND = 1000 // FRAME_MS

MIN_SAMPLE_RATE = 8000
MAX_SAMPLE_RATE = 48000
MAX_CHANNELS = 2

# Samples quantised at once: blocks that fit into the processor's cache are five times as fast.
_BLOCK = 2**16

INT16_MIN = -(2**15)
INT16_MAX = 2**15 - 1

Int16Array: TypeAlias = NDArray[np.int16]


class AudioFrame(NamedTuple):
    """PCM of any duration with its rate: a ``(sample_rate, samples)`` tuple."""

    sample_rate: int
    """Samples per second and channel, Hz."""
    samples: Int16Array
    """int16 PCM, shape ``(channels, n)``, any ``n``."""

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.samples.shape[0])

    @property
    def duration(self) -> float:
        """Duration in seconds."""
        samples: int = self.samples.shape[-1]
        return samples / self.sample_rate


def split_frame(frame: AudioFrame) -> Iterable[AudioFrame]:
    """Return a frame in pieces of at most 100 ms, without copies.

    A message of a client may have 20 s of audio, whose conversion at once takes 100 ms.
    """
    size = max(1, frame.sample_rate // 10)
    count = frame.samples.shape[1]
    if count <= size:
        return (frame,)
    rate, samples = frame
    return (AudioFrame(rate, samples[:, i : i + size]) for i in range(0, count, size))


def float32_to_int16(samples: NDArray[np.float32]) -> Int16Array:
    """Quantise full-scale float PCM to 16-bit PCM, rounding half to even.

    Values outside ``[-1, 1)`` saturate; they never wrap. int16 to float32 to int16 is exact.

    Returns:
        A new C-contiguous array of the same shape, full scale 2**15.

    Raises:
        UnsupportedFormat: ``samples`` is not float32, or contains NaN or an infinity.
    """
    if samples.dtype != np.float32:
        raise UnsupportedFormat(f"samples must be float32; got {short_repr(samples)}")
    flat = np.ascontiguousarray(samples).reshape(-1)
    converted = np.empty(flat.shape, np.int16)
    for begin in range(0, flat.size, _BLOCK):
        block = flat[begin : begin + _BLOCK]
        finite = np.isfinite(block)
        if not finite.all():
            got = "NaN" if np.isnan(block).any() else str(block[~finite][0])
            raise UnsupportedFormat(f"float32 samples must be finite numbers; got {got}")
        # Clipped before scaling: the largest float32 values would overflow in the product.
        scaled = np.clip(block, np.float32(-1), np.float32(1))
        scaled *= np.float32(2**15)
        np.rint(scaled, out=scaled)
        np.minimum(scaled, np.float32(INT16_MAX), out=scaled)
        converted[begin : begin + _BLOCK] = scaled
    return converted.reshape(samples.shape)


def int16_to_float32(samples: Int16Array) -> NDArray[np.float32]:
    """Scale 16-bit PCM of any shape to float PCM with full scale 1.0; exact.

    Returns:
        A new C-contiguous array of the same shape, values in ``[-1, 1)``.

    Raises:
        UnsupportedFormat: ``samples`` is not int16.
    """
    if samples.dtype != np.int16:
        raise UnsupportedFormat(f"samples must be int16; got {short_repr(samples)}")
    scaled = samples.astype(np.float32, order="C")
    scaled /= np.float32(2**15)
    return scaled


def as_int16(samples: object) -> Int16Array:
    """Convert int16 or float32 PCM of one or two channels to the library's form.

    The first axis of a two-dimensional array is the channels, even if the shape is ambiguous.

    Args:
        samples: int16 or float32 (full scale 1.0), shape ``(n,)``, ``(1, n)`` or ``(2, n)``;
            ``n`` may be 0.

    Returns:
        C-contiguous int16, shape ``(channels, n)``. Shares memory with ``samples`` if those have
        that form already.

    Raises:
        UnsupportedFormat: another type, dtype or shape, NaN or an infinity.
    """
    if (
        not isinstance(samples, np.ndarray)
        or (samples.dtype != np.int16 and samples.dtype != np.float32)
        or not (samples.ndim == 1 or (samples.ndim == 2 and 1 <= samples.shape[0] <= MAX_CHANNELS))
    ):
        raise UnsupportedFormat(
            "samples must be an int16 or float32 array of shape (n,), (1, n) or (2, n); "
            f"got {short_repr(samples)}"
        )
    planar: NDArray[Any] = samples.reshape(1, -1) if samples.ndim == 1 else samples
    if planar.dtype == np.float32:
        return float32_to_int16(planar)
    return np.ascontiguousarray(planar)


def check_pcm(samples: Int16Array, channels: int) -> None:
    """Raise UnsupportedFormat unless samples are int16 PCM of shape ``(channels, n)``."""
    if samples.dtype != np.int16 or samples.ndim != 2 or samples.shape[0] != channels:
        raise UnsupportedFormat(
            f"samples must be an int16 array of shape ({channels}, n); got {short_repr(samples)}"
        )


def check_channels(channels: int) -> int:
    """Return ``channels``; raise UnsupportedFormat unless it is 1 or 2."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise UnsupportedFormat(f"channels must be 1 or 2; got {channels}")
    return channels


def mix_channels(samples: Int16Array, channels: int) -> Int16Array:
    """Convert PCM to mono or stereo.

    Mono to stereo duplicates the channel. Stereo to mono is the mean of both channels, rounded
    towards minus infinity; it cannot overflow.

    Args:
        samples: int16 PCM, shape ``(1, n)`` or ``(2, n)``.
        channels: 1 or 2.

    Returns:
        int16, shape ``(channels, n)``; ``samples`` itself if it has that shape.

    Raises:
        UnsupportedFormat: either number of channels is not 1 or 2.
    """
    check_channels(channels)
    if samples.ndim != 2 or not 1 <= samples.shape[0] <= MAX_CHANNELS:
        raise UnsupportedFormat(
            f"samples must have shape (1, n) or (2, n); got {short_repr(samples)}"
        )
    if samples.shape[0] == channels:
        return samples
    if channels == 2:
        return np.repeat(samples, 2, axis=0)
    total = samples[:1].astype(np.int32) + samples[1:]
    return (total >> 1).astype(np.int16)


def whole_number(value: object) -> int | None:
    """Return the value of an int or of a whole float, Python's or numpy's; None for others.

    A bool is not a number.
    """
    if type(value) is int:
        return value
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, float | np.floating):
        return int(value) if value.is_integer() else None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # the check itself
    except TypeError:
        return None


def check_sample_rate(rate: object, name: str = "sample_rate") -> int:
    """Check that a 20 ms frame at ``rate`` is a whole number of samples.

    Args:
        rate: samples per second, Hz. A whole float is accepted.
        name: the option, as the caller wrote it, for the message.

    Returns:
        The rate as an int.

    Raises:
        TypeError: ``rate`` is not a whole number. A bool is not a number.
        ValueError: ``rate`` is outside 8000 to 48000 Hz or not a multiple of 50.
    """
    value = whole_number(rate)
    if value is None:
        raise TypeError(f"{name} must be an int in Hz; got {short_repr(rate)}")
    if value % FRAMES_PER_SECOND or not MIN_SAMPLE_RATE <= value <= MAX_SAMPLE_RATE:
        raise ValueError(
            f"{name} must be a multiple of {FRAMES_PER_SECOND} from {MIN_SAMPLE_RATE} to "
            f"{MAX_SAMPLE_RATE} Hz so that a {FRAME_MS} ms frame is a whole number of samples; "
            f"got {value}"
        )
    return value
