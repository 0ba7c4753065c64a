"""Access to private names of aiortc and aioice that is needed for speed alone.

Everything here also works without this module, by the regular paths of aiortc, which cost more.
Unlike those of the other modules of private names, :data:`REQUIRED` is therefore not checked on
import: if a name is missing, :func:`is_usable` returns False, and the regular paths are used.

Verified against aiortc 1.16.0 and aioice 0.13.0.
"""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType
from typing import Any

from aioice import ice
from aiortc import RTCRtpReceiver, RTCRtpSender
from aiortc.rtcdtlstransport import RTCDtlsTransport, RtpRouter
from aiortc.rtcicetransport import RTCIceTransport

from fastrtc_anyio._core.required import find_missing

from .feedback_internals import Refused

logger = logging.getLogger("fastrtc_anyio")

VARIABLE = "FASTRTC_ANYIO_FAST_PATH"
"""Environment variable. With the value 0 the regular paths of aiortc are used."""

REQUIRED: Mapping[type | ModuleType, tuple[str, ...]] = {
    RTCRtpSender: (
        "__encoder",
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
}
"""Undocumented names by the class or module that has them."""


def is_usable() -> bool:
    """Return whether the private names may be used: they all exist, and the variable permits it.

    Logs the missing ones, once for each process.
    """
    if os.environ.get(VARIABLE) == "0":
        return False
    return not missing_names()


@cache
def missing_names() -> list[str]:
    """Return the names in :data:`REQUIRED` that do not exist, and log them on the first call."""
    missing = find_missing(REQUIRED)
    if missing:
        logger.warning(
            "the installed versions of aiortc and aioice lack %s: audio takes their regular paths, "
            "which need more of the processor",
            ", ".join(missing),
        )
    return missing


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
            packet: bytes = transport._rx_srtp.unprotect_known(data)
        except Refused:
            return None
        return packet

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

    None if aiortc has not got an authentic packet of it, or would drop this one.
    """
    receiver: Any = transport._rtp_router.ssrc_table.get(number)
    if receiver is None:
        return None
    codec = getattr(receiver, "_RTCRtpReceiver__codecs").get(payload_type)  # noqa: B009
    if codec is None or number not in getattr(receiver, "_RTCRtpReceiver__remote_streams"):  # noqa: B009
        return None
    source = RtpSource(transport, receiver, number, payload_type)
    return source if source.is_current else None
