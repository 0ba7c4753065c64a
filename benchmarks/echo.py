"""What an echo call costs the server, and how late the echo is: ours beside plain aiortc.

``python benchmarks/echo.py [--calls 10] [--seconds 10]`` runs each kind of server in a process of
its own, with the same callers, and prints processor time and latency. Compare the rows of one run
with each other; two machines, or two runs on a busy one, say little.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import numpy as np
from anyio.streams.text import TextReceiveStream

from fastrtc_anyio import RtcConfiguration, Stream, StreamHandler
from fastrtc_anyio._cli.client import discard_backlog
from fastrtc_anyio._cli.demo import Echo
from fastrtc_anyio._cli.measure import compare
from fastrtc_anyio._peers.portal import Portal, open_portal
from fastrtc_anyio._peers.webrtc import WebRTCPeer
from fastrtc_anyio._signaling.requests import SessionDescription
from fastrtc_anyio.testing import speech_like

LOOPBACK = RtcConfiguration(addresses=("127.0.0.1",))
RATE = 48_000
SERVERS = ("aiortc", "ours async trio", "ours async asyncio", "ours sync trio")


# The servers. Each reads offers from standard input and writes answers, a line of JSON each.


class SyncEcho(StreamHandler):
    def __init__(self) -> None:
        super().__init__(output_sample_rate=RATE)
        self.frames: list[Any] = []

    def receive(self, frame: Any) -> None:
        self.frames.append(frame)

    def emit(self) -> Any:
        return self.frames.pop(0) if self.frames else None

    def copy(self) -> SyncEcho:
        return SyncEcho()


async def serve_ours(handler: Any) -> None:
    stream = Stream(
        handler, modality="audio", concurrency_limit=None, server_rtc_configuration=LOOPBACK
    )
    async with stream:
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            answer = await stream.offer({"type": "offer", "sdp": json.loads(line)})
            print(json.dumps(answer["sdp"]), flush=True)


async def serve_aiortc() -> None:
    """Plain aiortc: each track is sent back as it comes."""
    from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

    from fastrtc_anyio._peers.webrtc.network import choose_addresses

    connections = []
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connections.append(pc)
        pc.on("track", pc.addTrack)
        await pc.setRemoteDescription(RTCSessionDescription(json.loads(line), "offer"))
        choose_addresses(pc.getTransceivers()[0].sender.transport, LOOPBACK)
        await pc.setLocalDescription()
        print(json.dumps(pc.localDescription.sdp), flush=True)
    for pc in connections:
        await pc.close()


def serve(kind: str) -> None:
    match kind.split():
        case ["aiortc"]:
            asyncio.run(serve_aiortc())
        case ["ours", "async", backend]:
            anyio.run(serve_ours, Echo, backend=backend)
        case [_, _, backend]:
            anyio.run(serve_ours, SyncEcho, backend=backend)


# The callers.


@asynccontextmanager
async def open_process(kind: str) -> AsyncGenerator[Any, None]:
    command = [sys.executable, __file__, "--serve", kind]
    async with await anyio.open_process(command, stdin=subprocess.PIPE, stderr=None) as process:
        yield process
        assert process.stdin is not None
        await process.stdin.aclose()
        await process.wait()


async def measure(kind: str, calls: int, seconds: float) -> tuple[float, float]:
    """Returns processor time, in percent of a core, and the median latency in seconds."""
    async with open_portal() as portal, open_process(kind) as process:
        lines = TextReceiveStream(process.stdout)
        peers = [await connect(portal, process, lines) for _ in range(calls)]
        speech = speech_like(RATE, seconds)
        latencies: list[float] = []
        before = processor_seconds(process.pid)
        began = anyio.current_time()
        async with anyio.create_task_group() as tg:
            for peer in peers:
                tg.start_soon(talk, peer, speech, latencies)
        used = processor_seconds(process.pid) - before
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
    heard = np.zeros(speech.shape[1] + 2 * RATE, np.int16)
    position: int | None = None
    await discard_backlog(peer)
    await peer.audio_out.send(speech)
    began = anyio.current_time()
    with anyio.move_on_after(speech.shape[1] / RATE + 0.5):
        async for frame in peer.audio_in:
            if position is None:
                position = round((anyio.current_time() - began) * RATE)
            samples = frame.samples[0][: heard.size - position]
            heard[position : position + samples.size] = samples
            position += samples.size
    latencies.append(compare(speech[0], heard, RATE).lag)


def processor_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def main(calls: int, seconds: float) -> None:
    print(f"{calls} calls of {seconds:g} s")
    print(f"{'server':20}  processor  of aiortc's  echo after")
    reference: float | None = None
    for kind in SERVERS:
        percent, latency = await measure(kind, calls, seconds)
        reference = reference or percent
        print(f"{kind:20}  {percent:7.1f} %  {percent / reference:10.2f}  {latency * 1e3:7.0f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--serve", choices=SERVERS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    else:
        anyio.run(main, options.calls, options.seconds, backend="trio")
