"""The timer that all connections of a loop share, on a clock of the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._peers.webrtc.ticks import PERIOD, SEND_AFTER, Ticks

FRAME = 2 * PERIOD


class FakeTimer:
    def __init__(self, clock: FakeClock, when: float, callback: Callable[..., object]) -> None:
        self.when = when
        self.callback = callback
        self._clock = clock

    def cancel(self) -> None:
        self._clock.timers.remove(self)


class FakeClock:
    """Clock and timers of an event loop that blocks when ``now`` is moved."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[FakeTimer] = []
        self.fired = 0

    def time(self) -> float:
        return self.now

    def call_at(
        self, when: float, callback: Callable[..., object], *, context: Context | None = None
    ) -> FakeTimer:
        timer = FakeTimer(self, when, callback)
        self.timers.append(timer)
        return timer

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.when <= end]:
            timer = min(due, key=lambda one: one.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when)
            self.fired += 1
            timer.callback()
        self.now = max(self.now, end)


def fail(error: BaseException) -> None:
    raise AssertionError("a step failed") from error


class Recorder:
    """Steps that note when they are called."""

    def __init__(self, clock: FakeClock, ticks: Ticks) -> None:
        self.clock = clock
        self.reads: list[float] = []
        self.sends: list[float] = []
        self.due: list[float] = []
        self.reader = ticks.add_reader(lambda: self.reads.append(clock.now), fail)
        self.sender = ticks.add_sender(self.send, fail)

    def send(self, due: float) -> None:
        self.sends.append(self.clock.now)
        self.due.append(due)


def make() -> tuple[FakeClock, Ticks]:
    clock = FakeClock()
    return clock, Ticks(clock)


def gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def test_readers_are_called_every_10_ms_and_senders_every_20_ms_after_them() -> None:
    clock, ticks = make()
    recorder = Recorder(clock, ticks)
    clock.run(1)
    assert gaps(recorder.reads) == pytest.approx([PERIOD] * 99)
    assert gaps(recorder.sends) == pytest.approx([FRAME] * 49)
    for sent in recorder.sends[1:]:
        read = max(time for time in recorder.reads if time <= sent)
        assert sent - read == pytest.approx(SEND_AFTER)
    assert recorder.due == recorder.sends


def test_senders_of_all_connections_share_the_wake_ups() -> None:
    clock, ticks = make()
    for _ in range(20):
        Recorder(clock, ticks)
    clock.run(1)
    assert clock.fired == 150


def test_no_timer_runs_for_a_phase_without_senders() -> None:
    clock, ticks = make()
    ticks.add_sender(lambda due: None, fail)
    clock.run(1)
    assert clock.fired == 50


def test_timer_stops_with_the_last_registration_and_starts_with_the_next() -> None:
    clock, ticks = make()
    recorder = Recorder(clock, ticks)
    clock.run(0.1)
    recorder.reader.remove()
    recorder.sender.remove()
    recorder.sender.remove()
    assert clock.timers == []
    clock.run(5)
    again = Recorder(clock, ticks)
    began = clock.now
    clock.run(0.1)
    assert len(recorder.sends) == 5
    assert len(again.sends) == 5
    assert again.reads[0] > began


def test_step_may_remove_itself_and_others() -> None:
    clock, ticks = make()
    called: list[str] = []

    def first(due: float) -> None:
        called.append("first")
        one.remove()
        other.remove()

    one = ticks.add_sender(first, fail)
    other = ticks.add_sender(lambda due: called.append("other"), fail)
    clock.run(1)
    assert called == ["first"]
    assert clock.timers == []


def test_step_that_raises_ends_only_itself() -> None:
    clock, ticks = make()
    errors: list[BaseException] = []

    def broken(due: float = 0) -> None:
        raise ValueError("broken")

    def cancelled() -> None:
        raise asyncio.CancelledError

    def report(error: BaseException) -> None:
        errors.append(error)
        raise KeyError("the report fails, too")

    ticks.add_reader(broken, report)
    ticks.add_reader(cancelled, report)
    ticks.add_sender(broken, report)
    recorder = Recorder(clock, ticks)
    clock.run(1)
    assert len(recorder.sends) == 50
    assert len(recorder.reads) == 100
    assert [type(error) for error in errors] == [ValueError, ValueError, asyncio.CancelledError]


def test_ticks_go_on_after_a_step_that_exits() -> None:
    clock, ticks = make()
    errors: list[BaseException] = []

    def leave() -> None:
        raise SystemExit

    ticks.add_reader(leave, errors.append)
    recorder = Recorder(clock, ticks)
    with pytest.raises(SystemExit):
        clock.run(1)
    clock.run(1)
    assert len(errors) == 1
    assert len(recorder.sends) > 40


def test_moved_sender_is_called_at_the_other_phase() -> None:
    clock, ticks = make()
    recorder = Recorder(clock, ticks)
    clock.run(0.1)
    recorder.sender.move()
    clock.run(0.1)
    recorder.sender.move()
    clock.run(0.1)
    odd = [gap for gap in gaps(recorder.sends) if gap != pytest.approx(FRAME)]
    assert len(odd) == 2
    assert all(gap == pytest.approx(PERIOD) or gap == pytest.approx(3 * PERIOD) for gap in odd)


@pytest.mark.parametrize("stall", [0.015, 0.05, 0.3, 10])
def test_late_tick_calls_each_step_once(stall: float) -> None:
    clock, ticks = make()
    recorder = Recorder(clock, ticks)
    other = Recorder(clock, ticks)
    other.sender.move()
    clock.run(0.1)
    clock.now += stall
    before = len(recorder.sends), len(other.sends), len(recorder.reads)
    clock.run(SEND_AFTER)
    calls = (
        len(recorder.sends) - before[0],
        len(other.sends) - before[1],
        len(recorder.reads) - before[2],
    )
    assert max(calls) == 1
    assert calls == (1, 1, 1) or stall < FRAME
    clock.run(0.1)
    for one in (recorder, other):
        assert all(clock.now - 0.2 - stall < due for due in one.due[-5:])
        assert [due / FRAME % 1 for due in one.due] == pytest.approx(
            [one.due[0] / FRAME % 1] * len(one.due)
        )


@pytest.mark.parametrize("late", [0.004, 0.012, 0.025])
def test_senders_wait_for_what_a_late_reader_has_read(late: float) -> None:
    clock, ticks = make()
    recorder = Recorder(clock, ticks)
    clock.run(0.1)
    clock.now += late
    clock.run(0.1)
    for sent in recorder.sends[1:]:
        read = max(time for time in recorder.reads if time <= sent)
        assert sent - read > SEND_AFTER - 1e-6


def test_senders_are_called_though_reading_takes_longer_than_a_period() -> None:
    clock, ticks = make()
    sends: list[float] = []

    def read() -> None:
        clock.now += 1.2 * PERIOD

    ticks.add_reader(read, fail)
    ticks.add_sender(sends.append, fail)
    clock.run(1)
    assert len(sends) > 30


@given(st.lists(st.tuples(st.sampled_from("rsmxw"), st.floats(0, 0.1)), max_size=40))
def test_no_step_is_called_early_often_or_after_its_removal(steps: list[tuple[str, float]]) -> None:
    clock, ticks = make()
    recorders: list[Recorder] = []
    for kind, seconds in steps:
        if kind == "r":
            recorders.append(Recorder(clock, ticks))
        elif kind == "m" and recorders:
            recorders[-1].sender.move()
        elif kind == "x" and recorders:
            removed = recorders.pop(0)
            removed.reader.remove()
            removed.sender.remove()
            removed.sends, removed.reads = [], []
            calls = removed
            clock.run(seconds)
            assert calls.sends == calls.reads == []
        elif kind == "w":
            clock.now += seconds  # blocks
        else:
            clock.run(seconds)
        assert len(clock.timers) == bool(recorders)
    for one in recorders:
        assert all(due <= sent for due, sent in zip(one.due, one.sends, strict=True))
        assert all(gap > PERIOD / 2 for gap in gaps(one.due))


async def test_posts_of_a_tick_wake_the_host_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, ticks = make()
    host = Host()
    woken: list[object] = []
    monkeypatch.setattr(host, "_post", woken.append)
    for _ in range(5):
        ticks.add_sender(lambda due: host.post(lambda: None), fail)
    clock.run(FRAME)
    assert len(woken) == 1


def test_step_runs_in_the_context_of_its_registration() -> None:
    clock, ticks = make()
    variable: ContextVar[int] = ContextVar("variable", default=0)
    seen: list[int] = []
    for value in (1, 2):
        variable.set(value)
        ticks.add_sender(lambda due: seen.append(variable.get()), fail)
    variable.set(3)
    clock.run(FRAME)
    assert seen == [1, 2]


def test_loop_has_one_set_of_ticks_which_ends_with_it() -> None:
    loop = asyncio.new_event_loop()
    called: list[float] = []
    ticks = Ticks.of(loop)
    assert Ticks.of(loop) is ticks
    done = loop.create_future()

    def step(due: float) -> None:
        called.append(due)
        if len(called) == 3:
            one.remove()
            done.set_result(None)

    one = ticks.add_sender(step, fail)
    loop.run_until_complete(done)
    loop.close()
    assert all(gap > PERIOD for gap in gaps(called))
    assert vars(ticks)["_timer"] is None
