"""The thread that works for all sessions, in real time: it starts and ends with its members."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from fastrtc_anyio._core.log import LOGGER
from fastrtc_anyio._core.shared_thread import SharedThread

SECONDS = 10.0


@dataclass(eq=False)
class Counter:
    """A member that counts how often it was served and asked."""

    served: int = 0
    asked: int = 0
    works: bool = False
    errors: list[Exception] = field(default_factory=list)

    @property
    def waiting(self) -> bool:
        self.asked += 1
        return self.works

    def end(self, error: Exception) -> None:
        self.errors.append(error)


def serve(members: Sequence[Counter]) -> None:
    for member in members:
        member.works = False
        member.served += 1


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def running(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_members_are_served_in_rounds_until_they_are_removed() -> None:
    shared = SharedThread("rounds", serve, lambda _: 0.001)
    first, second = Counter(), Counter()
    shared.add(first)
    shared.add(second)
    wait_until(lambda: min(first.served, second.served) > 3)
    shared.remove(first)
    shared.remove(first)
    served = first.served
    wait_until(lambda: second.served > served + 5)
    assert first.served <= served + 1  # the round during which it was removed
    (thread,) = running("rounds")
    assert thread.daemon
    shared.remove(second)
    wait_until(lambda: not running("rounds"))


def test_waiting_member_is_served_between_two_rounds() -> None:
    shared = SharedThread("waiting", serve, lambda _: 1000)
    waiting, other = Counter(), Counter()
    shared.add(other)
    shared.add(waiting)
    wait_until(lambda: other.served > 0)  # the first round, at once
    served = other.served
    for _ in range(3):
        before = waiting.served
        waiting.works = True
        shared.wake()
        wait_until(lambda: waiting.served == before + 1)  # noqa: B023 - called at once
    assert other.served == served
    asked = other.asked
    time.sleep(0.02)
    assert other.asked <= asked + 1  # the thread waits
    shared.remove(waiting)
    shared.remove(other)
    wait_until(lambda: not running("waiting"))


def test_member_with_a_shorter_period_is_served_in_time() -> None:
    rare, frequent = Counter(), Counter()
    periods = {id(rare): math.inf, id(frequent): 0.001}
    shared = SharedThread(
        "periods", serve, lambda members: min(periods[id(member)] for member in members)
    )
    shared.add(rare)
    wait_until(lambda: rare.served > 0)
    shared.add(frequent)
    wait_until(lambda: frequent.served > 3)
    for member in (rare, frequent):
        shared.remove(member)
    wait_until(lambda: not running("periods"))


def test_members_may_come_and_go_on_any_thread() -> None:
    shared = SharedThread("members", serve, lambda _: 0.0005)
    failures: list[BaseException] = []

    def come_and_go() -> None:
        try:
            for _ in range(30):
                member = Counter()
                shared.add(member)
                wait_until(lambda: member.served > 0)  # noqa: B023
                shared.remove(member)
                assert len(running("members")) <= 2  # the one that ends and its successor
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    wait_until(lambda: not running("members"))


@pytest.mark.parametrize("error", [MemoryError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_error_ends_the_members_of_that_call_only(error: type[BaseException]) -> None:
    failing = Counter()

    def serve_or_fail(members: Sequence[Counter]) -> None:
        if failing in members and failing.works:
            raise error
        serve(members)

    shared = SharedThread("failing", serve_or_fail, lambda _: 1000)
    other, late = Counter(), Counter()
    shared.add(other)
    shared.add(failing)
    wait_until(lambda: other.served > 0)
    failing.works = True
    shared.wake()
    wait_until(lambda: bool(failing.errors))
    other.works = True
    shared.wake()
    wait_until(lambda: not other.works)
    shared.add(late)
    late.works = True
    shared.wake()
    wait_until(lambda: late.served > 0)
    (reported,) = failing.errors
    assert str(reported) == f"failing failed: {error.__name__}"
    assert type(reported.__cause__) is error
    assert other.errors == late.errors == []
    for member in (other, late):
        shared.remove(member)
    wait_until(lambda: not running("failing"))


def test_error_is_reported_to_each_member_though_one_report_fails() -> None:
    class Broken(Counter):
        def end(self, error: Exception) -> None:
            raise error

    def fail(members: Sequence[Counter]) -> None:
        raise LookupError

    shared = SharedThread("reports", fail, lambda _: 1000)
    members = [Counter(), Broken(), Counter()]
    with shared._lock:  # one round for all of them
        shared._members += members[1:]
    shared.add(members[0])
    wait_until(lambda: not running("reports"))
    assert [len(member.errors) for member in members] == [1, 0, 1]


def test_thread_survives_a_filter_of_the_log_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Counter):
        def end(self, error: Exception) -> None:
            raise error

    def fail(members: Sequence[Counter]) -> None:
        if any(isinstance(member, Broken) for member in members):
            raise LookupError
        serve(members)

    def filter_record(record: object) -> bool:
        raise ValueError

    logger = logging.getLogger(LOGGER)
    monkeypatch.setattr(logger, "filters", [*logger.filters, filter_record])
    shared = SharedThread("filtered", fail, lambda _: 0.001)
    shared.add(Broken())
    wait_until(lambda: not running("filtered"))
    member = Counter()
    shared.add(member)
    wait_until(lambda: member.served > 0)
    shared.remove(member)


@pytest.mark.parametrize("fails", [False, True])
def test_last_member_leaves_while_it_is_served(fails: bool) -> None:
    begun, gone = threading.Event(), threading.Event()

    def serve_slowly(members: Sequence[Counter]) -> None:
        begun.set()
        assert gone.wait(SECONDS)
        if fails:
            raise LookupError
        serve(members)

    shared = SharedThread("leaving", serve_slowly, lambda _: 1000)
    for _ in range(2):  # a new thread begins
        begun.clear()
        gone.clear()
        member = Counter()
        shared.add(member)
        assert begun.wait(SECONDS)
        shared.remove(member)
        gone.set()
        wait_until(lambda: not running("leaving"))
        assert (member.served, len(member.errors)) == (not fails, fails)


def test_process_does_not_exit_within_a_call() -> None:
    program = """
import sys, threading, time
from fastrtc_anyio._core.shared_thread import SharedThread

def serve(members):
    begun.set()
    print("begun")
    time.sleep(0.2)  # the process exits
    print("done")

class Member:
    waiting = False

begun = threading.Event()
shared = SharedThread("exiting", serve, lambda _: 1000)
shared.add(Member())
begun.wait()
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["begun", "done"]


def test_no_member_joins_while_the_process_exits() -> None:
    shared = SharedThread("exits", serve, lambda _: 0.001)
    shared.add(Counter())
    shared._exit()
    assert not running("exits")
    with pytest.raises(RuntimeError, match="exits has ended because the process exits"):
        shared.add(Counter())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_thread_of_a_forked_process_is_its_own() -> None:
    shared = SharedThread("parent", serve, lambda _: 0.001)
    member = Counter()
    shared.add(member)
    child = os.fork()
    if child == 0:
        signal.alarm(round(SECONDS))
        status = 1
        try:
            mine = Counter()
            shared.add(mine)
            wait_until(lambda: mine.served > 0)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    shared.remove(member)
