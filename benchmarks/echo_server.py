"""Echo servers for echo.py. Offers arrive on stdin, answers leave on stdout: JSON lines.

``python benchmarks/echo_server.py aiortc | async-trio | async-asyncio | sync-trio``. The servers
of fastrtc_anyio use public names only, so that echo.py can run them from an older source tree.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import anyio

from fastrtc_anyio import AsyncStreamHandler, RtcConfiguration, Stream, StreamHandler

LOOPBACK = RtcConfiguration(addresses=("127.0.0.1",))
RATE = 48_000


class Echo(AsyncStreamHandler):
    def __init__(self) -> None:
        super().__init__(output_sample_rate=RATE)
        self.to_client, self.from_client = anyio.create_memory_object_stream[Any](50)

    async def receive(self, frame: Any) -> None:
        await self.to_client.send(frame)

    async def emit(self) -> Any:
        return await self.from_client.receive()

    async def shutdown(self) -> None:
        self.to_client.close()
        self.from_client.close()

    def copy(self) -> Echo:
        return Echo()


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


async def serve_handler(handler: type[AsyncStreamHandler | StreamHandler]) -> None:
    stream = Stream(
        handler, modality="audio", concurrency_limit=None, server_rtc_configuration=LOOPBACK
    )
    async with stream:
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            answer = await stream.offer({"type": "offer", "sdp": json.loads(line)})
            print(json.dumps(answer["sdp"]), flush=True)


async def serve_aiortc() -> None:
    """Serve with plain aiortc, which sends each received track back."""
    from aioice import ice
    from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

    ice.get_host_addresses = lambda **options: list(LOOPBACK.addresses or ())
    connections = []
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connections.append(pc)
        pc.on("track", pc.addTrack)
        await pc.setRemoteDescription(RTCSessionDescription(json.loads(line), "offer"))
        await pc.setLocalDescription()
        print(json.dumps(pc.localDescription.sdp), flush=True)
    for pc in connections:
        await pc.close()


def main(kind: str) -> None:
    match kind.split("-"):
        case ["aiortc"]:
            asyncio.run(serve_aiortc())
        case ["async", backend]:
            anyio.run(serve_handler, Echo, backend=backend)
        case ["sync", backend]:
            anyio.run(serve_handler, SyncEcho, backend=backend)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
