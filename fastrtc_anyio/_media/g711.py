"""G.711 mu-law and A-law by table lookup.

ITU-T G.711 defines 256 output levels per law. The decoders are tables of those levels. The encoders
choose the nearest level, and the smaller magnitude if two are equally near. All values are on the
16-bit scale: the 14-bit mu-law and 13-bit A-law values shifted left.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio.errors import UnsupportedFormat

from .frames import Int16Array

# G.711 inverts all bits of mu-law for transmission and the even bits of A-law.
_MULAW_INVERTED = 0xFF
_ALAW_INVERTED = 0x55
# 33 on the 14-bit scale: the bias that makes each mu-law segment a power of two.
_MULAW_BIAS = 33 << 2


def encode_mulaw(samples: Int16Array) -> bytes:
    """Encode int16 PCM of shape ``(n,)`` as mu-law (RTP payload PCMU).

    Zero becomes ``0xFF``; ``0x7F``, the other zero, is never produced.
    """
    return _encode(samples, _mulaw_levels)


def decode_mulaw(data: bytes) -> Int16Array:
    """Decode mu-law bytes to int16 PCM of shape ``(len(data),)``; every byte is valid."""
    return _mulaw_levels()[np.frombuffer(data, np.uint8)]


def encode_alaw(samples: Int16Array) -> bytes:
    """Encode int16 PCM of shape ``(n,)`` as A-law (RTP payload PCMA), in which 0 becomes +8."""
    return _encode(samples, _alaw_levels)


def decode_alaw(data: bytes) -> Int16Array:
    """Decode A-law bytes to int16 PCM of shape ``(len(data),)``; every byte is valid."""
    return _alaw_levels()[np.frombuffer(data, np.uint8)]


def _encode(samples: Int16Array, levels: Callable[[], Int16Array]) -> bytes:
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise UnsupportedFormat(
            f"samples must be an int16 array of shape (n,); got {short_repr(samples)}"
        )
    return _nearest_codes(levels)[samples.view(np.uint16)].tobytes()


@cache
def _mulaw_levels() -> Int16Array:
    """Return the level of each mu-law byte, shape ``(256,)``."""
    code = np.arange(256) ^ _MULAW_INVERTED
    mantissa, segment = code & 0x0F, (code >> 4) & 0x07
    magnitude = (((mantissa << 3) + _MULAW_BIAS) << segment) - _MULAW_BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


@cache
def _alaw_levels() -> Int16Array:
    """Return the level of each A-law byte, shape ``(256,)``."""
    code = np.arange(256) ^ _ALAW_INVERTED
    mantissa, segment = code & 0x0F, (code >> 4) & 0x07
    # + 8 is the middle of the quantisation step. All segments but the first have a hidden bit.
    linear = (mantissa << 4) + 8
    magnitude = np.where(segment == 0, linear, (linear + 0x100) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


@cache
def _nearest_codes(levels: Callable[[], Int16Array]) -> NDArray[np.uint8]:
    """Return the code of each 16-bit sample, indexed by the sample's bits as unsigned.

    The laws are symmetric, so the search covers the 128 positive levels and then sets the sign: in
    both laws the top bit of a transmitted byte is set for positive values.
    """
    samples = np.arange(2**16).astype(np.uint16).view(np.int16).astype(np.int32)
    positive = np.arange(0x80, 0x100)
    codes = positive[np.argsort(levels()[positive])]
    magnitudes = levels()[codes].astype(np.int32)
    doubled_midpoints = magnitudes[1:] + magnitudes[:-1]
    # side="left": a sample exactly on a midpoint gets the smaller level.
    nearest = codes[np.searchsorted(doubled_midpoints, 2 * np.abs(samples), side="left")]
    return np.where(samples < 0, nearest & 0x7F, nearest).astype(np.uint8)
