"""The arithmetic of the guide "Sizing": a plan for many calls, from what was measured."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature

from fastrtc_anyio.cluster import Member, MemoryDirectory
from fastrtc_anyio.limits import RequestLimits

from .draw import ROOT

SIZES = (10_000, 1_000_000)
"""Concurrent calls."""
LOAD = 0.7
"""Part of its capacity that a process is given."""
LENGTH = 180.0
"""Mean length of a call, in seconds."""
CORES = 16
"""Cores of a machine. One is for the kernel, the proxy and the parent of the workers."""
BANDWIDTH = 0.1
"""Mbit/s of an audio call, in each direction."""
PACKETS = 50
"""Packets of an audio call in a second, in each direction."""
RELAYED = 0.15
"""Part of the calls that need a TURN server."""
RELAY_PORTS = 16_384
"""UDP ports of one address of a TURN server: 49152 to 65535, its usual range."""
BASE_MB, CALL_MB = 90, 0.5
"""Memory of a process, and of one audio call."""
CANDIDATES = 6
"""Candidates that a browser sends, each in a request."""
WAVE = 0.2
"""Part of the processes that a deploy replaces at a time."""
REQUEST_US = 400
"""CPU time of the directory for one request over its socket, rounded up."""
FORWARD_US = 1500
"""CPU time of forwarding a request, in both processes and its client."""


def read_performance(pattern: str) -> float:
    """Return the number that a pattern finds in the measured tables."""
    found = re.search(pattern, (ROOT / "docs/performance.md").read_text(encoding="utf-8"))
    assert found is not None, pattern
    return float(found[1])


CAPACITY = int(read_performance(r"\| capacity \| ours-async-24-trio \| (\d+)"))
"""Echo calls that fill a core."""
CONVERSATION = read_performance(
    r"\| active, 4 calls \| ours-silero-24-trio \| \S+ \S+ \| \S+ \| ([\d.]+)"
)
"""Percent of a core for a conversation with Silero."""
CONNECTING = read_performance(
    r"\| 200 connections \| ours-async-24-trio (?:\| [^|]+){3}\| ([\d.]+)"
)
"""CPU time of connecting a call, in ms."""


@dataclass(frozen=True)
class Plan:
    """What a number of calls needs."""

    calls: int

    @property
    def process_calls(self) -> int:
        return int(LOAD * CAPACITY)

    @property
    def processes(self) -> int:
        return math.ceil(self.calls / self.process_calls)

    @property
    def conversation_cores(self) -> int:
        return math.ceil(self.calls * CONVERSATION / 100 / LOAD)

    @property
    def machine_calls(self) -> int:
        return (CORES - 1) * self.process_calls

    @property
    def machines(self) -> int:
        return math.ceil(self.calls / self.machine_calls)

    @property
    def new_calls(self) -> float:
        """New calls in a second: Little's law."""
        return self.calls / LENGTH

    @property
    def relayed(self) -> float:
        return RELAYED * self.calls

    @property
    def forwarded(self) -> float:
        """Forwarded requests in a second: candidates and readers of outputs."""
        return self.new_calls * (CANDIDATES + 1)

    @property
    def directory_requests(self) -> float:
        """Requests to the directory in a second, if each request of a client reaches any process.

        A claim, its release, and one for each forwarded request.
        """
        return 2 * self.new_calls + self.forwarded

    @property
    def joins(self) -> float:
        interval = float(signature(Member).parameters["interval"].default)
        return self.processes / interval

    @property
    def directory_cores(self) -> float:
        return (self.directory_requests + self.joins) * REQUEST_US / 1e6

    @property
    def drain_seconds(self) -> float:
        """Expected time until the last call of a process has ended.

        The lengths of calls are exponential: the longest of n has the mean length times 1 + 1/2 +
        ... + 1/n.
        """
        return LENGTH * sum(1 / number for number in range(1, self.process_calls + 1))


SMALL, LARGE = (Plan(calls) for calls in SIZES)


def number(value: float) -> str:
    """Return a number with at least two significant digits, and no more decimals than needed."""
    decimals = 0 if value >= 10 or value == int(value) else 1 if value >= 1 else 2
    return f"{value:,.{decimals}f}"


def _rows() -> dict[str, Callable[[Plan], float]]:
    """The lines of the plan."""
    pending = (CORES - 1) * RequestLimits().pending_sessions
    memory = (CORES - 1) * (BASE_MB + SMALL.process_calls * CALL_MB) / 1000
    calls = SMALL.machine_calls
    return {
        "new calls a second": lambda plan: plan.new_calls,
        f"processes of {SMALL.process_calls} calls, and so cores": lambda plan: plan.processes,
        f"machines of {CORES} cores, each with {calls} calls": lambda plan: plan.machines,
        "cores for as many conversations": lambda plan: plan.conversation_cores,
        "cores that connect new calls": lambda plan: plan.new_calls * CONNECTING / 1000,
        "cores that forward requests": lambda plan: plan.forwarded * FORWARD_US / 1e6,
        "GB of memory of a machine, without models": lambda _: memory,
        "UDP ports of a machine, on each address": lambda _: calls + pending,
        "UDP packets of a machine a second, each direction": lambda _: calls * PACKETS,
        "Mbit/s of a machine, each direction": lambda _: calls * BANDWIDTH,
        "Gbit/s of all calls, each direction": lambda plan: plan.calls * BANDWIDTH / 1000,
        "calls through TURN servers": lambda plan: plan.relayed,
        "Gbit/s of all TURN servers, in and out each": lambda plan: plan.relayed * BANDWIDTH / 500,
        "addresses of TURN servers, for their ports": lambda plan: plan.relayed / RELAY_PORTS,
        "requests to the directory a second, for calls": lambda plan: plan.directory_requests,
        "requests to the directory a second, of processes": lambda plan: plan.joins,
        "cores of one directory, over a socket": lambda plan: plan.directory_cores,
    }


def list_plan() -> str:
    """Return the plan as a table."""
    lines = [f"| on paper | {SMALL.calls:,} calls | {LARGE.calls:,} calls |", "|---|---|---|"]
    for name, value in _rows().items():
        found = [value(plan) for plan in (SMALL, LARGE)]
        if "addresses" in name:
            found = [math.ceil(one) for one in found]
        lines.append(f"| {name} | {' | '.join(map(number, found))} |")
    return "\n".join(lines)


def list_assumptions() -> str:
    """Return the numbers that the plan is computed from."""
    return f"""\
| number | value | from |
|---|---|---|
| echo calls that fill a core | {CAPACITY} | [measured](../performance.md#results) |
| a conversation with Silero | {CONVERSATION:g} % of a core | \
[measured](../performance.md#results) |
| connecting a call | {CONNECTING:g} ms of CPU time | [measured](../performance.md#results) |
| memory of a process, and of an audio call | {BASE_MB} MB, {CALL_MB:g} MB | \
[measured](memory.md#what-a-call-needs) |
| a request to the directory, over its socket | {REQUEST_US} us | [measured](#the-directory) |
| forwarding a request | {FORWARD_US} us | [measured](#the-directory) |
| load of a process | {100 * LOAD:g} % of its capacity | chosen |
| a machine | {CORES} cores, one of them for the kernel, the proxy and the parent | chosen |
| mean length of a call | {LENGTH:g} s | assumed |
| an audio call | {BANDWIDTH:g} Mbit/s and {PACKETS} packets a second in each direction | \
packets of 20 ms |
| calls that need TURN | {100 * RELAYED:g} % | assumed |
| requests of a client after its offer | {CANDIDATES} candidates and a reader of `/outputs`, \
all to another process than the session's | assumed, the worst case |"""


def list_changes() -> str:
    """Return the arithmetic of deploys and failures."""
    waves = math.ceil(1 / WAVE)
    room = [math.ceil(WAVE * plan.processes) for plan in (SMALL, LARGE)]
    share = number(100 * SMALL.machine_calls / SMALL.calls)
    lifetime = signature(MemoryDirectory).parameters["lifetime"].default
    return f"""\
| event, on paper | effect |
|---|---|
| a process is replaced | its last call ends after {number(SMALL.drain_seconds / 60)} minutes on \
average, if lengths are exponential, and after `time_limit` at the latest |
| a deploy replaces {100 * WAVE:g} % of the processes at a time | {waves} waves: \
{number(waves * SMALL.drain_seconds / 60)} minutes, with room for {room[0]:,} or {room[1]:,} \
further processes |
| a process ends by itself | {SMALL.process_calls} calls are lost, and call again: \
{number(SMALL.process_calls * CONNECTING / 1000)} s of CPU time in the others |
| a machine ends | {SMALL.machine_calls} calls are lost, {share} % of {SMALL.calls:,}. The \
directory forgets its processes once they refuse a connection, or after {lifetime:g} s |
| the directory ends, and another one starts | no call ends. The processes claim {SMALL.calls:,} \
ids again: {number(SMALL.calls * REQUEST_US / 1e6)} s of CPU time in the directory. Until then, \
requests that reach another process than their session fail |"""
