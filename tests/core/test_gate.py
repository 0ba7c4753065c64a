from __future__ import annotations

import sys
import threading

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
