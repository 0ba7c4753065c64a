"""The prepared pictures that clients send: VP8, with each picture's number in its content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from benchmarks.load.analysis import Latencies, Packet
from benchmarks.load.media import Media

FPS = 30
COUNT = 300
"""Pictures until they repeat: more than are ever under way."""
_BITS = 9
_PAYLOAD = 1_200
"""Bytes of a packet."""

Picture = NDArray[np.uint8]


@cache
def prepare_pictures(width: int, height: int) -> Media:
    """Encode a moving scene at a bit rate that is usual for its size."""
    encoder = av.CodecContext.create("libvpx", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height = width, height
    encoder.pix_fmt = "yuv420p"
    encoder.framerate = Fraction(FPS)
    encoder.bit_rate = 3 * width * height
    encoder.options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
    encoder.gop_size = COUNT
    frames: list[list[bytes]] = []
    for number in range(COUNT):
        picture = av.VideoFrame.from_ndarray(_draw(number, width, height), "gray")
        picture = picture.reformat(format="yuv420p")
        picture.pts = number
        [packet] = encoder.encode(picture)
        frames.append(_split(bytes(packet)))
    return Media(frames, 1 / FPS, 90_000 // FPS, video=True)


def _draw(number: int, width: int, height: int) -> Picture:
    """Draw a moving pattern, and the number's bits as squares along the upper edge."""
    x, y = np.arange(width)[np.newaxis], np.arange(height)[:, np.newaxis]
    waves = np.sin((x + 3 * number) / 23) + np.sin((y - 2 * number) / 31) + np.sin((x + y) / 7)
    picture = np.asarray(128 + 30 * waves, np.uint8)
    side = width // _BITS
    for bit in range(_BITS):
        picture[:side, bit * side : (bit + 1) * side] = 235 if number >> bit & 1 else 16
    return picture


def read_number(picture: Picture) -> int:
    """Return the number of a decoded picture, which is ``(height, width)`` and gray."""
    side = picture.shape[1] // _BITS
    margin = side // 4
    squares = [
        picture[margin : side - margin, bit * side + margin : (bit + 1) * side - margin]
        for bit in range(_BITS)
    ]
    return sum(int(square.mean() > 128) << bit for bit, square in enumerate(squares))


def _split(data: bytes) -> list[bytes]:
    """Return the RTP payloads of a picture: RFC 7741 4.2, with the shortest descriptor."""
    pieces = [data[i : i + _PAYLOAD] for i in range(0, len(data), _PAYLOAD)]
    return [(b"\x10" if i == 0 else b"\x00") + piece for i, piece in enumerate(pieces)]


def _descriptor_size(payload: bytes) -> int:
    """Return the size of the payload descriptor: RFC 7741 4.2."""
    if not payload[0] & 0x80:
        return 1
    size, extensions = 2, payload[1]
    if extensions & 0x80:  # picture number, one byte or two
        size += 2 if payload[2] & 0x80 else 1
    size += bool(extensions & 0x40)
    return size + bool(extensions & 0x30)


@dataclass
class Pictures:
    """Pictures that came back, with the times from the last packet of what was sent.

    Attributes:
        sent: number of pictures that were sent.
        first: seconds to the first packet of each echo.
        last: seconds to its last packet.
    """

    sent: int
    first: Latencies
    last: Latencies


def find_pictures(
    sent: Sequence[float], received: Sequence[Packet], begin: float, end: float
) -> Pictures:
    """Find the pictures that were sent from ``begin`` to ``end``."""
    first: list[float] = []
    last: list[float] = []
    decoder = av.CodecContext.create("vp8", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    times = np.array(sent)
    for packets in _group(received):
        data = b"".join(one.payload[_descriptor_size(one.payload) :] for one in packets)
        try:
            pictures = decoder.decode(av.Packet(data))
        except FFmpegError:  # before the first key frame, or after a loss
            continue
        for picture in pictures:
            arrived = max(one.arrived for one in packets)
            number = read_number(np.asarray(picture.to_ndarray(format="gray"), np.uint8))
            before = int(np.searchsorted(times, arrived)) - 1
            index = before - (before - number) % COUNT
            if index >= 0 and begin <= times[index] < end:
                first.append(min(one.arrived for one in packets) - times[index])
                last.append(arrived - times[index])
    expected = int(((times >= begin) & (times < end)).sum())
    return Pictures(expected, np.array(first), np.array(last))


def _group(received: Sequence[Packet]) -> list[list[Packet]]:
    """Return the packets of each picture, in the order of their sequence numbers."""
    groups: dict[int, list[Packet]] = {}
    for packet in received:
        groups.setdefault(packet.timestamp, []).append(packet)
    return [sorted(groups[at], key=lambda one: one.sequence) for at in sorted(groups)]
