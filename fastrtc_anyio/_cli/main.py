"""Real-time voice and video handlers: a demo, a server for a stream, and a caller."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
from anyio.abc import TaskStatus

from fastrtc_anyio._core.groups import collapse_groups

_WORKED, _FAILED, _WRONG, _INTERRUPTED = 0, 1, 2, 130
"""Exit statuses; the third is what argparse ends with for wrong arguments."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the process's exit status."""
    parser = _make_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return _WRONG
    try:
        status: int = options.run(options)
    except ImportError as exc:
        if exc.name is None or exc.name.partition(".")[0] not in _EXTRAS:
            raise
        extra = _EXTRAS[exc.name.partition(".")[0]]
        print(
            f"this needs more packages: pip install 'fastrtc-anyio[{extra}]' ({exc})",
            file=sys.stderr,
        )
        return _WRONG
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


def _run(options: argparse.Namespace, command: Callable[..., Awaitable[bool]], *args: Any) -> int:
    """Run a command until it is done, or Ctrl-C ends it in good order."""
    status = _INTERRUPTED

    async def run() -> None:
        nonlocal status
        with collapse_groups():
            async with anyio.create_task_group() as tg:
                await tg.start(_cancel_at_interrupt, tg.cancel_scope)
                worked = await command(*args)
                status = _WORKED if worked else _FAILED
                tg.cancel_scope.cancel()

    anyio.run(run, backend=options.backend)
    return status


async def _cancel_at_interrupt(scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()


_EXTRAS = {"httpx": "demo", "hypercorn": "server", "starlette": "server"}


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastrtc_anyio",
        description=__doc__,
        epilog="Each command tells more: python -m fastrtc_anyio call --help",
    )
    commands = parser.add_subparsers(dest="command", metavar="command")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--backend", choices=["trio", "asyncio"], default="trio", help="what it runs on; trio"
    )

    demo = commands.add_parser(
        "demo", parents=[common], help="serve an echo handler and call it over WebRTC"
    )
    demo.add_argument("--serve", action="store_true", help="stay up, for calls from a browser")
    demo.add_argument("--port", type=_port, default=7860, help="with --serve; 7860, 0 is any free")
    demo.add_argument(
        "--out", type=Path, default=Path("echo.wav"), help="what came back, as WAV; echo.wav"
    )
    demo.set_defaults(run=_demo)

    serve = commands.add_parser(
        "serve",
        parents=[common],
        help="serve a stream and its page",
        description="Serve a stream of yours and the page to talk to it, until Ctrl-C.",
        epilog="example: python -m fastrtc_anyio serve talk.py:stream --port 8000",
    )
    serve.add_argument("target", help='module:stream or file.py:stream; ":stream" may be left out')
    serve.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on; 127.0.0.1, 0.0.0.0 is all"
    )
    serve.add_argument("--port", type=_port, default=7860, help="7860; 0 is any that is free")
    serve.add_argument("--json", action="store_true", help="say where it is in JSON")
    serve.set_defaults(run=_serve)

    call = commands.add_parser(
        "call",
        parents=[common],
        help="call a stream that is served",
        description="Call a stream over WebRTC, say something, and tell how it went: how long "
        "connecting took, how late an echo or an answer came, and what was lost.",
        epilog="exit status: 0 the call went well, 1 it did not, 2 wrong arguments, 130 Ctrl-C. "
        "example: python -m fastrtc_anyio call http://127.0.0.1:7860 --wav question.wav "
        "--out answer.wav --listen 5",
    )
    call.add_argument("url", type=_url, help="of the server, such as http://127.0.0.1:7860")
    call.add_argument(
        "--wav", type=Path, help="what to say, PCM of 16 bits; a sentence that comes along"
    )
    call.add_argument("--out", type=Path, help="where to write what is heard, as WAV")
    call.add_argument(
        "--listen",
        type=_seconds,
        default=3.0,
        metavar="SECONDS",
        help="to listen on after the last word; 3",
    )
    call.add_argument("--token", type=_token, help="a bearer token, if the server wants one")
    call.add_argument("--json", action="store_true", help="print the result in JSON, on stdout")
    call.set_defaults(run=_call)
    return parser


def _demo(options: argparse.Namespace) -> int:
    from .demo import run

    port = options.port if options.serve else 0
    return _run(options, run, options.out, port, options.serve)


def _serve(options: argparse.Namespace) -> int:
    from .serve import find, serve

    stream = find(options.target)
    if stream is None:
        return _WRONG
    return _run(options, serve, stream, options.host, options.port, options.json)


def _call(options: argparse.Namespace) -> int:
    from .call import call
    from .client import SPEECH, CallOptions

    headers = {"Authorization": f"Bearer {options.token}"} if options.token else {}
    what = CallOptions(options.wav or SPEECH, options.listen, headers)
    return _run(options, call, options.url, what, options.out, options.json)


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) < 3600:
            return seconds
    raise argparse.ArgumentTypeError(f"a number of seconds below 3600, not {text!r}")


def _url(text: str) -> str:
    """A server's address out of what a person copies from a browser."""
    with suppress(ValueError):
        parts = urlsplit(text if "://" in text else f"http://{text}")
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts._replace(query="", fragment="").geturl()
    raise argparse.ArgumentTypeError(f"a URL is like http://127.0.0.1:7860, not {text!r}")


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < 65_536:
        return int(text)
    raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")


def _token(text: str) -> str:
    if text and all("!" <= letter <= "~" for letter in text):
        return text
    raise argparse.ArgumentTypeError("a token has no spaces and no letters beyond ASCII")
