"""``serve module:stream``: a stream and its page, until Ctrl-C."""

from __future__ import annotations

import json
import sys

from starlette.applications import Starlette

from fastrtc_anyio.server.launch import open_server, wait_for_interrupt
from fastrtc_anyio.server.routes import page_route
from fastrtc_anyio.stream import Stream

from .target import TargetError, load_stream

__all__ = ["find", "serve"]


def find(target: str) -> Stream | None:
    """The stream to serve; None, once it was said why there is none."""
    try:
        return load_stream(target)
    except TargetError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return None


async def serve(stream: Stream, host: str, port: int, as_json: bool) -> bool:
    """Serve until Ctrl-C.

    Args:
        stream: what to serve.
        host: the address to listen on.
        port: 0 takes a free one.
        as_json: say where it is in JSON, one line.

    Returns:
        Whether it could be served.
    """
    app = Starlette(routes=[page_route()])
    stream.mount(app)
    try:
        async with open_server(app, host, port) as url:
            where = {
                "event": "serving",
                "url": url,
                "modality": stream.modality,
                "mode": stream.mode,
            }
            text = f"Open {url} in a browser and talk. Ctrl-C ends it."
            await wait_for_interrupt(json.dumps(where) if as_json else text)
    except OSError as exc:
        print(f"error: {host}:{port} cannot be listened on: {exc}", file=sys.stderr)
        return False
    return True
