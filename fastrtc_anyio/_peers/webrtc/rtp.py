"""Headers of RTP packets (RFC 3550 5.1)."""

from __future__ import annotations

from struct import Struct
from typing import TypeAlias

_HEADER = Struct("!BBHLL")
_EXTENSION = Struct("!xxH")
"""The length of a header extension in words, behind its profile."""


RtpFields: TypeAlias = tuple[int, int, int, int, int, int, int]
"""Payload type, marker, sequence number, timestamp, SSRC, and the first and last index of the
payload."""


def parse(data: bytes) -> RtpFields | None:
    """Return the fields of a packet; None if it is malformed.

    Contributing sources and header extensions are skipped. The contents of an extension are not
    checked, as RFC 3550 5.3.1 permits to ignore it.
    """
    end = len(data)
    begin = _HEADER.size
    if end < begin:
        return None
    first, second, sequence_number, timestamp, ssrc = _HEADER.unpack_from(data)
    if first & 0xC0 != 0x80:
        return None
    begin += 4 * (first & 0x0F)
    if first & 0x10:
        if end < begin + _EXTENSION.size:
            return None
        begin += _EXTENSION.size + 4 * _EXTENSION.unpack_from(data, begin)[0]
    if begin > end:
        return None
    if first & 0x20:
        padding = data[-1]
        if not 0 < padding <= end - begin:
            return None
        end -= padding
    return second & 0x7F, second >> 7, sequence_number, timestamp, ssrc, begin, end


class Header:
    """Header of the packets of one source, each with the marker bit, as aiortc sends audio.

    Args:
        payload_type: type of the payload.
        ssrc: synchronization source.
        extensions: the header extensions, the same in each packet, with their profile and length
            (RFC 3550 5.3.1). Empty for none.
    """

    def __init__(self, payload_type: int, ssrc: int, extensions: bytes = b"") -> None:
        self._first = 0x90 if extensions else 0x80
        self._second = 0x80 | payload_type
        self._ssrc = ssrc
        self._extensions = extensions

    def pack(self, sequence_number: int, timestamp: int, payload: bytes) -> bytes:
        """Return a packet."""
        fixed = _HEADER.pack(self._first, self._second, sequence_number, timestamp, self._ssrc)
        return fixed + self._extensions + payload
