"""The suites: which servers they run, under which conditions, and what their tables show."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.generator import ROOT, Run, Server
from benchmarks.line import Faults
from benchmarks.processes import Cores
from benchmarks.results import Column, Measurement

OURS = (
    "ours-async-24-trio",
    "ours-async-24-asyncio",
    "ours-async-48-trio",
    "ours-sync-24-trio",
    "ours-session-24-trio",
)
FASTRTC = ("fastrtc-async-24", "fastrtc-async-48", "fastrtc-sync-24")
RAW = ("raw-plain", "raw-numpy")


@dataclass(frozen=True)
class Options:
    """What the command line chose."""

    servers: tuple[str, ...]
    calls: tuple[int, ...]
    seconds: float
    settle: float
    cores: Cores
    fastrtc: str
    trees: tuple[Path, ...]

    def select(self, default: Sequence[str]) -> list[Server]:
        """Return the servers to run, each of ours with every source tree."""
        found: list[Server] = []
        for name in self.servers or default:
            found.append(self.server(name))
            if name.startswith("ours-"):
                found += [self.server(name, tree) for tree in self.trees]
        return found

    def server(self, name: str, tree: Path | None = None) -> Server:
        """Return the server of a name such as ``ours-async-24-trio`` or ``raw-numpy``."""
        kind, handler, rate, backend = [*name.split("-"), *("48", "asyncio")[name.count("-") - 1 :]]
        python = self.fastrtc if kind == "fastrtc" else sys.executable
        arguments = (kind, handler, f"{rate}000", backend)
        if tree is None:
            return Server(name, python, arguments)
        return Server(f"{name} ({tree.name})", python, (*arguments, str(tree)))


@dataclass(frozen=True)
class Case:
    """One process of a round: a module that reads a specification, and what becomes of its rows."""

    server: str
    module: str
    specification: dict[str, Any]
    condition: Callable[[dict[str, Any]], str]

    def run(self) -> list[dict[str, Any]]:
        """Run the process, and return its rows."""
        done = subprocess.run(
            [sys.executable, "-m", self.module],
            input=json.dumps(self.specification),
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            check=True,
        )
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows


@dataclass(frozen=True)
class Suite:
    """A suite."""

    help: str
    cases: Callable[[Options], list[Case]]
    columns: tuple[Column, ...]


def measure(name: str, options: Options, rounds: int) -> Iterator[Measurement]:
    """Run a suite: all servers in turn, in each round."""
    cases = SUITES[name].cases(options)
    for number in range(rounds):
        for case in cases:
            print(f"{name}, round {number + 1}: {case.server}", file=sys.stderr, flush=True)
            try:
                rows = case.run()
            except subprocess.CalledProcessError as error:
                print(f"{name}: {case.server} failed: {error}", file=sys.stderr, flush=True)
                continue
            for row in rows:
                yield Measurement(name, case.condition(row), case.server, number, row)


def call_cases(options: Options, servers: Sequence[Server], faults: Faults) -> list[Case]:
    """Return the cases of echo calls."""
    return [
        Case(
            server.name,
            "benchmarks.generator",
            asdict(
                Run(
                    server,
                    options.cores,
                    list(options.calls),
                    options.seconds,
                    options.settle,
                    faults,
                )
            ),
            lambda row: f"{row['calls']} calls",
        )
        for server in servers
    ]


def echo_cases(options: Options) -> list[Case]:
    return call_cases(options, options.select((*OURS, *FASTRTC, *RAW)), Faults())


CALL_COLUMNS = (
    Column("CPU %", "cpu", 100, 1, ratio=True),
    Column("p50 ms", "p50", 1000, ratio=True),
    Column("p95 ms", "p95", 1000),
    Column("p99 ms", "p99", 1000),
    Column("missed %", "missed_share", 100, 2),
    Column("late %", "late_share", 100, 2),
    Column("switches", "switches"),
    Column("generator CPU %", "generator_cpu", 100),
)
SUITES = {
    "echo": Suite("CPU and latency of echo calls on a clean line", echo_cases, CALL_COLUMNS),
}
