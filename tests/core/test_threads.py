from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.gate import Gate
from fastrtc_anyio._core.host import Host
from fastrtc_anyio._core.threads import Worker, run_sync

variable: ContextVar[str] = ContextVar("variable", default="unset")


async def test_calls_run_on_one_daemon_thread() -> None:
    worker = Worker("test")

    def where() -> tuple[int, str, bool]:
        thread = threading.current_thread()
        return threading.get_ident(), thread.name, thread.daemon

    first, second = await worker.run(where), await worker.run(where)
    assert first == second
    assert first[0] != threading.get_ident()
    assert first[1:] == ("test", True)
    await worker.aclose()


async def test_run_passes_arguments_results_and_errors() -> None:
    worker = Worker("test")
    assert await worker.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await worker.run(divmod, 1, 0)
    assert await worker.run(divmod, 7, 2) == (3, 1)
    await worker.aclose()


async def test_context_variables_reach_the_thread() -> None:
    worker = Worker("test")
    variable.set("mine")
    assert await worker.run(variable.get) == "mine"
    await worker.aclose()


async def test_call_cancelled_before_the_thread_begins_it_is_not_made() -> None:
    worker, release, calls = Worker("test"), threading.Event(), list[int]()

    def block() -> None:
        release.wait()

    worker.post(block)
    async with anyio.create_task_group() as tg:
        tg.start_soon(worker.run, calls.append, 1)
        while not worker.busy:
            await checkpoint()
        tg.cancel_scope.cancel()
    release.set()
    await worker.aclose()
    assert calls == []
    assert not worker.busy


async def test_cancelled_call_keeps_worker_busy_until_it_returns() -> None:
    worker, release, entered = Worker("test"), threading.Event(), Gate()
    results: list[int] = []

    def block() -> int:
        entered.set()
        release.wait()
        return 1

    async with anyio.create_task_group() as tg:

        async def call() -> None:
            results.append(await worker.run(block))

        tg.start_soon(call)
        await entered.wait()
        tg.cancel_scope.cancel()
    assert _is_busy(worker)
    with pytest.raises(RuntimeError, match="still busy with an earlier call"):
        await worker.run(int)
    release.set()
    await worker.aclose()
    assert not _is_busy(worker)
    assert results == []


async def test_error_of_abandoned_call_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    worker, release, entered = Worker("test"), threading.Event(), Gate()

    def fail() -> None:
        entered.set()
        release.wait()
        raise ValueError("too late")

    async with anyio.create_task_group() as tg:
        tg.start_soon(worker.run, fail)
        await entered.wait()
        tg.cancel_scope.cancel()
    release.set()
    await worker.finish(lambda: None)
    await worker.aclose()
    (record,) = caplog.records
    assert record.getMessage() == "test failed after it was abandoned"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "too late"


def _is_busy(worker: Worker) -> bool:
    return worker.busy


async def test_aclose_before_first_call() -> None:
    await Worker("test").aclose()


async def test_host_post_from_another_thread_runs_on_the_loop() -> None:
    host, gate = Host(), Gate()
    seen: list[bool] = []
    assert host.is_current_thread

    def note() -> None:
        seen.append(host.is_current_thread)
        gate.set()

    def post() -> None:
        seen.append(host.is_current_thread)
        host.post(note)

    threading.Thread(target=post).start()
    await gate.wait()
    assert seen == [False, True]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_host_post_after_end_of_loop_is_ignored(backend: str) -> None:
    async def main() -> Host:
        return Host()

    host = anyio.run(main, backend=backend)
    host.post(lambda: None)


async def test_host_asyncio_loop_is_set_under_asyncio_only(anyio_backend_name: str) -> None:
    assert (Host().asyncio_loop is not None) == (anyio_backend_name == "asyncio")


async def test_run_sync_requires_a_synchronous_function() -> None:
    async def model() -> None: ...

    for wrong in (5, model):
        with pytest.raises(TypeError, match="function must be a synchronous function; got"):
            await run_sync(cast(Any, wrong))
