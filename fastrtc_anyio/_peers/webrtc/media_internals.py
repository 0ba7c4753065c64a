"""Access to private names of aiortc for senders and receivers of media.

The rules are those of :mod:`.internals`, which does the same for everything else.

Verified against aiortc 1.16.0. :data:`REQUIRED` is checked on import.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Protocol

from aiortc import RTCRtpReceiver, RTCRtpSender
from aiortc.codecs import get_decoder
from aiortc.codecs.base import Decoder, Encoder
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rate import RateCounter
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import AnyRtcpPacket, RtpPacket
from av import VideoFrame as AvVideoFrame
from av.error import FFmpegError

from fastrtc_anyio._core.required import check_required
from fastrtc_anyio._media.picture_headers import begins_key_frame, is_key_frame
from fastrtc_anyio._media.picture_repair import PictureRepair

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
    RateCounter: ("_erase_old", "_origin_ms", "_window_size"),
    H264Encoder: ("__target_bitrate",),
    Vp8Encoder: ("__target_bitrate",),
}
"""Undocumented names by the class or module that has them."""

check_required(REQUIRED, SUPPORTED)


class PacketBuffer(Protocol):
    """Takes packets; returns whether a key frame is needed, and a frame to decode."""

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]: ...


def replace_audio_jitter_buffer(receiver: RTCRtpReceiver, buffer: PacketBuffer) -> None:
    """Pass a receiver's packets to ``buffer`` in place of aiortc's jitter buffer.

    The jitter buffer of aiortc 1.16 adds 60 to 80 ms, and 280 ms after the first lost packet, for
    the rest of the call (aiortc#543). Can go once it is adaptive and its delay is a setting.

    The thread of aiortc's decoder has nothing to do then: it ends as soon as it starts, and the
    track with it.
    """
    replace_attribute(receiver, "_RTCRtpReceiver__jitter_buffer", buffer)
    getattr(receiver, "_RTCRtpReceiver__decoder_queue").put(None)  # noqa: B009 - a mangled name


class _Decoder:
    """Decodes the pictures of a receiver, as the queue that aiortc's decoder thread reads.

    ``get()`` works until the end of the stream, on that thread, and then returns it.
    """

    def __init__(
        self, on_frame: Callable[[AvVideoFrame], None], on_failure: Callable[[], None]
    ) -> None:
        self._tasks: queue.SimpleQueue[tuple[RTCRtpCodecParameters, JitterFrame] | None]
        self._tasks = queue.SimpleQueue()
        self._on_frame = on_frame
        self._on_failure = on_failure
        self._name = ""
        self._decoder: Decoder

    def put(self, task: tuple[RTCRtpCodecParameters, JitterFrame] | None) -> None:
        self._tasks.put(task)

    def qsize(self) -> int:
        """Return the number of pictures that wait."""
        return self._tasks.qsize()

    def discard(self) -> None:
        """Discard the pictures that wait."""
        with suppress(queue.Empty):
            while True:
                self._tasks.get_nowait()

    def get(self) -> None:
        while (task := self._tasks.get()) is not None:
            codec, picture = task
            if codec.name != self._name:
                self._decoder = get_decoder(codec)
                # The default is one thread per core, which costs more than it gains.
                self._decoder.codec.thread_count = 1  # type: ignore[attr-defined]
                self._name = codec.name
            try:
                frames = self._decoder.decode(picture)
            except FFmpegError:
                self._on_failure()
                continue
            for frame in frames:
                assert isinstance(frame, AvVideoFrame)
                self._on_frame(frame)


class _Pictures:
    """Joins the packets of a receiver into pictures; see :func:`receive_pictures`."""

    def __init__(
        self,
        receiver: RTCRtpReceiver,
        decoder: _Decoder,
        admit: Callable[[str, bytes, int], bool],
        clock: Callable[[], float],
    ) -> None:
        self.repair = PictureRepair(self._begins_key_frame, self._is_key_frame)
        self._decoder = decoder
        self._admit = admit
        self._clock = clock
        self._codecs = getattr(receiver, "_RTCRtpReceiver__codecs")  # noqa: B009 - a mangled name
        self._failed = getattr(receiver, "_RTCRtpReceiver__decoder_error")  # noqa: B009
        self._timestamps = getattr(receiver, "_RTCRtpReceiver__timestamp_mapper")  # noqa: B009

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        now = self._clock()
        if self._failed.is_set():
            self._failed.clear()
            self.repair.note_damage(now, drops=False)
        needs_key_frame, released = self.repair.add(packet, now)
        for packets in released:
            # The decoder is that of the packet which completes the picture, as in aiortc.
            codec = self._codecs[packet.payload_type]
            data = _join(packets)
            if not data:
                continue
            if self._admit(codec.name, data, self._decoder.qsize()):
                timestamp = self._timestamps.map(packets[0].timestamp)
                self._decoder.put((codec, JitterFrame(data, timestamp)))
            else:
                self.repair.note_damage(now)
        return needs_key_frame, None

    def _begins_key_frame(self, packet: RtpPacket) -> bool:
        name = self._codecs[packet.payload_type].name
        return begins_key_frame(name, packet.payload, _join([packet]))

    def _is_key_frame(self, packets: list[RtpPacket]) -> bool:
        return is_key_frame(self._codecs[packets[0].payload_type].name, _join(packets))


def _join(packets: list[RtpPacket]) -> bytes:
    return b"".join([part._data for part in packets])  # type: ignore[attr-defined]


class _Losses:
    """Numbers of the packets to request, as aiortc's generator of NACKs."""

    def __init__(self, repair: PictureRepair[RtpPacket], clock: Callable[[], float]) -> None:
        self._repair = repair
        self._clock = clock
        self.missing: list[int] = []

    def add(self, packet: RtpPacket) -> bool:
        self.missing = self._repair.find_missing(packet.sequence_number, self._clock())
        return bool(self.missing)


def receive_pictures(
    receiver: RTCRtpReceiver,
    on_frame: Callable[[AvVideoFrame], None],
    admit: Callable[[str, bytes, int], bool],
    clock: Callable[[], float],
    on_failure: Callable[[], None],
) -> None:
    """Decode the pictures of a receiver that ``admit`` admits, each with its last packet.

    Call it before the negotiation ends. ``on_frame`` is called with the decoded pictures, and
    ``on_failure`` for each picture that cannot be decoded, both on the decoder's thread. ``admit``
    is called with the name of the codec, the encoded picture and the number of pictures that wait
    for the decoder. ``clock`` returns the time in seconds.

    aiortc 1.16 requests a lost packet, and a key frame, once. If the request or the answer is lost,
    nothing is decoded until 512 later packets have arrived, and garbage after that. It decodes a
    picture when the first packet of the next arrives, and at most one for each packet: after a gap,
    small pictures stay late. It decodes pictures of any size, any number of which may wait, and
    only logs failures. It also decodes packets without data, such as padding, which FFmpeg takes
    for the end of the stream: no later picture is decoded. They are dropped here. Its track has an
    unbounded queue, for which each frame wakes the loop. Can go once aiortc repeats requests,
    releases pictures at the marker, has limits, drops packets without data, counts failures and
    passes frames on from the decoder's thread.
    """
    failed = getattr(receiver, "_RTCRtpReceiver__decoder_error")  # noqa: B009 - a mangled name

    def fail() -> None:
        on_failure()
        failed.set()

    decoder = _Decoder(on_frame, fail)
    pictures = _Pictures(receiver, decoder, admit, clock)
    losses = _Losses(pictures.repair, clock)
    replace_attribute(receiver, "_RTCRtpReceiver__decoder_queue", decoder)
    replace_attribute(receiver, "_RTCRtpReceiver__jitter_buffer", pictures)
    replace_attribute(receiver, "_RTCRtpReceiver__nack_generator", losses)
    _stop_decoder_off_loop(receiver, decoder)


def bound_pauses(receiver: RTCRtpReceiver) -> None:
    """Bound what a pause of video costs.

    aiortc 1.16 empties its rate counter for each millisecond of it, 600,000 after ten minutes. Can
    go once aiortc does not.
    """
    estimator = getattr(receiver, "_RTCRtpReceiver__remote_bitrate_estimator")  # noqa: B009
    counter = estimator.incoming_bitrate
    erase = counter._erase_old

    def erase_old(now_ms: int) -> None:
        # All buckets are empty after two windows.
        counter._origin_ms = max(counter._origin_ms, now_ms - 2 * counter._window_size)
        erase(now_ms)

    replace_attribute(counter, "_erase_old", erase_old)


def _stop_decoder_off_loop(receiver: RTCRtpReceiver, decoder: _Decoder) -> None:
    """Wait for the end of a receiver's decoder thread off the loop, and discard what waits for it.

    aiortc 1.16 joins the thread on the loop, once it has decoded all pictures that wait: all
    connections would stand still meanwhile. Can go once aiortc does neither.
    """
    stop = receiver.stop
    ended: list[threading.Thread] = []

    def stop_decoder() -> None:
        thread = getattr(receiver, "_RTCRtpReceiver__decoder_thread")  # noqa: B009 - mangled
        if thread is None:
            return
        decoder.discard()
        decoder.put(None)
        replace_attribute(receiver, "_RTCRtpReceiver__decoder_thread", None)
        ended.append(thread)

    async def stop_receiver() -> None:
        await stop()
        for thread in ended:
            await asyncio.get_running_loop().run_in_executor(None, thread.join)

    replace_attribute(receiver, "_RTCRtpReceiver__stop_decoder", stop_decoder)
    replace_attribute(receiver, "stop", stop_receiver)


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
