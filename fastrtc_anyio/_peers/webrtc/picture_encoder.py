"""The encoder of outgoing video: conversion and encoding in one step, on a thread."""

from __future__ import annotations

import os
from typing import Any

from aiortc import RTCRtpTransceiver
from aiortc.codecs import get_encoder
from aiortc.codecs.base import Encoder
from av import VideoFrame as AvVideoFrame
from av.filter import Graph
from av.frame import Frame
from av.packet import Packet
from av.video.format import VideoFormat
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from fastrtc_anyio._media.video import VideoFrame, view_av
from fastrtc_anyio._media.video_encode import (
    VIDEO_MIN_BITRATE,
    VIDEO_TIME_BASE,
    VideoOptions,
    create_video_encoder,
)

from . import internals, media_internals

_TOLERANCE = 0.1
"""Change of the bitrate, as a part of it, for which no new encoder is created."""
_LARGE_DROP = 0.2
"""Drop of the bitrate, as a part of it, that cannot wait: the path does not carry more."""
_RENEWAL_INTERVAL = 5.0
"""Seconds until another new encoder for the bitrate, because it starts with a key frame. FFmpeg
does not change the bitrate of an open encoder, and a client's estimate rises by 8 % a second."""


class OutgoingPicture(Frame):
    """A picture on its way through aiortc to :class:`PictureEncoder`, with its timestamp.

    It may be sent several times. It is converted when it is first encoded.
    """

    def __init__(self, picture: VideoFrame) -> None:
        self.picture = picture
        self.converted: AvVideoFrame | None = None
        self.time_base = VIDEO_TIME_BASE


class PictureEncoder(Encoder):
    """Encodes instances of :class:`OutgoingPicture`. aiortc's encoder makes packets of them.

    Not thread-safe, but calls may come from different threads.
    """

    def __init__(self, encoder: Encoder, codec: str, options: VideoOptions) -> None:
        self._encoder: Any = encoder  # aiortc's base class has no codec and no target_bitrate
        self._codec = codec
        self._options = options
        self._converter = PictureConverter()
        self._key_frame_at: int | None = None
        self._renewed_at = 0
        # The rate requested, within aiortc's limits for the codec. The target of the encoder itself
        # stays at the rate of its context: aiortc would create a context for another one.
        self._request: Any = type(encoder)()
        if options.bitrate is not None:
            media_internals.set_target_bitrate(self._request, options.bitrate)

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        assert isinstance(frame, OutgoingPicture)
        if frame.converted is None:
            frame.converted = self._converter.convert(frame.picture)
        picture = frame.converted
        picture.pts, picture.time_base = frame.pts, frame.time_base
        # The decoder, or aiortc after a PLI, may have marked the frame as a key frame. Without
        # this, each repeat of the frame would be encoded as one.
        picture.pict_type = PictureType.NONE
        now = frame.pts or 0
        is_new = self._renew(picture.width, picture.height, now)
        force_keyframe = force_keyframe or self._is_key_frame_due(now)
        if force_keyframe or is_new:
            self._key_frame_at = now
        encoded: tuple[list[bytes], int] = self._encoder.encode(picture, force_keyframe)
        return encoded

    def pack(self, packet: Packet[Any]) -> tuple[list[bytes], int]:
        packed: tuple[list[bytes], int] = self._encoder.pack(packet)
        return packed

    @property
    def target_bitrate(self) -> int:
        """Current target in bits per second."""
        return media_internals.get_target_bitrate(self._request)

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        if self._options.bitrate is None:
            self._request.target_bitrate = bitrate
        else:
            # A REMB of 0 would make the encoder fail.
            limited = max(VIDEO_MIN_BITRATE, min(bitrate, self._options.bitrate))
            media_internals.set_target_bitrate(self._request, limited)

    def _renew(self, width: int, height: int, now: int) -> bool:
        """Create an encoder of FFmpeg if the size or the bitrate has changed.

        aiortc would create one with its own settings.
        """
        context, bitrate = self._encoder.codec, self.target_bitrate
        if (
            context is not None
            and (context.width, context.height) == (width, height)
            and not self._is_rate_due(bitrate / context.bit_rate - 1, now)
        ):
            return False
        self._renewed_at = now
        media_internals.set_target_bitrate(self._encoder, bitrate)
        threads = self._options.threads or _choose_threads(width * height)
        self._encoder.codec = create_video_encoder(
            self._codec, width, height, bitrate, self._options.speed, threads
        )
        return True

    def _is_rate_due(self, change: float, now: int) -> bool:
        elapsed = (now - self._renewed_at) * VIDEO_TIME_BASE
        return change < -_LARGE_DROP or (abs(change) > _TOLERANCE and elapsed >= _RENEWAL_INTERVAL)

    def _is_key_frame_due(self, now: int) -> bool:
        interval = self._options.keyframe_interval
        if interval is None or self._key_frame_at is None:
            return False
        return (now - self._key_frame_at) * VIDEO_TIME_BASE >= interval


def _choose_threads(pixels: int) -> int:
    """Return one thread for each 640 x 480 pixels, on half of the cores and up to four."""
    return max(1, min(4, (os.cpu_count() or 1) // 2, round(pixels / (640 * 480))))


class PictureConverter:
    """Converts pictures to yuv420p, in frames whose attributes the caller can set."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._graph: Graph | None = None
        self._size = (0, 0)

    def convert(self, picture: VideoFrame) -> AvVideoFrame:
        """Return a new frame. It shares the planes of a frame in yuv420p."""
        frame = view_av(picture)
        if frame.format.name == "yuv420p":
            return self._share(frame)
        # Not frame.reformat(): its converter is part of the frame, which other threads may use.
        return self._reformatter.reformat(frame, format="yuv420p", threads=1)

    def _share(self, frame: AvVideoFrame) -> AvVideoFrame:
        # PyAV has no copy of a frame that shares its planes, except from a graph without filters.
        size = frame.width, frame.height
        if self._graph is None or self._size != size:
            self._graph, self._size = _create_graph(*size), size
        self._graph.push(frame)
        shared = self._graph.pull()
        assert isinstance(shared, AvVideoFrame)
        return shared


def _create_graph(width: int, height: int) -> Graph:
    graph = Graph()
    graph.threads = 1  # the default is one thread per core
    source = graph.add_buffer(
        width=width, height=height, format=VideoFormat("yuv420p"), time_base=VIDEO_TIME_BASE
    )
    source.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def use_picture_encoder(transceiver: RTCRtpTransceiver, options: VideoOptions) -> None:
    """Have a sender encode its pictures with the options."""
    codec = internals.get_codecs(transceiver)[0]
    encoder = PictureEncoder(get_encoder(codec), codec.name, options)
    media_internals.replace_encoder(transceiver.sender, encoder)
