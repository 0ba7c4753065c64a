"""Memory: growth over calls that come and go, of clients that never connect, and during calls."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection

from benchmarks import processes
from benchmarks.load.call import Call, SilentAudio, connect
from benchmarks.load.pump import Pump
from benchmarks.load.server import Server, ServerProcess, open_server
from benchmarks.load.speech import prepare_speech
from benchmarks.results import Row

AT_ONCE = 4
"""Clients that call at the same time."""
WARM_UP = 40
"""Calls before the first measurement: allocators and caches reach their size."""
STEP = 20
"""Calls between two measurements of the resident memory."""
ECHO = 0.5
"""Seconds of echo in each call."""
REST = 1.5
"""Seconds until the server has ended its calls."""
OFFERS = 60
"""Clients that never connect: as many as a server keeps by default."""
GIVE_UP = 45.0
"""Seconds until a server has given them up."""
RUNNING = 10
"""Calls that run."""


@dataclass(frozen=True)
class Run:
    """Calls to one server: ``cycles`` that come and go, and some that last for ``seconds``."""

    server: Server
    cores: processes.Cores
    cycles: int
    seconds: float


def run(spec: Run) -> list[Row]:
    """Return one row."""
    os.sched_setaffinity(0, {spec.cores.generator})
    return [asyncio.run(_run(spec))]


async def _run(spec: Run) -> Row:
    async with open_server(spec.server, spec.cores.server) as server:
        with Pump(prepare_speech().media) as pump:
            values = await _measure_cycles(server, pump, spec.cycles)
            values |= await _measure_running(server, pump, spec.seconds)
    # A new server: memory that ended calls have left would serve the offers.
    async with open_server(spec.server, spec.cores.server) as server:
        values |= await _measure_offers(server)
    return Row(f"{spec.cycles} calls", values)


async def _measure_cycles(server: ServerProcess, pump: Pump, cycles: int) -> dict[str, float]:
    """Place calls, and return the growth for each."""
    await _cycle(server, pump, WARM_UP)
    before = await server.count_memory()
    resident = [processes.memory_bytes(server.pid)]
    steps = max(1, cycles // STEP)
    for _ in range(steps):
        await _cycle(server, pump, STEP)
        resident.append(processes.memory_bytes(server.pid))
    after = await server.count_memory()
    return {
        "growth": _slope(resident) / STEP,
        "malloc": (after["malloc"] - before["malloc"]) / (steps * STEP),
        "blocks": (after["blocks"] - before["blocks"]) / (steps * STEP),
    }


async def _measure_running(server: ServerProcess, pump: Pump, seconds: float) -> dict[str, float]:
    """Return the growth in a second of calls that have run for as long already."""
    calls = [await connect(server.exchange) for _ in range(RUNNING)]
    for call in calls:
        pump.add(call)
    await _run_calls(calls, seconds)
    before, resident = await server.count_memory(), [processes.memory_bytes(server.pid)]
    for _ in range(round(seconds)):
        await _run_calls(calls, 1)
        resident.append(processes.memory_bytes(server.pid))
    after = await server.count_memory()
    for call in calls:
        await _end(pump, call)
    await asyncio.sleep(REST)
    return {
        "running": _slope(resident),
        "running_malloc": (after["malloc"] - before["malloc"]) / len(resident),
    }


async def _measure_offers(server: ServerProcess) -> dict[str, float]:
    """Return what clients cost that never connect, during their offers and afterwards."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.createDataChannel("text")
    pc.addTrack(SilentAudio())
    await pc.setLocalDescription(await pc.createOffer())
    offer = pc.localDescription.sdp
    await pc.close()

    async def burst(count: int = OFFERS) -> int:
        before = processes.memory_bytes(server.pid)
        await asyncio.gather(*(server.exchange(offer) for _ in range(count)))
        return processes.memory_bytes(server.pid) - before

    await burst(AT_ONCE)  # what a server loads for its first client
    before = processes.memory_bytes(server.pid)
    first = await burst()
    await asyncio.sleep(GIVE_UP)
    left = processes.memory_bytes(server.pid) - before
    second = await burst()
    return {"offer": first / OFFERS, "left": left / OFFERS, "again": second / OFFERS}


async def _cycle(server: ServerProcess, pump: Pump, count: int) -> None:
    """Place calls, some at a time."""

    async def place(share: int) -> None:
        for _ in range(share):
            call = await connect(server.exchange)
            pump.add(call)
            await asyncio.sleep(ECHO)
            await _end(pump, call)

    await asyncio.gather(*(place(len(range(i, count, AT_ONCE))) for i in range(AT_ONCE)))
    await asyncio.sleep(REST)


async def _run_calls(calls: list[Call], seconds: float) -> None:
    """Let calls run, and forget what they have sent and received: the generator would grow."""
    await asyncio.sleep(seconds)
    for call in calls:
        call.received.clear()
        call.sent.clear()


async def _end(pump: Pump, call: Call) -> None:
    pump.remove(call)
    await asyncio.sleep(0.02)  # the pump may be reading its socket
    await call.close()


def _slope(values: list[int]) -> float:
    """Return the growth from one value to the next, by linear regression."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0])
