"""Video calls: CPU time, and the time from a picture's last packet to those of its echo."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import numpy as np

from benchmarks import processes
from benchmarks.load.call import Call, connect
from benchmarks.load.pictures import find_pictures, prepare_pictures
from benchmarks.load.pump import Pump
from benchmarks.load.server import Server, open_server
from benchmarks.results import Row
from benchmarks.runs.echo import TAIL, measure, percentiles


@dataclass(frozen=True)
class Run:
    """Calls to one server with pictures of one size."""

    server: Server
    cores: processes.Cores
    calls: int
    seconds: float
    settle: float
    width: int
    height: int


def run(spec: Run) -> list[Row]:
    """Return one row."""
    os.sched_setaffinity(0, {spec.cores.generator})
    return [asyncio.run(_run(spec))]


async def _run(spec: Run) -> Row:
    media = prepare_pictures(spec.width, spec.height)
    calls: list[Call] = []
    async with open_server(spec.server, spec.cores.server) as server:
        with Pump(media) as pump:
            for _ in range(spec.calls):
                calls.append(await connect(server.exchange, video=True))
                pump.add(calls[-1])
            await asyncio.sleep(spec.settle)
            step = await measure(server.pid, pump, spec.calls, spec.seconds)
            await asyncio.sleep(TAIL)
        found = [
            find_pictures(call.sent, call.open_packets(), step.begin, step.end) for call in calls
        ]
        for call in calls:
            await call.close()
    first = percentiles(np.concatenate([one.first for one in found]))
    came = sum(one.last.size for one in found)
    values = {
        **step.values,
        **percentiles(np.concatenate([one.last for one in found])),
        **{f"first_{name}": value for name, value in first.items()},
        "missed_share": 1 - came / sum(one.sent for one in found),
    }
    return Row(f"{spec.width}x{spec.height}", values)
