"""The short path of incoming audio: from a datagram to the decoder in one step.

aiortc passes a packet through a queue, a task, and objects that audio does not need. Here only the
first packet of a source takes that path, so that aiortc learns the source, as does all that is not
audio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiortc.rtcdtlstransport import RTCDtlsTransport

from . import fast_internals
from .audio import AudioTap
from .ice_internals import Origin
from .rtp import parse

_HEAR_EVERY = 0.05
"""Seconds between two packets of a source that are recorded as signs of life."""


class _Source:
    """A source of audio, and the tap that takes its packets."""

    def __init__(self, source: fast_internals.RtpSource, tap: AudioTap) -> None:
        self.rtp = source
        self.tap = tap
        self.heard = 0.0
        self.origin: Origin | None = None


class AudioReception:
    """Takes the packets of audio from the datagrams of a transport.

    Args:
        transport: the DTLS transport, which is connected.
        hear: called with the origin of authentic packets, not of each.
        loop: its clock.
    """

    def __init__(
        self,
        transport: RTCDtlsTransport,
        hear: Callable[[Origin], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._transport = transport
        self._hear = hear
        self._clock = loop.time
        self._sources: dict[bytes, _Source] = {}

    def take(self, data: bytes, origin: Origin, in_order: bool) -> bool:
        """Process a datagram that has passed the guard, and return True if it is audio.

        Any other is left to aiortc. So are the packets of a source before ``in_order`` is True: as
        long as former datagrams wait for aiortc, they may be of this source.
        """
        if data[0] < 128:
            return False
        number = data[8:12]
        source = self._sources.get(number)
        if source is None:
            if not in_order or (source := self._find(number, data[1] & 0x7F)) is None:
                return False
            self._sources[number] = source
        rtp = source.rtp
        if data[1] & 0x7F != rtp.payload_type or not rtp.is_current:
            del self._sources[number]
            return False
        packet = rtp.unprotect(data)
        if packet is None:
            return True
        now = self._clock()
        if now - source.heard >= _HEAR_EVERY or origin is not source.origin:
            source.heard, source.origin = now, origin
            self._hear(origin)
            rtp.mark_heard()
        fields = parse(packet)
        if fields is not None:
            payload_type, _marker, sequence_number, timestamp, ssrc, begin, end = fields
            rtp.count(sequence_number, timestamp)
            payload = packet[begin:end]
            source.tap.take(ssrc, payload_type, sequence_number, timestamp, payload, now)
        return True

    def _find(self, number: bytes, payload_type: int) -> _Source | None:
        ssrc = int.from_bytes(number)
        found = fast_internals.find_source(self._transport, ssrc, payload_type)
        if found is None or not isinstance(found.buffer, AudioTap):
            return None
        return _Source(found, found.buffer)
