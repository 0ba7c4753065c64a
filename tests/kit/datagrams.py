"""Datagrams that begin like those of WebRTC: STUN, DTLS, RTP, RTCP and SCTP, and then deviate."""

from __future__ import annotations

import struct
import zlib

from aiortc.rtcsctptransport import Chunk, serialize_packet

from .choices import Choices
from .mutators import mutate_bytes

_STUN_TYPES = (1, 0x11, 0x101, 0x111, 3, 0x103, 4, 0x17, 0x3FFF)
_ATTRIBUTES = (6, 8, 0x24, 0x25, 0x8029, 0x802A, 0x20, 1, 9, 0x12, 0x16, 0x8028, 0xC001)
_COOKIE = 0x2112A442
_SIZES = (0, 1, 2, 3, 4, 8, 20, 63, 255, 1400, 1499, 1500, 1501, 2000, 9000)
_LONGEST = 65_507
"""Bytes that UDP over IPv4 carries."""
_RTCP_TYPES = (200, 201, 202, 203, 204, 205, 206, 207, 192, 195)
_RECORDS = (20, 21, 22, 23, 25, 26, 63)
_VERSIONS = (0xFEFD, 0xFEFF, 0x0303, 0, 0xFFFF)
OPUS = 96
"""Payload type of Opus in the offers of aiortc."""


def any_datagram(choices: Choices) -> bytes:
    """Return a datagram of any kind, unencrypted."""
    make = choices.pick((stun, dtls, rtp, rtcp, channel_data, noise))
    data = make(choices)
    return (mutate_bytes(choices, data) if choices.chance(3) else data)[:_LONGEST]


def stun(choices: Choices) -> bytes:
    """Return a STUN message (RFC 8489 5) without a valid integrity."""
    body = b""
    for _ in range(choices.number(6)):
        value = _fill(choices)
        size = choices.pick((len(value), len(value), 0, 4, 0xFFFF)) & 0xFFFF
        body += struct.pack(">HH", choices.pick(_ATTRIBUTES), size) + value
        body += bytes(-len(value) % 4)
    if choices.chance(2):
        body += struct.pack(">HHI", 0x8028, 4, 0)
    length = choices.pick((len(body), len(body), 0, 0xFFFF)) & 0xFFFF
    head = struct.pack(">HHI", choices.pick(_STUN_TYPES), length, _COOKIE) + bytes(12)
    message = head + body
    if body.endswith(struct.pack(">HHI", 0x8028, 4, 0)):  # a fingerprint that is right
        mark = (zlib.crc32(message[:-8]) ^ 0x5354554E) & 0xFFFFFFFF
        message = message[:-4] + struct.pack(">I", mark)
    return message


def dtls(choices: Choices) -> bytes:
    """Return records of DTLS 1.2 (RFC 6347 4.1) in plaintext."""
    records = b""
    for _ in range(1 + choices.number(3)):
        body = choices.pick((b"\x02\x28", b"\x01\0", b"\x01", choices.take(12), _fill(choices)))
        length = choices.pick((len(body), len(body), 0, 0xFFFF)) & 0xFFFF
        head = struct.pack(">BH", choices.pick(_RECORDS), choices.pick(_VERSIONS))
        records += (
            head + struct.pack(">HHIH", choices.number(2), 0, choices.number(9), length) + body
        )
    return records


def rtp(choices: Choices, *sources: int) -> bytes:
    """Return an RTP packet (RFC 3550 5.1), of one of these sources or of another."""
    first = 0x80 | choices.pick((0, 0, 0, 0x10, 0x20, 0x30)) | choices.pick((0, 0, 1, 15))
    kind = choices.pick((OPUS, OPUS, OPUS | 0x80, 0, 63, 97, 127))
    source = choices.pick((7, 8, 0, 0xFFFFFFFF, *sources))
    numbers = choices.number(65_536), choices.number(1 << 32), source
    data = struct.pack(">BBHII", first, kind, *numbers) + bytes(4 * (first & 15))
    if first & 0x10:
        profile, words = choices.pick((0xBEDE, 0x1000, 0)), choices.pick((0, 1, 2, 0xFFFF))
        elements = choices.take(4 * min(words, 4)).ljust(4 * min(words, 4), b"\0")
        data += struct.pack(">HH", profile, words) + elements
    data += _fill(choices)
    return data + bytes([choices.pick((0, 1, 4, 255))]) if first & 0x20 else data


def rtcp(choices: Choices) -> bytes:
    """Return compound RTCP packets (RFC 3550 6)."""
    packets = b""
    for _ in range(1 + choices.number(3)):
        count, kind = choices.pick((0, 1, 1, 2, 15, 31)), choices.pick(_RTCP_TYPES)
        body = struct.pack(">I", choices.pick((7, 8, 0)))
        body += choices.pick((b"", bytes(20), bytes(24), b"REMB\x01\0\0\0", _fill(choices)))
        body += bytes(-len(body) % 4)
        words = choices.pick((len(body) // 4, len(body) // 4, 0, 1, 0xFFFF)) & 0xFFFF
        packets += struct.pack(">BBH", 0x80 | count, kind, words) + body
    return packets


def sctp(choices: Choices, tag: int, port: int = 5000) -> bytes:
    """Return an SCTP packet (RFC 9260 3) with a valid checksum; ``tag`` is the association's."""
    chunk = Chunk(flags=choices.pick((0, 1, 2, 3, 4, 7, 255)))
    chunk.type = choices.pick((*range(15), 64, 128, 129, 130, 132, 192, 193, 255))
    fields = choices.pick((b"", bytes(4), bytes(12), bytes(16), b"\xff" * 16, bytes(300)))
    chunk.body = fields + choices.take(choices.number(24))
    packet = serialize_packet(port, port, choices.pick((tag, tag, tag, 0, 1)), chunk)
    return mutate_bytes(choices, packet) if choices.chance(6) else packet


def channel_data(choices: Choices) -> bytes:
    """Return a message of a TURN channel (RFC 8656 12.4)."""
    body = _fill(choices)
    return struct.pack(">HH", 0x4000 + choices.number(0x1000), len(body) & 0xFFFF) + body


def noise(choices: Choices) -> bytes:
    """Return bytes with any beginning, of any size that UDP carries."""
    size = choices.pick((*_SIZES, _LONGEST))
    return choices.take(12).ljust(size, choices.take(1) or b"\0")[:size]


def _fill(choices: Choices) -> bytes:
    """Return a few bytes, sometimes many."""
    size = choices.pick(_SIZES)
    return choices.take(min(size, 16)).ljust(size, choices.pick((b"\0", b"\xff", b"\x55")))
