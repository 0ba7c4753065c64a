"""The parent of workers, whose processes start, fail and end at any time."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import pytest
from anyio import create_task_group
from anyio.abc import TaskGroup
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio.cluster.workers import Settings, WorkersFailed, _Parent

Start = Literal["serves", "fails", "hangs", "no process"]
STARTS = st.sampled_from(["serves", "fails", "hangs", "no process"])
SLOT = st.integers(0, 1)
OPERATIONS = st.one_of(
    st.just(("hang up",)),
    st.tuples(st.just("kill"), SLOT),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.5, 1.5, 6.0, 70.0])),
    st.tuples(st.just("expect"), STARTS),
)
SECONDS = 1.0
"""Seconds in which a worker starts."""


class FakeProcess:
    """A process that drains at once, unless it has calls."""

    stdin = None

    def __init__(self) -> None:
        self.returncode: int | None = None
        self.signals: list[int] = []
        self._ended = anyio.Event()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def end(self, status: int) -> None:
        if self.returncode is None:
            self.returncode = status
            self._ended.set()

    def send_signal(self, number: int) -> None:
        self.signals.append(number)
        self.end(-number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Machine:
    """Runs the processes of a parent."""

    def __init__(self, tasks: TaskGroup) -> None:
        parent: Any = _Parent(Settings("", "trio", "", 0, 0, ""), 2)
        parent._tasks = tasks
        parent._spawn = self._spawn
        self.parent = parent
        self.tasks = tasks
        self.expected: deque[Start] = deque()
        """How the next processes start; they serve by default."""
        self.started: dict[str, FakeProcess] = {}
        self.served: set[str] = set()

    async def _spawn(self, settings: Settings) -> FakeProcess:
        how = self.expected.popleft() if self.expected else "serves"
        await anyio.lowlevel.checkpoint()
        if how == "no process":
            raise OSError("out of memory")
        process = self.started[settings.name] = FakeProcess()
        self.tasks.start_soon(self._begin, settings.name, process, how)
        return process

    async def _begin(self, name: str, process: FakeProcess, how: Start) -> None:
        await anyio.sleep(SECONDS)
        if how == "serves" and process.returncode is None:
            self.served.add(name)
            await self.parent._directory.join(name, "http://127.0.0.1:1")
        elif how == "fails":
            process.end(1)

    @property
    def running(self) -> set[str]:
        return {name for name, process in self.started.items() if process.returncode is None}

    def kill(self, slot: int) -> None:
        """End the worker in a slot, if one has started there."""
        worker = self.parent._slots[slot]
        if worker is not None:
            worker.process.end(-11)

    def hang_up(self) -> None:
        self.tasks.start_soon(self.parent.replace_all)

    async def check(self) -> None:
        """Check that all slots have workers, and that they can be replaced."""
        self.expected.clear()
        await anyio.sleep(400)
        self._check_slots()
        before = self.running
        await self.parent.replace_all()
        await anyio.sleep(SECONDS)  # the parent notices the end of its processes
        self._check_slots()
        assert not self.running & before
        for name in before:
            assert self.started[name].signals == [signal.SIGHUP], "its calls are lost"

    def _check_slots(self) -> None:
        workers = self.parent._slots
        assert {worker.name for worker in workers} == self.running == self.served & self.running
        assert len(self.running) == 2
        assert set(self.parent._directory.workers) == self.running


@asynccontextmanager
async def open_machine() -> AsyncGenerator[Machine, None]:
    async with create_task_group() as tasks:
        machine = Machine(tasks)
        yield machine
        tasks.cancel_scope.cancel()


@given(operations=st.lists(OPERATIONS, max_size=20))
@settings(max_examples=150)
async def test_whatever_happens_each_slot_has_a_worker(operations: list[tuple[Any, ...]]) -> None:
    async with open_machine() as machine:
        assert await machine.parent.start()
        for name, *arguments in operations:
            if name == "sleep":
                await anyio.sleep(arguments[0])
            elif name == "expect":
                machine.expected.append(arguments[0])
            else:
                getattr(machine, name.replace(" ", "_"))(*arguments)
        await machine.check()


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.5])
async def test_workers_are_replaced_after_they_have_started(seconds: float) -> None:
    async with open_machine() as machine:
        machine.tasks.start_soon(machine.parent.start)
        await anyio.sleep(seconds)
        await machine.parent.replace_all()
        assert set(machine.started) - machine.running == set(list(machine.started)[:2])
        await machine.check()


async def test_worker_that_ends_during_a_failed_replacement_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_machine() as machine:
        assert await machine.parent.start()
        machine.expected.append("fails")
        machine.hang_up()
        await anyio.sleep(SECONDS / 2)
        machine.kill(0)
        await anyio.sleep(2 * SECONDS)
        events = {getattr(record, "event", None) for record in caplog.records}
        assert events == {"cluster.worker_lost", "cluster.replace_failed"}
        assert len(machine.running) == 2
        await machine.check()


@pytest.mark.parametrize("how", ["fails", "hangs", "no process"])
async def test_first_workers_must_start(how: Start) -> None:
    async with open_machine() as machine:
        machine.expected.extend(["serves", how])
        with pytest.RaisesGroup(WorkersFailed):
            await machine.parent.start()


async def test_stop_during_the_start(caplog: pytest.LogCaptureFixture) -> None:
    async with open_machine() as machine:
        parent, answers = machine.parent, []

        async def start() -> None:
            answers.append(await parent.start())

        machine.tasks.start_soon(start)
        machine.hang_up()
        await anyio.sleep(SECONDS / 2)
        await parent.drain()
        await anyio.sleep(SECONDS)
        assert answers == [False]
        assert not machine.running
        assert len(machine.started) == 1, "the others start no more"
        assert not caplog.records
