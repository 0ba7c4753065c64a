"""Real-time voice and video handlers: a demo, a server for a stream, and a caller."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

_WORKED, _FAILED, _WRONG = 0, 1, 2
"""Exit statuses; the last is what argparse ends with for wrong arguments."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the process's exit status."""
    options = _make_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except ImportError as exc:
        if exc.name is None or exc.name.partition(".")[0] not in _EXTRAS:
            raise
        extra = _EXTRAS[exc.name.partition(".")[0]]
        print(f"this needs more packages: pip install 'fastrtc-anyio[{extra}]' ({exc})")
        return _WRONG
    except KeyboardInterrupt:
        return 130
    return status


_EXTRAS = {"httpx": "demo", "hypercorn": "server", "starlette": "server"}


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastrtc_anyio", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--backend", choices=["trio", "asyncio"], default="trio")

    demo = commands.add_parser(
        "demo", parents=[common], help="serve an echo handler and call it over WebRTC"
    )
    demo.add_argument("--serve", action="store_true", help="stay up, for calls from a browser")
    demo.add_argument("--port", type=int, default=7860, help="of the server; 0 takes a free one")
    demo.add_argument("--out", type=Path, default=Path("echo.wav"), help="what came back, as WAV")
    demo.set_defaults(run=_demo)

    serve = commands.add_parser("serve", parents=[common], help="serve a stream and its page")
    serve.add_argument("target", help="module:stream, or file.py:stream")
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    serve.add_argument("--port", type=int, default=7860, help="0 takes a free one")
    serve.add_argument("--json", action="store_true", help="say where it is in JSON")
    serve.set_defaults(run=_serve)

    call = commands.add_parser("call", parents=[common], help="call a stream that is served")
    call.add_argument("url", help="of the server, such as http://127.0.0.1:7860")
    call.add_argument("--wav", type=Path, help="what to say, 16 bits; by default a sentence")
    call.add_argument("--out", type=Path, help="where to write what is heard, as WAV")
    call.add_argument(
        "--listen", type=_seconds, default=3.0, help="seconds to listen on; by default 3"
    )
    call.add_argument("--token", help="a bearer token, if the server wants one")
    call.add_argument("--json", action="store_true", help="print the result in JSON")
    call.set_defaults(run=_call)
    return parser


def _demo(options: argparse.Namespace) -> int:
    from .demo.demo import run

    port = options.port if options.serve else 0
    worked = anyio.run(run, options.out, port, options.serve, backend=options.backend)
    return _WORKED if worked else _FAILED


def _serve(options: argparse.Namespace) -> int:
    from .cli.serve import find, serve

    stream = find(options.target)
    if stream is None:
        return _WRONG
    arguments = (stream, options.host, options.port, options.json)
    return _WORKED if anyio.run(serve, *arguments, backend=options.backend) else _FAILED


def _call(options: argparse.Namespace) -> int:
    from .cli.call import call
    from .demo.caller import SPEECH, CallOptions

    headers = {"Authorization": f"Bearer {options.token}"} if options.token else {}
    what = CallOptions(options.wav or SPEECH, options.listen, headers)
    arguments = (options.url, what, options.out, options.json)
    return _WORKED if anyio.run(call, *arguments, backend=options.backend) else _FAILED


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < 3600:
        raise ValueError
    return seconds


if __name__ == "__main__":
    sys.exit(main())
