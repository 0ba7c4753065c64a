"""Real-time voice and video handlers: a demo, a server for a stream, and a caller."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import anyio
from anyio.abc import TaskStatus

from fastrtc_anyio import __version__
from fastrtc_anyio._core.extras import explain_import_error
from fastrtc_anyio._core.groups import collapse_groups

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_MOST_WORKERS = 256
_WORKED, _FAILED, _WRONG, _INTERRUPTED = 0, 1, 2, 130
"""Exit statuses. argparse exits with the third for invalid arguments."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status of the process."""
    parser = _make_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return _WRONG
    try:
        status: int = options.start(options)
    except ImportError as exc:
        extra = "demo" if options.command in ("call", "demo") else None
        explained = explain_import_error(exc, f"fastrtc-anyio {options.command}", extra)
        if explained is None:
            raise
        print(f"error: {explained}", file=sys.stderr)
        return _WRONG
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


def _run(options: argparse.Namespace, command: Callable[[], Awaitable[bool]]) -> int:
    """Run a command until it has finished, or until Ctrl-C cancels it."""

    async def run() -> int:
        status = _INTERRUPTED
        with collapse_groups():
            async with anyio.create_task_group() as tg:
                await tg.start(_cancel_at_interrupt, tg.cancel_scope)
                status = _WORKED if await command() else _FAILED
                tg.cancel_scope.cancel()
        return status

    return anyio.run(run, backend=options.backend)


async def _cancel_at_interrupt(scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastrtc-anyio",
        description=__doc__,
        epilog="For the options of a command: fastrtc-anyio call --help",
    )
    parser.add_argument("--version", action="version", version=f"fastrtc-anyio {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--backend", choices=["trio", "asyncio"], default="trio", help="event loop; trio by default"
    )
    _add_demo(commands, common)
    _add_serve(commands, common)
    _add_call(commands, common)
    return parser


def _add_demo(commands: _Commands, common: argparse.ArgumentParser) -> None:
    demo = commands.add_parser(
        "demo", parents=[common], help="serve an echo handler and call it over WebRTC"
    )
    demo.add_argument("--serve", action="store_true", help="keep serving, for calls from a browser")
    demo.add_argument("--port", type=_port, default=7860, help="with --serve; 7860, 0 for any")
    demo.add_argument(
        "--out", type=Path, default=Path("echo.wav"), help="WAV file for the echo; echo.wav"
    )

    demo.add_argument(
        "--picture", type=Path, default=Path("echo.png"), help="PNG file of the echo; echo.png"
    )

    def start(options: argparse.Namespace) -> int:
        from .demo import run

        port = options.port if options.serve else 0
        return _run(options, lambda: run(options.out, options.picture, port, options.serve))

    demo.set_defaults(start=start)


def _add_serve(commands: _Commands, common: argparse.ArgumentParser) -> None:
    serve = commands.add_parser(
        "serve",
        parents=[common],
        help="serve a stream and its page",
        description="Serve a stream and its page until Ctrl-C, which ends all calls. SIGTERM "
        "refuses new calls and waits for the others; a second signal ends them.",
        epilog="example: fastrtc-anyio serve talk.py:stream --port 8000",
    )
    serve.add_argument("target", help='module:stream or file.py:stream; ":stream" is the default')
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 127.0.0.1, 0.0.0.0 for all"
    )
    serve.add_argument("--port", type=_port, default=7860, help="7860; 0 for any")
    serve.add_argument("--json", action="store_true", help="print the address as JSON")
    processes = serve.add_mutually_exclusive_group()
    processes.add_argument(
        "--reload", action="store_true", help="restart when a Python file here changes"
    )
    processes.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="serve in N processes; SIGHUP replaces them without ending a call",
    )
    serve.add_argument(
        "--drain-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="time for calls to end after SIGTERM; by default the stream's, 25",
    )

    def start(options: argparse.Namespace) -> int:
        from .serve import TargetError, load_stream, serve

        if options.reload:
            if options.drain_timeout is not None:
                print("error: --reload ends calls without a drain", file=sys.stderr)
                return _WRONG
            return _serve_reloading(options)
        if options.workers is not None:
            return _serve_in_workers(options)
        try:
            stream = load_stream(options.target)
        except TargetError as exc:
            print(f"error: {exc}", file=sys.stderr)
            return _WRONG
        if options.drain_timeout is not None:
            stream.drain_timeout = options.drain_timeout
        return _run(options, lambda: serve(stream, options.host, options.port, options.json))

    serve.set_defaults(start=start)


def _serve_reloading(options: argparse.Namespace) -> int:
    from .reload import serve_reloading

    arguments = ["serve", options.target, "--host", options.host, "--port", str(options.port)]
    arguments += ["--backend", options.backend, *(["--json"] if options.json else [])]
    file = Path(options.target.partition(":")[0])
    folders = {Path.cwd(), *([file.resolve().parent] if file.suffix == ".py" else [])}
    return _run(options, lambda: serve_reloading(arguments, sorted(folders)))


def _serve_in_workers(options: argparse.Namespace) -> int:
    from .workers import serve_workers

    return _run(options, lambda: serve_workers(options))


def _add_call(commands: _Commands, common: argparse.ArgumentParser) -> None:
    call = commands.add_parser(
        "call",
        parents=[common],
        help="call a served stream",
        description="Call a stream over WebRTC, play speech, and print the time to connect, the "
        "delay of the echo or of the answer, and the lost frames.",
        epilog="exit status: 0 the call worked, 1 it failed, 2 invalid arguments, 130 Ctrl-C. "
        "example: fastrtc-anyio call http://127.0.0.1:7860 --wav question.wav --out answer.wav",
    )
    call.add_argument("url", type=_url, help="URL of the server, such as http://127.0.0.1:7860")
    call.add_argument("--wav", type=Path, help="WAV file of 16 bits to play; a sentence by default")
    call.add_argument("--out", type=Path, help="WAV file for the response")
    call.add_argument(
        "--listen",
        type=_seconds,
        default=3.0,
        metavar="SECONDS",
        help="time to listen after the end of the speech; 3",
    )
    call.add_argument(
        "--message",
        action="append",
        default=[],
        metavar="TEXT",
        help="text message to send once connected; may be repeated",
    )
    call.add_argument(
        "--input",
        action="append",
        default=[],
        type=_input,
        metavar="NAME=VALUE",
        help="value of an input that the stream declares, in place of its default; may be repeated",
    )
    call.add_argument("--token", type=_token, help="bearer token for the server")
    call.add_argument("--json", action="store_true", help="print the measurements as JSON")
    call.set_defaults(start=_start_call)


def _start_call(options: argparse.Namespace) -> int:
    from .call import call
    from .client import SPEECH, CallOptions

    what = CallOptions(
        options.wav or SPEECH,
        options.listen,
        {"Authorization": f"Bearer {options.token}"} if options.token else {},
        options.out,
        tuple(options.message),
        tuple(options.input),
    )
    return _run(options, lambda: call(options.url, what, options.json))


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) < 3600:
            return seconds
    raise argparse.ArgumentTypeError(f"must be a number of seconds below 3600; got {text!r}")


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) <= _MOST_WORKERS:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a number from 1 to {_MOST_WORKERS}; got {text!r}")


def _input(text: str) -> str:
    if text.partition("=")[0] and "=" in text:
        return text
    raise argparse.ArgumentTypeError(f"must be name=value; got {text!r}")


def _url(text: str) -> str:
    """Parse a URL as copied from a browser, with or without its scheme."""
    with suppress(ValueError):
        parts = urlsplit(text if "://" in text else f"http://{text}")
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts._replace(query="", fragment="").geturl()
    raise argparse.ArgumentTypeError(f"must be like http://127.0.0.1:7860; got {text!r}")


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < 65_536:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a port from 0 to 65535; got {text!r}")


def _token(text: str) -> str:
    if text and all("!" <= letter <= "~" for letter in text):
        return text
    raise argparse.ArgumentTypeError("must be printable ASCII without spaces")
