"""Audio of a handler with ``receive`` and ``emit``."""

from __future__ import annotations

import anyio

from fastrtc_anyio._media.convert import AudioConverter
from fastrtc_anyio._media.frames import FRAMES_PER_SECOND
from fastrtc_anyio._media.resample import Rechunker
from fastrtc_anyio.handlers import StreamHandlerBase

from .emissions import read_audio_emission
from .run import HandlerRun


async def receive_audio(run: HandlerRun[StreamHandlerBase]) -> None:
    """Pass the client's audio to ``receive``, 20 ms at a time."""
    rate = run.handler.input_sample_rate
    channels = 2 if run.handler.expected_layout == "stereo" else 1
    convert = AudioConverter(rate, channels)
    rechunk = Rechunker(rate // FRAMES_PER_SECOND, channels)
    try:
        async for frame in run.session.audio_in:
            for samples in rechunk.push(convert(frame)):
                await run.calls.method("receive", (rate, samples))
    finally:
        convert.reset()


async def emit_audio(run: HandlerRun[StreamHandlerBase]) -> None:
    """Call ``emit`` repeatedly and play its audio."""
    source = run.calls.source("emit")
    while True:
        emission = read_audio_emission(await run.calls.method("emit"), source)
        await run.play(emission)
        if emission.media is None or not run.session.media.audio_out:
            # No playout queue slows this loop down: without the pause it would occupy a core.
            await anyio.sleep(1 / FRAMES_PER_SECOND)
