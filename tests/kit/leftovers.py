"""Check that an ended call leaves nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest

from fastrtc_anyio._peers.portal import Portal, open_portal

Held = tuple[int, int, int]


async def count_held(portal: Portal) -> Held:
    """Count the tasks of the portal, the decoder threads and the open files."""

    async def count() -> int:
        return len(asyncio.all_tasks())

    decoders = sum("decoder" in thread.name for thread in threading.enumerate())
    return await portal.call(count), decoders, len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def nothing_left(caplog: pytest.LogCaptureFixture) -> AsyncGenerator[Portal, None]:
    """Check that the block leaves no task, thread, socket or record of asyncio."""
    async with open_portal() as portal:
        before = await count_held(portal)
        yield portal
        with anyio.move_on_after(10):
            while any(a > b for a, b in zip(await count_held(portal), before, strict=True)):
                await anyio.sleep(0.02)
        after = await count_held(portal)
        assert all(a <= b for a, b in zip(after, before, strict=True)), (before, after)
    gc.collect()
    assert [r.getMessage() for r in caplog.records if r.name == "asyncio"] == []


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
