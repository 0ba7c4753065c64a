"""Run an example with its arguments, as ``python example.py`` does, but on free ports."""

from __future__ import annotations

import runpy
import sys
from functools import partial, partialmethod
from typing import Any

import hypercorn
import uvicorn
import websockets.sync.server

from fastrtc_anyio import Stream

serve = websockets.sync.server.serve


def serve_anywhere(handler: Any, host: str, _port: int) -> Any:
    return serve(handler, host, 0)


if __name__ == "__main__":
    Stream.launch = partialmethod(Stream.launch, port=0)  # type: ignore[method-assign, assignment]
    hypercorn.Config._bind = ["127.0.0.1:0"]
    uvicorn.run = partial(uvicorn.run, port=0)
    websockets.sync.server.serve = serve_anywhere  # type: ignore[assignment]
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
