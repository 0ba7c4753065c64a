"""Offer more calls than a server has time for, and count the frames that admitted calls miss.

``python -m benchmarks.overload [--work 4] [--percent 150] [--seconds 20] [--processes 2]
[--compare]`` serves an echo that computes ``--work`` ms for each frame, in a process. It measures
the share of a core that one call needs, offers ``--percent`` of the calls that fill one core from
other processes, one after the other, and prints how many were refused. ``--compare`` adds a row for
the same server without admission control: ``Limits(lag=None)``.

A frame is missed if it arrives 100 ms too late for its place, or not at all, or carries silence
instead of the echo. Needs a machine with two idle cores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import numpy as np
from anyio.streams.text import TextReceiveStream

from benchmarks.processes import cpu_seconds
from fastrtc_anyio import AsyncStreamHandler, Limits, PeerError, RtcConfiguration, Stream
from fastrtc_anyio._peers.portal import Portal, open_portal
from fastrtc_anyio._peers.webrtc import WebRTCPeer
from fastrtc_anyio._signaling.requests import SessionDescription
from fastrtc_anyio.testing import tone

LOOPBACK = RtcConfiguration(addresses=("127.0.0.1",))
RATE = 48_000
FRAME = 0.02
TOLERANCE = 0.1
"""Seconds by which a frame may be late: the delay of a usual jitter buffer."""
SILENCE = 500
"""Peak below which a frame is not an echo of the tone."""
SETTLING = 1.0
"""Seconds after the first echo until frames are counted."""
INTERVAL = 0.5
"""Seconds between two calls."""


class Worker(AsyncStreamHandler):
    """An echo that computes on the event loop for each frame."""

    def __init__(self, work: float) -> None:
        super().__init__(output_sample_rate=RATE)
        self.work = work
        self.to_client, self.from_client = anyio.create_memory_object_stream[Any](50)

    async def receive(self, frame: Any) -> None:
        end = time.thread_time() + self.work
        while time.thread_time() < end:
            pass
        await self.to_client.send(frame)

    async def emit(self) -> Any:
        return await self.from_client.receive()

    async def shutdown(self) -> None:
        self.to_client.close()
        self.from_client.close()

    def copy(self) -> Worker:
        return Worker(self.work)


async def serve(work: float, lag: float | None) -> None:
    from starlette.applications import Starlette

    from fastrtc_anyio.server import open_server

    app = Starlette()
    stream = Stream(
        Worker(work),
        modality="audio",
        concurrency_limit=None,
        server_rtc_configuration=LOOPBACK,
        limits=Limits(lag=lag),
        verbose=False,
    )
    stream.mount(app)
    async with open_server(app) as url:
        print(url, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


class Listener:
    """Counts the frames of one call that come in time and carry the echo."""

    def __init__(self) -> None:
        self.frames = 0
        self.missed = 0
        self._base: float | None = None
        self._number = 0
        self._begun: float | None = None

    def hear(self, samples: Any, now: float) -> None:
        duration = samples.shape[1] / RATE
        peak = int(np.abs(samples.astype(np.int32)).max(initial=0))
        if self._begun is None:
            self._begun = now if peak > SILENCE else None
            return
        if now - self._begun < SETTLING:
            return
        place = now - self._number * FRAME
        self._base = base = place if self._base is None else min(self._base, place)
        late = place - base
        count = max(round(duration / FRAME), 1)
        self._number += count
        self.frames += count
        if late > TOLERANCE:  # the jitter buffer waits for the later frames from now on
            self.missed += round(late / FRAME)
            self.frames += round(late / FRAME)
            self._base = place
        elif peak < SILENCE:
            self.missed += count


async def call(portal: Portal, url: str, seconds: float) -> dict[str, int] | None:
    """Place a call, and return its counts; None if it was refused."""
    peer = WebRTCPeer(portal, sample_rate=RATE, configuration=LOOPBACK)
    try:
        offer = await peer.offer()
        async with httpx.AsyncClient(timeout=30) as http:
            body = {"type": "offer", "sdp": offer.sdp, "webrtc_id": os.urandom(16).hex()}
            reply = await http.post(f"{url}/webrtc/offer", json=body)
        if reply.status_code in (429, 503):
            return None
        reply.raise_for_status()
        await peer.accept(SessionDescription("answer", reply.json()["sdp"]))
        await peer.wait_connected()
        listener = Listener()
        await peer.audio_out.send((RATE, tone(440, RATE, seconds=seconds + 1)))
        with anyio.move_on_after(seconds):
            async for frame in peer.audio_in:
                listener.hear(frame.samples, anyio.current_time())
            return None  # rejected when it connected
        return {"frames": listener.frames, "missed": listener.missed}
    except PeerError:
        return None
    finally:
        with anyio.CancelScope(shield=True):
            await peer.aclose()


async def place_calls(url: str, calls: int, seconds: float, delay: float, step: float) -> None:
    """Place calls at their times; all end at the same time. Print their counts."""
    results: list[dict[str, int] | None] = []

    async def place(number: int) -> None:
        begin = delay + number * step
        await anyio.sleep(begin)
        results.append(await call(portal, url, seconds - begin))

    async with open_portal() as portal, anyio.create_task_group() as tasks:
        for number in range(calls):
            tasks.start_soon(place, number)
    print(json.dumps(results), flush=True)


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "benchmarks.overload", *map(str, args)]


@asynccontextmanager
async def open_server_process(work: float, lag: float | None) -> AsyncGenerator[Any, None]:
    arguments = command("--serve", work, "none" if lag is None else lag)
    async with await anyio.open_process(
        arguments, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        text = await TextReceiveStream(process.stdout).receive()
        yield process, text.strip()
        assert process.stdin is not None
        await process.stdin.aclose()
        await process.wait()


async def offer_calls(
    url: str, calls: int, seconds: float, processes: int
) -> list[dict[str, int] | None]:
    results: list[dict[str, int] | None] = []

    async def run(index: int) -> None:
        share = len(range(index, calls, processes))
        step = INTERVAL * processes
        arguments = command("--place", url, share, seconds, index * INTERVAL, step)
        done = await anyio.run_process(arguments, stderr=None)
        results.extend(json.loads(done.stdout))

    async with anyio.create_task_group() as tasks:
        for index in range(processes):
            tasks.start_soon(run, index)
    return results


async def measure_share(work: float) -> float:
    """Return the share of a core that one call needs."""
    seconds = 4.0
    async with open_server_process(work, None) as (process, url):
        await offer_calls(url, 1, 1, 1)  # loads everything
        before = cpu_seconds(process.pid)
        await offer_calls(url, 1, seconds, 1)
        return (cpu_seconds(process.pid) - before) / seconds


async def main(work: float, percent: float, seconds: float, processes: int, compare: bool) -> None:
    share = await measure_share(work)
    capacity = 1 / share
    calls = math.ceil(capacity * percent / 100)
    print(f"one call needs {share:.1%} of a core; {calls} calls are offered, {percent:g} %")
    print(f"{'':26}  admitted  refused  missed frames, all  worst call")
    for lag in (0.1, None) if compare else (0.1,):
        async with open_server_process(work, lag) as (_, url):
            results = await offer_calls(url, calls, seconds + calls * INTERVAL, processes)
        counts = [one for one in results if one is not None and one["frames"]]
        missed = sum(one["missed"] for one in counts) / max(sum(one["frames"] for one in counts), 1)
        worst = max((one["missed"] / one["frames"] for one in counts), default=0)
        refused = results.count(None)
        name = f"Limits(lag={lag})"
        columns = f"{len(counts):8}  {refused:7}  {missed:18.2%}  {worst:10.2%}"
        print(f"{name:26}  {columns}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        limit = None if sys.argv[3] == "none" else float(sys.argv[3])
        anyio.run(serve, float(sys.argv[2]), limit, backend="trio")
    elif sys.argv[1:2] == ["--place"]:
        place_url, count, *times = sys.argv[2:]
        duration, delay, step = map(float, times)
        anyio.run(place_calls, place_url, int(count), duration, delay, step, backend="asyncio")
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--work", type=float, default=4.0, help="ms of computation a frame")
        parser.add_argument("--percent", type=float, default=150)
        parser.add_argument("--seconds", type=float, default=20)
        parser.add_argument("--processes", type=int, default=2)
        parser.add_argument("--compare", action="store_true")
        options = parser.parse_args()
        anyio.run(
            main,
            options.work / 1000,
            options.percent,
            options.seconds,
            options.processes,
            options.compare,
            backend="trio",
        )
