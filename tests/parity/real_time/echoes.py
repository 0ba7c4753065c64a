"""Neighbours: calls to a working handler, which a broken handler beside it must not disturb."""

from __future__ import annotations

import threading

import anyio
import numpy as np

from fastrtc_anyio import AudioFrame
from fastrtc_anyio.testing import Call
from tests.kit.waiting import SECONDS

FRAMES = 25
SAMPLES = FRAMES * 960
LEVEL = 1000


async def check_every_frame_comes_back(call: Call) -> None:
    """Send half a second of audio to a 48 kHz echo, and wait until every sample is back.

    The call has ``live=False``: a busy machine delays audio, but nothing is skipped.
    """
    before = count_heard(call)
    for _ in range(FRAMES):
        samples = np.full((1, SAMPLES // FRAMES), LEVEL, np.int16)
        call.client.send_audio(AudioFrame(48_000, samples))
    with anyio.fail_after(SECONDS):
        while count_heard(call) < before + SAMPLES:
            await call.client.receive_audio()
    assert count_heard(call) == before + SAMPLES


def count_heard(call: Call) -> int:
    return sum(int(np.count_nonzero(piece == LEVEL)) for piece in call.client.heard)


def threads_of(prefix: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]
