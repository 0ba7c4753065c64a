"""Sizes and kinds of encoded pictures, read from their headers.

A decoder allocates memory for the size that a header states, which may be 16,000 times the size of
the encoded picture. So the size is read before the picture is decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

_VP8_START_CODE = b"\x9d\x01\x2a"
_SPS = re.compile(rb"\x00\x00\x01[\x07\x27\x47\x67\x87\xa7\xc7\xe7]")
"""Start code (H.264 B.1) and first byte of a sequence parameter set (type 7)."""
_KEY_FRAME = re.compile(rb"\x00\x00\x01[\x05\x25\x45\x65\x07\x27\x47\x67]")
"""Start code and first byte of a slice of an IDR picture (type 5) or a sequence parameter set."""
_NEXT_UNIT = re.compile(rb"\x00\x00[\x01\x02]")
_MAX_SETS = 8
"""Maximum sequence parameter sets in one picture. Encoders send one."""
_MAX_SET_BYTES = 2048
"""Bytes of a sequence parameter set that are read. With all scaling lists it has about 1000."""
_WITH_CHROMA = (44, 83, 86, 100, 110, 118, 122, 128, 138, 144, 244)
"""Profiles whose sequence parameter sets have a chroma format and scaling lists."""
_MACROBLOCK = 16


def begins_key_frame(codec: str, payload: bytes, data: bytes) -> bool:
    """Return whether a packet is the first that a decoder needs of a key frame.

    For H.264 it is the one with the sequence parameter set. Key frames without one are not found.

    Args:
        codec: ``VP8`` or ``H264``, in any case.
        payload: the payload of the packet.
        data: the part of the encoded picture that is in it.
    """
    if codec.upper() == "VP8":  # RFC 7741 4.2: the start of partition 0
        return payload[:1] != b"" and payload[0] & 0x17 == 0x10 and is_key_frame(codec, data)
    return _SPS.search(data) is not None


def is_key_frame(codec: str, data: bytes) -> bool:
    """Return whether an encoded picture is a key frame."""
    if codec.upper() == "VP8":  # RFC 6386 9.1
        return data[:1] != b"" and not data[0] & 1
    return _KEY_FRAME.search(data) is not None


class PictureSize(NamedTuple):
    """Pixels that a decoder allocates for a picture, before cropping."""

    width: int
    height: int
    references: int = 1
    """Earlier pictures that the decoder keeps."""


class MalformedPicture(ValueError):
    """A picture whose header cannot be read."""


def find_sizes(codec: str, data: bytes) -> list[PictureSize]:
    """Return the size in each header of an encoded picture; empty if it has none.

    Only key frames of VP8 have a header with a size, and only some pictures of H.264.

    Args:
        codec: ``VP8`` or ``H264``, in any case.
        data: the encoded picture; for H.264, a byte stream with start codes (H.264 B).

    Raises:
        MalformedPicture: a header cannot be read.
    """
    if codec.upper() == "VP8":
        return _find_vp8_size(data)
    return list(dict.fromkeys(_find_h264_sizes(data)))


def _find_vp8_size(data: bytes) -> list[PictureSize]:
    if len(data) < 10 or data[0] & 1:  # RFC 6386 9.1: bit 0 is clear in key frames
        return []
    if data[3:6] != _VP8_START_CODE:
        raise MalformedPicture("a key frame of VP8 has no start code")
    # Bits 14 and 15 are a scale for the player.
    width, height = (int.from_bytes(data[i : i + 2], "little") & 0x3FFF for i in (6, 8))
    return [PictureSize(width, height)]


def _find_h264_sizes(data: bytes) -> Iterator[PictureSize]:
    known: set[bytes] = set()
    for found in _SPS.finditer(data):
        start = found.end()
        end = _NEXT_UNIT.search(data, start, start + _MAX_SET_BYTES)
        unit = data[start : end.start() if end else start + _MAX_SET_BYTES]
        if unit in known:
            continue
        known.add(unit)
        if len(known) > _MAX_SETS:
            raise MalformedPicture(f"a picture has more than {_MAX_SETS} parameter sets")
        plain = unit.replace(b"\0\0\3", b"\0\0")  # H.264 7.4.1: emulation prevention
        yield _read_parameter_set(plain)
        if plain != unit:
            # FFmpeg reads a set again with these bytes if it finds an error behind the size.
            with suppress(MalformedPicture):
                yield _read_parameter_set(unit)


class _Bits:
    """Reads bits as FFmpeg does: zeros follow the end of the data."""

    def __init__(self, data: bytes) -> None:
        self._bits = bin(int.from_bytes(b"\1" + data))[3:] + "0" * 64
        self._at = 0

    def read(self, count: int) -> int:
        """Read an unsigned number of ``count`` bits."""
        self._at += count
        if self._at > len(self._bits):
            raise MalformedPicture("a parameter set is cut off")
        return int(self._bits[self._at - count : self._at], 2)

    def unsigned(self) -> int:
        """Read an Exp-Golomb code (H.264 9.1)."""
        one = self._bits.find("1", self._at)
        zeros = one - self._at
        if one < 0 or zeros > 32:
            raise MalformedPicture("a parameter set is cut off")
        self._at = one
        return self.read(zeros + 1) - 1

    def signed(self) -> int:
        """Read a signed Exp-Golomb code (H.264 9.1.1)."""
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def _read_parameter_set(data: bytes) -> PictureSize:
    """Read a sequence parameter set up to its size (H.264 7.3.2.1.1)."""
    bits = _Bits(data)
    profile = bits.read(8)
    bits.read(16)  # constraints and level
    bits.unsigned()  # number of the set
    if profile in _WITH_CHROMA:
        _skip_chroma(bits)
    bits.unsigned()  # log2_max_frame_num_minus4
    order_type = bits.unsigned()
    if order_type == 0:
        bits.unsigned()
    elif order_type == 1:
        bits.read(1)
        bits.signed()
        bits.signed()
        cycle = bits.unsigned()
        if cycle > 255:
            raise MalformedPicture(f"a picture order has a cycle of {cycle}")
        for _ in range(cycle):
            bits.signed()
    elif order_type > 2:
        raise MalformedPicture(f"a picture order has the type {order_type}")
    references = bits.unsigned()
    bits.read(1)  # gaps_in_frame_num_value_allowed_flag
    width = (bits.unsigned() + 1) * _MACROBLOCK
    height = (bits.unsigned() + 1) * _MACROBLOCK
    is_progressive = bits.read(1)
    return PictureSize(width, height if is_progressive else 2 * height, max(1, references))


def _skip_chroma(bits: _Bits) -> None:
    chroma_format = bits.unsigned()
    if chroma_format == 3:
        bits.read(1)
    bits.unsigned()  # depth of luma
    bits.unsigned()  # depth of chroma
    bits.read(1)
    if bits.read(1):
        for i in range(12 if chroma_format == 3 else 8):
            if bits.read(1):
                _skip_scaling_list(bits, 16 if i < 6 else 64)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    """Skip a scaling list (H.264 7.3.2.1.1.1), which may end early."""
    last = 8
    for _ in range(size):
        following = (last + bits.signed()) % 256
        if following == 0:
            return
        last = following
