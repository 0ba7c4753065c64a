"""``serve --workers N``: serve a stream in several processes."""

from __future__ import annotations

import argparse
import json
import sys

from fastrtc_anyio.cluster.workers import WorkersFailed
from fastrtc_anyio.cluster.workers import serve_workers as run
from fastrtc_anyio.server.launch import ListenError, create_listener, invitation, listener_url


async def serve_workers(options: argparse.Namespace) -> bool:
    """Serve until a signal ends all workers. Return whether they could start."""
    try:
        listener = create_listener(options.host, options.port)
    except ListenError as exc:
        print(f"error: {exc}. Choose another port with --port", file=sys.stderr)
        return False
    with listener:
        url, count = listener_url(listener), options.workers
        where = {"event": "serving", "url": url, "workers": count}
        message = json.dumps(where) if options.json else f"{invitation(url)} {count} workers serve."
        try:
            await run(
                options.target,
                listener,
                count,
                backend=options.backend,
                drain_timeout=options.drain_timeout,
                message=message,
            )
        except WorkersFailed as exc:
            print(f"error: {exc}", file=sys.stderr)
            return False
    return True
