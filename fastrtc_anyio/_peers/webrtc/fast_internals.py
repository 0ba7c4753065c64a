"""Access to private names of aiortc and aioice that is needed for speed alone.

Everything here also works without this module, by the regular paths of aiortc, which cost more.
Unlike those of the other modules of private names, :data:`REQUIRED` is therefore not checked on
import: if a name is missing, :func:`is_usable` returns False, and the regular paths are used.

Verified against aiortc 1.16.0 and aioice 0.13.0.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from types import ModuleType
from typing import Any

from aioice import ice
from aiortc import MediaStreamTrack, RTCRtpReceiver, RTCRtpSender, rtcdtlstransport
from aiortc.codecs import is_rtx
from aiortc.rtcdtlstransport import RTCDtlsTransport, RtpRouter, State
from aiortc.rtcicetransport import RTCIceTransport
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtpPacket

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.required import find_missing

from .feedback_internals import Refused
from .internals import replace_attribute

VARIABLE = "FASTRTC_ANYIO_FAST_PATH"
"""Environment variable. With the value 0 the regular paths of aiortc are used, otherwise those of
this module."""

_BUFFER_BYTES = 1500
"""Size of the buffer of a session of pylibsrtp."""
_TRAILER_BYTES = 144
"""Longest trailer of SRTP."""

_pylibsrtp: Any = getattr(rtcdtlstransport, "pylibsrtp")  # noqa: B009 - not exported

REQUIRED: Mapping[type | ModuleType, tuple[str, ...]] = {
    RTCRtpSender: (
        "__mid",
        "__ntp_timestamp",
        "__octet_count",
        "__packet_count",
        "__rtp_exited",
        "__rtp_header_extensions_map",
        "__rtp_started",
        "__rtp_timestamp",
        "_enabled",
        "_run_rtp",
        "_ssrc",
    ),
    RTCRtpReceiver: (
        "__active_ssrc",
        "__codecs",
        "__jitter_buffer",
        "__remote_streams",
        "_enabled",
    ),
    RTCDtlsTransport: (
        "__rx_bytes",
        "__rx_packets",
        "__tx_bytes",
        "__tx_packets",
        "_rtp_router",
        "_rx_srtp",
        "_state",
        "_tx_srtp",
    ),
    RtpRouter: ("ssrc_table",),
    RTCIceTransport: ("_connection",),
    ice.Connection: ("_nominated",),
    _pylibsrtp: ("ffi", "lib"),
    _pylibsrtp.Session: ("_buffer", "_cdata", "_srtp"),
}
"""Undocumented names by the class or module that has them."""


def is_usable() -> bool:
    """Return whether the private names may be used: they all exist, and the variable permits it.

    Logs the missing ones, and a value of the variable without a meaning, once for each process.
    """
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "1"):
        if value == "0":
            return False
        warn_of_value(value)
    return not missing_names()


@cache
def warn_of_value(value: str) -> None:
    """Log on the first call that the variable has another value than 0 and 1."""
    logger.warning(
        "%s must be 0 or 1; got %r, which has no effect",
        VARIABLE,
        value,
        event="webrtc.invalid_variable",
    )


@cache
def missing_names() -> list[str]:
    """Return the names in :data:`REQUIRED` that do not exist, and log them on the first call.

    Also those of functions of libsrtp 2 that pylibsrtp lacks: libsrtp 3 has others.
    """
    missing = find_missing(REQUIRED) or [
        f"pylibsrtp.lib.{name}" for name in ("srtp_protect", "srtp_unprotect") if not _works(name)
    ]
    if missing:
        logger.warning(
            "the installed versions of aiortc and its libraries lack %s: audio takes their regular "
            "paths, which need more of the processor",
            ", ".join(missing),
            event="webrtc.fast_path_off",
        )
    return missing


def _works(name: str) -> bool:
    """Return whether a function of libsrtp processes a packet in place, as :class:`SrtpBuffer`."""
    function = getattr(_pylibsrtp.lib, name, None)
    return function is not None and len(_pylibsrtp.ffi.typeof(function).args) == 3


class SrtpBuffer:
    """Encrypts or decrypts packets as pylibsrtp does, which allocates a length for each packet.

    Args:
        function: ``srtp_protect`` or ``srtp_unprotect``.
        longest: bytes of a packet for which pylibsrtp's buffer has room.
    """

    def __init__(self, function: str, longest: int) -> None:
        self._longest = longest
        self._process: Callable[[object, object, object], int] = getattr(_pylibsrtp.lib, function)
        self._length = _pylibsrtp.ffi.new("int *")

    def process(self, session: Any, packet: bytes) -> bytes:
        """Return what the function makes of a packet.

        Raises:
            ValueError: the packet is too long.
            Refused: libsrtp refuses the packet.
        """
        size = len(packet)
        if size > self._longest:
            raise ValueError(f"a packet must have at most {self._longest} bytes; got {size}")
        length, buffer = self._length, session._buffer
        length[0] = size
        buffer[:size] = packet
        if self._process(session._srtp[0], session._cdata, length):
            raise Refused("libsrtp refuses the packet")
        result: bytes = buffer[: length[0]]
        return result


def make_encryption() -> SrtpBuffer:
    """Return an encryption of packets. An Opus packet has at most 1276 bytes and its header."""
    return SrtpBuffer("srtp_protect", _BUFFER_BYTES - _TRAILER_BYTES)


# Receiving.


class RtpSource:
    """An RTP source of the client of which aiortc has got a packet, and what aiortc keeps for it.

    Args:
        transport: the transport of its packets.
        receiver: the receiver to which aiortc passes them.
        number: its SSRC.
        payload_type: the payload type of its packets.
    """

    def __init__(
        self, transport: RTCDtlsTransport, receiver: RTCRtpReceiver, number: int, payload_type: int
    ) -> None:
        self.payload_type = payload_type
        self._number = number
        self._transport: Any = transport
        self._receiver: Any = receiver
        self._table: Mapping[int, object] = transport._rtp_router.ssrc_table
        streams = getattr(receiver, "_RTCRtpReceiver__remote_streams")  # noqa: B009
        self._srtp = SrtpBuffer("srtp_unprotect", _BUFFER_BYTES)
        self._count: Callable[[RtpSource], None] = streams[number].add
        self.sequence_number = self.timestamp = 0
        """Fields of the packet that is being counted."""

    @property
    def buffer(self) -> object:
        """Takes its packets in place of aiortc's jitter buffer."""
        return self._receiver._RTCRtpReceiver__jitter_buffer

    @property
    def is_current(self) -> bool:
        """Whether aiortc would still pass its packets to the same receiver, which uses them."""
        receiver = self._receiver
        return receiver._enabled is True and self._table.get(self._number) is receiver

    def unprotect(self, data: bytes) -> bytes | None:
        """Return the contents of a packet; None if it is forged, or came before."""
        transport = self._transport
        transport._RTCDtlsTransport__rx_bytes += len(data)
        transport._RTCDtlsTransport__rx_packets += 1
        try:
            return self._srtp.process(transport._rx_srtp.session, data)
        except Refused:
            return None

    def count(self, sequence_number: int, timestamp: int) -> None:
        """Count a packet for the receiver reports."""
        self.sequence_number, self.timestamp = sequence_number, timestamp
        self._count(self)  # which reads these two fields, as those of aiortc's packets

    def mark_heard(self) -> None:
        """Record that a packet came now, for ``getSynchronizationSources()``."""
        now = datetime.datetime.now(datetime.UTC)
        self._receiver._RTCRtpReceiver__active_ssrc[self._number] = now


def find_source(transport: RTCDtlsTransport, number: int, payload_type: int) -> RtpSource | None:
    """Return a source whose packets aiortc passes to a receiver that decodes this payload type.

    None if aiortc has not got an authentic packet of it, or would drop this one, and for packets
    that repeat those of another source (RFC 4588), which aiortc unwraps.
    """
    receiver: Any = transport._rtp_router.ssrc_table.get(number)
    if receiver is None:
        return None
    codec = getattr(receiver, "_RTCRtpReceiver__codecs").get(payload_type)  # noqa: B009
    if codec is None or is_rtx(codec):
        return None
    if number not in getattr(receiver, "_RTCRtpReceiver__remote_streams"):  # noqa: B009
        return None
    source = RtpSource(transport, receiver, number, payload_type)
    return source if source.is_current else None


# Sending.


def replace_sending(
    sender: RTCRtpSender, send: Callable[[RTCRtpCodecParameters], Awaitable[None]]
) -> None:
    """Send the media of a sender with ``send``, called with the codec, in place of aiortc's loop.

    ``send`` must end when it is cancelled. aiortc still sends the RTCP packets.
    """

    async def run_rtp(codec: RTCRtpCodecParameters) -> None:
        started = getattr(sender, "_RTCRtpSender__rtp_started")  # noqa: B009 - a mangled name
        exited = getattr(sender, "_RTCRtpSender__rtp_exited")  # noqa: B009
        started.set()
        try:
            await send(codec)
        finally:
            # stop() waits for the event; the track tells the connection about the end.
            track: MediaStreamTrack | None = sender.track
            if track is not None:
                track.stop()
                sender.replaceTrack(None)
            exited.set()

    run_rtp.__qualname__ = "RTCRtpSender._run_rtp"  # for the reason if it fails
    replace_attribute(sender, "_run_rtp", run_rtp)


def is_enabled(sender: RTCRtpSender) -> bool:
    """Return whether the negotiated direction lets a sender send."""
    return sender._enabled


def get_ssrc(sender: RTCRtpSender) -> int:
    """Return the synchronization source of a sender, which its description and RTCP state."""
    return sender._ssrc


def get_header_extensions(sender: RTCRtpSender) -> bytes:
    """Return the header extensions of each packet that a sender of audio sends.

    That is the mid, if the client has negotiated it. aiortc states the level of audio only where it
    encodes the audio itself.
    """
    packet = RtpPacket()
    bare = len(packet.serialize())
    packet.extensions.mid = getattr(sender, "_RTCRtpSender__mid")  # noqa: B009 - a mangled name
    negotiated = getattr(sender, "_RTCRtpSender__rtp_header_extensions_map")  # noqa: B009
    return packet.serialize(negotiated)[bare:]


def send_packet(sender: Any, srtp: SrtpBuffer, packet: bytes, octets: int, timestamp: int) -> None:
    """Encrypt and send an RTP packet of a sender, and count it for its reports and statistics.

    ``octets`` is the size of the payload, and ``timestamp`` that of the packet. The session of SRTP
    is that of the transport: it keeps the roll-over counter of the source.

    Raises:
        ConnectionError: the transport is not connected.
    """
    transport = sender.transport
    if transport._state is not State.CONNECTED:
        raise ConnectionError("the DTLS transport is not connected")
    # Read for each packet: an ICE restart changes the connection, a nomination its path.
    pair = transport.transport._connection._nominated.get(1)
    if pair is None:
        raise ConnectionError("the ICE transport is not connected")
    data = srtp.process(transport._tx_srtp, packet)
    pair.protocol.transport.sendto(data, pair.remote_addr)
    transport._RTCDtlsTransport__tx_bytes += len(data)
    transport._RTCDtlsTransport__tx_packets += 1
    # Times of one instant, from which the client computes the time of any other packet.
    sender._RTCRtpSender__ntp_timestamp = ((time.time_ns() << 32) // _SECOND) + _NTP_EPOCH
    sender._RTCRtpSender__rtp_timestamp = timestamp
    sender._RTCRtpSender__octet_count += octets
    sender._RTCRtpSender__packet_count += 1


_SECOND = 10**9
_NTP_EPOCH = 2_208_988_800 << 32
"""The Unix epoch as an NTP timestamp (RFC 5905 6)."""
