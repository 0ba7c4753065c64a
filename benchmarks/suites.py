"""The suites: which servers they run, under which conditions, and what their tables show."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from benchmarks.load.line import Faults
from benchmarks.load.server import Server
from benchmarks.names import ECHO_HANDLERS, HANDLERS, OBSERVED, list_servers
from benchmarks.processes import Cores
from benchmarks.results import Column, Measurement, Row
from benchmarks.runs import bridge, connections, echo, imports, memory, recovery, replies, video

MAIN = ("ours-async-24-trio", "fastrtc-async-24")
"""The pair that all suites of echo calls compare."""
OTHERS = ("ours-async-48-trio", "ours-sync-24-trio", "fastrtc-async-48", "fastrtc-sync-24")
RAW = "raw-plain"
ECHOES = (*OTHERS, "ours-async-24-asyncio", "ours-session-24-trio", RAW, "raw-numpy")
"""Servers of suite echo besides the main pair."""
FEW = 10
"""Calls of servers besides the main pair: plain aiortc cannot carry many more."""
CONVERSATIONS = 4
"""Calls of suite replies: FastRTC's conversations use a whole core, however many there are."""


@dataclass(frozen=True)
class Options:
    """Choices of the command line."""

    servers: tuple[str, ...]
    calls: tuple[int, ...]
    seconds: float
    settle: float
    cycles: int
    cores: Cores
    full: bool
    fastrtc: str
    trees: tuple[Path, ...]

    def select(self, default: Sequence[str], full: Sequence[str] = ()) -> list[Server]:
        """Return the servers to run, each server of this package with every source tree.

        ``--full`` adds the servers ``full`` to the default.
        """
        found: list[Server] = []
        for name in self.servers or (*default, *(full if self.full else ())):
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
    """One process of a round."""

    server: str
    run: Callable[[], list[Row]]


@dataclass(frozen=True)
class Suite:
    """A suite."""

    help: str
    cases: Callable[[Options], list[Case]]
    columns: tuple[Column, ...]
    handlers: tuple[str, ...] = ECHO_HANDLERS
    """Handlers that it can measure."""
    kinds: tuple[str, ...] = tuple(HANDLERS)
    """Kinds of servers that it can measure."""

    def check(self, server: str) -> None:
        """Raise ValueError if the suite cannot measure a server."""
        kind, handler, *_ = server.split("-")
        if kind not in self.kinds or handler not in self.handlers:
            known = {
                kind: [one for one in HANDLERS[kind] if one in self.handlers] for kind in self.kinds
            }
            raise ValueError(f"cannot measure {server}; expected {list_servers(known)}")


def measure(name: str, options: Options, rounds: int) -> Iterator[Measurement]:
    """Run a suite: all servers in turn, in each round, each in a new process."""
    cases = SUITES[name].cases(options)
    for number in range(rounds):
        for case in cases:
            print(f"{name}, round {number + 1}: {case.server}", file=sys.stderr, flush=True)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                try:
                    rows = process.submit(case.run).result()
                except Exception:
                    traceback.print_exc()
                    continue
            for row in rows:
                yield Measurement(name, row.condition, case.server, number, row.values)


def echo_cases(options: Options) -> list[Case]:
    """By default, only the main pair gets all numbers of calls: the others would take long."""
    few = max((calls for calls in options.calls if calls <= FEW), default=options.calls[0])
    cases: list[Case] = []
    for server in options.select((*MAIN, *ECHOES)):
        every = options.servers or options.full or server.name in MAIN
        calls = options.calls if every else (few,)
        spec = echo.Run(server, options.cores, calls, options.seconds, options.settle)
        cases.append(Case(server.name, partial(echo.run, spec)))
    return cases


LINES = {
    "clean": Faults(),
    "jitter 10 ms": Faults(jitter=0.01),
    "jitter 30 ms": Faults(jitter=0.03),
    "jitter 10 ms to the server": Faults(jitter=0.01, echo=False),
    "jitter 30 ms to the server": Faults(jitter=0.03, echo=False),
    "loss 1 %": Faults(loss=0.01),
    "loss 5 %": Faults(loss=0.05),
}


def latency_cases(options: Options) -> list[Case]:
    """Two calls over each line."""
    lines, calls = tuple(LINES.items()), (2 * len(LINES),)
    return [
        Case(
            server.name,
            partial(
                echo.run,
                echo.Run(server, options.cores, calls, options.seconds, options.settle, lines),
            ),
        )
        for server in options.select(MAIN, OTHERS)
    ]


RAMPS = {
    "ours": (30, 40, 50, 60, 70),
    "fastrtc": (15, 20, 25, 30, 35),
    "raw": (5, 10, 15, 20, 25),
}


def capacity_cases(options: Options) -> list[Case]:
    """More and more calls, until the server is fully loaded."""
    cases: list[Case] = []
    for server in options.select(MAIN, (RAW,)):
        ramp = RAMPS[server.arguments[0]]
        spec = echo.Run(server, options.cores, ramp, options.seconds, options.settle)
        cases.append(Case(server.name, partial(echo.run_capacity, spec)))
    return cases


def recovery_cases(options: Options) -> list[Case]:
    return [
        Case(server.name, partial(recovery.run, recovery.Run(server, options.cores)))
        for server in options.select(("ours-stopping-24-trio", "fastrtc-stopping-24"))
    ]


def reply_cases(options: Options) -> list[Case]:
    default = ("ours-silero-24-trio", "fastrtc-silero-24", "ours-energy-24-trio")
    cases: list[Case] = []
    for active in (False, True):
        for server in options.select(default, ("ours-silero-24-asyncio",)):
            spec = replies.Run(
                server, options.cores, CONVERSATIONS, options.seconds, options.settle, active
            )
            cases.append(Case(server.name, partial(replies.run, spec)))
    return cases


def observer_cases(options: Options) -> list[Case]:
    """Echo calls and conversations, each without and with all observability."""
    cases: list[Case] = []
    calls = (min(FEW, max(options.calls)),)
    for server in options.select([f"ours-{handler}-24-trio" for handler in OBSERVED]):
        if server.arguments[1].startswith("async"):
            echoes = echo.Run(server, options.cores, calls, options.seconds, options.settle)
            cases.append(Case(server.name, partial(echo.run, echoes)))
        else:
            talks = replies.Run(
                server, options.cores, calls[0], options.seconds, options.settle, active=True
            )
            cases.append(Case(server.name, partial(replies.run, talks)))
    return cases


def video_cases(options: Options) -> list[Case]:
    default = ("ours-video-48-trio", "fastrtc-video-48")
    return [
        Case(
            server.name,
            partial(
                video.run,
                video.Run(server, options.cores, 1, options.seconds, options.settle, *size),
            ),
        )
        for size in ((640, 480), (1280, 720))
        for server in options.select(default, (RAW,))
    ]


def connection_cases(options: Options) -> list[Case]:
    servers = options.select((*MAIN, RAW))
    return [
        Case(
            server.name,
            partial(
                connections.run,
                connections.Run(server, options.cores, max(options.calls), options.cycles),
            ),
        )
        for server in servers
    ]


def memory_cases(options: Options) -> list[Case]:
    """Plain aiortc comes first: ratios refer to it."""
    default = (RAW, "ours-async-24-trio", "ours-async-24-asyncio")
    seconds = 12 * options.seconds
    return [
        Case(
            server.name,
            partial(memory.run, memory.Run(server, options.cores, options.cycles, seconds)),
        )
        for server in options.select(default)
    ]


def import_cases(options: Options) -> list[Case]:
    return [
        Case(server.name, partial(imports.run, imports.Run(server, options.cores)))
        for server in options.select((*MAIN, RAW))
    ]


def bridge_cases(options: Options) -> list[Case]:
    return [
        Case(
            server.name,
            partial(bridge.run, bridge.Run(server, options.cores, calls, options.seconds)),
        )
        for calls in options.calls[-1:]
        for server in options.select(("ours-async-24-trio", "ours-async-24-asyncio"))
    ]


LATENCY_COLUMNS = (
    Column("p50 ms", "p50", 1000, ratio=True),
    Column("p95 ms", "p95", 1000),
    Column("p99 ms", "p99", 1000),
    Column("missed %", "missed_share", 100, 2),
    Column("late %", "late_share", 100, 2),
)
CPU = Column("CPU %", "cpu", 100, 1, ratio=True)
ONE = Column("CPU % of a call", "cpu_per_call", 100, 2)
GENERATOR = Column("generator CPU %", "generator_cpu", 100)
SUITES = {
    "echo": Suite(
        "CPU and latency of echo calls on a clean line",
        echo_cases,
        (CPU, ONE, *LATENCY_COLUMNS, Column("switches", "switches"), GENERATOR),
    ),
    "latency": Suite(
        "latency of echo calls on lines with jitter or loss",
        latency_cases,
        LATENCY_COLUMNS,
    ),
    "recovery": Suite(
        "latency before, and 10 s after, a disturbance",
        recovery_cases,
        (
            Column("before ms", "before", 1000),
            Column("after ms", "after", 1000),
            Column("change ms", "change", 1000),
        ),
        handlers=("stopping",),
    ),
    "replies": Suite(
        "ReplyOnPause with silent and with speaking clients",
        reply_cases,
        (
            CPU,
            ONE,
            Column("replies", "replies"),
            Column("turns", "turns"),
            Column("switches", "switches"),
            GENERATOR,
        ),
        handlers=("silero", "energy"),
    ),
    "observers": Suite(
        "echo calls and conversations without and with metrics, spans and the watchdog",
        observer_cases,
        (
            Column("CPU % of a call", "cpu_per_call", 100, 2, ratio=True),
            Column("switches", "switches"),
            GENERATOR,
        ),
        handlers=OBSERVED,
        kinds=("ours",),
    ),
    "video": Suite(
        "one video call at 30 fps",
        video_cases,
        (
            CPU,
            Column("p50 ms", "p50", 1000, 1, ratio=True),
            Column("p95 ms", "p95", 1000, 1),
            Column("p99 ms", "p99", 1000, 1),
            Column("first packet p50 ms", "first_p50", 1000, 1),
            Column("missed %", "missed_share", 100, 2),
            Column("switches", "switches"),
            GENERATOR,
        ),
        handlers=("video", "plain"),
    ),
    "connections": Suite(
        "time to the first audio, CPU of a connection, size of a call, growth",
        connection_cases,
        (
            Column("first audio ms", "first_audio", 1000, ratio=True),
            Column("connects/s", "rate", 1, 1),
            Column("CPU ms a connection", "cpu", 1000, 1, ratio=True),
            Column("MB a call", "memory_per_call", 1e-6, 2),
            Column("threads a call", "threads_per_call", 1, 1),
            Column("files a call", "descriptors_per_call", 1, 1),
            Column("KB growth a connection", "memory_growth", 1e-3, 1),
            Column("threads left", "thread_growth"),
            Column("files left", "descriptor_growth"),
            GENERATOR,
        ),
    ),
    "memory": Suite(
        "growth over calls that come and go and while calls run, cost of unconnected clients",
        memory_cases,
        (
            Column("KB growth a call", "growth", 1e-3, 1, ratio=True),
            Column("in use", "malloc", 1e-3, 1),
            Column("blocks", "blocks", 1, 1),
            Column("KB/s of 10 calls", "running", 1e-3, 1),
            Column("in use", "running_malloc", 1e-3, 1),
            Column("KB an offer", "offer", 1e-3, ratio=True),
            Column("left", "left", 1e-3),
            Column("again", "again", 1e-3),
        ),
    ),
    "bridge": Suite(
        "sessions without network and codec, for each frame of a call",
        bridge_cases,
        (Column("CPU us", "cpu", 1e6, ratio=True), Column("switches", "switches", 1, 2)),
        handlers=("async",),
        kinds=("ours",),
    ),
    "imports": Suite(
        "import of the package in a new process",
        import_cases,
        (
            Column("s", "wall", 1, 2, ratio=True),
            Column("CPU s", "cpu", 1, 2),
            Column("MB", "memory", 1e-6),
            Column("modules", "modules"),
        ),
    ),
    "capacity": Suite(
        "growing numbers of echo calls, until the server is fully loaded",
        capacity_cases,
        (Column("calls", "capacity", ratio=True), CPU, ONE, *LATENCY_COLUMNS, GENERATOR),
    ),
}
