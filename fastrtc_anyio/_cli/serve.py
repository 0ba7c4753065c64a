"""``serve module:stream``: serve a stream and its page until Ctrl-C."""

from __future__ import annotations

import json
import sys

from fastrtc_anyio.server.launch import invitation, open_page, wait_for_interrupt
from fastrtc_anyio.stream import Stream


async def serve(stream: Stream, host: str, port: int, as_json: bool) -> bool:
    """Serve until Ctrl-C, and return whether the server could listen.

    With ``as_json``, the address is printed as one line of JSON.
    """
    try:
        async with open_page(stream, host, port) as url:
            where = {"event": "serving", "url": url}
            where |= {"modality": stream.modality, "mode": stream.mode}
            await wait_for_interrupt(json.dumps(where) if as_json else invitation(url))
    except OSError as exc:
        print(f"error: cannot listen on {host}:{port}: {exc.strerror or exc}", file=sys.stderr)
        return False
    return True
