"""One server, a control call, and a crowd of clients; checks that nothing is left of them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from .clients import Crowd, Visit
from .records import check_records

WARM_UP = 10.0
"""Seconds of visits before the baseline."""
_SETTLES = 30.0
"""Seconds for ended sessions to leave nothing: at most all deadlines in the server's ``Limits``."""
_CHECKPOINTS = 4
"""Checkpoints of a run at least."""
_BLOCKS = 3
"""Sessions that block the event loop at the end."""
_LONGEST = 300.0
"""Seconds between two checkpoints at most."""
MEMORY_WARM_UP = 1200.0
MEMORY_LIMIT = 1_000_000
"""Bytes by which malloc's memory in use may grow after the warm-up."""
MiB = 1_048_576


@dataclass
class Checkpoint:
    """Resources of the server when all but the control session have ended."""

    at: float
    sessions: int
    count: dict[str, Any]
    control: dict[str, Any]


@dataclass
class Result:
    """Outcome of a run with one backend."""

    backend: str
    checkpoints: list[Checkpoint] = field(default_factory=list)
    visits: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def last(self) -> dict[str, Any]:
        return self.checkpoints[-1].count

    @classmethod
    def load(cls, values: dict[str, Any]) -> Result:
        """Make a result of its JSON."""
        checkpoints = [Checkpoint(**one) for one in values["checkpoints"]]
        return cls(**{**values, "checkpoints": checkpoints})


class Process:
    """A process that answers lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def read(self) -> str:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 60)
        assert line, "the process has ended"
        return line.decode().strip()

    async def lines(self) -> AsyncGenerator[str, None]:
        """Yield all lines until the process ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            yield line.decode()

    async def ask(self, line: str = "count") -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        return json.loads(await self.read())


@asynccontextmanager
async def start(module: str, *arguments: str) -> AsyncGenerator[Process, None]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.soak.{module}", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    try:
        yield Process(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()


async def run(backend: str, seconds: float, callers: int, seed: int) -> Result:
    """Soak a server for some time."""
    result = Result(backend)
    async with start("server", backend) as server:
        url, *threads = (await server.read()).split()
        async with start("control", url, *threads) as control:
            assert await control.read() == "connected"
            crowd = Crowd(url, f"{seed} {backend}")
            await _churn(crowd, result, server, control, seconds, callers)
            result.visits = dict(crowd.visits)
            result.failures += [f"a client met: {error}" for error in crowd.errors]
    _check(result)
    return result


async def _churn(
    crowd: Crowd,
    result: Result,
    server: Process,
    control: Process,
    seconds: float,
    callers: int,
) -> None:
    begin = time.monotonic()
    between = min(seconds / _CHECKPOINTS, _LONGEST)
    await asyncio.to_thread(crowd.churn, min(WARM_UP, between), callers)
    while True:
        counted = await _settle(result, server)
        now = time.monotonic() - begin
        heard = await control.ask()
        sessions = sum(crowd.visits.values())
        result.checkpoints.append(Checkpoint(now, sessions, counted, heard))
        _print_checkpoint(result.checkpoints[-1])
        if now >= seconds:
            break
        await asyncio.to_thread(crowd.churn, min(between, seconds - now), callers)
    # All calls wait for this handler. Nothing is counted any more.
    for _ in range(_BLOCKS):
        await asyncio.to_thread(crowd.visit, Visit("webrtc", "blocking", "talk", "fault"))
    blocked = await _settle(result, server)
    result.checkpoints[-1].count["records"] = blocked["records"]
    result.checkpoints[-1].count["examples"] = blocked["examples"]
    result.checkpoints[-1].count["trials"] = blocked["trials"]
    if not any(event == "loop.blocked" for event, *_ in blocked["records"]):
        result.failures.append("the watchdog did not report a blocked event loop")


async def _settle(result: Result, server: Process) -> dict[str, Any]:
    """Wait until only the control session is left, and nothing more than at the baseline."""
    end = time.monotonic() + _SETTLES
    while True:
        counted: dict[str, Any] = await server.ask()
        excess = _excess(result, counted)
        if not excess or time.monotonic() > end:
            result.failures += [f"left over: {one}" for one in excess]
            return counted
        await asyncio.sleep(0.5)


def _excess(result: Result, counted: dict[str, Any]) -> list[str]:
    found = []
    if counted["sessions"] != {"control": 1}:
        found.append(f"sessions {counted['sessions']}")
    if counted["open"]:
        found.append(f"handlers without shutdown: {counted['open']}")
    if result.checkpoints:
        before = result.checkpoints[0].count["held"]
        for name, number in counted["held"].items():
            if number > before[name]:
                found.append(f"{number - before[name]} {name} more than at the baseline")
    return found


def _check(result: Result) -> None:
    last, heard = result.last, result.checkpoints[-1].control
    result.failures += [f"shutdown ran twice: {label}" for label in last["twice"]]
    missed = {name: heard[name] for name in ("lost", "silent", "late") if heard[name]}
    if missed:
        result.failures.append(f"the control call missed frames: {missed} of {heard['frames']}")
    if heard["ended"] or not heard["frames"]:
        result.failures.append("the control call ended")
    for statistics in last["control"]:
        audio = statistics["audio_in"]
        bad = {name: audio[name] for name in ("lost", "dropped") if audio[name]}
        if bad:
            result.failures.append(f"the server missed frames of the control call: {bad}")
    result.failures += check_records(last["records"], last["examples"])
    warm = [one for one in result.checkpoints if one.at >= MEMORY_WARM_UP]
    if len(warm) > 1:
        growth = warm[-1].count["malloc"] - warm[0].count["malloc"]
        if growth > MEMORY_LIMIT:
            result.failures.append(f"memory in use grew by {growth / 1e6:.2f} MB after 20 minutes")


def _print_checkpoint(one: Checkpoint) -> None:
    count, heard = one.count, one.control
    held = ", ".join(f"{number} {name}" for name, number in count["held"].items())
    missed = heard["lost"] + heard["silent"] + heard["late"]
    print(
        f"{one.at:6.0f} s  {one.sessions:5} visits  {held}  "
        f"resident {count['resident'] / MiB:.1f} MiB, malloc {count['malloc'] / MiB:.2f} MiB  "
        f"control: {heard['frames']} frames, {missed} missed, {heard['excused']} excused, "
        f"latest {1000 * heard['latest']:.0f} ms; "
        f"{'; '.join(heard['misses'])}",
        flush=True,
    )
