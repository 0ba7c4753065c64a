"""Conversion between PyAV's audio frames and :class:`.AudioFrame`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastrtc_anyio.errors import UnsupportedFormat

from .frames import AudioFrame

if TYPE_CHECKING:
    import av


def from_av(frame: av.AudioFrame) -> AudioFrame:
    """Copy the samples of a packed or planar 16-bit frame: FFmpeg reuses its buffer."""
    channels = len(frame.layout.channels)
    match frame.format.name:
        case "s16":
            interleaved = np.frombuffer(
                memoryview(frame.planes[0]), np.int16, frame.samples * channels
            )
            samples = interleaved.reshape(-1, channels).T.copy()
        case "s16p":
            planes = [memoryview(plane) for plane in frame.planes]
            samples = np.stack([np.frombuffer(p, np.int16, frame.samples) for p in planes])
        case name:
            raise UnsupportedFormat(f"audio frames must be 16-bit (s16, s16p); got {name}")
    return AudioFrame(frame.sample_rate, samples)


def to_av(frame: AudioFrame) -> av.AudioFrame:
    """Convert a mono or stereo frame to a packed 16-bit frame of PyAV."""
    from av import AudioFrame as AvAudioFrame

    channels = frame.samples.shape[0]
    made = AvAudioFrame.from_ndarray(
        np.ascontiguousarray(frame.samples.T).reshape(1, -1),
        format="s16",
        layout="stereo" if channels == 2 else "mono",
    )
    made.sample_rate = frame.sample_rate
    return made
