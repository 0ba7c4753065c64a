"""Calls from the host to the portal's loop."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest

from fastrtc_anyio._peers.portal import Portal, open_portal
from tests.kit.waiting import wait_until


async def test_call_runs_on_portal_thread() -> None:
    async def where(x: int) -> tuple[int, int]:
        await asyncio.sleep(0)
        return threading.get_ident(), x

    async with open_portal(Portal()) as portal:
        ident, x = await portal.call(where, 42)
    assert ident != threading.get_ident()
    assert x == 42


async def test_call_raises_same_exception_object() -> None:
    error = KeyError("x")

    async def fail() -> None:
        raise error

    async with open_portal(Portal()) as portal:
        with pytest.raises(KeyError) as caught:
            await portal.call(fail)
    assert caught.value is error


async def test_cancelled_call_waits_for_coroutine() -> None:
    steps: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.05)
            steps.append("ended")

    async with open_portal(Portal()) as portal:
        with anyio.move_on_after(0.05) as scope:
            await portal.call(slow)
        assert scope.cancelled_caught
        assert steps == ["ended"]


async def test_call_in_cancelled_scope() -> None:
    started: list[str] = []

    async def note() -> None:
        started.append("started")

    async with open_portal(Portal()) as portal:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await portal.call(note)
        assert scope.cancelled_caught


async def test_blocked_portal_does_not_block_host() -> None:
    release = threading.Event()

    async def block() -> bool:
        return release.wait(10)  # blocks the loop

    released: list[bool] = []

    async def call(portal: Portal) -> None:
        released.append(await portal.call(block))

    async with open_portal(Portal()) as portal, anyio.create_task_group() as tg:
        tg.start_soon(call, portal)
        for _ in range(10):
            await anyio.sleep(0.001)
        release.set()  # reached although the portal's loop is blocked
    assert released == [True]


async def test_last_user_stops_thread() -> None:
    portal = Portal("test-portal")

    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("test-portal")]

    async with open_portal(portal):
        async with open_portal(portal):
            assert threads() == ["test-portal"]
        assert threads() == ["test-portal"]
    await wait_until(lambda: threads() == [])
    async with open_portal(portal):
        assert threads() == ["test-portal"]


async def test_concurrent_users_open_and_close() -> None:
    portal = Portal("test-portal")

    async def seven() -> int:
        await asyncio.sleep(0)
        return 7

    async def use() -> None:
        async with open_portal(portal) as opened:
            assert await opened.call(seven) == 7

    async with anyio.create_task_group() as tg:
        for _ in range(20):
            tg.start_soon(use)


async def test_call_on_stopped_portal_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="the portal is not running"):
        await Portal().call(asyncio.sleep, 0)


async def test_two_portals_calling_each_other_do_not_deadlock() -> None:
    """Each side makes a hundred concurrent calls to the other."""
    async with open_portal(Portal("one")) as one, open_portal(Portal("two")) as two:

        async def ask(other: Portal, count: int) -> int:
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            loop = asyncio.get_running_loop()
            other.post(lambda: loop.call_soon_threadsafe(future.set_result, count))
            return await future

        results: list[int] = []

        async def run(portal: Portal, other: Portal, i: int) -> None:
            results.append(await portal.call(ask, other, i))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tg:
                for i in range(100):
                    tg.start_soon(run, one, two, i)
                    tg.start_soon(run, two, one, i)
        assert sorted(results) == sorted([*range(100), *range(100)])
