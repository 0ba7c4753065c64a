"""Audio in JSON: base64 of one of three encodings; and how JSON of strangers is read."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio._media.frames import (
    FRAMES_PER_SECOND,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    Int16Array,
    check_sample_rate,
)
from fastrtc_anyio._media.g711 import decode_alaw, decode_mulaw, encode_alaw, encode_mulaw
from fastrtc_anyio.errors import InvalidMessage

__all__ = [
    "MULAW_8K",
    "AudioEncoding",
    "Codec",
    "decode_base64",
    "encode_base64",
    "parse_encoding",
    "parse_json",
]

Codec: TypeAlias = Literal["mulaw", "pcm16", "alaw"]


@dataclass(frozen=True)
class AudioEncoding:
    """How samples are bytes. One channel.

    Args:
        codec: ``"mulaw"`` or ``"alaw"`` (G.711), or ``"pcm16"``: 16 bits, signed, little-endian.
        sample_rate: in Hz.
    """

    codec: Codec
    sample_rate: int

    def encode(self, samples: Int16Array) -> bytes:
        """Bytes of int16 samples of shape ``(1, n)``."""
        if self.codec == "mulaw":
            return encode_mulaw(samples[0])
        if self.codec == "alaw":
            return encode_alaw(samples[0])
        return bytes(samples[0].astype("<i2").tobytes())

    def decode(self, payload: bytes) -> Int16Array:
        """Samples, int16 of shape ``(1, n)``.

        Raises:
            InvalidMessage: there is half a sample.
        """
        if self.codec == "mulaw":
            return decode_mulaw(payload).reshape(1, -1)
        if self.codec == "alaw":
            return decode_alaw(payload).reshape(1, -1)
        if len(payload) % 2:
            raise InvalidMessage(f"pcm16 has two bytes for each sample; got {len(payload)} bytes")
        return np.frombuffer(payload, "<i2").astype(np.int16).reshape(1, -1)


MULAW_8K = AudioEncoding("mulaw", 8_000)
"""What telephones speak."""


def parse_encoding(codec: object, rate: object, codecs: tuple[str, ...]) -> AudioEncoding:
    """Read the name of an encoding and its rate.

    Raises:
        InvalidMessage: one of them is not possible.
    """
    if codec not in codecs or codec not in get_args(Codec):
        raise InvalidMessage(
            f"the encoding must be one of {', '.join(codecs)}; got {short_repr(codec)}"
        )
    try:
        return AudioEncoding(codec, check_sample_rate(rate))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidMessage(
            f"the sample rate must be a multiple of {FRAMES_PER_SECOND} from {MIN_SAMPLE_RATE} to "
            f"{MAX_SAMPLE_RATE} Hz; got {short_repr(rate)}"
        ) from None


def parse_json(text: str) -> Any:
    """Decode JSON.

    Raises:
        InvalidMessage: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidMessage(f"the message is not JSON: {exc}") from None


def decode_base64(body: Mapping[str, Any], key: str) -> bytes:
    """The bytes of ``body[key]["payload"]``.

    Raises:
        InvalidMessage: there are none.
    """
    inner = body.get(key)
    payload = inner.get("payload") if isinstance(inner, Mapping) else None
    if not isinstance(payload, str):
        raise InvalidMessage(f'"{key}.payload" must be a base64 string; got {short_repr(payload)}')
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidMessage(f'"{key}.payload" is not base64: {exc}') from None


def encode_base64(payload: bytes) -> str:
    """Bytes as a base64 string."""
    return base64.b64encode(payload).decode("ascii")
