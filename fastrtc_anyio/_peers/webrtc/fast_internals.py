"""Access to private names of aiortc and aioice that is needed for speed alone.

Everything here also works without this module, by the regular paths of aiortc, which cost more.
Unlike those of the other modules of private names, :data:`REQUIRED` is therefore not checked on
import: if a name is missing, :func:`is_usable` returns False, and the regular paths are used.

Verified against aiortc 1.16.0 and aioice 0.13.0.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cache
from types import ModuleType

from aioice import ice
from aiortc import RTCRtpSender
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcicetransport import RTCIceTransport

from fastrtc_anyio._core.required import find_missing

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
    RTCDtlsTransport: ("__tx_bytes", "__tx_packets", "_state", "_tx_srtp"),
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
