"""The memory of a connection is freed once all steps of its end have ended, however late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fastrtc_anyio._peers.webrtc.closing import Closing, Step
from fastrtc_anyio._peers.webrtc.tasks import ConnectionTasks
from tests.kit.backends import on_asyncio

pytestmark = on_asyncio

LIMIT = 0.1


class Steps(Closing):
    """Closes nothing, in the given steps."""

    def steps(self) -> tuple[Step, ...]:
        functions: list[Callable[[], Awaitable[object]]] = self.media  # type: ignore[assignment]
        return tuple(Step(f"step {i}", LIMIT, f) for i, f in enumerate(functions))  # type: ignore[arg-type]


def closing(*functions: Callable[[], Awaitable[object]]) -> Closing:
    nothing: Any = None
    media: Any = list(functions)
    tasks = ConnectionTasks(lambda name, error: None)
    return Steps(tasks, nothing, nothing, nothing, nothing, media, nothing, False, nothing)


async def end_at_once() -> None:
    await asyncio.sleep(0)


async def fail() -> None:
    raise ValueError("a part cannot be stopped")


async def end_late() -> None:
    """Take long, even when cancelled."""
    try:
        await asyncio.sleep(2 * LIMIT)
    except asyncio.CancelledError:
        await asyncio.sleep(5 * LIMIT)


@pytest.mark.parametrize("functions", [(), (end_at_once,), (end_at_once, fail)])
async def test_end_is_reported_with_the_last_step(functions: Any) -> None:
    ended: list[bool] = []
    await closing(*functions).run(lambda: ended.append(True))
    assert ended == [True]


@pytest.mark.parametrize("functions", [(end_late,), (end_late, end_at_once, end_late)])
async def test_end_is_reported_after_late_steps(functions: Any) -> None:
    ended: list[bool] = []
    await closing(*functions).run(lambda: ended.append(True))
    assert ended == []
    await asyncio.sleep(10 * LIMIT)
    assert ended == [True]


async def test_step_that_never_ends() -> None:
    ended: list[bool] = []
    stop = asyncio.Event()

    async def hang() -> None:
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                continue

    await closing(hang).run(lambda: ended.append(True))
    await asyncio.sleep(100 * LIMIT)
    assert ended == []
    stop.set()
    await asyncio.sleep(LIMIT)
    assert ended == [True]
