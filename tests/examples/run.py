"""Run an example with its arguments, as ``python example.py`` does, but on free ports.

``LAUNCH_PORT`` and ``LAUNCH_BACKEND`` of the environment replace the defaults of ``launch()``.
"""

from __future__ import annotations

import os
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
    Stream.launch = partialmethod(  # type: ignore[method-assign, assignment]
        Stream.launch,
        port=int(os.environ.get("LAUNCH_PORT", "0")),
        backend=os.environ.get("LAUNCH_BACKEND", "trio"),
    )
    hypercorn.Config._bind = ["127.0.0.1:0"]
    uvicorn.run = partial(uvicorn.run, port=0)
    websockets.sync.server.serve = serve_anywhere  # type: ignore[assignment]
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
