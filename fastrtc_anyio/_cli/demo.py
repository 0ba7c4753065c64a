"""``demo``: serve an echo handler, call it from another process, and print the measurements."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import anyio
from starlette.applications import Starlette

from fastrtc_anyio import RtcConfiguration, Session, Stream
from fastrtc_anyio._core.host import Host
from fastrtc_anyio._peers.webrtc import local_addresses
from fastrtc_anyio.server.launch import ListenError, open_server, wait_for_interrupt
from fastrtc_anyio.server.routes import page_route

from .client import SAMPLE_RATE, SPEECH, CallReport
from .picture import draw_echo
from .wav import describe_error, read_wav

_LIMIT = 60.0  # seconds of the whole call
_LISTEN = "0.6"  # seconds after the end of the speech
_MIN_CORRELATION = 0.9


async def echo(session: Session) -> None:
    """Send the caller's audio back."""
    async for frame in session.audio_in:
        await session.audio_out.send(frame)


async def run(out: Path, picture: Path, port: int, serve: bool) -> bool:
    """Serve an echo handler, call it, and return whether the call worked.

    Writes the echo and a picture of it. With ``serve``, the server continues after the call until
    Ctrl-C.
    """
    backend = "trio" if Host().asyncio_loop is None else "asyncio"
    # Browsers avoid the loopback address, so --serve adds the others, as a stream does by default.
    addresses = ("127.0.0.1", *(local_addresses() if serve else ()))
    stream = Stream(
        echo,
        modality="audio",
        concurrency_limit=10,
        server_rtc_configuration=RtcConfiguration(addresses=addresses),
    )
    app = Starlette(routes=[page_route()])
    stream.mount(app)
    try:
        async with open_server(app, port=port) as url:
            print(f"An echo handler is served under {backend} at {url}")
            print("Calling it over WebRTC, through UDP on the loopback interface ...", flush=True)
            worked = await _call(url, out, picture)
            if serve:
                await wait_for_interrupt(f"Open {url} in a browser and talk. Ctrl-C ends it.")
    except ListenError as exc:
        print(f"error: {exc}. Choose another port with --port", file=sys.stderr)
        return False
    if not serve:
        python = _shorten(sys.executable)
        print("To talk to it yourself, run this and open the page it names in a browser:")
        print(f"  {python} -m fastrtc_anyio demo --serve")
    return worked


async def _call(url: str, out: Path, picture: Path) -> bool:
    command = [sys.executable, "-m", "fastrtc_anyio", "call", url, "--json"]
    command += ["--listen", _LISTEN, "--out", str(out)]
    with anyio.move_on_after(_LIMIT) as scope:
        process = await anyio.run_process(command, stderr=None, check=False)
    if scope.cancelled_caught:
        print(f"error: the call took more than {_LIMIT:g} s", file=sys.stderr)
        return False
    if process.returncode:
        return False  # the caller has printed the error
    report: CallReport = json.loads(process.stdout)
    _print_table(report, out)
    await anyio.to_thread.run_sync(draw, out, picture)
    worked = report["correlation"] >= _MIN_CORRELATION
    if not worked:
        print(
            f"error: the echo differs from the speech: the correlation must be at least "
            f"{_MIN_CORRELATION}. Gaps on a busy machine lower it.",
            file=sys.stderr,
        )
    return worked


def draw(out: Path, picture: Path) -> None:
    """Draw the recorded echo and the speech; print where, or the reason why not."""
    sent, returned = (read_wav(path, SAMPLE_RATE)[0] for path in (SPEECH, out))
    try:
        draw_echo(picture, sent, returned, SAMPLE_RATE)
    except ImportError:
        print("no picture            pip install 'fastrtc-anyio[demo]' installs matplotlib for it")
    except OSError as exc:
        print(f"no picture            {picture} cannot be written: {describe_error(exc)}")
    else:
        print(f"picture of both      {os.path.relpath(picture)}")


def _print_table(report: CallReport, out: Path) -> None:
    latency = report["latency"]
    print(f"connected in {report['connect_seconds'] * 1000:.0f} ms")
    print(f"round-trip latency   {'-' if latency is None else f'{latency * 1000:.0f} ms'}")
    print(f"frames lost          {report['lost']} of {report['frames'] + report['lost']}")
    print(f"correlation          {report['correlation']:.3f}  (1 is the same sound)")
    print(f"what came back       {os.path.relpath(out)}")


def _shorten(path: str) -> str:
    return min(path, os.path.relpath(path), key=len)
