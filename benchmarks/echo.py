"""Measure the CPU time and the latency of echo calls, and compare them with plain aiortc.

``python benchmarks/echo.py [--calls 10] [--seconds 10] [--rounds 1] [--tree PATH]`` runs each
server in a process, with the same callers, and prints its CPU time and the latency of the echo.
``--tree`` also runs the servers of another source tree, such as an older version, in the same
rounds. Compare only rows of one run: different machines, or different runs on a busy machine, are
not comparable.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from anyio.streams.text import TextReceiveStream

from fastrtc_anyio import RtcConfiguration
from fastrtc_anyio._cli.client import discard_backlog
from fastrtc_anyio._cli.measure import compare
from fastrtc_anyio._peers.portal import Portal, open_portal
from fastrtc_anyio._peers.webrtc import WebRTCPeer
from fastrtc_anyio._signaling.requests import SessionDescription
from fastrtc_anyio.testing import speech_like

LOOPBACK = RtcConfiguration(addresses=("127.0.0.1",))
RATE = 48_000
KINDS = ("async-trio", "async-asyncio", "sync-trio")


@asynccontextmanager
async def open_server(kind: str, tree: Path | None) -> AsyncGenerator[Any, None]:
    command = [sys.executable, str(Path(__file__).with_name("echo_server.py")), kind]
    environment = dict(os.environ) if tree is None else {**os.environ, "PYTHONPATH": str(tree)}
    async with await anyio.open_process(
        command, stdin=subprocess.PIPE, stderr=None, env=environment
    ) as process:
        yield process
        assert process.stdin is not None
        await process.stdin.aclose()
        await process.wait()


async def measure(kind: str, tree: Path | None, calls: int, seconds: float) -> tuple[float, float]:
    """Return the CPU time in percent of a core, and the median latency in seconds."""
    async with open_portal() as portal, open_server(kind, tree) as process:
        lines = TextReceiveStream(process.stdout)
        peers = [await connect(portal, process, lines) for _ in range(calls)]
        speech = speech_like(RATE, seconds)
        latencies: list[float] = []
        before = cpu_seconds(process.pid)
        began = anyio.current_time()
        async with anyio.create_task_group() as tg:
            for peer in peers:
                tg.start_soon(talk, peer, speech, latencies)
        used = cpu_seconds(process.pid) - before
        elapsed = anyio.current_time() - began
        for peer in peers:
            await peer.aclose()
    return 100 * used / elapsed, statistics.median(latencies)


async def connect(portal: Portal, process: Any, lines: TextReceiveStream) -> WebRTCPeer:
    peer = WebRTCPeer(portal, sample_rate=RATE, configuration=LOOPBACK)
    offer = await peer.offer()
    await process.stdin.send((json.dumps(offer.sdp) + "\n").encode())
    text = ""
    while not text.endswith("\n"):
        text += await lines.receive()
    await peer.accept(SessionDescription("answer", json.loads(text)))
    await peer.wait_connected()
    return peer


async def talk(peer: WebRTCPeer, speech: Any, latencies: list[float]) -> None:
    received = np.zeros(speech.shape[1] + 2 * RATE, np.int16)
    position: int | None = None
    await discard_backlog(peer)
    await peer.audio_out.send((RATE, speech))
    began = anyio.current_time()
    with anyio.move_on_after(speech.shape[1] / RATE + 0.5):
        async for frame in peer.audio_in:
            if position is None:
                position = round((anyio.current_time() - began) * RATE)
            samples = frame.samples[0][: received.size - position]
            received[position : position + samples.size] = samples
            position += samples.size
    latencies.append(compare(speech[0], received, RATE).lag)


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def main(calls: int, seconds: float, rounds: int, trees: list[Path]) -> None:
    servers: list[tuple[str, str, Path | None]] = [("aiortc", "aiortc", None)]
    for kind in KINDS:
        servers.append((kind, kind, None))
        servers += [(f"{kind}, {tree}", kind, tree) for tree in trees]
    results: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(rounds):
        for name, kind, tree in servers:
            results[name].append(await measure(kind, tree, calls, seconds))
    print(f"{calls} calls of {seconds:g} s, median of {rounds} round(s)")
    width = max(map(len, results))
    print(f"{'server':{width}}  CPU time  of aiortc's  latency")
    reference = statistics.median(percent for percent, _ in results["aiortc"])
    for name, measured in results.items():
        percent, latency = (statistics.median(column) for column in zip(*measured, strict=True))
        ratio = percent / reference
        print(f"{name:{width}}  {percent:6.1f} %  {ratio:11.2f}  {latency * 1e3:4.0f} ms")


def source_tree(text: str) -> Path:
    if not (Path(text) / "fastrtc_anyio").is_dir():
        raise argparse.ArgumentTypeError(f"{text} contains no folder fastrtc_anyio")
    return Path(text).resolve()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tree", type=source_tree, action="append", default=[])
    options = parser.parse_args()
    anyio.run(main, options.calls, options.seconds, options.rounds, options.tree, backend="trio")
