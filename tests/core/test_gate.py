from __future__ import annotations

import gc
import sys
import threading
import warnings

import anyio

from fastrtc_anyio._core.gate import Gate


async def test_concurrent_set_from_many_threads() -> None:
    errors: list[BaseException] = []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def open_it(gate: Gate) -> None:
        try:
            gate.set()
        except BaseException as exc:
            errors.append(exc)

    try:
        for _ in range(300):
            gate = Gate()
            async with anyio.create_task_group() as tg:
                for _ in range(3):
                    tg.start_soon(gate.wait)
                await anyio.wait_all_tasks_blocked()
                threads = [threading.Thread(target=open_it, args=(gate,)) for _ in range(3)]
                for thread in threads:
                    thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(before)
    assert errors == []


async def test_set_wakes_all_waiting_tasks() -> None:
    gate, passed = Gate(), []

    async def wait(i: int) -> None:
        await gate.wait()
        passed.append(i)

    async with anyio.create_task_group() as tg:
        for i in range(3):
            tg.start_soon(wait, i)
        await anyio.wait_all_tasks_blocked()
        assert passed == []
        gate.set()
    assert sorted(passed) == [0, 1, 2]
    assert gate.is_set()
    await gate.wait()


async def test_clear_closes_the_gate() -> None:
    gate = Gate()
    gate.set()
    gate.clear()
    assert not gate.is_set()
    with anyio.move_on_after(1) as scope:
        await gate.wait()
    assert scope.cancelled_caught


async def test_set_from_another_thread() -> None:
    gate = Gate()
    async with anyio.create_task_group() as tg:
        tg.start_soon(gate.wait)
        await anyio.wait_all_tasks_blocked()
        thread = threading.Thread(target=gate.set)
        thread.start()
        with anyio.fail_after(3600):
            await gate.wait()
        thread.join()


def test_unused_gate_holds_no_resources() -> None:
    gate = Gate()
    gate.set()
    del gate
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()


async def test_cancelled_wait_leaves_no_waiter() -> None:
    gate = Gate()
    with anyio.move_on_after(1):
        await gate.wait()
    assert gate._waiting == []
