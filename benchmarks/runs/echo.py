"""Echo calls: CPU time, latency, missed and late frames. Their number grows in one server."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import processes
from benchmarks.load import analysis
from benchmarks.load.call import Call, connect
from benchmarks.load.line import Faults, Line
from benchmarks.load.pump import Pump
from benchmarks.load.server import Server, open_server
from benchmarks.load.speech import prepare_speech
from benchmarks.results import Row

TAIL = 0.5
"""Seconds to wait for the last echoes."""
MAX_LATENESS = 0.005
MAX_CPU = 0.6
"""Beyond these, the generator was the bottleneck: p99 of its lateness in seconds, and its CPU."""
TOLERATED = 0.01
"""Share of missed and late frames from which a server has too many calls."""
MAX_DELAY = 2.0
"""Seconds after a measurement in which its echoes are looked for."""
FULL = 0.98
"""CPU of a server that has no time for more calls."""


@dataclass(frozen=True)
class Run:
    """Calls to one server.

    Attributes:
        calls: numbers of calls, ascending.
        seconds: duration of the measurement at each number.
        settle: seconds between the last connection and the measurement.
        lines: emulated lines by name. The calls take them in turn.
    """

    server: Server
    cores: processes.Cores
    calls: tuple[int, ...]
    seconds: float
    settle: float
    lines: tuple[tuple[str, Faults], ...] = (("", Faults()),)


@dataclass(frozen=True)
class Step:
    """The measurement at one number of calls."""

    calls: int
    begin: float
    end: float
    values: dict[str, float]


def run(spec: Run) -> list[Row]:
    """Place the calls, and return a row for each number of them and each line.

    A server that is fully loaded gets no more calls.
    """
    os.sched_setaffinity(0, {spec.cores.generator})
    return asyncio.run(_run(spec))


async def _run(spec: Run) -> list[Row]:
    calls: list[Call] = []
    steps: list[Step] = []
    async with open_server(spec.server, spec.cores.server) as server:
        with Pump(prepare_speech().media) as pump:
            for number in spec.calls:
                while len(calls) < number:
                    call = await connect(server.exchange)
                    pump.add(call, spec.lines[len(calls) % len(spec.lines)][1])
                    calls.append(call)
                await asyncio.sleep(spec.settle)
                steps.append(await measure(server.pid, pump, len(calls), spec.seconds))
                if steps[-1].values["cpu"] > FULL:
                    break
            await asyncio.sleep(TAIL)
        received = receive(calls, [faults for _, faults in spec.lines])
        for call in calls:
            await call.close()
    return [
        row_of(step, name, calls[place : step.calls : count], received[place : step.calls : count])
        for step in steps
        for count in [len(spec.lines)]
        for place, (name, _) in enumerate(spec.lines)
    ]


async def measure(pid: int, pump: Pump, calls: int, seconds: float) -> Step:
    """Measure the processes for some seconds."""
    pump.lateness.clear()
    begin, began = time.time(), time.monotonic()
    cpu, own = processes.cpu_seconds(pid), time.process_time()
    switches = processes.context_switches(pid)
    await asyncio.sleep(seconds)
    own = time.process_time() - own
    cpu = processes.cpu_seconds(pid) - cpu
    switches = processes.context_switches(pid) - switches
    elapsed = time.monotonic() - began
    lateness = float(np.percentile(pump.lateness, 99))
    values = {
        "cpu": cpu / elapsed,
        "cpu_per_call": cpu / elapsed / calls,
        "switches": switches / elapsed / calls,
        "threads": processes.thread_count(pid),
        "generator_cpu": own / elapsed,
        "generator_lateness": lateness,
        "valid": own / elapsed < MAX_CPU and lateness < MAX_LATENESS,
    }
    return Step(calls, begin, time.time(), values)


def run_capacity(spec: Run) -> list[Row]:
    """Return the rows of :func:`run`, and the largest number of calls that the server can serve."""
    rows = run(spec)
    capacity = 0
    for calls, row in zip(spec.calls, rows, strict=False):
        if row.values["missed_share"] + row.values["late_share"] >= TOLERATED:
            break
        capacity = calls
    return [*rows, Row("capacity", {"capacity": capacity})]


Received = list[analysis.Packet]


def receive(calls: Sequence[Call], faults: Sequence[Faults]) -> list[Received]:
    """Return what each call received, behind the emulated lines."""
    received: list[Received] = []
    for number, call in enumerate(calls):
        back = faults[number % len(faults)]
        line = Line(back if back.echo else Faults(), 1000 + number)
        received.append(
            [
                analysis.Packet(arrives, packet.timestamp, packet.payload)
                for packet in call.open_packets()
                if (arrives := line.transmit(packet.arrived)) is not None
            ]
        )
    return received


def row_of(step: Step, name: str, calls: Sequence[Call], received: Sequence[Received]) -> Row:
    """Return the row of a step, with the latencies and the counts of some of its calls."""
    speech, end = prepare_speech(), step.end + MAX_DELAY
    counts = [
        analysis.count(
            analysis.find_echo(
                speech, call.sent, [one for one in packets if step.begin <= one.arrived < end]
            ),
            call.sent,
            step.begin,
            step.end,
        )
        for call, packets in zip(calls, received, strict=True)
    ]
    expected = sum(one.expected for one in counts)
    values = {
        **step.values,
        "missed_share": sum(one.missed for one in counts) / expected,
        "late_share": sum(one.late for one in counts) / expected,
        **percentiles(np.concatenate([one.latencies for one in counts])),
    }
    return Row(name or f"{step.calls} calls", values)


def percentiles(seconds: analysis.Latencies) -> dict[str, float]:
    """Return p50, p95 and p99; nothing without values."""
    if not seconds.size:
        return {}
    p50, p95, p99 = map(float, np.percentile(seconds, (50, 95, 99)))
    return {"p50": p50, "p95": p95, "p99": p99}
