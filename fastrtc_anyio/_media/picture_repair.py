"""Repair incoming video: request lost packets again, and a key frame where that does not help.

A lost packet is requested as soon as a later one arrives, and again until it arrives: requests and
retransmissions are lost as well. Meanwhile no picture behind it is released. A key frame needs no
earlier picture. It is requested if the gap is too large to repair, or not repaired in time, and
again until it arrives. Pictures behind discarded ones would be decoded to garbage. They are dropped
until then, but not for long: a client may never send what this module knows as a key frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from .picture_buffer import CAPACITY, PictureBuffer, VideoPacket

MOST_MISSING = 64
"""Packets of one gap that are requested. A key frame is not larger than more, and comes sooner."""
FIRST_INTERVAL = 0.1
"""Seconds until a packet is requested again, before any has arrived after a request. They follow
the time that this takes, and double with each request, up to four times as many."""
_LEAST_INTERVAL, _MOST_INTERVAL = 0.03, 0.5
_MARGIN = 1.5
_MOST_REQUESTS = 8
PATIENCE = 0.4
"""Seconds for which a gap holds up pictures until a key frame is requested."""
KEY_FRAME_INTERVAL = 0.5
"""Seconds until a key frame is requested again."""
GIVE_UP = 3.0
"""Seconds after which no more key frames are requested, and damaged pictures are released."""
_MODULUS = 1 << 16

P = TypeVar("P", bound=VideoPacket)


@dataclass
class _Missing:
    """A missing packet: the time of its next request, the number of requests, and their first."""

    due: float
    count: int = 0
    first: float = 0.0


class PictureRepair(Generic[P]):
    """A `PictureBuffer`, and the requests for what is missing.

    Times are those of any monotonic clock, in seconds. Call :meth:`find_missing` and then
    :meth:`add` with each packet.

    Args:
        begins_key_frame: returns whether a packet is the first that a decoder needs of a key frame.
        is_key_frame: returns whether the packets of a picture are a key frame.
    """

    def __init__(
        self, begins_key_frame: Callable[[P], bool], is_key_frame: Callable[[list[P]], bool]
    ) -> None:
        self._buffer = PictureBuffer(begins_key_frame)
        self._is_key_frame = is_key_frame
        self._newest: int | None = None
        self._missing: dict[int, _Missing] = {}
        self._interval = FIRST_INTERVAL
        self._blocked_at: float | None = None
        self._wanted_at: float | None = None  # since when a key frame is needed
        self._drops = False
        self._requested_at = -math.inf

    def find_missing(self, number: int, now: float) -> list[int]:
        """Return the numbers of the packets to request, when a packet arrives."""
        missing = self._missing
        self._note(number, now)
        numbers = [one for one, state in missing.items() if state.due <= now][:MOST_MISSING]
        for one in numbers:
            state = missing[one]
            state.first = state.first if state.count else now
            state.due = now + self._interval * 2 ** min(state.count, 2)
            state.count += 1
            if state.count == _MOST_REQUESTS:
                del missing[one]
        return numbers

    def _note(self, number: int, now: float) -> None:
        missing = self._missing
        found = missing.pop(number, None)
        if found is not None:
            self._follow(now - found.first)
        if self._newest is None:
            self._newest = number
        gap = (number - self._newest - 1) % _MODULUS
        if gap >= _MODULUS // 2:
            return
        if gap > MOST_MISSING:
            missing.clear()
        else:
            for i in range(number - gap, number):
                missing[i % _MODULUS] = _Missing(now)
        self._newest = number
        for one in [one for one in missing if (number - one) % _MODULUS >= CAPACITY]:
            del missing[one]

    def _follow(self, took: float) -> None:
        """Follow the time from a request to the packet. After a lost request it is longer."""
        wanted = min(max(_MARGIN * took, _LEAST_INTERVAL), _MOST_INTERVAL)
        rise = max(wanted - self._interval, 0) / 8
        self._interval = min(wanted, self._interval + rise)

    def add(self, packet: P, now: float) -> tuple[bool, list[list[P]]]:
        """Add a packet.

        Returns:
            Whether to request a key frame, and the packets of each picture to decode, in order.
        """
        buffer = self._buffer
        discarded, released = buffer.add(packet)
        if discarded:
            self.note_damage(now)
        if self._blocked_at is not None and now - self._blocked_at > GIVE_UP:
            released += buffer.skip_gap()
            self._wanted_at, self._drops = None, False
        if released or discarded:
            self._blocked_at = None
            for one in [one for one in self._missing if buffer.is_before(one)]:
                del self._missing[one]
        kept = [picture for picture in released if self._admits(picture, now)]
        if not buffer.is_blocked:
            self._blocked_at = None
        elif self._blocked_at is None:
            self._blocked_at = now
        return self._requests_key_frame(now), kept

    def note_damage(self, now: float, *, drops: bool = True) -> None:
        """Note that a picture was not decoded. ``drops`` are those that depend on it."""
        if self._wanted_at is None:
            self._wanted_at = now
        self._drops = self._drops or drops

    def _admits(self, picture: list[P], now: float) -> bool:
        if self._wanted_at is not None and (
            self._is_key_frame(picture) or now - self._wanted_at > GIVE_UP
        ):
            self._wanted_at, self._drops = None, False
        return not self._drops

    def _requests_key_frame(self, now: float) -> bool:
        needed = self._wanted_at is not None or (
            self._blocked_at is not None
            and (now - self._blocked_at >= PATIENCE or self._buffer.gap not in self._missing)
        )
        if not needed or now - self._requested_at < KEY_FRAME_INTERVAL:
            return False
        self._requested_at = now
        return True
