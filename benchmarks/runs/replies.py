"""ReplyOnPause: the CPU time of clients that are silent, and of clients that speak."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import numpy as np

from benchmarks import processes
from benchmarks.load.call import Call, connect
from benchmarks.load.pump import Pump
from benchmarks.load.server import Server, open_server
from benchmarks.load.speech import decode, prepare_room, prepare_talk
from benchmarks.results import Row
from benchmarks.runs.echo import measure

LOUD = 0.05
"""RMS of the replies, which are tones, and more than that of any noise."""


@dataclass(frozen=True)
class Run:
    """Calls to one server.

    Attributes:
        calls: number of calls.
        seconds: duration of the measurement.
        settle: seconds before it.
        active: whether the clients speak.
    """

    server: Server
    cores: processes.Cores
    calls: int
    seconds: float
    settle: float
    active: bool


def run(spec: Run) -> list[Row]:
    """Return one row."""
    os.sched_setaffinity(0, {spec.cores.generator})
    return [asyncio.run(_run(spec))]


async def _run(spec: Run) -> Row:
    audio = prepare_talk() if spec.active else prepare_room()
    # A whole number of turns, so that the rounds are comparable.
    turns = max(1, round(spec.seconds / audio.seconds)) if spec.active else 0
    seconds = turns * audio.seconds if spec.active else spec.seconds
    async with open_server(spec.server, spec.cores.server) as server:
        calls: list[Call] = []
        with Pump(audio.media) as pump:
            for _ in range(spec.calls):
                calls.append(await connect(server.exchange))
                pump.add(calls[-1])
            await asyncio.sleep(spec.settle)
            step = await measure(server.pid, pump, spec.calls, seconds)
        heard = [_count_replies(call, step.begin, step.end) for call in calls]
        for call in calls:
            await call.close()
    state = "active" if spec.active else "idle"
    values = {**step.values, "replies": float(np.sum(heard)), "turns": float(turns * spec.calls)}
    return Row(f"{state}, {spec.calls} calls", values)


def _count_replies(call: Call, begin: float, end: float) -> int:
    """Count the tones that began in an interval."""
    packets = sorted(call.open_packets(), key=lambda packet: packet.timestamp)
    loud = [
        bool(samples.size and np.sqrt(np.mean(np.square(samples))) > LOUD)
        for samples in decode([packet.payload for packet in packets])
    ]
    return sum(
        loud[i] and not any(loud[max(0, i - 10) : i]) and begin <= packets[i].arrived < end
        for i in range(len(packets))
    )
