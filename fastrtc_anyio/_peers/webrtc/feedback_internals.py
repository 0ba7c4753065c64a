"""Access to private names of aiortc for RTP sources and RTCP.

The rules are those of :mod:`.internals`, which does the same for everything else.

Verified against aiortc 1.16.0. :data:`REQUIRED` is checked on import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Protocol

from aiortc import RTCRtpReceiver, RTCRtpSender, rtcdtlstransport
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtp import AnyRtcpPacket, RtcpRrPacket

from fastrtc_anyio._core.required import check_required

from .internals import SUPPORTED, replace_attribute

REQUIRED: Mapping[type | ModuleType, tuple[str, ...]] = {
    RTCDtlsTransport: ("_rx_srtp", "_setup_srtp"),
    RTCRtpReceiver: ("__remote_streams", "_send_rtcp"),
    RTCRtpSender: ("_handle_rtcp_packet", "_send_keyframe"),
    rtcdtlstransport: ("pylibsrtp",),
}
"""Undocumented names by the class or module that has them."""

check_required(REQUIRED, SUPPORTED)


Refused: Any = getattr(rtcdtlstransport, "pylibsrtp").Error  # noqa: B009 - not exported
"""The error of pylibsrtp for a forged packet, for which aiortc drops the packet."""


class Gate(Protocol):
    """Decides which packets are decrypted, and learns which were authentic."""

    def admits_rtp(self, source: bytes) -> bool: ...

    def count_rtp(self, source: bytes) -> None: ...

    def admits_rtcp(self, source: bytes, size: int) -> bool: ...

    def count_rtcp(self, source: bytes, size: int) -> None: ...


class _GatedSession:
    """An SRTP session behind a gate."""

    def __init__(self, session: Any, gate: Gate) -> None:
        self._gate = gate
        self.session = session
        """The session itself, for sources of which an authentic packet was counted before."""
        self._unprotect = session.unprotect
        self._unprotect_rtcp = session.unprotect_rtcp

    def unprotect(self, packet: bytes) -> bytes:
        source = packet[8:12]  # RFC 3550 5.1
        if not self._gate.admits_rtp(source):
            raise Refused("too many RTP sources")
        plain: bytes = self._unprotect(packet)
        self._gate.count_rtp(source)
        return plain

    def unprotect_rtcp(self, packet: bytes) -> bytes:
        source = packet[4:8]  # RFC 3550 6.4
        if not self._gate.admits_rtcp(source, len(packet)):
            raise Refused("too much RTCP")
        plain: bytes = self._unprotect_rtcp(packet)
        self._gate.count_rtcp(source, len(packet))
        return plain


def gate_packets(transport: RTCDtlsTransport, gate: Gate) -> None:
    """Drop the packets of a transport that ``gate`` refuses, before they are decrypted.

    aiortc 1.16 and libsrtp keep state for each source of RTP and RTCP for as long as the connection
    lasts, and search it for each packet. Can go once aiortc bounds them.
    """
    set_up = transport._setup_srtp

    def setup_srtp() -> None:
        set_up()
        session = transport._rx_srtp
        if session is not None:
            replace_attribute(transport, "_rx_srtp", _GatedSession(session, gate))

    replace_attribute(transport, "_setup_srtp", setup_srtp)


def split_reports(receiver: RTCRtpReceiver, size: int) -> None:
    """Send at most ``size`` reports in one RTCP packet.

    aiortc 1.16 writes one for each source into one packet. Its field for their number has 5 bits
    (RFC 3550 6.4.1), and a packet longer than pylibsrtp's buffer ends the task that sends it. Can
    go once aiortc splits them.
    """
    send = receiver._send_rtcp

    async def send_rtcp(packet: AnyRtcpPacket) -> None:
        if not isinstance(packet, RtcpRrPacket) or len(packet.reports) <= size:
            await send(packet)
            return
        for i in range(0, len(packet.reports), size):
            await send(RtcpRrPacket(packet.ssrc, packet.reports[i : i + size]))

    replace_attribute(receiver, "_send_rtcp", send_rtcp)


def report_cycles(receiver: RTCRtpReceiver) -> None:
    """Report the highest sequence number of a source with the count of its cycles.

    aiortc 1.16 reports the number alone, which goes back every 65,536 packets (RFC 3550 6.4.1).
    Can go once aiortc adds the cycles that it counts.
    """
    streams = getattr(receiver, "_RTCRtpReceiver__remote_streams")  # noqa: B009 - a mangled name
    send = receiver._send_rtcp

    async def send_rtcp(packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpRrPacket):
            for report in packet.reports:
                report.highest_sequence += streams[report.ssrc].cycles & 0xFFFF0000
        await send(packet)

    replace_attribute(receiver, "_send_rtcp", send_rtcp)


def filter_feedback(sender: RTCRtpSender, accept: Callable[[AnyRtcpPacket], bool]) -> None:
    """Ignore incoming RTCP packets for which ``accept`` returns False. It may change a packet.

    aiortc 1.16 has no limit on retransmissions and key frames. Can go once it has.
    """
    handle = sender._handle_rtcp_packet

    async def handle_rtcp_packet(packet: AnyRtcpPacket) -> None:
        if accept(packet):
            await handle(packet)

    replace_attribute(sender, "_handle_rtcp_packet", handle_rtcp_packet)


def request_key_frame(sender: RTCRtpSender) -> None:
    """Encode the next picture as a key frame, as after a PLI. aiortc 1.16 has no method for it."""
    sender._send_keyframe()
