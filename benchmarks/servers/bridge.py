"""Sessions without a network: a thread hands frames to handlers, and takes theirs, every 20 ms.

``python -m benchmarks.servers bridge CALLS SECONDS BACKEND [TREE]`` prints the CPU time of the
process and its context switches for each frame of a call. Uses private names of the package.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import anyio
import numpy as np

from benchmarks.processes import context_switches
from benchmarks.servers.ours import Echo
from fastrtc_anyio import Session
from fastrtc_anyio._core.host import collect_posts
from fastrtc_anyio._driver.factory import make_driver_factory
from fastrtc_anyio._media.frames import AudioFrame
from fastrtc_anyio._peers.asyncio_bridge import open_asyncio_bridge
from fastrtc_anyio._peers.memory import MemoryPeer

RATE = 24_000
SETTLE = 1.0


class ThreadPeer(MemoryPeer):
    """Connection whose transport is a thread."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__(sample_rate=sample_rate)
        self._in._link.clock = time.monotonic  # which a thread may call, too

    async def _play(self) -> None:
        pass

    def step(self, frame: AudioFrame) -> None:
        """Deliver a frame, and take the next one."""
        self._in.push(frame)
        self._out.pull()


class Transport(threading.Thread):
    """The thread. It measures from its own start to its end, without :data:`SETTLE`."""

    def __init__(self, peers: Sequence[ThreadPeer], frames: int) -> None:
        super().__init__(daemon=True)
        self.values: dict[str, float] = {}
        self._peers = peers
        self._frames = frames

    def run(self) -> None:
        settle = round(SETTLE * 50)
        samples = np.full((1, RATE // 50), 1_000, np.int16)
        due, pid = time.monotonic(), os.getpid()
        cpu, switches = 0.0, 0
        for number in range(settle + self._frames):
            if number == settle:
                cpu, switches = time.process_time(), context_switches(pid)
            with collect_posts():
                for peer in self._peers:
                    peer.step(AudioFrame(RATE, samples))
            due += 0.02
            time.sleep(max(0.0, due - time.monotonic()))
        count = self._frames * len(self._peers)
        self.values = {
            "cpu": (time.process_time() - cpu) / count,
            "switches": (context_switches(pid) - switches) / count,
        }


def serve(calls: str, frames: int, backend: str) -> None:
    anyio.run(_serve, int(calls), frames, backend=backend)


async def _serve(calls: int, frames: int) -> None:
    make_driver = make_driver_factory(Echo(RATE), "audio", "send-receive")
    async with AsyncExitStack() as stack:
        bridge = await stack.enter_async_context(open_asyncio_bridge())
        tasks = await stack.enter_async_context(anyio.create_task_group())
        peers: list[ThreadPeer] = []
        for _ in range(calls):
            driver = make_driver()
            peer = ThreadPeer(sample_rate=driver.needs.sample_rate)
            peers.append(await stack.enter_async_context(peer.open()))
            session = Session(peer, driver, limits=None, identity=None, asyncio_bridge=bridge)
            tasks.start_soon(session.run)
            peer.client.connect()
        transport = Transport(peers, frames)
        transport.start()
        while transport.is_alive():
            await anyio.sleep(0.1)
        print(json.dumps(transport.values), flush=True)
        tasks.cancel_scope.cancel()
