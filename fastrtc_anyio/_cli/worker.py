"""``python -m fastrtc_anyio._cli.worker``: a process of ``serve --workers``, started by its parent.

The first line of its standard input is JSON with all settings. The input ends when the parent
does: the worker ends then, too, even if its event loop is blocked.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

import anyio

from fastrtc_anyio.cluster._worker import Settings, serve_worker
from fastrtc_anyio.server._library_logs import protect_logs

from .serve import TargetError, load_stream

_LAST_SECONDS = 10.0
"""Seconds to end without a parent."""


def main() -> None:
    settings = _read_settings()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    protect_logs()
    try:
        stream = load_stream(settings.target)
    except TargetError as exc:
        sys.exit(f"error: {exc}")
    anyio.run(serve_worker, stream, settings, backend=settings.backend)


def _read_settings() -> Settings:
    line = bytearray()
    while not line.endswith(b"\n"):
        found = os.read(0, 1)
        if not found:
            sys.exit(1)
        line += found
    return Settings(**json.loads(line))


def _end_with_parent() -> None:
    # Not sys.stdin: a thread in its lock would abort the end of the interpreter.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_LAST_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
