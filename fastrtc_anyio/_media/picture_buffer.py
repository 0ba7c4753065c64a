"""Put the packets of incoming video in order, and release each picture with its last packet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

CAPACITY = 512
"""Numbers that the buffer spans. Behind a gap, the oldest pictures are then discarded."""
_MAX_LATE = 100
"""Numbers by which a packet can be late. A packet farther behind belongs to a new stream, unless
its timestamp is that of an old picture: retransmissions on a slow path may come later."""
_MAX_AGE = 10 * 90_000
"""Ticks of the RTP clock (RFC 7741 4.1) by which such a timestamp is behind."""
_MODULUS = 1 << 16
_TICKS = 1 << 32


class VideoPacket(Protocol):
    """The fields of an RTP packet (RFC 3550 5.1) that the buffer reads."""

    sequence_number: int
    timestamp: int
    marker: int
    payload: bytes


P = TypeVar("P", bound=VideoPacket)


class PictureBuffer(Generic[P]):
    """Collects packets into pictures.

    The packets of a picture have one timestamp, and the last of them has the marker bit (RFC 7741
    4.1, RFC 6184 5.1). A picture is released when all packets up to its marker are present. Without
    a marker it is released when the first packet of the next picture is next in line, which is one
    frame interval later. A client whose marked packets are not the last of their pictures is found
    out by the next packet, and its markers are ignored from then on.

    The first packet of a picture is the one behind the last packet released. At the start of a
    stream and behind a discarded gap it is the first packet kept, because older ones are dropped.

    A complete key frame behind a gap is released at once, and what is before it is dropped.

    Args:
        begins_key_frame: returns whether a packet is the first that a decoder needs of a key frame.
    """

    def __init__(self, begins_key_frame: Callable[[P], bool] = lambda _: False) -> None:
        self._begins_key_frame = begins_key_frame
        self._key_frame: P | None = None  # first packet of the newest key frame
        self._packets: dict[int, P] = {}
        self._origin: int | None = None  # number of the first packet of the next picture
        self._length = 0  # packets of that picture that are present without a gap
        self._marked: int | None = None  # timestamp of the last picture released at a marker
        self._newest: int | None = None  # timestamp of the last picture released
        self._trusts_markers = True

    def add(self, packet: P) -> tuple[bool, list[list[P]]]:
        """Add a packet that has just arrived.

        Returns:
            Whether pictures were discarded, so that a key frame is needed; and the packets of each
            picture that is released, in order.
        """
        number = packet.sequence_number
        if self._origin is None:
            self._origin = number
        needs_key_frame = False
        ahead = (number - self._origin) % _MODULUS
        if _MODULUS - ahead < ahead:
            if _MODULUS - ahead < _MAX_LATE or self._is_old(packet.timestamp):
                return False, []
            self._start_at(number)
            needs_key_frame = True
        elif ahead >= CAPACITY:
            self._discard(ahead - CAPACITY + 1, number)
            needs_key_frame = True
        self._packets.setdefault(number, packet)
        if self._begins_key_frame(packet):
            self._key_frame = packet
        pictures = self._release()
        if self.is_blocked and self._has_key_frame():
            pictures += self._release()
        return needs_key_frame, pictures

    @property
    def is_blocked(self) -> bool:
        """Whether packets wait behind a gap."""
        return len(self._packets) > self._length

    @property
    def gap(self) -> int:
        """Number of the first packet that has not arrived."""
        return ((self._origin or 0) + self._length) % _MODULUS

    def is_before(self, number: int) -> bool:
        """Return whether a packet is before the next picture."""
        return (number - (self._origin or 0)) % _MODULUS >= _MODULUS // 2

    def _release(self) -> list[list[P]]:
        pictures: list[list[P]] = []
        assert self._origin is not None
        while packet := self._packets.get((self._origin + self._length) % _MODULUS):
            if self._length and packet.timestamp != self._packets[self._origin].timestamp:
                pictures.append(self._pop())
            # Packets without a payload are padding, which may follow the last packet.
            if packet.timestamp == self._marked and packet.payload:
                self._trusts_markers = False
            self._length += 1
            if packet.marker and self._trusts_markers:
                self._marked = packet.timestamp
                pictures.append(self._pop())
        return pictures

    def skip_gap(self) -> list[list[P]]:
        """Discard the picture that a gap is part of, and return the complete ones behind it."""
        assert self._origin is not None
        behind = ((number - self._origin) % _MODULUS for number in self._packets)
        first = min((ahead for ahead in behind if ahead > self._length), default=0)
        self._discard(first, (self._origin + first) % _MODULUS)
        return self._release()

    def _has_key_frame(self) -> bool:
        """Return whether a key frame is complete, which is then the first in line."""
        first = self._key_frame
        if first is None or self._packets.get(first.sequence_number) is not first:
            self._key_frame = None
            return False
        number = first.sequence_number
        while packet := self._packets.get(number):
            if packet.timestamp != first.timestamp or (packet.marker and self._trusts_markers):
                self._drop_before(first.sequence_number)
                return True
            number = (number + 1) % _MODULUS
        return False

    def _drop_before(self, number: int) -> None:
        assert self._origin is not None
        dropped = (number - self._origin) % _MODULUS
        for present in list(self._packets):
            if (present - self._origin) % _MODULUS < dropped:
                del self._packets[present]
        self._origin, self._length, self._marked = number, 0, None

    def _is_old(self, timestamp: int) -> bool:
        return self._newest is not None and (self._newest - timestamp) % _TICKS < _MAX_AGE

    def _pop(self) -> list[P]:
        assert self._origin is not None
        self._newest = self._packets[self._origin].timestamp
        first, end = self._origin, self._origin + self._length
        self._origin, self._length = end % _MODULUS, 0
        return [self._packets.pop(number % _MODULUS) for number in range(first, end)]

    def _discard(self, count: int, number: int) -> None:
        """Discard ``count`` numbers and the rest of the picture that the last of them is part of.

        If no picture is left, packet ``number`` is the first of the next.
        """
        origin = self._origin
        assert origin is not None
        timestamp: int | None = None
        for ahead in sorted((present - origin) % _MODULUS for present in self._packets):
            packet = self._packets[(origin + ahead) % _MODULUS]
            if ahead >= count and packet.timestamp != timestamp:
                self._origin = packet.sequence_number
                break
            timestamp = packet.timestamp
            del self._packets[packet.sequence_number]
        else:
            self._origin = number
        self._length, self._marked = 0, None

    def _start_at(self, number: int) -> None:
        self._packets.clear()
        self._origin, self._length, self._marked = number, 0, None
