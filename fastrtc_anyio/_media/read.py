"""Read the audio values of the handler API: ``(rate, samples)``, with an optional layout.

User code may return anything, so the types are checked here, once. A :class:`CheckedAudio` is
proof of that check and passes through `read_audio` untouched.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio.errors import UnsupportedFormat

from .frames import MAX_CHANNELS, AudioFrame, as_int16, whole_number

AudioLike: TypeAlias = tuple[int, NDArray[Any]] | tuple[int, NDArray[Any], str]
"""``(rate, samples)`` or ``(rate, samples, layout)``."""

# Wider than the rates of microphones, files and telephones. A number outside is a mistake, and
# resampling from it could exhaust the memory.
MIN_RATE, MAX_RATE = 1_000, 384_000


class CheckedAudio(AudioFrame):
    """An :class:`AudioFrame` made by :func:`read_audio`."""

    __slots__ = ()


def read_frame(rate: object, samples: object) -> CheckedAudio | None:
    """Return audio that needs no conversion, neither empty nor longer than 0.1 s; else None."""
    if (
        type(rate) is int
        and MIN_RATE <= rate <= MAX_RATE
        and type(samples) is np.ndarray
        and samples.dtype == np.int16
        and samples.ndim == 2
        and 1 <= samples.shape[0] <= MAX_CHANNELS
        and 0 < samples.shape[1] <= rate // 10
        and samples.flags.c_contiguous
    ):
        return CheckedAudio(rate, samples)
    return None


def read_audio(value: object) -> CheckedAudio:
    """Check ``(rate, samples)`` or ``(rate, samples, layout)`` and convert the samples to int16.

    Args:
        value: the rate in Hz, from 1000 to 384000, an int or a whole float; samples int16 or
            float32 (full scale 1.0) of shape ``(n,)``, ``(1, n)`` or ``(2, n)``; the layout "mono"
            or "stereo".

    Raises:
        UnsupportedFormat: ``value`` is something else, or holds NaN or an infinity.
    """
    if isinstance(value, CheckedAudio):
        return value
    rate: object
    layout: str | None = None
    # Only tuples and lists: to numpy 2.5 an array is a sequence, too.
    match value if isinstance(value, tuple | list) else None:
        case (rate, samples):
            pass
        case (rate, samples, "mono" | "stereo" as layout):
            pass
        case _:
            raise UnsupportedFormat(
                "audio must be (rate, samples) or (rate, samples, layout), layout being "
                f'"mono" or "stereo"; got {short_repr(value)}'
            )
    whole = whole_number(rate)
    if whole is None or not MIN_RATE <= whole <= MAX_RATE:
        raise UnsupportedFormat(
            f"the sample rate must be an int from {MIN_RATE} to {MAX_RATE} Hz; "
            f"got {short_repr(rate)}"
        )
    pcm = as_int16(samples)
    if layout is not None and pcm.shape[0] != (2 if layout == "stereo" else 1):
        raise UnsupportedFormat(
            f'samples of layout "{layout}" must have shape '
            f"{'(2, n)' if layout == 'stereo' else '(n,) or (1, n)'}; got {np.shape(samples)}. "
            "Convert interleaved stereo with samples.reshape(-1, 2).T"
        )
    return CheckedAudio(whole, pcm)
