"""``python -m fastrtc_anyio._cli.worker``: a process of ``serve --workers``, started by its parent.

The first line of its standard input is JSON with all settings. The input ends when the parent
does: the worker ends then, too, even if its event loop is blocked.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from anyio import create_task_group, move_on_after
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio.cluster._process import prepare
from fastrtc_anyio.cluster._remote import RemoteDirectory
from fastrtc_anyio.cluster.member import Member
from fastrtc_anyio.cluster.workers import Settings
from fastrtc_anyio.server.launch import (
    Server,
    create_app,
    serve_listener,
    wait_for_interrupt,
)
from fastrtc_anyio.stream import Stream

from .serve import TargetError, load_stream

_MOST_DELAY, _HALF_DELAY = 0.01, 10
"""Seconds before a connection is accepted at most, and sessions with which it is half as long."""
_LAST_SECONDS = 10.0
"""Seconds to end without a parent."""


def main() -> None:
    settings = _read_settings()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        stream = load_stream(settings.target)
    except TargetError as exc:
        sys.exit(f"error: {exc}")
    anyio.run(_serve, stream, settings, backend=settings.backend)


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


async def _serve(stream: Stream, settings: Settings) -> None:
    """Serve a stream until a signal ends it."""
    if settings.drain_timeout is not None:
        stream.drain_timeout = settings.drain_timeout
    public = socket.socket(fileno=settings.listener)
    secret, limits = settings.secret, stream.request_limits
    directory = RemoteDirectory(settings.directory, secret)
    member, board, listener = prepare(
        create_app(stream), stream, directory, secret, host="127.0.0.1", name=settings.name
    )
    last = _LastResponses(board)
    async with (
        serve_listener(board.inlet, listener, limits),
        serve_listener(last, public, limits, lambda: _delay(len(stream.sessions))) as server,
        _join(member),
    ):
        await _wait_for_end(stream, server, last, settings)


class _LastResponses:
    """Closes connections with their next responses, once this worker is replaced.

    A proxy keeps connections open. Its further requests should go to the new workers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.is_replaced = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if self.is_replaced and message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_last)


def _delay(sessions: int) -> float:
    """Return the seconds for which a worker leaves a connection to workers with fewer sessions.

    Without them, the system would wake the same worker first each time.
    """
    return _MOST_DELAY * sessions / (sessions + _HALF_DELAY)


async def _wait_for_end(
    stream: Stream, server: Server, last: _LastResponses, settings: Settings
) -> None:
    """Wait for a signal: SIGTERM drains the stream, and SIGHUP says that others replace this one.

    In the latter case, calls may go on for any time, unless the command names one: other workers
    take the new ones.
    """
    seconds = stream.drain_timeout

    async def drain() -> None:
        with move_on_after(seconds if stream.is_draining else None):
            await stream.drain()

    async def drain_when_replaced() -> None:
        with anyio.open_signal_receiver(signal.SIGHUP) as signals:
            async for _ in signals:
                server.stop_accepting()
                last.is_replaced = True
                stream.drain_timeout = settings.drain_timeout
                await stream.drain()
                os.kill(os.getpid(), signal.SIGTERM)

    async with create_task_group() as tasks:
        tasks.start_soon(drain_when_replaced)
        await wait_for_interrupt(drain=drain)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def _join(member: Member) -> AsyncGenerator[None, None]:
    with collapse_groups():
        async with create_task_group() as tasks:
            await tasks.start(member.run)
            yield
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    main()
