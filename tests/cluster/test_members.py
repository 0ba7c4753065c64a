"""Members of a cluster, their directory, and crashes of both at every step."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import create_task_group, move_on_after
from anyio.abc import TaskGroup
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio import InvalidStateError
from fastrtc_anyio.cluster import Location, Member, MemoryDirectory
from tests.kit.clusters import Link, Process

LIFETIME = 15.0
IDS = ["a", "b", "w.x"]
"""One of them looks like the id of a session."""
NUMBER = st.integers(0, 1)
FAULT = st.sampled_from([None, "refused", "request lost", "answer lost", "slow"])
OPERATIONS = st.one_of(
    st.tuples(st.just("start"), NUMBER),
    st.tuples(st.just("stop"), NUMBER),
    st.tuples(st.just("crash"), NUMBER),
    st.tuples(st.just("begin"), NUMBER, st.sampled_from(IDS), FAULT),
    st.tuples(st.just("give up"), NUMBER, st.sampled_from(IDS), st.sampled_from([0.0, 0.1, 2.0])),
    st.tuples(st.just("end"), NUMBER, st.sampled_from(IDS), FAULT),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.6, 3.0, 6.0, 16.0]), FAULT),
    st.just(("lose directory",)),
)


class Model:
    """A cluster to which anything happens, and what must be so at the end."""

    def __init__(self, tasks: TaskGroup) -> None:
        self.tasks = tasks
        self.link = Link()
        self.processes: dict[int, Process] = {}
        self.is_perfect = True
        """Whether nothing has happened for which a process may miss the claim of another."""
        self._count = 0

    async def start(self, number: int) -> None:
        if number not in self.processes:
            self._count += 1
            self.processes[number] = Process(self.link, self._count)
            await self.processes[number].start(self.tasks)

    def stop(self, number: int) -> None:
        if (process := self.processes.pop(number, None)) is not None:
            process.stop()

    def crash(self, number: int) -> None:
        """End a process: nothing more comes from it."""
        if (process := self.processes.pop(number, None)) is not None:
            gone: Any = Link()
            process.member._directory = gone
            process.stop()

    async def begin(self, number: int, webrtc_id: str) -> None:
        process = self.processes.get(number)
        if process is None or webrtc_id in process.sessions:
            return
        others = [one for one in self.processes.values() if webrtc_id in one.sessions]
        try:
            await process.begin(webrtc_id)
        except InvalidStateError:
            return
        assert not (self.is_perfect and others), "two processes have the same id"

    async def give_up(self, number: int, webrtc_id: str, seconds: float) -> None:
        """Cancel the beginning of a session."""
        process = self.processes.get(number)
        if process is not None and webrtc_id not in process.sessions:
            self.link.faults.appendleft("slow")
            with move_on_after(seconds):
                await self.begin(number, webrtc_id)

    def end(self, number: int, webrtc_id: str) -> None:
        process = self.processes.get(number)
        if process is not None and webrtc_id in process.sessions:
            process.end(webrtc_id)

    def lose_directory(self) -> None:
        self.link.directory = MemoryDirectory(LIFETIME)
        self.is_perfect = False

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def apply(self, name: str, *arguments: Any) -> None:
        """Do something, maybe with a fault at the next request to the directory."""
        if name in ("begin", "end", "sleep"):
            *arguments, fault = arguments  # type: ignore[assignment]
            if fault is not None:
                self.link.faults.append(fault)
                self.is_perfect = self.is_perfect and fault == "slow"
        done = getattr(self, name.replace(" ", "_"))(*arguments)
        if done is not None:
            await done

    async def check(self) -> None:
        self.link.faults.clear()
        await anyio.sleep(3 * LIFETIME)
        here = {p.member.name: p for p in self.processes.values()}
        found = await self.link.list_processes()
        assert {one.owner: one.address for one in found} == {
            name: process.member.address for name, process in here.items()
        }
        for webrtc_id in IDS:
            owners = {name for name, p in here.items() if webrtc_id in p.sessions}
            location = await self.link.find(webrtc_id)
            assert (location is not None) == bool(owners)
            if location is not None:
                assert location.owner in owners
        for name, process in here.items():
            for session_id in process.sessions.values():
                assert await self.link.find(session_id) == Location(name, process.member.address)


@given(operations=st.lists(OPERATIONS, max_size=25))
@settings(max_examples=150)
async def test_whatever_happens_the_directory_becomes_right_again(
    operations: list[tuple[Any, ...]],
) -> None:
    """After it, the processes that live and their sessions are found, and no others."""
    async with create_task_group() as tasks:
        model = Model(tasks)
        await model.start(0)
        for operation in operations:
            await model.apply(*operation)
        await model.check()
        for number in list(model.processes):
            model.stop(number)


@asynccontextmanager
async def two_processes() -> AsyncGenerator[tuple[Link, Process, Process], None]:
    link = Link()
    first, second = Process(link, 1), Process(link, 2)
    async with create_task_group() as tasks:
        await first.start(tasks)
        await second.start(tasks)
        yield link, first, second
        first.stop()
        second.stop()


async def test_an_id_is_claimed_once_in_the_cluster() -> None:
    async with two_processes() as (_, first, second):
        session_id = await first.begin("a")
        with pytest.raises(InvalidStateError, match="the webrtc_id 'a' is in use"):
            await second.member.claim("a", f"{second.member.name}.x")
        here = Location(first.member.name, first.member.address)
        assert await second.member.find("a") == here
        assert await second.member.find(session_id) == here
        assert first.member.holds("a")
        assert first.member.holds(session_id)
        assert not second.member.holds("a")
        first.end("a")
        await anyio.sleep(0.1)
        assert await second.member.find("a") is None
        await second.begin("a")


async def test_a_release_that_is_lost_is_repeated() -> None:
    async with two_processes() as (link, first, _):
        await first.begin("a")
        link.faults.extend(["slow", "request lost"])  # at the entry, and at the release
        first.end("a")
        await anyio.sleep(10)
        assert not link.faults
        assert await link.find("a") is None


async def test_a_finder_waits_for_the_claim() -> None:
    async with two_processes() as (_, first, second):
        began = anyio.current_time()
        async with create_task_group() as tasks:
            tasks.start_soon(_begin_later, first, "a", 3.0)
            location = await second.member.find("a", 5.0)
        assert location is not None
        assert location.owner == first.member.name
        assert anyio.current_time() - began == pytest.approx(3.0)
        assert await second.member.find("b", 5.0) is None
        assert anyio.current_time() - began == pytest.approx(8.0)


async def _begin_later(process: Process, webrtc_id: str, seconds: float) -> None:
    await anyio.sleep(seconds)
    await process.begin(webrtc_id)


async def test_finders_leave_nothing_in_the_directory() -> None:
    """Clients choose the ids that they wait for."""
    directory: Any = MemoryDirectory()
    await directory.join("one", "http://one")
    async with create_task_group() as tasks:
        for name in ("a", "b", "two.c"):
            tasks.start_soon(directory.find, name, 60.0)
        with move_on_after(1):
            await directory.find("a", 60.0)
        assert set(directory._waiting) == {"a", "b", "two.c"}
        await directory.claim("a", "one.x")
        await directory.join("two", "http://two")
        await anyio.sleep(1)
        assert set(directory._waiting) == {"b"}
        tasks.cancel_scope.cancel()
    assert not directory._waiting


async def test_a_process_that_has_crashed_is_forgotten_within_its_lifetime() -> None:
    async with create_task_group() as tasks:
        model = Model(tasks)
        await model.start(0)
        await model.start(1)
        await model.begin(0, "a")
        await anyio.sleep(4.9)
        model.crash(0)
        await anyio.sleep(LIFETIME)
        assert len(await model.link.list_processes()) == 1
        await model.begin(1, "a")
        assert "a" in model.processes[1].sessions
        model.stop(1)


async def test_a_process_that_ends_leaves_at_once() -> None:
    async with two_processes() as (_, first, second):
        await first.begin("a")
        first.stop()
        await anyio.sleep(0.1)
        assert await second.member.find("a") is None
        assert await second.member.list_others() == []


async def test_a_process_that_is_reported_lost_is_forgotten_at_once() -> None:
    async with two_processes() as (_, first, second):
        await first.begin("a")
        location = await second.member.find("a")
        assert location is not None
        await second.member.report_lost(location)
        assert await second.member.find("a") is None
        # It was a mistake: the process is back at its next entry, with its sessions.
        await anyio.sleep(5.1)
        assert await second.member.find("a") == location
        assert await second.member.list_others() == [location]


async def test_sessions_begin_without_a_directory(caplog: pytest.LogCaptureFixture) -> None:
    async with two_processes() as (link, first, second):
        with caplog.at_level(logging.INFO, "fastrtc_anyio"):
            for _ in range(3):
                link.faults.append("refused")
            began = anyio.current_time()
            await first.begin("a")
            await first.begin("b")
            assert anyio.current_time() == began, "nothing waits for a directory that is gone"
            assert await first.member.find("c", 5.0) is None
            await anyio.sleep(10)
            for name in ("a", "b"):
                assert await second.member.find(name) is not None
        events = [getattr(record, "event", None) for record in caplog.records]
        assert events == ["cluster.directory_lost", "cluster.directory_found"]


async def test_an_id_that_another_process_took_meanwhile_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with two_processes() as (link, first, second):
        await first.begin("a")
        link.directory = MemoryDirectory(LIFETIME)
        await second.member._renew()
        await second.begin("a")
        with caplog.at_level(logging.INFO, "fastrtc_anyio"):
            await anyio.sleep(10)
        (record,) = caplog.records
        assert record.getMessage().startswith(f"session {first.member.name}.")
        location = await first.member.find("a")
        assert location is not None
        assert location.owner == second.member.name


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"name": "a.b"}, ValueError, "'a.b'"),
        ({"address": None}, TypeError, "address"),
        ({"interval": 0}, ValueError, "interval"),
        ({"deadline": "1"}, TypeError, "deadline"),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    arguments: dict[str, Any] = {"address": "http://127.0.0.1:1", **options}
    with pytest.raises(error, match=text):
        Member(MemoryDirectory(), **arguments)
    with pytest.raises(ValueError, match="lifetime"):
        MemoryDirectory(0)
