"""Outgoing video at a limited frame rate and bitrate, and incoming video."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from aiortc import MediaStreamTrack, RTCRtpTransceiver
from aiortc.codecs import get_encoder
from aiortc.codecs.base import Encoder
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtcpByePacket
from av import VideoFrame as AvVideoFrame
from av.frame import Frame
from av.packet import Packet
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from fastrtc_anyio._media.encode import VIDEO_MIN_BITRATE, VideoOptions
from fastrtc_anyio._media.video import VideoFrame
from fastrtc_anyio._peers.streams.video import VideoInput, VideoOutput

from . import internals, media_internals

logger = logging.getLogger("fastrtc_anyio")

CLOCK_RATE = 90_000
"""RFC 3551 5: the RTP clock of video."""
STILL_SECONDS = 1.0
"""Seconds after which an unchanged frame is sent again, for clients that lost it."""


class PictureTrack(MediaStreamTrack):
    """Outgoing video: frames as they arrive, at most at the frame rate of the output."""

    kind = "video"

    def __init__(self, output: VideoOutput, on_broken: Callable[[Exception], None]) -> None:
        super().__init__()
        self._output = output
        self._on_broken = on_broken
        self._news = asyncio.Event()
        self._last: AvVideoFrame | None = None
        self._repeats = 0  # of the last frame
        self._began: float | None = None

    def wake(self) -> None:
        """Notice a new frame in the output."""
        self._news.set()

    async def recv(self) -> AvVideoFrame:
        loop = asyncio.get_running_loop()
        if self._began is None:
            self._began = loop.time()
        if self._output.due is not None and not self._output.draining:
            await asyncio.sleep(self._output.due - loop.time())
        picture = await self._next_picture()
        picture.pts = round((loop.time() - self._began) * CLOCK_RATE)
        picture.time_base = Fraction(1, CLOCK_RATE)
        # The decoder, or aiortc after a PLI, may have marked the frame as a key frame. Without
        # this, each repeat of the frame would be encoded as one.
        picture.pict_type = PictureType.NONE
        return picture

    async def _next_picture(self) -> AvVideoFrame:
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            if self._output.draining and self._last is not None and not self._repeats:
                # Repeat the last frame: some decoders output a frame only when the next arrives.
                self._repeats += 1
                return self._last
            picture = self._output.pull()
            if picture is not None:
                try:
                    frame = await loop.run_in_executor(None, _own_yuv, picture)
                except Exception as exc:  # aiortc would stop the sender without an error
                    self._on_broken(exc)
                    continue
                self._last = frame
                self._repeats = 0
                return frame
            try:
                await asyncio.wait_for(self._news.wait(), STILL_SECONDS if self._last else None)
            except TimeoutError:
                if self._last is not None:
                    self._repeats += 1
                    return self._last


class _LimitedEncoder(Encoder):
    """An encoder of aiortc with a bitrate limit. The client can request less, by REMB."""

    def __init__(self, encoder: Encoder, bitrate: int) -> None:
        self._encoder = encoder
        self._limit = bitrate
        media_internals.set_target_bitrate(encoder, bitrate)

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        return self._encoder.encode(frame, force_keyframe)

    def pack(self, packet: Packet[Any]) -> tuple[list[bytes], int]:
        return self._encoder.pack(packet)

    @property
    def target_bitrate(self) -> int:
        """Current target in bits per second."""
        return media_internals.get_target_bitrate(self._encoder)

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        # A REMB of 0 would make the encoder fail.
        limited = max(VIDEO_MIN_BITRATE, min(bitrate, self._limit))
        media_internals.set_target_bitrate(self._encoder, limited)


def limit_bitrate(transceiver: RTCRtpTransceiver, options: VideoOptions) -> None:
    """Have a sender encode at the bitrate of the options, if they have one."""
    if options.bitrate is not None:
        encoder = get_encoder(internals.get_codecs(transceiver)[0])
        media_internals.replace_encoder(
            transceiver.sender, _LimitedEncoder(encoder, options.bitrate)
        )


def keep_receiving(transceiver: RTCRtpTransceiver) -> None:
    """Keep decoding after an RTCP BYE, because the client's sender may resume."""
    media_internals.filter_rtcp(
        transceiver.receiver, lambda packet: not isinstance(packet, RtcpByePacket)
    )


async def receive_pictures(track: MediaStreamTrack, pictures: VideoInput) -> None:
    """Move all frames of a track into the queue, until it ends: aiortc's queue is unbounded."""
    try:
        while True:
            frame = await track.recv()
            if isinstance(frame, AvVideoFrame):
                pictures.push(VideoFrame(frame, frame.time))
    except MediaStreamError:
        pass


def _own_yuv(picture: VideoFrame) -> AvVideoFrame:
    """Convert to YUV 4:2:0 in a new frame, whose timestamps the caller can set."""
    frame = picture.to_av()
    if frame.format.name == "yuv420p":
        return AvVideoFrame.from_ndarray(frame.to_ndarray(), format="yuv420p")
    # Not frame.reformat(): its converter is part of the frame, which other threads may use.
    return VideoReformatter().reformat(frame, format="yuv420p", threads=1)
