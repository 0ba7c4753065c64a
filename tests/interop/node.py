"""libwebrtc as a caller: ``call.mjs`` or ``whep_node.mjs`` in a Node process."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from numpy.typing import NDArray

from fastrtc_anyio._media.frames import Int16Array
from tests.kit.waiting import SECONDS

from .pictures import from_i420, to_i420

HERE = Path(__file__).parent
LINE_LIMIT = 8_000_000
LOUD = 1000
"""Minimum level of a tone."""


def check_node() -> str:
    """Return the path of Node; fail without Node or its libwebrtc package."""
    node = shutil.which("node")
    if node is None:
        pytest.fail("Node is missing: apt-get install nodejs npm", pytrace=False)
    if not (HERE / "node_modules/@roamhq/wrtc/package.json").exists():
        pytest.fail("libwebrtc is missing: npm --prefix tests/interop ci", pytrace=False)
    return node


class NodeCaller:
    """A call from libwebrtc."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._events: list[dict[str, Any]] = []
        self._news = anyio.Event()
        self._ended = False

    async def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """Return the next event of a kind, including events that have arrived before."""
        wanted = {"event": event, **fields}
        with anyio.move_on_after(SECONDS):
            while True:
                for i, seen in enumerate(self._events):
                    if wanted.items() <= seen.items():
                        return self._events.pop(i)
                if self._ended:
                    break
                await self._news.wait()
        others = [str(other)[:100] for other in self._events]
        raise AssertionError(f"{wanted} did not come from libwebrtc, only {others}")

    async def order(self, order: str, **fields: Any) -> None:
        """Send an order; ``call.mjs`` lists them."""
        assert self._process.stdin is not None
        await self._process.stdin.send(json.dumps({"order": order, **fields}).encode() + b"\n")

    async def hear(self, seconds: float) -> tuple[Int16Array, int]:
        """Receive audio until ``seconds`` of it are not silence.

        Returns:
            int16, shape ``(channels, n)``, and the rate in Hz.
        """
        pieces: list[Int16Array] = []
        kind = (0, 0)
        loud = 0.0
        with anyio.move_on_after(SECONDS):
            while loud < seconds:
                await anyio.sleep(0.05)
                await self.order("audio")
                audio = await self.wait_for("audio")
                rate, channels = audio["sampleRate"], audio["channelCount"]
                flat = np.frombuffer(base64.b64decode(audio["samples"]), "<i2")
                if flat.size == 0:
                    continue
                if kind != (rate, channels):  # early silence may have another rate or layout
                    kind, pieces, loud = (rate, channels), [], 0.0
                pieces.append(flat.reshape(-1, channels).T)
                tens = np.abs(flat.astype(np.int32)).reshape(-1, rate * channels // 100)
                loud += np.count_nonzero(tens.max(axis=1) > LOUD) / 100
            return np.concatenate(pieces, axis=1), kind[0]
        raise AssertionError(f"heard {loud:.2f} s of sound, not {seconds:g} s")

    async def show(self, picture: NDArray[np.uint8]) -> None:
        """Set the picture of its camera, bgr24."""
        height, width = picture.shape[:2]
        data = base64.b64encode(to_i420(picture)).decode()
        await self.order("show", width=width, height=height, data=data)

    async def look(self) -> tuple[NDArray[np.uint8] | None, int]:
        """Return the latest received picture.

        Returns:
            bgr24, or None before the first picture; and the number of pictures so far.
        """
        await self.order("picture")
        seen = await self.wait_for("picture")
        if not seen["count"]:
            return None, 0
        data = base64.b64decode(seen["data"])
        return from_i420(data, seen["width"], seen["height"]), seen["count"]

    def kill(self) -> None:
        """Kill the process, without any farewell to the server."""
        self._process.kill()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        stdout = BufferedByteReceiveStream(self._process.stdout)
        try:
            while True:
                self._note(json.loads(await stdout.receive_until(b"\n", LINE_LIMIT)))
        except (anyio.IncompleteRead, anyio.EndOfStream):
            self._ended = True
            self._wake()

    def _note(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = anyio.Event()


@asynccontextmanager
async def open_caller(
    node: str, url: str, script: str = "call.mjs", **options: Any
) -> AsyncGenerator[NodeCaller, None]:
    """Call the stream at ``url``, and kill the caller at the end of the block.

    Args:
        node: Path of Node.
        url: URL of the server, or of the resource that the script needs.
        script: Name of the script.
        options: Options of the script.
    """
    command = [node, str(HERE / script), url, json.dumps(options)]
    async with (
        await anyio.open_process(command, stderr=None) as process,
        anyio.create_task_group() as tg,
    ):
        caller = NodeCaller(process)
        tg.start_soon(caller._read)
        try:
            yield caller
        finally:
            if process.returncode is None:
                process.kill()
            with anyio.CancelScope(shield=True):
                await process.wait()
            tg.cancel_scope.cancel()


@asynccontextmanager
async def call_from_node(node: str, url: str, **options: Any) -> AsyncGenerator[NodeCaller, None]:
    """:func:`open_caller`, and wait until the call is connected."""
    async with open_caller(node, url, **options) as caller:
        await caller.wait_for("state", state="connected")
        yield caller
