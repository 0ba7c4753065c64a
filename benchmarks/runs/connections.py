"""Connections: time to the first audio, memory and threads of a call, growth over many calls."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks import processes
from benchmarks.load.call import Call, connect
from benchmarks.load.pump import Pump
from benchmarks.load.server import Server, ServerProcess, open_server
from benchmarks.load.speech import decode, prepare_speech
from benchmarks.results import Row

AT_ONCE = 4
"""Clients that connect and hang up."""
WARM_UP = 24
"""Connections before the first measurement."""
AUDIBLE = 0.003
"""RMS of the first packet that is not silent."""
REST = 3.0
"""Seconds until a server has ended its calls."""


@dataclass(frozen=True)
class Run:
    """Connections to one server.

    Attributes:
        calls: number of calls for the time to the first audio, and for the size of a call.
        cycles: number of connections for the growth.
    """

    server: Server
    cores: processes.Cores
    calls: int
    cycles: int


@dataclass(frozen=True)
class Resources:
    """Resources of the server."""

    memory: int
    threads: int
    descriptors: int


def run(spec: Run) -> list[Row]:
    """Return one row."""
    os.sched_setaffinity(0, {spec.cores.generator})
    return [asyncio.run(_run(spec))]


async def _run(spec: Run) -> Row:
    async with open_server(spec.server, spec.cores.server) as server:
        await _cycle(server, WARM_UP)
        before = await _rest(server.pid)
        values = await _measure_calls(server, spec.calls, before)
        rested = await _rest(server.pid)
        cpu, began = processes.cpu_seconds(server.pid), time.monotonic()
        own = time.process_time()
        await _cycle(server, spec.cycles)
        elapsed = time.monotonic() - began
        own = time.process_time() - own
        after = await _rest(server.pid)
        cpu = processes.cpu_seconds(server.pid) - cpu
    values |= {
        "rate": spec.cycles / elapsed,
        "cpu": cpu / spec.cycles,
        "generator_cpu": own / elapsed,
        "memory_growth": (after.memory - rested.memory) / spec.cycles,
        "thread_growth": after.threads - rested.threads,
        "descriptor_growth": after.descriptors - rested.descriptors,
    }
    return Row(f"{spec.cycles} connections", values)


async def _rest(pid: int) -> Resources:
    """Wait until calls have ended, and return the resources of the server."""
    await asyncio.sleep(REST)
    return Resources(
        processes.memory_bytes(pid), processes.thread_count(pid), processes.descriptor_count(pid)
    )


async def _measure_calls(server: ServerProcess, count: int, before: Resources) -> dict[str, float]:
    """Place calls one after the other, and keep them open."""
    calls: list[Call] = []
    begins: list[float] = []
    with Pump(prepare_speech().media) as pump:
        for _ in range(count):
            begins.append(time.time())
            call = await connect(server.exchange, wait_open=False)
            pump.add(call)
            calls.append(call)
            await asyncio.sleep(0.3)
        await asyncio.sleep(1)
        during = Resources(
            processes.memory_bytes(server.pid),
            processes.thread_count(server.pid),
            processes.descriptor_count(server.pid),
        )
    # Offers are sent within connect, which prepares them: the client's part is in the time.
    waits = [
        heard - begin
        for call, begin in zip(calls, begins, strict=True)
        for heard in _first_audio(call)
    ]
    for call in calls:
        await call.close()
    return {
        "first_audio": float(np.median(waits)) if waits else float("nan"),
        "memory_per_call": (during.memory - before.memory) / count,
        "threads_per_call": (during.threads - before.threads) / count,
        "descriptors_per_call": (during.descriptors - before.descriptors) / count,
    }


def _first_audio(call: Call) -> Iterator[float]:
    """Yield the time at which the first packet that is not silent arrived, if there is one."""
    packets = sorted(call.open_packets(), key=lambda packet: packet.timestamp)
    for packet, samples in zip(packets, decode([one.payload for one in packets]), strict=True):
        if samples.size and np.sqrt(np.mean(np.square(samples))) > AUDIBLE:
            yield packet.arrived
            return


async def _cycle(server: ServerProcess, count: int) -> None:
    """Connect and hang up, some clients at a time."""

    async def place(share: int) -> None:
        for _ in range(share):
            call = await connect(server.exchange)
            await call.close()

    await asyncio.gather(*(place(len(range(i, count, AT_ONCE))) for i in range(AT_ONCE)))
    gc.collect()
