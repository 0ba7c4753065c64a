"""Resources of the process: tasks, threads, file descriptors, and objects of connections."""

from __future__ import annotations

import asyncio
import gc
import heapq
import logging
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import anyio
import trio
from aiortc import RTCPeerConnection

from fastrtc_anyio import Session
from fastrtc_anyio._core.host import Host
from fastrtc_anyio._peers.lifecycle import LifecyclePeer
from fastrtc_anyio._peers.portal import open_portal
from fastrtc_anyio.outputs import OutputReader

from .waiting import SECONDS

_OWN = (LifecyclePeer, OutputReader, RTCPeerConnection, Session)


@dataclass(frozen=True)
class Resources:
    """Counts at one moment."""

    tasks: int
    """Tasks of the running event loop and of the portal's."""
    threads: int
    files: int
    objects: int
    """Living sessions, peers, connections and readers."""

    def excess(self, before: Resources) -> dict[str, int]:
        """Return the counts that have grown, and by how many."""
        earlier = asdict(before)
        return {k: n - earlier[k] for k, n in asdict(self).items() if n > earlier[k]}


async def count_resources() -> Resources:
    """Count the resources of the process.

    Threads of pools are left out: those of anyio, trio, asyncio and the portal.
    """

    async def count() -> int:
        _drop_cancelled_timers()
        return len(asyncio.all_tasks()) - 1

    async with open_portal() as portal:
        tasks = await portal.call(count)
    if Host().asyncio_loop is None:
        tasks += trio.lowlevel.current_statistics().tasks_living
    else:
        tasks += len(asyncio.all_tasks())
        _drop_cancelled_timers()
    pools = ("fastrtc-portal_", "AnyIO worker", "Trio thread", "asyncio_")
    names = [thread.name for thread in threading.enumerate()]
    gc.collect()
    return Resources(
        tasks,
        sum(not name.startswith(pools) for name in names),
        len(os.listdir("/proc/self/fd")),
        sum(isinstance(one, _OWN) for one in gc.get_objects()),
    )


def _drop_cancelled_timers() -> None:
    """Do what asyncio does once it has many: until then each keeps the context of its task."""
    loop: Any = asyncio.get_running_loop()
    loop._scheduled = [timer for timer in loop._scheduled if not timer.cancelled()]
    heapq.heapify(loop._scheduled)
    loop._timer_cancelled_count = 0


async def wait_no_more(before: Resources) -> None:
    """Wait until no count is above ``before``: some resources need a moment to end.

    Raises:
        AssertionError: a count stays above.
    """
    excess: dict[str, int] = {}
    with anyio.move_on_after(SECONDS):
        while excess := (await count_resources()).excess(before):
            await anyio.sleep(0.1)
    assert not excess, f"more than before: {excess}"


class Records(logging.Handler):
    """Keeps the records above WARNING of every logger."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING + 1)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s: %(message)s"))
        self._found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._found.append(self.format(record))

    def check(self) -> None:
        """Raise AssertionError if there is a record."""
        found, self._found = self._found, []
        assert not found, "records above WARNING:\n" + "\n".join(found)


@contextmanager
def record_errors() -> Generator[Records, None, None]:
    """Keep all records above WARNING while the block runs."""
    records = Records()
    root = logging.getLogger()
    root.addHandler(records)
    try:
        yield records
    finally:
        root.removeHandler(records)
