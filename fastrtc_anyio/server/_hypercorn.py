"""Run an application in hypercorn and end it in bounded time: every workaround for hypercorn.

Hypercorn runs under both trio and asyncio, but one bad connection can end it, and an open one can
keep it from ending. Each workaround states its reason, the upstream issue where there is one, and
when it can go. Undocumented names are checked on import, those of a backend's worker when that
backend is first used.

Verified against hypercorn 0.18.0.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache, partial
from importlib import import_module
from typing import Any

import anyio
from anyio import CancelScope, create_task_group
from hypercorn.config import Config, Sockets
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._core.required import check_required
from fastrtc_anyio.limits import RequestLimits

__all__ = ["SUPPORTED", "serve"]

logger = logging.getLogger("fastrtc_anyio")

SUPPORTED = {"hypercorn": ">=0.18,<0.19"}
"""Versions that this module was verified against, as in pyproject.toml."""

_GRACE = 0.5
"""Seconds that open WebSockets and event streams get to end once the server is told to."""

check_required({Config: ("create_sockets",)}, SUPPORTED)


async def serve(
    app: ASGIApp,
    listener: socket.socket,
    limits: RequestLimits,
    ready: anyio.Event,
    stop: anyio.Event,
) -> None:
    """Serve until ``stop``, also if cancelled: hypercorn has no other orderly end.

    A cancelled asyncio worker leaves the application's lifespan running (hypercorn 0.18).

    Args:
        app: the application.
        listener: the socket to accept connections from. Hypercorn closes it.
        limits: of what the server itself keeps of a client's requests.
        ready: set once connections are accepted, unless the lifespan failed to start.
        stop: ends the server.
    """
    port = listener.getsockname()[1]
    endable = _EndableApp(app)
    run = _load_worker(Host().asyncio_loop is None)

    async def wait_for_stop() -> None:  # hypercorn calls it once it accepts connections
        if not endable.failed:  # the trio worker accepts for a moment even then
            ready.set()
        await stop.wait()

    async def end_requests() -> None:
        await stop.wait()
        await anyio.sleep(_GRACE)
        endable.end()
        await anyio.sleep(_GRACE)
        _shut_down_connections(port)

    with CancelScope(shield=True):
        async with create_task_group() as tg:
            tg.start_soon(end_requests)
            await run(endable, _Config(listener, limits), shutdown_trigger=wait_for_stop)
            tg.cancel_scope.cancel()


class _Config(Config):
    """Hypercorn's configuration, with a listening socket of ours in place of an address.

    Can go once ``serve()`` takes sockets.
    """

    loglevel = "WARNING"
    graceful_timeout = 4 * _GRACE

    def __init__(self, listener: socket.socket, limits: RequestLimits) -> None:
        super().__init__()
        self._listener = listener
        # More than is taken, so that whoever sends a little too much is told what the limit is.
        self.websocket_max_message_size = 4 * limits.message_bytes
        self.keep_alive_timeout = limits.head_seconds

    def create_sockets(self) -> Sockets:
        return Sockets([], [self._listener], [])


@cache
def _load_worker(on_trio: bool) -> Callable[..., Awaitable[None]]:
    """Load hypercorn's ``serve`` for a backend, and keep failing connections from ending it.

    An exception in one connection, which some malformed handshakes raise, ends trio's worker with
    all its connections and is left to asyncio's default handler by the other
    (pgjones/hypercorn#225, #329). The worker looks its connection class up in its module: there is
    no other way in. Can go once ``TCPServer.run`` handles exceptions.
    """
    package = "hypercorn.trio" if on_trio else "hypercorn.asyncio"
    worker: Any = import_module(f"{package}.run")
    check_required({worker: ("TCPServer",)}, SUPPORTED)
    check_required({worker.TCPServer: ("run",)}, SUPPORTED)
    base: Any = worker.TCPServer

    class Connection(base):  # type: ignore[misc]  # the backend's class
        async def run(self) -> None:
            try:
                await super().run()
            except Exception as exc:
                logger.warning("a connection failed, and was closed: %r", exc)

    worker.TCPServer = Connection
    run: Callable[..., Awaitable[None]] = import_module(package).serve
    return run


class _EndableApp:
    """An application whose open requests can be ended.

    The asyncio worker waits for open WebSockets and event streams without a limit from Python 3.12
    on, in ``Server.wait_closed()`` (pgjones/hypercorn#308, #374). Can go once ``graceful_timeout``
    is kept.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._requests: set[CancelScope] = set()
        self.failed = False
        """Whether the lifespan could not be started."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, partial(self._send_lifespan, send))
            return
        with CancelScope() as request:
            self._requests.add(request)
            try:
                await self._app(scope, receive, send)
            finally:
                self._requests.discard(request)

    def end(self) -> None:
        """Cancel every open request."""
        for request in list(self._requests):
            request.cancel()

    async def _send_lifespan(self, send: Send, message: Message) -> None:
        if message["type"] == "lifespan.startup.failed":
            self.failed = True
        await send(message)


def _shut_down_connections(port: int) -> None:
    """Shut down the connections to a port of ours whose client does not read any more.

    The trio worker shields what it sends from cancellation, so that one such client keeps it from
    ending, and has no way to its sockets. Can go once ``graceful_timeout`` ends them.
    """
    for fd in os.listdir("/dev/fd") if os.path.isdir("/dev/fd") else []:
        with (
            suppress(OSError),  # not a socket, not connected, or closed by now
            socket.fromfd(int(fd), socket.AF_INET, socket.SOCK_STREAM) as connection,
        ):
            kind = connection.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
            address = connection.getsockname()
            if kind == socket.SOCK_STREAM and address[1:2] == (port,) and connection.getpeername():
                connection.shutdown(socket.SHUT_RDWR)
