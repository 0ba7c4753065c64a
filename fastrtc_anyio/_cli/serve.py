"""``serve module:stream``: serve a stream and its page until Ctrl-C."""

from __future__ import annotations

import json
import sys

from fastrtc_anyio.server.launch import invitation, open_page, wait_for_interrupt
from fastrtc_anyio.stream import Stream

__all__ = ["serve"]


async def serve(stream: Stream, host: str, port: int, as_json: bool) -> bool:
    """Serve until Ctrl-C.

    Args:
        stream: the stream to serve.
        host: address to listen on.
        port: port to listen on; 0 for a free one.
        as_json: print the address as one line of JSON.

    Returns:
        Whether the server could listen.
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
        print(f"error: cannot listen on {host}:{port}: {exc.strerror or exc}", file=sys.stderr)
        return False
    return True
