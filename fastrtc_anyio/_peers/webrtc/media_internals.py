"""Access to private names of aiortc for senders and receivers of media.

The rules are those of :mod:`.internals`, which does the same for everything else.

Verified against aiortc 1.16.0. :data:`REQUIRED` is checked on import.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Protocol

from aiortc import RTCRtpReceiver, RTCRtpSender
from aiortc.codecs.base import Encoder
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.rtp import AnyRtcpPacket, RtpPacket

from fastrtc_anyio._core.required import check_required

from .internals import SUPPORTED, replace_attribute

REQUIRED: Mapping[type | ModuleType, tuple[str, ...]] = {
    RTCRtpReceiver: ("__jitter_buffer", "__decoder_error", "_handle_rtcp_packet"),
    RTCRtpSender: ("__encoder",),
    H264Encoder: ("__target_bitrate",),
    Vp8Encoder: ("__target_bitrate",),
}
"""Undocumented names by the class or module that has them."""

check_required(REQUIRED, SUPPORTED)


class PacketBuffer(Protocol):
    """Takes packets; returns whether a key frame is needed, and a frame to decode."""

    def add(self, packet: RtpPacket) -> tuple[bool, None]: ...


def replace_audio_jitter_buffer(receiver: RTCRtpReceiver, buffer: PacketBuffer) -> None:
    """Pass a receiver's packets to ``buffer`` in place of aiortc's jitter buffer.

    The jitter buffer of aiortc 1.16 adds 60 to 80 ms, and 280 ms after the first lost packet, for
    the rest of the call (aiortc#543). Can go once it is adaptive and its delay is a setting.
    """
    replace_attribute(receiver, "_RTCRtpReceiver__jitter_buffer", buffer)


def guard_decoder(receiver: RTCRtpReceiver, on_failure: Callable[[], None]) -> None:
    """Call ``on_failure``, on any thread, for each picture of a receiver that cannot be decoded.

    aiortc 1.16 only logs each one. It also decodes packets without data, such as padding, which
    FFmpeg takes for the end of the stream: no later picture is decoded. They are dropped here. Can
    go once aiortc drops them and counts failures.
    """
    logging.getLogger("aiortc.rtcrtpreceiver").addFilter(_is_not_about_decoding)
    buffer = getattr(receiver, "_RTCRtpReceiver__jitter_buffer")  # noqa: B009 - a mangled name
    failed = getattr(receiver, "_RTCRtpReceiver__decoder_error")  # noqa: B009
    add, notice = buffer.add, failed.set

    def add_packet(packet: RtpPacket) -> tuple[bool, Any]:
        needs_key_frame, picture = add(packet)
        return needs_key_frame, picture if picture is not None and picture.data else None

    def set_failed() -> None:
        on_failure()
        notice()

    replace_attribute(buffer, "add", add_packet)
    replace_attribute(failed, "set", set_failed)


def _is_not_about_decoding(record: logging.LogRecord) -> bool:
    return "failed to decode" not in str(record.msg)


def filter_rtcp(receiver: RTCRtpReceiver, accept: Callable[[AnyRtcpPacket], bool]) -> None:
    """Ignore incoming RTCP packets for which ``accept`` returns False.

    aiortc 1.16 ends a track on BYE, which clients send when their sender pauses. A browser mutes
    the track instead (w3c/webrtc-pc#961). Can go once aiortc does the same.
    """
    handle = receiver._handle_rtcp_packet

    async def handle_rtcp_packet(packet: AnyRtcpPacket) -> None:
        if accept(packet):
            await handle(packet)

    replace_attribute(receiver, "_handle_rtcp_packet", handle_rtcp_packet)


def replace_encoder(sender: RTCRtpSender, encoder: Encoder) -> None:
    """Have a sender use ``encoder`` in place of aiortc's default.

    aiortc 1.16 has no setting for the bitrate (aiortc#402, #980). Can go once
    ``RTCRtpSender.setParameters()`` exists.
    """
    replace_attribute(sender, "_RTCRtpSender__encoder", encoder)


def get_target_bitrate(encoder: Encoder) -> int:
    """Return the target bitrate of an encoder of aiortc, in bits per second."""
    return int(getattr(encoder, _bitrate_name(encoder)))


def set_target_bitrate(encoder: Encoder, bitrate: int) -> None:
    """Set the target bitrate of an encoder of aiortc, in bits per second.

    The public setter clamps to a fixed range (aiortc 1.16; aiortc#402). Can go together with
    :func:`replace_encoder`.
    """
    replace_attribute(encoder, _bitrate_name(encoder), bitrate)


def _bitrate_name(encoder: Encoder) -> str:
    return f"_{type(encoder).__name__}__target_bitrate"
