"""Audio paced for a client that plays it on arrival."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._media.frames import AudioFrame
from fastrtc_anyio._peers.streams.audio import BufferOptions
from fastrtc_anyio._peers.streams.link import Link
from fastrtc_anyio._peers.streams.paced import CLIENT_LEAD, PacedOutput
from fastrtc_anyio._peers.streams.phone import PHONE_LEAD, PhoneOutput

RATE = 8000
STEP = 0.005
"""Seconds between two looks at the clock."""


async def queued_by_echo(
    kind: type[PacedOutput], lead: float, stops: Sequence[tuple[float, float]], end: float
) -> list[float]:
    """Return the seconds that an echo of 20 ms frames has queued, from step to step.

    While the process is stopped nothing is read or sent, and the input waits in the socket.
    """
    now = 0.0
    link = Link(Host(), lambda: now)
    output = kind(link, RATE, BufferOptions(), lead, lambda: None)
    frame = AudioFrame(RATE, np.full((1, RATE // 50), 1000, np.int16))
    arrived, queued = 0, list[float]()
    for step in range(round(end / STEP)):
        now = step * STEP
        if any(begin <= now < over for begin, over in stops):
            continue
        while arrived * 0.02 <= now:
            link.input_lead.read(now, frame)
            await output.send(frame)
            arrived += 1
            while output.pull_due(now)[0] is not None:
                pass
        while output.pull_due(now)[0] is not None:
            pass
        queued.append(output._buffer.buffered_samples / RATE)
    return queued


@pytest.mark.parametrize("stopped", [0.3, 0.4])
@pytest.mark.parametrize(("kind", "lead"), [(PacedOutput, CLIENT_LEAD), (PhoneOutput, PHONE_LEAD)])
async def test_echo_has_its_latency_again_after_the_process_was_starved(
    kind: type[PacedOutput], lead: float, stopped: float
) -> None:
    stops = [(4 + i * 0.6, 4 + i * 0.6 + stopped) for i in range(40)]
    queued = await queued_by_echo(kind, lead, stops, 35)
    assert max(queued[-200:]) <= max(queued[:800]) + 0.06
    assert max(queued) < 7


async def test_rest_of_the_source_counts_as_no_stall() -> None:
    now = 0.0
    link = Link(Host(), lambda: now)
    output = PacedOutput(link, RATE, BufferOptions(), CLIENT_LEAD, lambda: None)
    for _ in range(3):
        link.input_lead.read(now, AudioFrame(RATE, np.zeros((1, 5 * RATE), np.int16)))
        lead = link.input_lead.seconds
        await output.send((RATE, np.full((1, RATE), 1000, np.int16)))
        for _ in range(400):
            output.pull_due(now)
            now += STEP
        assert link.input_lead.seconds == lead


@pytest.mark.parametrize("seconds", [0.3, 2, 4])
async def test_slow_client_costs_other_audio_nothing(seconds: float) -> None:
    """A send that takes long holds up playout, while input is read as before."""
    now = 0.0
    link = Link(Host(), lambda: now)
    output = PacedOutput(link, RATE, BufferOptions(), CLIENT_LEAD, lambda: None)
    await output.send((RATE, np.full((1, RATE // 20), 1000, np.int16)))  # before any input
    for step in range(round(16 / STEP)):
        now = step * STEP
        if step % 4 == 0:
            frame = AudioFrame(RATE, np.full((1, RATE // 50), 1000, np.int16))
            link.input_lead.read(now, frame)
            await output.send(frame)
        while not 5 <= now < 5 + seconds and output.pull_due(now)[0] is not None:
            pass
    assert output.statistics().trimmed == 0


@pytest.mark.parametrize("seconds", [0.3, 2, 4])
async def test_slow_client_hears_an_echo_without_delay_afterwards(seconds: float) -> None:
    now = 0.0
    link = Link(Host(), lambda: now)
    output = PacedOutput(link, RATE, BufferOptions(), CLIENT_LEAD, lambda: None)
    for step in range(round((8 + seconds) / STEP)):
        now = step * STEP
        if step % 4 == 0:
            frame = AudioFrame(RATE, np.full((1, RATE // 50), 1000, np.int16))
            link.input_lead.read(now, frame)
            await output.send(frame)
        while not 5 <= now < 5 + seconds and output.pull_due(now)[0] is not None:
            pass
    assert output.statistics().latency <= 0.02
