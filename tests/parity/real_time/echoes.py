"""Neighbours: callers of a sound handler, who are to notice nothing of a broken one beside it."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import numpy as np

from fastrtc_anyio import AudioFrame
from fastrtc_anyio.testing import Call

SECONDS = 30
"""A generous deadline for what takes a second or two."""
FRAMES = 50
SAMPLES = FRAMES * 960
LEVEL = 1000


async def check_every_frame_comes_back(call: Call) -> None:
    """Send an echo at 48 kHz a second of audio, and wait until it has said all of it."""
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


async def wait_for(event: threading.Event) -> None:
    """Wait for what another thread does."""
    with anyio.fail_after(SECONDS):
        while not event.is_set():
            await anyio.sleep(0.01)


async def wait_for_threads_to_end(prefix: str) -> None:
    """Wait until no thread of a handler's is left."""
    with anyio.fail_after(SECONDS):
        while any(thread.name.startswith(prefix) for thread in threading.enumerate()):
            await anyio.sleep(0.01)


def threads_of(prefix: str) -> list[Any]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]
