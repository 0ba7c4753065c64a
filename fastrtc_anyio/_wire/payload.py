"""Audio in JSON messages: four encodings of samples, as base64.

A message may end within a sample, so payloads are decoded in their order, by one
:class:`PayloadCodec` for each connection.
"""

from __future__ import annotations

import base64
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

Codec: TypeAlias = Literal["mulaw", "pcm16", "l16", "alaw"]


@dataclass(frozen=True)
class AudioEncoding:
    """Encoding of one channel of audio.

    ``"pcm16"`` is signed and little-endian, ``"l16"`` signed and in the client's byte order, which
    the audio itself shows.
    """

    codec: Codec
    sample_rate: int  # Hz

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample."""
        return 1 if self.codec in ("mulaw", "alaw") else 2


class PayloadCodec:
    """Converts between the samples of a connection and the payloads of its messages.

    Args:
        incoming: encoding of the payloads from the client.
        outgoing: encoding of those to it.
    """

    def __init__(self, incoming: AudioEncoding, outgoing: AudioEncoding) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._order = _ByteOrder()
        self._rest = b""  # the first byte of a sample whose second one is in the next payload
        self._size = 0  # bytes of the last payload

    def decode(self, payload: bytes, lost: int = 0) -> Int16Array:
        """Decode the next payload to int16 samples of shape ``(1, n)``.

        The payload may begin and end within a sample. ``lost`` payloads before it are taken to have
        had the size of the last one, which tells whether it begins with the end of a sample.
        """
        width = self._incoming.sample_bytes
        size = len(payload)
        if lost:
            payload = payload[(len(self._rest) + lost * self._size) % width :]
            self._rest = b""
        payload = self._rest + payload
        end = len(payload) - len(payload) % width
        self._rest, self._size = payload[end:], size
        return self._decode(payload[:end]).reshape(1, -1)

    @property
    def has_rest(self) -> bool:
        """Whether the last payload ended within a sample."""
        return bool(self._rest)

    def encode(self, samples: Int16Array) -> bytes:
        """Encode int16 samples of shape ``(1, n)``."""
        match self._outgoing.codec:
            case "mulaw":
                return encode_mulaw(samples[0])
            case "alaw":
                return encode_alaw(samples[0])
            case "pcm16":
                return bytes(samples[0].astype("<i2").tobytes())
            case "l16":
                return bytes(samples[0].astype(self._order.dtype).tobytes())

    def _decode(self, payload: bytes) -> Int16Array:
        match self._incoming.codec:
            case "mulaw":
                return decode_mulaw(payload)
            case "alaw":
                return decode_alaw(payload)
            case "pcm16":
                return np.frombuffer(payload, "<i2").astype(np.int16)
            case "l16":
                self._order.learn(payload)
                return np.frombuffer(payload, self._order.dtype).astype(np.int16)


class _ByteOrder:
    """Byte order of 16-bit audio: big-endian until the audio shows otherwise.

    Samples in the wrong order jump.
    """

    def __init__(self) -> None:
        # Roughness of the audio so far as little-endian samples, less its roughness as big-endian.
        self._excess = 0

    @property
    def dtype(self) -> str:
        return "<i2" if self._excess < 0 else ">i2"

    def learn(self, payload: bytes) -> None:
        self._excess += _roughness(payload, "<i2") - _roughness(payload, ">i2")


def _roughness(payload: bytes, order: str) -> int:
    samples = np.frombuffer(payload, order).astype(np.int64)
    return int(np.abs(np.diff(samples)).sum())


MULAW_8K = AudioEncoding("mulaw", 8_000)
"""Encoding of telephone calls."""


def parse_encoding(codec: object, rate: object, codecs: tuple[str, ...]) -> AudioEncoding:
    """Return the encoding with a name among ``codecs`` and a valid sample rate.

    Raises:
        InvalidMessage: for any other name or rate.
    """
    if codec not in codecs or codec not in get_args(Codec):
        raise InvalidMessage(f"the encoding must be one of {', '.join(codecs)}", short_repr(codec))
    try:
        return AudioEncoding(codec, check_sample_rate(rate))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidMessage(
            f"the sample rate must be a multiple of {FRAMES_PER_SECOND} from {MIN_SAMPLE_RATE} to "
            f"{MAX_SAMPLE_RATE} Hz",
            short_repr(rate),
        ) from None


def decode_media(body: Mapping[str, object]) -> bytes:
    """Return the bytes of the base64 string ``body["media"]["payload"]``.

    Raises:
        InvalidMessage: it is missing or not base64.
    """
    inner = body.get("media")
    payload = inner.get("payload") if isinstance(inner, Mapping) else None
    if not isinstance(payload, str):
        raise InvalidMessage('"media.payload" must be a base64 string', short_repr(payload))
    try:
        return base64.b64decode(payload, validate=True)
    except ValueError:  # and its subclass binascii.Error
        raise InvalidMessage('"media.payload" must be base64 (RFC 4648 4), with padding') from None


def encode_base64(payload: bytes) -> str:
    """Encode bytes as a base64 string."""
    return base64.b64encode(payload).decode("ascii")
