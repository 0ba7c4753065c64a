"""``serve module:stream``: a stream and its page, until Ctrl-C."""

from __future__ import annotations

import json
import sys

from fastrtc_anyio.server.launch import invitation, open_page, wait_for_interrupt
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
    try:
        async with open_page(stream, host, port) as url:
            where = {
                "event": "serving",
                "url": url,
                "modality": stream.modality,
                "mode": stream.mode,
            }
            await wait_for_interrupt(json.dumps(where) if as_json else invitation(url))
    except OSError as exc:
        why = exc.strerror or exc
        print(f"error: {host}:{port} cannot be listened on: {why}", file=sys.stderr)
        return False
    return True
