"""ffmpeg's WHIP muxer in PyAV, as a client in a separate process.

Arguments: ``URL SECONDS FREQUENCY [NAME=VALUE ...]`` with options of the muxer. It sends a tone,
and pictures if ``video=1``.
"""

from __future__ import annotations

import sys
import time
from fractions import Fraction
from typing import Any

import av
import numpy as np

RATE = 48_000
FRAME = 960
FPS = 25


def main() -> None:
    url, seconds, frequency, *rest = sys.argv[1:]
    options = dict(item.split("=", 1) for item in rest)
    with_video = options.pop("video", "") == "1"
    with av.open(url, "w", format="whip", options=options) as container:
        audio: Any = container.add_stream("libopus", rate=RATE, layout="stereo")
        video: Any = None
        if with_video:
            # No B-frames: browsers do not accept them.
            video = container.add_stream("libx264", rate=FPS, options={"bf": "0", "g": "25"})
            video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
            video.profile = "Baseline"
        send(container, audio, video, float(seconds), float(frequency))


def send(container: Any, audio: Any, video: Any, seconds: float, frequency: float) -> None:
    began = time.monotonic()
    pictures = 0
    for i in range(round(seconds * RATE / FRAME)):
        times = (np.arange(FRAME) + i * FRAME) / RATE
        mono = (10_000 * np.sin(2 * np.pi * frequency * times)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.repeat(mono, 2)[np.newaxis], "s16", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, i * FRAME, Fraction(1, RATE)
        container.mux(audio.encode(frame))
        if video is not None and pictures <= i * FRAME * FPS / RATE:
            shown = av.VideoFrame.from_ndarray(np.full((240, 320, 3), 200, np.uint8), "bgr24")
            shown.pts, shown.time_base = pictures, Fraction(1, FPS)
            container.mux(video.encode(shown))
            pictures += 1
        time.sleep(max(0.0, began + (i + 1) * FRAME / RATE - time.monotonic()))


if __name__ == "__main__":
    main()
