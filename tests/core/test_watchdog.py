"""The samples of a loop: which code counts as blocking it, and which does not."""

from __future__ import annotations

import asyncio
import errno
import gc
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import anyio
import pytest

from fastrtc_anyio._core import watchdog
from fastrtc_anyio._core.loop_steps import find_running
from fastrtc_anyio._core.session_log import SessionLog, current_log
from fastrtc_anyio._core.threads import Worker
from fastrtc_anyio._core.watchdog import LoopWatch, _check, _ThreadWatch, watch_loop
from tests.kit.backends import on_asyncio

LIMIT = 0.25
STEP = LIMIT / 4


class Samples:
    """A watch with a simulated clock, whose samples are frames of the running test."""

    def __init__(self, limit: float = LIMIT) -> None:
        self.watch = LoopWatch(limit)
        self.watch._now = self.now = 0.0
        self.cpu = 0.0
        self.collections = 0

    def take(self, frame: FrameType | None, after: float = STEP, cpu: float = 0.0) -> None:
        self.now += after
        self.cpu += cpu
        self.watch.check(frame, self.now, self.cpu, self.collections)


def named(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [one for one in caplog.records if one.__dict__.get("event") == "loop.blocked"]


async def in_session(log: SessionLog | None, function: Callable[[], None]) -> None:
    """Call a function in a task of a session."""

    async def run() -> None:
        current_log.set(log)
        await anyio.lowlevel.checkpoint()
        function()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)


async def test_step_that_holds_the_loop_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    log, samples = SessionLog("01234567", LIMIT), Samples()

    def block_loop() -> None:
        block(samples, 4)
        assert named(caplog) == []
        block(samples, 20)

    for _ in range(2):
        await in_session(log, block_loop if not log.has_blocked else lambda: block(samples))
    (record,) = named(caplog)
    assert (record.session_id, record.levelname) == ("01234567", "WARNING")
    first, *stack = record.getMessage().split("\n")
    assert first.startswith("session 01234567: in_session.<locals>.run has blocked the event loop")
    assert first.endswith(" for more than 250 ms:")
    assert any("in block_loop" in line for line in stack)
    assert [noted.event for noted in log.recent] == ["loop.blocked"]


def block(samples: Samples, count: int = 20) -> None:
    for _ in range(count):
        samples.take(sys._getframe())


async def test_short_steps_of_one_task_are_not_named(caplog: pytest.LogCaptureFixture) -> None:
    """The loop is late, and each sample finds the same task at the same line."""
    samples = Samples()

    async def work() -> None:
        current_log.set(SessionLog("01234567", LIMIT))
        for _ in range(50):
            samples.take(sys._getframe())
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
    assert named(caplog) == []


async def test_many_sessions_are_not_named(caplog: pytest.LogCaptureFixture) -> None:
    samples = Samples()

    async def work(number: int) -> None:
        current_log.set(SessionLog(f"{number:08}", LIMIT))
        for _ in range(10):
            for _ in range(3):
                samples.take(sys._getframe())
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(work, number)
    assert named(caplog) == []


async def test_suspended_process_names_no_code(caplog: pytest.LogCaptureFixture) -> None:
    samples = Samples()

    def stop() -> None:
        samples.take(sys._getframe())
        samples.take(sys._getframe())
        samples.take(sys._getframe(), after=3600, cpu=0.01)
        samples.take(sys._getframe())

    await in_session(SessionLog("01234567", LIMIT), stop)
    assert named(caplog) == []


async def test_code_that_holds_the_interpreter_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """The watchdog's thread did not run meanwhile, but the loop's thread computed."""
    samples = Samples()

    def compute() -> None:
        samples.take(sys._getframe(), after=4, cpu=3.9)

    await in_session(SessionLog("01234567", LIMIT), compute)
    (record,) = named(caplog)
    assert "more than 3900 ms" in record.getMessage()


async def test_garbage_collection_names_no_code(caplog: pytest.LogCaptureFixture) -> None:
    samples = Samples()

    def collect() -> None:
        samples.collections += 1
        samples.take(sys._getframe(), after=4, cpu=3.9)
        samples.take(sys._getframe())

    await in_session(SessionLog("01234567", LIMIT), collect)
    assert named(caplog) == []


@on_asyncio
async def test_callback_without_a_frame_is_named_as_the_loop_runs_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    samples = Samples()

    def block_loop() -> None:
        frame = sys._getframe().f_back  # as for a function in C, such as time.sleep
        for _ in range(20):
            samples.take(frame)

    asyncio.get_running_loop().call_soon(block_loop)
    await anyio.lowlevel.checkpoint()
    (record,) = named(caplog)
    assert record.getMessage().startswith("Handle._run has blocked the event loop")


def test_end_of_the_watchdog_is_logged_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    error = RuntimeError("the thread failed")
    error.__cause__ = ZeroDivisionError()
    LoopWatch(LIMIT).end(error)
    assert caplog.messages[0].startswith("the watchdog has ended: ZeroDivisionError")


@pytest.mark.parametrize("limit", [None, 1.0])
async def test_each_session_has_its_own_limit(
    limit: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    samples = Samples()
    log = SessionLog("01234567", limit)
    await in_session(log, lambda: block(samples, 16))
    assert named(caplog) == []
    await in_session(log, lambda: block(samples, 60))
    assert len(named(caplog)) == (limit is not None)


async def test_code_outside_of_sessions_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    samples = Samples()
    for _ in range(2):
        await in_session(None, lambda: block(samples))
    (record,) = named(caplog)
    assert record.session_id is None
    assert record.getMessage().startswith("in_session.<locals>.run has blocked")


async def test_waiting_loop_runs_nothing() -> None:
    loop = threading.get_ident()

    def sample() -> bool:
        frame = sys._current_frames()[loop]
        return find_running(frame) is None

    results: list[bool] = []
    worker = Worker("test")
    while not results or not results[-1]:  # the loop waits a moment after the thread has begun
        results.append(await worker.run(sample))
    await worker.aclose()
    assert find_running(sys._getframe()) is not None
    assert find_running(None) is None


def test_code_without_a_loop_is_not_read() -> None:
    assert find_running(sys._getframe()) is None


@pytest.mark.usefixtures("no_garbage_collection")
def test_sampling_leaves_no_garbage() -> None:
    """A function that keeps its own frame would keep the objects of all threads alive."""
    for _ in range(3):
        _check([])
    assert gc.collect() == 0


def make_watch_of_ended_thread() -> _ThreadWatch:
    made: list[_ThreadWatch] = []
    thread = threading.Thread(target=lambda: made.append(_ThreadWatch(LIMIT)))
    thread.start()
    thread.join()
    return made[0]


class Sampled(_ThreadWatch):
    """Counts its samples, or fails."""

    error: Exception | None = None
    samples = 0

    def check(
        self, frame: FrameType | None, now: float, cpu: float | None, collections: int = 0
    ) -> None:
        self.samples += 1
        if self.error is not None:
            raise self.error


def test_failed_sample_ends_that_watch_only(caplog: pytest.LogCaptureFixture) -> None:
    failing, other = Sampled(LIMIT), Sampled(LIMIT)
    failing.error = LookupError("a filter of the log")
    _check([failing, other])
    assert other.samples == 1
    events = [one.__dict__.get("event") for one in caplog.records if one.levelname == "ERROR"]
    assert events == ["loop.watchdog_failed"]


def test_thread_that_ended_without_leaving_affects_no_other(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_clock: int) -> float:
        raise OSError(errno.EINVAL, "Invalid argument")  # as Linux does once the thread is gone

    monkeypatch.setattr("time.clock_gettime", fail)
    ended, other = make_watch_of_ended_thread(), Sampled(LIMIT)
    _check([ended, other])
    assert ended.read_cpu() is None
    assert other.samples == 1
    assert caplog.records == []


def test_thread_with_the_id_of_an_ended_one_is_watched() -> None:
    ended, ident = make_watch_of_ended_thread(), threading.get_ident()
    ended.thread, ended.users = ident, 1
    watchdog._watches[ident] = ended
    with watch_loop(LIMIT):
        watch = watchdog._watches[ident]
        assert watch is not ended
        assert watchdog._thread._members == [watch]
    assert ident not in watchdog._watches


def test_loop_is_watched_again_after_its_watch_has_failed() -> None:
    ident = threading.get_ident()
    with watch_loop(LIMIT):
        failed = watchdog._watches[ident]
        watchdog._thread._end([failed], LookupError())
        with watch_loop(LIMIT):
            assert watchdog._thread._members == [watchdog._watches[ident]] != [failed]
    assert ident not in watchdog._watches
    assert watchdog._thread._members == []


def test_loop_without_a_finite_limit_is_not_watched() -> None:
    with watch_loop(math.inf):
        assert watchdog._watches == {}


def test_samples_of_a_tiny_limit_leave_time_for_others() -> None:
    assert LoopWatch(1e-9).period >= 0.001


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_process_watches_its_own_loop() -> None:
    with watch_loop(LIMIT):
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            status = 1
            try:
                with watch_loop(LIMIT):
                    status = int(len(watchdog._thread._members) != 1)
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
