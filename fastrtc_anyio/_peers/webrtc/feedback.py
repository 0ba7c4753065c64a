"""Limits on RTP sources and RTCP, which bound the memory and the time that one client can cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from aiortc import RTCRtpTransceiver
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    RtcpPsfbPacket,
    RtcpRtpfbPacket,
)

from fastrtc_anyio._core.budget import Budget
from fastrtc_anyio._peers.discards import Discards

from . import feedback_internals

MAX_SOURCES = 200
"""Maximum RTP sources (SSRCs) of one transport. Browsers have one to six for each section, and a
new one when a track is replaced."""
MAX_REPORTS = 31
"""Maximum reports in one RTCP packet (RFC 3550 6.4.1)."""
RTCP_RATE = 32_000
"""Maximum RTCP from one client in bytes per second, and in a burst. RFC 3550 6.2 recommends 5 % of
the bandwidth of the media: 31,000 bytes per second for 5 Mbit/s."""
RETRANSMISSIONS = 500
"""Maximum retransmitted packets in a second, and in a burst. 5 Mbit/s of video has as many."""
REPEAT_INTERVAL = 0.04
"""Seconds until a packet is retransmitted again. aiortc's receiver requests all that is missing
whenever it misses one more, also within a picture. It does so at no other time, so that a longer
interval would ignore its only request after a lost retransmission."""
KEY_FRAME_INTERVAL = 0.3
"""Seconds between two key frames that the client requests."""
BITRATE_INTERVAL = 0.5
"""Seconds between two estimates of the client's bandwidth that are applied."""


class PacketGate:
    """Admits packets of a limited number of RTP sources, and a limited amount of RTCP.

    Only authenticated packets count: a stranger cannot use up the limits of a client.
    """

    def __init__(self, clock: Callable[[], float], discards: Discards) -> None:
        self._sources: set[bytes] = set()
        self._rtcp = Budget(RTCP_RATE)
        self._clock = clock
        self._discards = discards

    def admits_rtp(self, source: bytes) -> bool:
        """Return whether a packet of this SSRC may be decrypted."""
        if source in self._sources or len(self._sources) < MAX_SOURCES:
            return True
        text = f"the client sends from more than {MAX_SOURCES} RTP sources"
        self._discards.count("packets", text)
        return False

    def count_rtp(self, source: bytes) -> None:
        """Count the SSRC of an authentic packet."""
        self._sources.add(source)

    def admits_rtcp(self, source: bytes, size: int) -> bool:
        """Return whether an RTCP packet of an SSRC, with ``size`` bytes, may be decrypted."""
        if not self.admits_rtp(source):
            return False
        if self._rtcp.refill(self._clock()) >= size:
            return True
        text = f"the client sends more than {RTCP_RATE} bytes of RTCP in a second"
        self._discards.count("packets", text)
        return False

    def count_rtcp(self, source: bytes, size: int) -> None:
        """Count the SSRC and the bytes of an authentic packet."""
        self._sources.add(source)
        self._rtcp.spend(size, self._clock())


class FeedbackLimits:
    """Limits what a client's RTCP makes a sender do.

    Args:
        request_key_frame: has the sender encode the next picture as a key frame.
        loop: runs a key frame request that came too early.
    """

    def __init__(
        self, request_key_frame: Callable[[], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._request_key_frame = request_key_frame
        self._loop = loop
        self._retransmissions = Budget(RETRANSMISSIONS)
        self._retransmitted: dict[int, float] = {}  # times by number, the oldest first
        self._key_frame_due = self._bitrate_due = loop.time()
        self._later: asyncio.TimerHandle | None = None

    def accept(self, packet: AnyRtcpPacket) -> bool:
        """Return whether the sender shall handle a packet, from which some requests are removed."""
        now = self._loop.time()
        if isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            packet.lost = self._choose(packet.lost, now)
        elif isinstance(packet, RtcpPsfbPacket):
            if packet.fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
                return self._accept_key_frame(now)
            if packet.fmt == RTCP_PSFB_APP:
                accepted = now >= self._bitrate_due
                self._bitrate_due = now + BITRATE_INTERVAL if accepted else self._bitrate_due
                return accepted
        return True

    def _choose(self, lost: list[int], now: float) -> list[int]:
        """Return the packets to retransmit."""
        sent = self._retransmitted
        while sent and now - sent[first := next(iter(sent))] >= REPEAT_INTERVAL:
            del sent[first]
        new = [number for number in dict.fromkeys(lost) if number not in sent]
        new = new[: int(self._retransmissions.refill(now))]
        sent.update(dict.fromkeys(new, now))
        self._retransmissions.spend(len(new), now)
        return new

    def _accept_key_frame(self, now: float) -> bool:
        if now >= self._key_frame_due:
            self._key_frame_due = now + KEY_FRAME_INTERVAL
            return True
        # The key frame of the former request may be lost by now, and the client need not ask again.
        if self._later is None:
            self._later = self._loop.call_at(self._key_frame_due, self._make_up)
        return False

    def _make_up(self) -> None:
        self._later = None
        self._key_frame_due = self._loop.time() + KEY_FRAME_INTERVAL
        self._request_key_frame()


def limit_feedback(
    transport: RTCDtlsTransport, sections: Iterable[object], discards: Discards
) -> None:
    """Limit the RTP sources and the RTCP of a transport and its sections, before the handshake."""
    loop = asyncio.get_running_loop()
    feedback_internals.gate_packets(transport, PacketGate(loop.time, discards))
    for section in sections:
        if isinstance(section, RTCRtpTransceiver):
            feedback_internals.split_reports(section.receiver, MAX_REPORTS)
            feedback_internals.report_cycles(section.receiver)
            request = partial(feedback_internals.request_key_frame, section.sender)
            limits = FeedbackLimits(request, loop)
            feedback_internals.filter_feedback(section.sender, limits.accept)
