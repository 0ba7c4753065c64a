"""Fault injection: which checkpoints count, and what else stays unchanged."""

from __future__ import annotations

import inspect
import itertools
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from fastrtc_anyio import CloseReason, EmitType, SessionState
from fastrtc_anyio.testing import open_call, tone
from fastrtc_anyio.testing.faults import FaultPlan, faulty, inject_fault
from tests.kit.handlers import AsyncEcho, Quiet


class InjectedError(Exception):
    pass


def is_asyncio() -> bool:
    return hasattr(anyio.lowlevel.current_token().native_token, "call_soon_threadsafe")


async def fail_at_each_checkpoint(
    program: Callable[[], Awaitable[object]],
    error: Callable[[], BaseException | None] = lambda: InjectedError("injected"),
    limit: float | None = 1000,
) -> list[FaultPlan]:
    """Run a program repeatedly, with a fault at one checkpoint after the other."""
    faults: list[FaultPlan] = []
    for k in itertools.count(1):
        injected = error()
        with inject_fault(k, injected) as fault:
            try:
                with anyio.fail_after(limit):
                    await program()
            except* InjectedError:
                assert fault.reached
        if not fault.reached:
            return faults
        faults.append(fault)
    raise AssertionError("unreachable")


# Counting of checkpoints.


async def test_error_is_raised_where_the_task_waited() -> None:
    error = InjectedError("injected")
    seen: list[object] = []

    async def child() -> None:
        await anyio.sleep(1)
        try:
            await anyio.sleep(2)  # here
        except InjectedError as exc:
            seen.append((exc, anyio.current_time()))
            raise

    began = anyio.current_time()
    with inject_fault(2, error) as fault, pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as tg:
            tg.start_soon(child, name="the child")
    assert caught.value.exceptions == (error,)
    assert seen == [(error, began + 3)], "must be raised after the wait, in place of its result"
    assert fault.reached
    assert fault.where is not None
    lines = inspect.getsourcelines(child)
    line = lines[1] + next(i for i, text in enumerate(lines[0]) if "# here" in text)
    assert fault.where.startswith("the child: ")
    assert f"{__file__}:{line} in " in fault.where
    assert fault.where.endswith("child")
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert "child" in names
    assert "sleep" in names, "the awaited operation must raise the error"


async def test_each_checkpoint_counts_once() -> None:
    async def child() -> None:
        for _ in range(3):
            await anyio.sleep(0.1)
        await checkpoint()

    async def program() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(child)
            tg.start_soon(child)
            await anyio.sleep(1)

    with inject_fault(1000, InjectedError()) as fault:
        await program()
    assert not fault.reached
    assert fault.where is None
    assert fault.checkpoints == 8
    # An earlier fault ends tasks, and a cancelled task resumes once more.
    assert len(await fail_at_each_checkpoint(program)) >= 5


async def test_entering_task_is_exempt() -> None:
    async with anyio.create_task_group() as outside:
        started = anyio.Event()

        async def before() -> None:
            started.set()
            for _ in range(10):
                await checkpoint()

        outside.start_soon(before)
        await started.wait()
        with inject_fault(1, InjectedError()) as fault:
            for _ in range(20):
                await anyio.sleep(0.1)
            async with anyio.create_task_group():
                await checkpoint()
        assert not fault.reached
        assert fault.checkpoints == 0


async def test_descendants_are_included_in_any_task_group() -> None:
    async def child() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(grandchild, name="grandchild")

    async def grandchild() -> None:
        await anyio.sleep(1)

    with inject_fault(1, InjectedError()) as fault, pytest.raises(ExceptionGroup):
        async with anyio.create_task_group() as outside:
            outside.start_soon(child)
            await anyio.sleep(5)
    assert fault.where is not None
    assert fault.where.startswith("grandchild: ")

    with pytest.raises(ExceptionGroup):
        async with anyio.create_task_group() as outside:
            with inject_fault(1, InjectedError()) as fault:
                outside.start_soon(grandchild)
                await anyio.sleep(5)
    assert fault.reached


async def test_checkpoints_after_the_block_do_not_count() -> None:
    async with anyio.create_task_group() as outside:
        with inject_fault(3, InjectedError()) as fault:
            outside.start_soon(anyio.sleep, 1)
            await checkpoint()
        outside.start_soon(anyio.sleep, 1)
    assert fault.checkpoints == 0


async def test_skip_exempts_tasks_by_name() -> None:
    async def child() -> None:
        await anyio.sleep(1)

    with (
        inject_fault(1, InjectedError(), skip=lambda name: name == "skipped") as fault,
        pytest.raises(ExceptionGroup),
    ):
        async with anyio.create_task_group() as tg:
            for name in ("skipped", "counted", "skipped"):
                tg.start_soon(child, name=name)
    assert fault.where is not None
    assert fault.where.startswith("counted: ")
    with inject_fault(1, InjectedError(), skip=lambda _: True) as fault:
        async with anyio.create_task_group() as tg:
            tg.start_soon(child)
    assert (fault.reached, fault.checkpoints) == (False, 0)


async def test_task_may_handle_the_error() -> None:
    survived = []

    async def child() -> None:
        for i in range(3):
            try:
                await anyio.sleep(1)
            except InjectedError:
                survived.append(i)

    with inject_fault(2, InjectedError()) as fault:
        async with anyio.create_task_group() as tg:
            tg.start_soon(child)
    assert survived == [1]
    assert fault.checkpoints == 2


async def test_blocks_nest() -> None:
    async def child() -> None:
        await anyio.sleep(1)
        with pytest.raises(InjectedError, match="inner"):
            await anyio.sleep(1)
        with pytest.raises(InjectedError, match="outer"):
            await anyio.sleep(1)

    with (
        inject_fault(3, InjectedError("outer")) as outer,
        inject_fault(2, InjectedError("inner")) as inner,
    ):
        async with anyio.create_task_group() as tg:
            tg.start_soon(child)
    assert inner.reached
    assert outer.reached


# Cancellation.


async def test_error_none_cancels_the_block() -> None:
    ended: list[str] = []

    async def child(name: str, seconds: float) -> None:
        try:
            while True:
                await anyio.sleep(seconds)
        finally:
            ended.append(name)

    began = anyio.current_time()
    with inject_fault(3) as fault:
        async with anyio.create_task_group() as tg:
            tg.start_soon(child, "a", 1, name="a")
            tg.start_soon(child, "b", 2.5, name="b")
            await anyio.sleep(100)
    assert fault.reached
    assert fault.where is not None
    assert fault.where.startswith("b: ")
    assert sorted(ended) == ["a", "b"]
    assert anyio.current_time() == began + 2.5


async def test_cancellation_stays_inside_the_block() -> None:
    async def program() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(anyio.sleep, 1)
            tg.start_soon(anyio.sleep, 2)

    faults = await fail_at_each_checkpoint(program, lambda: None)
    assert len(faults) == 2
    with anyio.fail_after(1):
        await anyio.sleep(0.5)


async def test_outer_cancellation_propagates() -> None:
    with anyio.move_on_after(1) as scope:
        with inject_fault(1000) as fault:
            async with anyio.create_task_group() as tg:
                tg.start_soon(anyio.sleep_forever)
    assert scope.cancelled_caught
    assert not fault.reached


async def test_error_may_replace_a_cancellation() -> None:
    async def child() -> None:
        await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught, inject_fault(1, InjectedError()) as fault:
        async with anyio.create_task_group() as tg:
            tg.start_soon(child)
            await anyio.sleep(1)
            tg.cancel_scope.cancel()
    assert fault.reached
    assert len(caught.value.exceptions) == 1
    with anyio.fail_after(1):  # no pending cancellation
        await anyio.sleep(0.5)


async def test_shielded_cleanup_is_not_exempt() -> None:
    steps: list[str] = []

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
                steps.append("one")
                await anyio.sleep(1)
                steps.append("two")

    async def program() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(child)
            await anyio.sleep(1)
            tg.cancel_scope.cancel()

    faults = await fail_at_each_checkpoint(program)
    assert len(faults) == 3
    # Fault 1 replaces the cancellation, 2 and 3 hit the cleanup; the last run has no fault.
    assert steps == ["one", "two", "one", "one", "two"]


# Operations that cannot fail.


async def _with_lock(lock: Any) -> None:
    async with lock:
        await anyio.sleep(0.1)
    await lock.acquire()
    try:
        await checkpoint()
    finally:
        lock.release()


async def _with_condition(condition: anyio.Condition) -> None:
    async with condition:
        with anyio.move_on_after(1):
            await condition.wait()
        await anyio.sleep(0.1)
        condition.notify()


@pytest.mark.parametrize("error", [InjectedError, lambda: None])
@pytest.mark.parametrize(
    ("make", "use"),
    [
        (anyio.Lock, _with_lock),
        (lambda: anyio.Lock(fast_acquire=True), _with_lock),
        (lambda: anyio.Semaphore(1), _with_lock),
        (lambda: anyio.CapacityLimiter(1), _with_lock),
        (anyio.Condition, _with_condition),
    ],
)
async def test_waiting_for_a_lock_cannot_fail(make: Any, use: Any, error: Any) -> None:
    async def program() -> None:
        lock = make()

        async def child() -> None:
            with suppress(InjectedError):
                await use(lock)

        async with anyio.create_task_group() as tg:
            for _ in range(3):
                tg.start_soon(child)
            if make is anyio.Condition:
                await anyio.sleep(0.5)
                async with lock:
                    lock.notify()
        with anyio.fail_after(1):
            async with lock:  # no task still holds it
                pass

    assert len(await fail_at_each_checkpoint(program, error)) >= 3


async def test_waiting_for_a_task_group_cannot_fail() -> None:
    ended = 0

    async def leaf() -> None:
        nonlocal ended
        try:
            await anyio.sleep(1)
        finally:
            ended += 1

    async def child(*, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(leaf)
            tg.start_soon(leaf)
            await checkpoint()
            task_status.started()

    async def starter() -> None:
        async with anyio.create_task_group() as tg:
            await tg.start(child)

    for injected in (InjectedError, lambda: None):
        for k in itertools.count(1):
            ended = 0
            with inject_fault(k, injected()) as fault:
                try:
                    async with anyio.create_task_group() as tg:
                        tg.start_soon(starter)
                        tg.start_soon(child)
                except* InjectedError:
                    pass
            at_the_end = ended
            await anyio.sleep(10)
            assert ended == at_the_end, "a leaf outlived its group"
            if not fault.reached:
                break


async def test_calls_from_a_thread_are_answered() -> None:
    async def child() -> None:
        assert await anyio.to_thread.run_sync(thread) == 3

    def thread() -> int:
        return anyio.from_thread.run_sync(lambda: 1) + anyio.from_thread.run(answer)

    async def answer() -> int:
        await checkpoint()
        return 2

    async def program() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(child)

    # Without a limit, which the virtual clock would jump to while the thread works.
    assert await fail_at_each_checkpoint(program, limit=None)


async def test_generators_are_closed_after_a_fault() -> None:
    closed = 0

    async def numbers() -> AsyncGenerator[int, None]:
        nonlocal closed
        try:
            while True:
                await anyio.sleep(1)
                yield 1
        finally:
            with anyio.CancelScope(shield=True):
                closed += 1
                await checkpoint()

    async def child() -> None:
        async with aclosing(numbers()) as stream:
            async for _ in stream:
                await anyio.sleep(1)

    async def program() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(child)
            await anyio.sleep(4.5)
            tg.cancel_scope.cancel()

    faults = await fail_at_each_checkpoint(program)
    assert closed == len(faults) + 1
    assert any("numbers" in str(fault.where) for fault in faults)


# Tasks behave as without a fault.


async def test_order_of_checkpoints_is_reproducible() -> None:
    async def child(seconds: float) -> None:
        for _ in range(5):
            await anyio.sleep(seconds)
            await checkpoint()

    async def program() -> None:
        async with anyio.create_task_group() as tg:
            for i in range(6):
                # Exact in binary, so equal deadlines are equal at any starting time.
                tg.start_soon(child, 0.125 if i % 2 else 0.25, name=f"task {i}")

    first = [fault.where for fault in await fail_at_each_checkpoint(program)]
    second = [fault.where for fault in await fail_at_each_checkpoint(program)]
    assert len(first) > 20
    assert first == second


async def test_task_cancelled_before_its_first_step_causes_no_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    async def child() -> None:
        await checkpoint()

    with inject_fault(100, InjectedError()):
        async with anyio.create_task_group() as tg:
            tg.start_soon(child)
            tg.cancel_scope.cancel()
        if is_asyncio():
            import asyncio

            task = asyncio.get_running_loop().create_task(child())
            task.cancel()
            await asyncio.wait([task])
            del task
    assert not recwarn.list


async def test_proxied_tasks_can_be_inspected() -> None:
    async def child() -> None:
        await anyio.sleep_forever()

    with inject_fault(100, InjectedError()):
        async with anyio.create_task_group() as tg:
            tg.start_soon(child, name="inspected")
            await anyio.wait_all_tasks_blocked()
            [info] = [task for task in anyio.get_running_tasks() if task.name == "inspected"]
            coro: Any = info.coro
            assert inspect.getcoroutinestate(coro) == inspect.CORO_SUSPENDED
            names = []
            if is_asyncio():
                import asyncio

                [task] = [t for t in asyncio.all_tasks() if t.get_name() == "inspected"]
                assert "running at" in repr(task)
                assert task.get_stack()
            else:
                import trio

                [found] = [
                    task
                    for nursery in trio.lowlevel.current_task().child_nurseries
                    for task in nursery.child_tasks
                ]
                names = [frame.f_code.co_name for frame, _ in found.iter_await_frames()]
                assert "child" in names
            tg.cancel_scope.cancel()


async def test_asyncio_tasks_are_included() -> None:
    if not is_asyncio():
        return
    import asyncio

    loop = asyncio.get_running_loop()
    made = []

    def factory(loop: Any, coro: Any, **options: Any) -> Any:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **options)

    async def child() -> str:
        try:
            await asyncio.sleep(1)
        except InjectedError:
            return "hit"
        return "missed"

    loop.set_task_factory(factory)
    try:
        with inject_fault(1, InjectedError()):
            assert await asyncio.create_task(child()) == "hit"
        assert loop.get_task_factory() is factory
        assert len(made) == 1
    finally:
        loop.set_task_factory(None)


async def test_unsupported_trio_raises_runtime_error() -> None:
    if is_asyncio():
        return
    import trio

    class Undo(trio.abc.Instrument):
        def task_spawned(self, task: trio.lowlevel.Task) -> None:
            task.coro = getattr(task.coro, "_coro", task.coro)

    instrument = Undo()
    with (
        pytest.raises(RuntimeError, match="does not support fault injection: inspected"),
        inject_fault(1, InjectedError()),
    ):
        trio.lowlevel.add_instrument(instrument)
        try:
            async with anyio.create_task_group() as tg:
                tg.start_soon(anyio.sleep, 1, name="inspected")
        finally:
            trio.lowlevel.remove_instrument(instrument)


async def test_trio_scheduler_is_restored() -> None:
    from trio._core import _run

    scheduler: Any = _run
    before = scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    with inject_fault(1, InjectedError()):
        assert is_asyncio() or scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    assert (scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING) == before


async def test_system_tasks_are_exempt() -> None:
    if is_asyncio():
        return
    import trio

    done = anyio.Event()

    async def system() -> None:
        await trio.sleep(1)
        done.set()

    with inject_fault(1, InjectedError()) as fault:
        trio.lowlevel.spawn_system_task(system)
        await done.wait()
    assert not fault.reached


async def test_invalid_checkpoint_or_error_is_rejected() -> None:
    with pytest.raises(ValueError, match="at must be an int at least 1; got 0"):
        inject_fault(0).__enter__()
    with pytest.raises(TypeError, match="use error=None to cancel"):
        inject_fault(
            1, anyio.get_cancelled_exc_class().__new__(anyio.get_cancelled_exc_class())
        ).__enter__()


def test_repr_of_plan() -> None:
    plan = FaultPlan(3, OSError("x"))
    assert repr(plan) == "<FaultPlan at=3 error=OSError('x') checkpoints=0 where=None>"


# Faulty functions.


async def test_faulty_function_fails_at_its_checkpoint() -> None:
    async def work(seconds: float, *, times: int = 1) -> str:
        for _ in range(times):
            await anyio.sleep(seconds)
        return "done"

    error = InjectedError()
    broken = faulty(work, 3, error)
    assert inspect.iscoroutinefunction(broken)
    assert broken.__name__ == "work"  # type: ignore[attr-defined]
    assert await broken(0.1) == "done"
    with pytest.raises(InjectedError) as caught:
        await broken(0.1, times=5)
    assert caught.value is error
    assert broken.fault.reached
    assert "work" in str(broken.fault.where)
    assert await broken(0.1) == "done"
    assert not faulty(work, 1, error).fault.reached


async def test_faulty_function_can_be_cancelled() -> None:
    async def work() -> None:
        await anyio.sleep(10)

    broken = faulty(work, 2, InjectedError())
    with anyio.move_on_after(1) as scope:
        await broken()
    assert scope.cancelled_caught
    assert broken.fault.checkpoints == 1


def test_faulty_rejects_synchronous_function() -> None:
    with pytest.raises(TypeError, match="must be a coroutine function"):
        faulty(len, 1, InjectedError())  # type: ignore[arg-type]


async def test_faulty_method_ends_session_with_handler_error() -> None:
    class Ticking(Quiet):
        async def emit(self) -> EmitType:
            await anyio.sleep(0.1)
            return None

    class Broken(Ticking):
        emit = faulty(Ticking.emit, 4, InjectedError("injected"))  # type: ignore[assignment, arg-type]

    handler = Broken()
    async with open_call(handler, raise_errors=False) as call:
        await call.ended.wait()
    assert isinstance(call.session.error, InjectedError)
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_ERROR
    assert handler.calls == ["shutdown"]


# Complete calls.


@pytest.mark.parametrize("error", [InjectedError, lambda: None])
async def test_session_shuts_down_after_a_fault_at_any_checkpoint(error: Any) -> None:
    for k in itertools.count(1):
        handler = AsyncEcho()
        with inject_fault(k, error(), skip=is_transport) as fault:
            async with open_call(handler, raise_errors=False) as call:
                await call.speak(tone(440, 48_000, 0.06), 48_000)
        assert call.session.state is SessionState.CLOSED, fault.where
        assert handler.calls.count("shutdown") == 1, fault.where
        assert call.session.error in (fault.error, None), fault.where
        if not fault.reached:
            break
    assert k > 20


def is_transport(task: str) -> bool:
    """Whether a task belongs to the memory peer, which stands for the network and cannot fail."""
    return "MemoryPeer" in task or task.endswith("_close_peer")
