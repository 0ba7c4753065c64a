"""Audio in JSON messages: three encodings of samples, as base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

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

Codec: TypeAlias = Literal["mulaw", "pcm16", "alaw"]


@dataclass(frozen=True)
class AudioEncoding:
    """Encoding of one channel of audio: ``"pcm16"`` is signed and little-endian."""

    codec: Codec
    sample_rate: int  # Hz

    def encode(self, samples: Int16Array) -> bytes:
        """Encode int16 samples of shape ``(1, n)``."""
        if self.codec == "mulaw":
            return encode_mulaw(samples[0])
        if self.codec == "alaw":
            return encode_alaw(samples[0])
        return bytes(samples[0].astype("<i2").tobytes())

    def decode(self, payload: bytes) -> Int16Array:
        """Decode to int16 samples of shape ``(1, n)``.

        Raises:
            InvalidMessage: the payload ends within a sample.
        """
        if self.codec == "mulaw":
            return decode_mulaw(payload).reshape(1, -1)
        if self.codec == "alaw":
            return decode_alaw(payload).reshape(1, -1)
        if len(payload) % 2:
            raise InvalidMessage(f"pcm16 audio must be an even number of bytes; got {len(payload)}")
        return np.frombuffer(payload, "<i2").astype(np.int16).reshape(1, -1)


MULAW_8K = AudioEncoding("mulaw", 8_000)
"""Encoding of telephone calls."""


def parse_encoding(codec: object, rate: object, codecs: tuple[str, ...]) -> AudioEncoding:
    """Return the encoding with a name among ``codecs`` and a valid sample rate.

    Raises:
        InvalidMessage: for any other name or rate.
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


def decode_media(body: Mapping[str, object]) -> bytes:
    """Return the bytes of the base64 string ``body["media"]["payload"]``.

    Raises:
        InvalidMessage: it is missing or not base64.
    """
    inner = body.get("media")
    payload = inner.get("payload") if isinstance(inner, Mapping) else None
    if not isinstance(payload, str):
        raise InvalidMessage(f'"media.payload" must be a base64 string; got {short_repr(payload)}')
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidMessage(f'"media.payload" is not base64: {exc}') from None


def encode_base64(payload: bytes) -> str:
    """Encode bytes as a base64 string."""
    return base64.b64encode(payload).decode("ascii")
