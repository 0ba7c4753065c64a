"""The demonstration: a server, a caller in another process, and numbers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from anyio.streams.text import TextReceiveStream
from starlette.applications import Starlette

from fastrtc_anyio import AsyncStreamHandler, EmitType, RtcConfiguration, Stream
from fastrtc_anyio._core.host import Host
from fastrtc_anyio._peers.webrtc import local_addresses
from fastrtc_anyio.server.launch import open_server, wait_for_interrupt
from fastrtc_anyio.server.routes import page_route

from . import client as caller

__all__ = ["run"]

_LIMIT = 60.0
"""Seconds the call may take."""
_MIN_CORRELATION = 0.9


class Echo(AsyncStreamHandler):
    """Says back what it hears."""

    def __init__(self) -> None:
        super().__init__(output_sample_rate=48_000)
        self._send, self._receive = anyio.create_memory_object_stream[Any](50)

    async def receive(self, frame: tuple[int, Any]) -> None:
        await self._send.send(frame)

    async def emit(self) -> EmitType:
        frame: EmitType = await self._receive.receive()
        return frame

    def copy(self) -> Echo:
        return Echo()

    async def shutdown(self) -> None:
        self._send.close()
        self._receive.close()


async def run(out: Path, port: int, serve: bool) -> bool:
    """Run it.

    Args:
        out: where the speech that came back is written, as WAV.
        port: of the server; 0 takes a free one.
        serve: stay up after the call.

    Returns:
        Whether the call worked.
    """
    # The caller is on this machine. A browser never uses the loopback address, so --serve adds
    # the others, as a stream of yours does by default.
    here = ("127.0.0.1", *(local_addresses() if serve else ()))
    stream = Stream(
        Echo,
        modality="audio",
        concurrency_limit=10,
        server_rtc_configuration=RtcConfiguration(addresses=here),
    )
    app = Starlette(routes=[page_route()])
    stream.mount(app)
    try:
        async with open_server(app, port=port) as url:
            print(f"An echo handler is served under {_backend()} at {url}")
            print("Calling it over WebRTC, through UDP on the loopback interface ...", flush=True)
            worked = await _call(url, out)
            if serve:
                await wait_for_interrupt(f"Open {url} in a browser and talk. Ctrl-C ends it.")
    except OSError as exc:
        print(f"error: port {port} cannot be listened on: {exc.strerror or exc}", file=sys.stderr)
        return False
    if not serve:
        python = _short(sys.executable)
        print("To talk to it yourself, run this and open the page it names in a browser:")
        print(f"  {python} -m fastrtc_anyio demo --serve")
    return worked


async def _call(url: str, out: Path) -> bool:
    command = [sys.executable, "-m", caller.__name__, url, str(out)]
    result: dict[str, Any] = {}
    with anyio.move_on_after(_LIMIT) as scope:
        async with await anyio.open_process(command, stderr=None) as process:
            assert process.stdout is not None
            try:
                async for line in _lines(TextReceiveStream(process.stdout)):
                    report = json.loads(line)
                    _show(report, out)
                    result.update(report)
            except BaseException:
                with suppress(ProcessLookupError):
                    process.kill()  # or it would complain that nobody listens any more
                raise
    if scope.cancelled_caught:
        print(f"The call was not over after {_LIMIT:g} s.")
    correlation: float = result.get("correlation", 0.0)
    if "correlation" in result and correlation < _MIN_CORRELATION:
        why = (
            f"what came back is not what was said: a correlation of {_MIN_CORRELATION} was expected"
        )
        print(f"error: {why}. A machine that is busy leaves gaps.", file=sys.stderr)
    return correlation >= _MIN_CORRELATION


async def _lines(stream: TextReceiveStream) -> AsyncGenerator[str, None]:
    rest = ""
    async for text in stream:
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            yield line


def _show(report: dict[str, Any], out: Path) -> None:
    match report["event"]:
        case "connected":
            print(f"connected in {report['seconds'] * 1000:.0f} ms")
        case "progress":
            line = f"  spoken {report['played']:4.1f} s   heard {report['heard']:4.1f} s"
            if sys.stdout.isatty():
                print(line, end="\r", flush=True)
        case "done":
            latency = report["latency"]
            lasted = "-" if latency is None else f"{latency * 1000:.0f} ms"
            print(f"round-trip latency   {lasted}")
            print(f"frames lost          {report['lost']} of {report['frames'] + report['lost']}")
            print(f"correlation          {report['correlation']:.3f}  (1 is the same sound)")
            print(f"what came back       {os.path.relpath(out)}")
        case "failed":
            print(f"error: {report['error']}", file=sys.stderr)


def _backend() -> str:
    return "trio" if Host().asyncio_loop is None else "asyncio"


def _short(path: str) -> str:
    return min(path, os.path.relpath(path), key=len)
