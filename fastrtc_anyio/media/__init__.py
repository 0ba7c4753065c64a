"""Audio and video as values: frames, conversions, resampling, queues, playout and encoders.

Everything here is pure: no clock, no event loop, no thread, no lock. Time passes only because
somebody calls `PlayoutBuffer.pull` once per frame, or says what time it is. PyAV is loaded when
the first Opus or G722 encoder is made or a picture becomes one of FFmpeg's, never on import.
"""

from __future__ import annotations

from fastrtc_anyio.media.encode import (
    AudioEncoder,
    G722Encoder,
    OpusEncoder,
    OpusOptions,
    PcmaEncoder,
    PcmuEncoder,
    create_encoder,
)
from fastrtc_anyio.media.frames import (
    FRAME_MS,
    FRAMES_PER_SECOND,
    AudioFrame,
    Int16Array,
    as_int16,
    check_sample_rate,
    float32_to_int16,
    int16_to_float32,
    mix_channels,
)
from fastrtc_anyio.media.playout import Played, PlayoutBuffer
from fastrtc_anyio.media.queues import LatestQueue, LiveEdgeQueue
from fastrtc_anyio.media.resample import Rechunker, StreamResampler
from fastrtc_anyio.media.video import VideoFormat, VideoFrame, as_video_frame

__all__ = [
    "FRAMES_PER_SECOND",
    "FRAME_MS",
    "AudioEncoder",
    "AudioFrame",
    "G722Encoder",
    "Int16Array",
    "LatestQueue",
    "LiveEdgeQueue",
    "OpusEncoder",
    "OpusOptions",
    "PcmaEncoder",
    "PcmuEncoder",
    "Played",
    "PlayoutBuffer",
    "Rechunker",
    "StreamResampler",
    "VideoFormat",
    "VideoFrame",
    "as_int16",
    "as_video_frame",
    "check_sample_rate",
    "create_encoder",
    "float32_to_int16",
    "int16_to_float32",
    "mix_channels",
]
