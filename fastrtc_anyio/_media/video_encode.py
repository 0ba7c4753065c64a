"""Encoders of outgoing video in real time: VP8 by libvpx and H.264 by libx264."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, get_args

from fastrtc_anyio._core.options import check_choice, check_number

if TYPE_CHECKING:
    from av import VideoCodecContext

VideoCodec = Literal["VP8", "H264"]
VIDEO_TIME_BASE = Fraction(1, 90_000)
"""RFC 3551 5: the RTP clock of video."""
# Usable range of WebRTC: below it VP8 at 15 frames per second shows nothing, above it a loopback
# connection is saturated.
VIDEO_MIN_BITRATE, _VIDEO_MAX_BITRATE = 50_000, 50_000_000
_MIN_KEYFRAME_INTERVAL, _MAX_KEYFRAME_INTERVAL = 0.1, 3600
_MAX_THREADS = 16
_CPU_USED = (-3, -5, -8, -10, -12)
"""libvpx's ``cpu-used`` by speed."""
_PRESETS = ("medium", "faster", "veryfast", "superfast", "ultrafast")
"""libx264's ``preset`` by speed."""


@dataclass(frozen=True)
class VideoOptions:
    """Settings of outgoing video.

    Attributes:
        codec: "VP8" or "H264", preferred if the client offers it. None: the client's first choice.
        bitrate: maximum in bits per second; the client may request less. None: the encoder's
            default, 500 kbit/s for VP8 and 1 Mbit/s for H.264, or the rate the client requests.
        keyframe_interval: maximum seconds between key frames, 0.1 to 3600, for receivers that join
            late or cannot request one. A key frame has 5 to 20 times the size of another picture.
            None: key frames when the client requests one, and seldom otherwise.
        speed: 0 (best quality) to 4 (least CPU time). VP8 takes about 4 and H.264 about 13 times as
            much CPU time at 0 as at 4, for 0.5 dB at most.
        threads: threads of the encoder, 1 to 16. More of them reduce the delay of large pictures,
            not the CPU time. None: one up to 640 x 480, and up to four for larger pictures.

    Raises:
        TypeError: a setting has the wrong type.
        ValueError: a setting is out of range.
    """

    codec: VideoCodec | None = None
    bitrate: int | None = None
    keyframe_interval: float | None = None
    speed: int = 2
    threads: int | None = None

    def __post_init__(self) -> None:
        check_choice("codec", self.codec, (None, *get_args(VideoCodec)))
        if self.bitrate is not None:
            _check_int("bitrate", self.bitrate, VIDEO_MIN_BITRATE, _VIDEO_MAX_BITRATE)
        if self.keyframe_interval is not None:
            check_number(
                "keyframe_interval",
                self.keyframe_interval,
                at_least=_MIN_KEYFRAME_INTERVAL,
                at_most=_MAX_KEYFRAME_INTERVAL,
            )
        _check_int("speed", self.speed, 0, len(_PRESETS) - 1)
        if self.threads is not None:
            _check_int("threads", self.threads, 1, _MAX_THREADS)


def _check_int(name: str, value: int, low: int, high: int) -> None:
    check_number(name, value, at_least=low, at_most=high, integer=True)


def create_video_encoder(
    codec: str, width: int, height: int, bitrate: int, speed: int, threads: int
) -> VideoCodecContext:
    """Create an encoder of FFmpeg, without delay, for pictures of one size in yuv420p.

    Args:
        codec: "VP8" or "H264".
        width: pixels, even.
        height: pixels, even.
        bitrate: target in bits per second.
        speed: as in `VideoOptions`.
        threads: threads of the encoder.
    """
    context = _create_vp8(bitrate, speed) if codec == "VP8" else _create_h264(speed)
    context.width = width
    context.height = height
    context.bit_rate = bitrate
    context.pix_fmt = "yuv420p"
    # An estimate, for the first picture. In a coarser time base, which pictures are converted to,
    # two of them could get the same RTP timestamp.
    context.framerate = Fraction(30)
    context.time_base = VIDEO_TIME_BASE
    context.thread_count = threads
    return context


def _create_vp8(bitrate: int, speed: int) -> VideoCodecContext:
    from av import CodecContext

    context = CodecContext.create("libvpx", "w")
    context.gop_size = 3000
    context.qmin = 2
    context.qmax = 56
    context.options = {
        "deadline": "realtime",
        "lag-in-frames": "0",
        "cpu-used": str(_CPU_USED[speed]),
        # A constant bitrate, with a buffer of one second.
        "minrate": str(bitrate),
        "maxrate": str(bitrate),
        "bufsize": str(bitrate),
        "overshoot-pct": "15",
        "undershoot-pct": "100",
        "static-thresh": "1",
        "partitions": "0",
        # Pictures of a handler were decoded or drawn, so they have no camera noise to remove:
        # at 4, a decoded picture loses 1 to 4 dB and takes 40 % longer.
        "noise-sensitivity": "0",
    }
    return context


def _create_h264(speed: int) -> VideoCodecContext:
    from av import CodecContext

    context = CodecContext.create("libx264", "w")
    context.profile = "Baseline"
    context.options = {
        "level": "31",
        "tune": "zerolatency",
        "preset": _PRESETS[speed],
    }
    return context
