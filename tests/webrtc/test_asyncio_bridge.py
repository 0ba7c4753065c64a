"""Asyncio-only code, called from handlers under trio and asyncio."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import anyio
import pytest

from fastrtc_anyio import Session
from fastrtc_anyio._peers.asyncio_bridge import open_asyncio_bridge
from fastrtc_anyio.testing import open_call
from tests.kit.handlers import Quiet


async def double(number: int) -> int:
    """Uses an asyncio future, which trio cannot await."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, future.set_result, 2 * number)
    return await future


async def test_handler_awaits_asyncio_coroutine() -> None:
    class Doubles(Quiet):
        async def start_up(self) -> None:
            self.calls.append(str(await self.run_asyncio(double, 21)))
            with pytest.raises(ZeroDivisionError):
                await self.run_asyncio(divide)
            await self.send_message("done")

    async def divide() -> float:
        await asyncio.sleep(0)
        return 1 / 0

    handler = Doubles()
    async with open_call(handler) as call:
        assert await call.client.receive_message() == "done"
    assert handler.calls == ["42", "shutdown"]


async def test_two_runs_share_asyncio_objects() -> None:
    async def serve(session: Session) -> None:
        queue: Any = await session.run_asyncio(open_queue)
        async with anyio.create_task_group() as tg:
            tg.start_soon(session.run_asyncio, queue.put, "from one task to the other")
            session.messages.send_nowait(await session.run_asyncio(queue.get))
        await anyio.sleep_forever()

    async def open_queue() -> Any:
        return asyncio.Queue[str]()

    async with open_call(serve) as call:
        assert await call.client.receive_message() == "from one task to the other"


async def test_cancelled_run_cancels_coroutine_and_waits() -> None:
    happened: list[str] = []

    async def slow() -> None:
        happened.append("began")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            happened.append("cleaned up")
            raise

    async with open_asyncio_bridge() as bridge:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tg:
                tg.start_soon(bridge.run, slow)
                while not happened:
                    await anyio.sleep(0.01)
                tg.cancel_scope.cancel()
    assert happened[0] == "began"
    if bridge._portal is not None:  # type: ignore[attr-defined]
        # Without a bridge, under asyncio, the task group cancels the clean-up as well.
        assert happened == ["began", "cleaned up"]


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_coroutine_cancelled_on_its_loop_is_a_runtime_error() -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def slow() -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await asyncio.sleep(60)

    async with open_asyncio_bridge() as bridge:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tg:

                async def call() -> None:
                    with pytest.raises(RuntimeError, match=r"slow.* was cancelled"):
                        await bridge.run(slow)

                tg.start_soon(call)
                while not tasks:
                    await anyio.sleep(0.01)
                bridge.loop.call_soon_threadsafe(tasks[0].cancel)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_thread_starts_on_first_use_and_ends_with_block() -> None:
    def there() -> bool:
        return any(thread.name == "fastrtc-sdk" for thread in threading.enumerate())

    async with open_asyncio_bridge() as bridge:
        assert not there()
        assert await bridge.run(double, 1) == 2
        assert there()
        loops = {await bridge.run(running_loop) for _ in range(3)}
        assert loops == {bridge.loop}
    assert not there()


async def running_loop() -> Any:
    await asyncio.sleep(0)
    return asyncio.get_running_loop()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_result_that_races_cancellation_is_returned() -> None:
    got: list[str] = []

    async def open_socket() -> str:
        with suppress(asyncio.CancelledError):  # as if it had just completed
            await asyncio.sleep(60)
        return "a socket"

    async with open_asyncio_bridge() as bridge:
        with anyio.move_on_after(0.1) as scope:
            got.append(await bridge.run(open_socket))
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert got == ["a socket"]


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_coroutine_that_swallows_cancellation_is_abandoned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fastrtc_anyio._peers.asyncio_bridge._GRACE_SECONDS", 0.2)
    stop = threading.Event()

    async def stubborn() -> None:
        while not stop.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    try:
        with anyio.fail_after(10):
            async with open_asyncio_bridge() as bridge:
                with anyio.move_on_after(0.1):
                    await bridge.run(stubborn)
                stop.set()
        assert "did not end after its cancellation" in caplog.text
        with pytest.raises(RuntimeError, match="ended when its stream was closed"):
            _ = bridge.loop
    finally:
        stop.set()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_blocked_loop_is_abandoned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fastrtc_anyio._peers.asyncio_bridge._GRACE_SECONDS", 0.2)
    release = threading.Event()
    try:
        with anyio.fail_after(10):
            async with open_asyncio_bridge() as bridge:
                loop = bridge.loop
                assert bridge.loop is loop
                loop.call_soon_threadsafe(release.wait)
        assert "handler.loop did not stop" in caplog.text
    finally:
        release.set()
