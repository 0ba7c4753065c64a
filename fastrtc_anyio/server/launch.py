"""A server for an ASGI application, under trio or asyncio, that ends when it is told to."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CancelScope, create_task_group
from anyio.abc import TaskStatus
from hypercorn.config import Config, Sockets
from starlette.applications import Starlette

from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio._core.host import Host
from fastrtc_anyio.limits import RequestLimits

from .routes import page_route

if TYPE_CHECKING:
    from fastrtc_anyio.stream import Stream

__all__ = ["invitation", "launch", "open_page", "open_server", "wait_for_interrupt"]

logger = logging.getLogger("fastrtc_anyio")

Application = Callable[[Any, Any, Any], Awaitable[None]]

_GRACE = 0.5
"""Seconds that open WebSockets and event streams get to end once the server is told to."""
_KEEP_ALIVE = (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
"""A client that is gone without a word breaks its connection within 35 s. Hypercorn 0.18 could ping
WebSockets, but the task that does never ends."""


def launch(stream: Stream, host: str, port: int, backend: str) -> None:
    """See :meth:`fastrtc_anyio.Stream.launch`."""

    async def main() -> None:
        async with open_page(stream, host, port) as url:
            await wait_for_interrupt(invitation(url))

    anyio.run(main, backend=backend)


@asynccontextmanager
async def open_page(stream: Stream, host: str, port: int) -> AsyncGenerator[str, None]:
    """Serve a stream and its page while the block runs; see :func:`open_server`."""
    app = Starlette(routes=[page_route()])
    stream.mount(app)
    async with open_server(app, host, port, stream.request_limits) as url:
        yield url


def invitation(url: str) -> str:
    """What to tell a person about a server that is up.

    A server that listens on every address is called from this machine by the loopback's: no browser
    opens ``0.0.0.0``, nor gives the microphone to a page from elsewhere that is not https.
    """
    here, elsewhere = url, ""
    for everywhere, loopback in (("//0.0.0.0:", "//127.0.0.1:"), ("//[::]:", "//[::1]:")):
        if everywhere in url:
            here = url.replace(everywhere, loopback)
            elsewhere = " From other machines the microphone needs https."
    return f"Open {here} in a browser and talk.{elsewhere} Ctrl-C ends it."


async def wait_for_interrupt(message: str | None = None) -> None:
    """Wait for Ctrl-C or a request to terminate. Prints ``message`` once it is listening."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        if message is not None:
            print(message, flush=True)
        async for _ in signals:
            return


@asynccontextmanager
async def open_server(
    app: Application,
    host: str = "127.0.0.1",
    port: int = 0,
    limits: RequestLimits | None = None,
) -> AsyncGenerator[str, None]:
    """Serve ``app`` with hypercorn, on the backend that is running, while the block runs.

    Args:
        app: an ASGI application.
        host: the address to listen on.
        port: 0 takes a free one.
        limits: of the application's streams: what the server itself can keep of them.

    Yields:
        The address the server can be reached at, such as ``http://127.0.0.1:7860``.

    Raises:
        OSError: the port is taken.
    """
    stop = anyio.Event()
    with collapse_groups():
        async with create_task_group() as tg:
            try:
                yield await tg.start(_serve, app, host, port, limits or RequestLimits(), stop)
            finally:
                stop.set()


class _Config(Config):
    """Hypercorn's, for one socket that stays ours."""

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


async def _serve(
    app: Application,
    host: str,
    port: int,
    limits: RequestLimits,
    stop: anyio.Event,
    *,
    task_status: TaskStatus[str],
) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        # Inherited by every connection. Without it an answer's body waits 40 ms for its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE:
            if hasattr(socket, option):  # Linux has them
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        async with create_task_group() as tg:
            ready = anyio.Event()
            address, port = listener.getsockname()[:2]
            tg.start_soon(_run_hypercorn, app, _Config(listener, limits), port, ready, stop)
            try:
                await ready.wait()
                netloc = f"[{address}]" if family == socket.AF_INET6 else address
                task_status.started(f"http://{netloc}:{port}")
                await stop.wait()
            finally:
                stop.set()


async def _run_hypercorn(
    app: Application, config: Config, port: int, ready: anyio.Event, stop: anyio.Event
) -> None:
    """Serve until ``stop``, also if cancelled: hypercorn has no other orderly end. On asyncio it
    would leave the application's lifespan running."""
    endable = _Endable(app)

    async def serve_until_stop() -> None:
        serve = _load_hypercorn(Host().asyncio_loop is None)

        async def wait_for_stop() -> None:  # begun when the server takes connections
            if not endable.failed:  # trio's worker serves for a moment even then
                ready.set()
            await stop.wait()

        await serve(endable, config, shutdown_trigger=wait_for_stop)

    async def end_requests() -> None:
        await stop.wait()
        await anyio.sleep(_GRACE)
        endable.end()
        await anyio.sleep(_GRACE)
        _shut_connections(port)

    with CancelScope(shield=True):
        async with create_task_group() as tg:
            tg.start_soon(end_requests)
            await serve_until_stop()
            tg.cancel_scope.cancel()


@cache
def _load_hypercorn(on_trio: bool) -> Any:
    """Hypercorn's ``serve``, of which a connection that fails ends nothing but itself.

    Hypercorn 0.18 trips over some handshakes that are none, and knows no bounds to that: trio's
    worker ends with all its connections, asyncio's leaves the exception to nobody.
    """
    serve: Any
    worker: Any
    if on_trio:
        from hypercorn.trio import run as worker
        from hypercorn.trio import serve
    else:
        from hypercorn.asyncio import run as worker
        from hypercorn.asyncio import serve
    base: Any = worker.TCPServer

    class Connection(base):  # type: ignore[misc]  # hypercorn's own
        async def run(self) -> None:
            try:
                await super().run()
            except Exception as exc:
                logger.warning("a connection failed, and was closed: %r", exc)

    worker.TCPServer = Connection  # no other way in
    return serve


def _shut_connections(port: int) -> None:
    """End the connections to a port of ours. For those whose client does not read any more.

    Hypercorn 0.18 waits for such a client for ever (trio's worker shields what it sends), and has
    no way to its sockets.
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


class _Endable:
    """An application whose open requests can be ended.

    Hypercorn 0.18's asyncio worker waits for open WebSockets and event streams for ever
    (``Server.wait_closed`` does, from Python 3.12 on), so they have to end by themselves.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._requests: set[CancelScope] = set()
        self.failed = False
        """Whether the lifespan could not be started."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
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
        """End every request that is open."""
        for request in list(self._requests):
            request.cancel()

    async def _send_lifespan(self, send: Any, message: Mapping[str, Any]) -> None:
        if message["type"] == "lifespan.startup.failed":
            self.failed = True
        await send(message)
