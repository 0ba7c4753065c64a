"""``python -m fastrtc_anyio demo``: a real call, placed and measured."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import anyio


def main() -> int:
    """Run a command; returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="fastrtc_anyio", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="serve an echo handler and call it over WebRTC")
    demo.add_argument("--serve", action="store_true", help="stay up, for calls from a browser")
    demo.add_argument("--port", type=int, default=7860, help="of the server; 0 takes a free one")
    demo.add_argument("--backend", choices=["trio", "asyncio"], default="trio")
    demo.add_argument("--out", type=Path, default=Path("echo.wav"), help="what came back, as WAV")
    options = parser.parse_args()
    try:
        from .demo.demo import run
    except ImportError as exc:
        print(f"the demo needs more packages: pip install 'fastrtc-anyio[demo]' ({exc})")
        return 2
    port = options.port if options.serve else 0
    worked = anyio.run(run, options.out, port, options.serve, backend=options.backend)
    return 0 if worked else 1


if __name__ == "__main__":
    sys.exit(main())
