"""Latency after a disturbance: does it come back to that of before?

The calls take turns: an undisturbed one, one that loses a packet, one with an outage of a second,
and one whose handler stops for half a second. ``benchmarks.servers`` makes every fourth handler
stop.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import numpy as np

from benchmarks import processes
from benchmarks.load import analysis
from benchmarks.load.call import Call, connect
from benchmarks.load.line import Faults
from benchmarks.load.pump import Pump
from benchmarks.load.server import Server, open_server
from benchmarks.load.speech import prepare_speech
from benchmarks.results import Row
from benchmarks.runs.echo import TAIL, receive

EVENT = 250
"""Number of the frame at which each call is disturbed; servers/*.py know it as well."""
BEFORE = (100, 240)
AFTER = 10.0
"""Seconds from the end of a disturbance to the second measurement."""
MEASURED = 150
DISTURBANCES = {
    "undisturbed": Faults(),
    "one lost packet": Faults(outage=(EVENT, EVENT + 1)),
    "outage of 1 s": Faults(outage=(EVENT, EVENT + 50)),
    "handler stops for 0.5 s": Faults(),
}
CALLS_OF_EACH = 2


@dataclass(frozen=True)
class Run:
    """The server, and the cores."""

    server: Server
    cores: processes.Cores


def run(spec: Run) -> list[Row]:
    """Return a row for each disturbance."""
    os.sched_setaffinity(0, {spec.cores.generator})
    return asyncio.run(_run(spec))


async def _run(spec: Run) -> list[Row]:
    faults = list(DISTURBANCES.values())
    calls: list[Call] = []
    async with open_server(spec.server, spec.cores.server) as server:
        speech = prepare_speech()
        with Pump(speech.media) as pump:
            for number in range(CALLS_OF_EACH * len(faults)):
                calls.append(await connect(server.exchange))
                pump.add(calls[-1], faults[number % len(faults)])
            last = EVENT + 50 + round(AFTER * 50) + MEASURED
            while len(calls[-1].sent) < last:
                await asyncio.sleep(0.1)
            await asyncio.sleep(TAIL)
        echoes = [
            analysis.find_echo(speech, call.sent, packets)
            for call, packets in zip(calls, receive(calls, faults), strict=True)
        ]
        for call in calls:
            await call.close()
    return [_row(name, echoes[i :: len(faults)]) for i, name in enumerate(DISTURBANCES)]


def _row(name: str, echoes: list[analysis.Echo]) -> Row:
    after = EVENT + 50 + round(AFTER * 50)
    values: dict[str, float] = {}
    befores = [_median(echo, *BEFORE) for echo in echoes]
    afters = [_median(echo, after, after + MEASURED) for echo in echoes]
    values["before"], values["after"] = float(np.median(befores)), float(np.median(afters))
    values["change"] = float(np.median(np.subtract(afters, befores)))
    return Row(name, values)


def _median(echo: analysis.Echo, first: int, last: int) -> float:
    chosen = echo.latencies[(echo.frames >= first) & (echo.frames < last)]
    return float(np.median(chosen)) if chosen.size else float("nan")
