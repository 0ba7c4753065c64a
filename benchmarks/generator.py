"""A run: one server process, and the calls that this process places to it.

``python -m benchmarks.generator`` reads a :class:`Run` as JSON from stdin, and prints a row for
each number of calls.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import analysis, processes
from benchmarks.call import Call, connect
from benchmarks.line import Faults, Line
from benchmarks.pump import Pump
from benchmarks.speech import prepare_speech

ROOT = Path(__file__).parents[1]
TAIL = 0.5
"""Seconds to wait for the last echoes."""
MAX_LATENESS = 0.005
MAX_CPU = 0.6
"""Beyond these, the generator was the bottleneck: p99 of its lateness in seconds, and its CPU."""


@dataclass(frozen=True)
class Server:
    """A server to measure.

    Attributes:
        name: name in tables.
        python: interpreter of the environment.
        arguments: of ``python -m benchmarks.servers``.
    """

    name: str
    python: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """Calls to one server. Their number grows while the server runs."""

    server: Server
    cores: processes.Cores
    calls: list[int]
    seconds: float
    settle: float = 2.0
    """Seconds between the last connection and the measurement."""
    faults: Faults = field(default_factory=Faults)


@dataclass
class Row:
    """Result for a number of calls. Times in seconds, CPU as a fraction of a core."""

    calls: int
    cpu: float
    switches: float
    """Context switches of the server for each call and second."""
    memory: int
    threads: int
    p50: float
    p95: float
    p99: float
    expected: int
    missed: int
    late: int
    generator_cpu: float
    generator_lateness: float

    def values(self) -> dict[str, float]:
        """Return all values, and those that follow from them."""
        expected = max(self.expected, 1)
        # Whether the server, and not the generator, was measured.
        valid = self.generator_cpu < MAX_CPU and self.generator_lateness < MAX_LATENESS
        return {
            **asdict(self),
            "missed_share": self.missed / expected,
            "late_share": self.late / expected,
            "valid": valid,
        }


class ServerProcess:
    """A running server."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process
        self._waiting: dict[str, asyncio.Future[str]] = {}

    async def exchange(self, offer: str) -> str:
        identifier = os.urandom(16).hex()
        future = self._waiting[identifier] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps({"id": identifier, "sdp": offer}) + "\n").encode())
        sdp: str = await future
        return sdp

    async def read_line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server ended; its output is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def read_answers(self) -> None:
        while True:
            answer = await self.read_line()
            self._waiting.pop(answer["id"]).set_result(answer["sdp"])


@asynccontextmanager
async def open_server(server: Server, core: int) -> AsyncGenerator[ServerProcess, None]:
    """Start a server on a core, and wait until it is ready."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    process = await asyncio.create_subprocess_exec(
        server.python,
        *("-m", "benchmarks.servers", *server.arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    opened = ServerProcess(process)
    await opened.read_line()
    answers = asyncio.create_task(opened.read_answers())
    try:
        yield opened
    finally:
        answers.cancel()
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def run(spec: Run) -> list[Row]:
    """Place the calls, and measure at each number of them."""
    speech = prepare_speech()
    windows: list[tuple[float, float]] = []
    rows: list[Row] = []
    calls: list[Call] = []
    async with open_server(spec.server, spec.cores.server) as server:
        with Pump(speech.packets, spec.faults) as pump:
            for number in spec.calls:
                while len(calls) < number:
                    calls.append(await connect(server.exchange))
                    pump.add(calls[-1])
                await asyncio.sleep(spec.settle)
                begin = time.time()
                rows.append(await measure(server.pid, pump, len(calls), spec.seconds))
                windows.append((begin, time.time()))
            await asyncio.sleep(TAIL)
        echoes = find_echoes(calls, spec.faults)
        for row, window in zip(rows, windows, strict=True):
            add_counts(row, calls[: row.calls], echoes, *window)
        for call in calls:
            await call.close()
    return rows


async def measure(pid: int, pump: Pump, calls: int, seconds: float) -> Row:
    """Measure the server for some seconds."""
    pump.lateness.clear()
    began, cpu, own = time.monotonic(), processes.cpu_seconds(pid), time.process_time()
    switches = processes.context_switches(pid)
    await asyncio.sleep(seconds)
    own = time.process_time() - own
    cpu = processes.cpu_seconds(pid) - cpu
    switches = processes.context_switches(pid) - switches
    elapsed = time.monotonic() - began
    return Row(
        calls=calls,
        cpu=cpu / elapsed,
        switches=switches / calls / elapsed,
        memory=processes.memory_bytes(pid),
        threads=processes.thread_count(pid),
        p50=0,
        p95=0,
        p99=0,
        expected=0,
        missed=0,
        late=0,
        generator_cpu=own / elapsed,
        generator_lateness=float(np.percentile(pump.lateness, 99)),
    )


def find_echoes(calls: list[Call], faults: Faults) -> list[analysis.Echo]:
    """Send what was received over the emulated line, and find the echo in it."""
    speech = prepare_speech()
    echoes: list[analysis.Echo] = []
    for number, call in enumerate(calls):
        line = Line(faults, 1000 + number)
        packets = [
            analysis.Packet(arrives, packet.timestamp, packet.payload)
            for packet in call.open_packets()
            if (arrives := line.transmit(packet.arrived)) is not None
        ]
        echoes.append(analysis.find_echo(speech, call.sent, packets))
    return echoes


def add_counts(
    row: Row, calls: list[Call], echoes: list[analysis.Echo], begin: float, end: float
) -> None:
    """Add the latencies and the counts of an interval to a row."""
    latencies: list[Any] = []
    for call, echo in zip(calls, echoes, strict=False):
        counts = analysis.count(echo, call.sent, begin, end)
        row.expected += counts.expected
        row.missed += counts.missed
        row.late += counts.late
        latencies.append(counts.latencies)
    every = np.concatenate(latencies)
    if every.size:
        row.p50, row.p95, row.p99 = map(float, np.percentile(every, (50, 95, 99)))


def main() -> None:
    spec = json.loads(sys.stdin.read())
    server = Server(**spec.pop("server"))
    cores = processes.Cores(**spec.pop("cores"))
    faults = Faults(**spec.pop("faults"))
    os.sched_setaffinity(0, {cores.generator})
    rows = asyncio.run(run(Run(server=server, cores=cores, faults=faults, **spec)))
    print(json.dumps([row.values() for row in rows]))


if __name__ == "__main__":
    main()
