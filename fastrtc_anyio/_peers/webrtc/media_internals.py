"""Access to private names of aiortc for senders and receivers of media.

The rules are those of :mod:`.internals`, which does the same for everything else.

Verified against aiortc 1.16.0. :data:`REQUIRED` is checked on import.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Protocol

from aiortc import RTCRtpReceiver, RTCRtpSender
from aiortc.codecs.base import Encoder
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rate import RateCounter
from aiortc.rtcrtpreceiver import NackGenerator
from aiortc.rtp import AnyRtcpPacket, RtpPacket

from fastrtc_anyio._core.required import check_required
from fastrtc_anyio._media.picture_buffer import PictureBuffer

from .internals import SUPPORTED, replace_attribute

REQUIRED: Mapping[type | ModuleType, tuple[str, ...]] = {
    RTCRtpReceiver: (
        "__codecs",
        "__decoder_error",
        "__decoder_queue",
        "__decoder_thread",
        "__jitter_buffer",
        "__nack_generator",
        "__remote_bitrate_estimator",
        "__stop_decoder",
        "__timestamp_mapper",
        "_handle_rtcp_packet",
        "_handle_rtp_packet._data",
    ),
    RTCRtpSender: ("__encoder",),
    NackGenerator: ("max_seq",),
    RateCounter: ("_erase_old", "_origin_ms", "_window_size"),
    H264Encoder: ("__target_bitrate",),
    Vp8Encoder: ("__target_bitrate",),
}
"""Undocumented names by the class or module that has them."""

check_required(REQUIRED, SUPPORTED)


_HISTORY = 128
"""Numbers that aiortc remembers as missing."""


class PacketBuffer(Protocol):
    """Takes packets; returns whether a key frame is needed, and a frame to decode."""

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]: ...


def replace_audio_jitter_buffer(receiver: RTCRtpReceiver, buffer: PacketBuffer) -> None:
    """Pass a receiver's packets to ``buffer`` in place of aiortc's jitter buffer.

    The jitter buffer of aiortc 1.16 adds 60 to 80 ms, and 280 ms after the first lost packet, for
    the rest of the call (aiortc#543). Can go once it is adaptive and its delay is a setting.
    """
    replace_attribute(receiver, "_RTCRtpReceiver__jitter_buffer", buffer)


class _Pictures:
    """Joins the packets of a receiver into pictures; see :func:`guard_decoder`."""

    def __init__(
        self,
        receiver: RTCRtpReceiver,
        admit: Callable[[str, bytes, int], bool],
        wants_key_frame: Callable[[], bool],
    ) -> None:
        self._buffer: PictureBuffer[RtpPacket] = PictureBuffer()
        self._admit = admit
        self._wants_key_frame = wants_key_frame
        self._codecs = getattr(receiver, "_RTCRtpReceiver__codecs")  # noqa: B009 - a mangled name
        self._waiting = getattr(receiver, "_RTCRtpReceiver__decoder_queue")  # noqa: B009
        self._timestamps = getattr(receiver, "_RTCRtpReceiver__timestamp_mapper")  # noqa: B009

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        needs_key_frame, released = self._buffer.add(packet)
        if not released:
            return needs_key_frame, None
        # The decoder is that of the packet which completes the picture, as in aiortc.
        codec = self._codecs[packet.payload_type]
        last: JitterFrame | None = None
        for packets in released:
            data = b"".join([part._data for part in packets])  # type: ignore[attr-defined]
            if not data:
                continue
            if last is not None:  # the caller queues one picture, the last
                last.timestamp = self._timestamps.map(last.timestamp)
                self._waiting.put((codec, last))
                last = None
            if self._admit(codec.name, data, self._waiting.qsize()):
                last = JitterFrame(data, packets[0].timestamp)
            else:
                needs_key_frame = needs_key_frame or self._wants_key_frame()
        return needs_key_frame, last


def guard_decoder(
    receiver: RTCRtpReceiver,
    admit: Callable[[str, bytes, int], bool],
    wants_key_frame: Callable[[], bool],
    on_failure: Callable[[], None],
) -> None:
    """Decode the pictures of a receiver that ``admit`` admits, each with its last packet.

    ``admit`` is called with the name of the codec, the encoded picture and the number of pictures
    that wait for the decoder. If ``wants_key_frame`` returns True after a refusal, a key frame is
    requested. ``on_failure`` is called, on any thread, for each picture that cannot be decoded.

    aiortc 1.16 decodes a picture when the first packet of the next arrives, and at most one for
    each packet: after a gap, small pictures stay late. It decodes pictures of any size, any number
    of which may wait, and only logs failures. It also decodes packets without data, such as
    padding, which FFmpeg takes for the end of the stream: no later picture is decoded. They are
    dropped here. Can go once aiortc releases pictures at the marker, has limits, drops packets
    without data and counts failures.
    """
    logging.getLogger("aiortc.rtcrtpreceiver").addFilter(_is_not_about_decoding)
    pictures: PacketBuffer = _Pictures(receiver, admit, wants_key_frame)
    replace_attribute(receiver, "_RTCRtpReceiver__jitter_buffer", pictures)
    failed = getattr(receiver, "_RTCRtpReceiver__decoder_error")  # noqa: B009
    notice = failed.set

    def set_failed() -> None:
        on_failure()
        notice()

    replace_attribute(failed, "set", set_failed)


def bound_gaps(receiver: RTCRtpReceiver) -> None:
    """Bound what a gap between two packets of video costs, in numbers or in time.

    aiortc 1.16 notes each number of a gap, 32,767 at most, as missing and forgets all but the last
    128, and empties its rate counter for each millisecond of a gap, 600,000 after ten minutes
    without video. Can go once aiortc does neither.
    """
    missing = getattr(receiver, "_RTCRtpReceiver__nack_generator")  # noqa: B009 - a mangled name
    estimator = getattr(receiver, "_RTCRtpReceiver__remote_bitrate_estimator")  # noqa: B009
    counter = estimator.incoming_bitrate
    add, erase = missing.add, counter._erase_old

    def add_packet(packet: RtpPacket) -> bool:
        number = packet.sequence_number
        if missing.max_seq is not None and _HISTORY < (number - missing.max_seq) % 65536 < 32768:
            missing.max_seq = (number - _HISTORY - 1) % 65536
        found: bool = add(packet)
        return found

    def erase_old(now_ms: int) -> None:
        # All buckets are empty after two windows.
        counter._origin_ms = max(counter._origin_ms, now_ms - 2 * counter._window_size)
        erase(now_ms)

    replace_attribute(missing, "add", add_packet)
    replace_attribute(counter, "_erase_old", erase_old)


def stop_decoder_off_loop(receiver: RTCRtpReceiver) -> None:
    """Wait for the end of a receiver's decoder thread off the loop, and discard what waits for it.

    aiortc 1.16 joins the thread on the loop, once it has decoded all pictures that wait: all
    connections would stand still meanwhile. Can go once aiortc does neither.
    """
    waiting = getattr(receiver, "_RTCRtpReceiver__decoder_queue")  # noqa: B009 - a mangled name
    stop = receiver.stop
    ended: list[threading.Thread] = []

    def stop_decoder() -> None:
        thread = getattr(receiver, "_RTCRtpReceiver__decoder_thread")  # noqa: B009
        if thread is None:
            return
        with suppress(queue.Empty):
            while True:
                waiting.get_nowait()
        waiting.put(None)
        replace_attribute(receiver, "_RTCRtpReceiver__decoder_thread", None)
        ended.append(thread)

    async def stop_receiver() -> None:
        await stop()
        for thread in ended:
            await asyncio.get_running_loop().run_in_executor(None, thread.join)

    replace_attribute(receiver, "_RTCRtpReceiver__stop_decoder", stop_decoder)
    replace_attribute(receiver, "stop", stop_receiver)


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
