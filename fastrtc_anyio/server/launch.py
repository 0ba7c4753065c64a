"""A server for an ASGI application, under trio or asyncio, as a context manager."""

from __future__ import annotations

import gc
import signal
import socket
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
)
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import cache
from typing import Protocol

import anyio
from anyio import CancelScope, create_task_group
from anyio.abc import TaskStatus
from anyio.from_thread import start_blocking_portal
from starlette.applications import Starlette
from starlette.types import ASGIApp

from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio._core.options import check_choice, check_number, check_type
from fastrtc_anyio.limits import RequestLimits

from ._library_logs import protect_logs
from ._serving import Accepting, serve
from .hosts import HostRules
from .routes import create_page
from .stopping import note_interrupt

__all__ = [
    "ListenError",
    "Server",
    "create_app",
    "create_listener",
    "invitation",
    "launch",
    "listener_url",
    "open_page",
    "open_server",
    "serve_listener",
    "serve_on_thread",
    "wait_for_interrupt",
]

_KEEP_ALIVE = (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
"""Detects a vanished client within 35 s."""


SWITCH_INTERVAL = 0.001
"""Seconds after which a thread that computes in Python gives way to the threads with the calls."""


class ListenError(OSError):
    """The server cannot listen on its address."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        super().__init__(f"cannot listen on {host}:{port}: {error.strerror or error}")


class _Mountable(HostRules, Protocol):
    """A :class:`fastrtc_anyio.Stream`."""

    @property
    def request_limits(self) -> RequestLimits: ...

    def mount(self, app: Starlette, /) -> None: ...

    async def drain(self) -> None: ...


def launch(
    stream: _Mountable, host: str, port: int, backend: str, framed_by: Iterable[str] = ()
) -> None:
    """See :meth:`fastrtc_anyio.Stream.launch`."""
    check_choice("backend", backend, ("trio", "asyncio"))

    async def main() -> None:
        async with open_page(stream, host, port, framed_by=framed_by) as url:
            await wait_for_interrupt(invitation(url), drain=stream.drain)

    try:
        anyio.run(main, backend=backend)
    except ListenError as exc:
        raise SystemExit(f"error: {exc}. Choose another port: launch(port=...)") from exc


@asynccontextmanager
async def open_page(
    stream: _Mountable, host: str, port: int, *, framed_by: Iterable[str] = ()
) -> AsyncGenerator[str, None]:
    """Serve a stream and its page while the block runs; see :func:`open_server`.

    The end waits for code that swallows its cancellation. Ctrl-C then ends the process at once.
    Meanwhile the process has a short :data:`SWITCH_INTERVAL`.
    """
    app = create_app(stream, framed_by)
    with ExitStack() as ended:
        usual = sys.getswitchinterval()
        sys.setswitchinterval(min(usual, SWITCH_INTERVAL))
        ended.callback(sys.setswitchinterval, usual)
        async with open_server(app, host, port, stream.request_limits) as url:
            yield url
            before = signal.signal(signal.SIGINT, signal.SIG_DFL)
            ended.callback(signal.signal, signal.SIGINT, before)


@contextmanager
def serve_on_thread(
    stream: _Mountable, host: str, port: int, backend: str
) -> Generator[tuple[Starlette, str], None, None]:
    """Serve a stream and its page on an event loop in another thread, while the block runs.

    Yields:
        The application, and the URL of the page.

    Raises:
        OSError: the port is in use.
    """
    app = create_app(stream)
    with start_blocking_portal(backend) as portal:
        server = open_server(app, host, port, stream.request_limits)
        with portal.wrap_async_context_manager(server) as url:
            yield app, url


def create_app(stream: _Mountable, framed_by: Iterable[str] = ()) -> Starlette:
    """Create the application of a stream and its page."""
    protect_logs()
    app = Starlette(routes=[create_page("/", stream, framed_by)])
    stream.mount(app)
    return app


def invitation(url: str) -> str:
    """Return a text for people on how to reach the server at ``url``.

    It names the loopback address in place of ``0.0.0.0``, which browsers do not open. They allow
    pages from other machines to use the microphone over https only.
    """
    here, elsewhere = url, ""
    for everywhere, loopback in (("//0.0.0.0:", "//127.0.0.1:"), ("//[::]:", "//[::1]:")):
        if everywhere in url:
            here = url.replace(everywhere, loopback)
            elsewhere = " From other machines the microphone needs https."
    return f"Open {here} in a browser and talk.{elsewhere} Ctrl-C ends it."


async def wait_for_interrupt(
    message: str | None = None, *, drain: Callable[[], Awaitable[object]] | None = None
) -> None:
    """Wait for SIGINT (Ctrl-C) or SIGTERM. Print ``message`` once the signals are handled.

    After a SIGTERM, await ``drain()`` before returning. A second signal cancels it.

    Args:
        drain: such as :meth:`.Stream.drain`. The server must go on serving meanwhile.
    """
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        if message is not None:
            print(message, flush=True)
        async for number in signals:
            if number == signal.SIGTERM and drain is not None:
                break
            if number == signal.SIGINT:
                note_interrupt()
            return
        assert drain is not None
        async with create_task_group() as tasks:
            tasks.start_soon(_cancel_at_signal, signals, tasks.cancel_scope)
            await drain()
            tasks.cancel_scope.cancel()


async def _cancel_at_signal(signals: AsyncIterator[signal.Signals], scope: CancelScope) -> None:
    async for _ in signals:
        note_interrupt()
        scope.cancel()


@cache
def _freeze_garbage_collector() -> None:
    """Exempt what has been loaded from garbage collection, once in a process.

    A full collection visits all functions and classes, which takes 60 ms and more: no call is
    served meanwhile.
    """
    gc.collect()
    gc.freeze()
    # Python searches all objects again once a quarter as many have survived as at the last time.
    # Without the frozen ones that is soon: garbage of ended sessions does not pile up.
    gc.collect()


@asynccontextmanager
async def open_server(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 0,
    limits: RequestLimits | None = None,
) -> AsyncGenerator[str, None]:
    """Serve ``app`` over HTTP/1.1, on the running backend, while the block runs.

    Args:
        app: an ASGI application.
        host: the address to listen on.
        port: the port; 0 for any free port.
        limits: the ``request_limits`` of the application's streams.

    Yields:
        The URL of the server, such as ``http://127.0.0.1:7860``.

    Raises:
        ListenError: the port is in use, or the address is not one of this machine.
        TypeError, ValueError: ``host`` is not a str, or ``port`` not an int from 0 to 65535.
    """
    async with serve_listener(app, create_listener(host, port), limits) as server:
        yield server.url


def create_listener(host: str, port: int) -> socket.socket:
    """Create a listening socket. The errors are those of :func:`open_server`."""
    check_type("host", host, str)
    check_number("port", port, integer=True, at_least=0, at_most=65_535)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as exc:
        raise ListenError(host, port, exc) from exc
    # Connections inherit these. Without TCP_NODELAY a response's body is sent 40 ms late, with the
    # acknowledgement of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEP_ALIVE:
        if hasattr(socket, option):  # on Linux
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return listener


def listener_url(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    address, port = listener.getsockname()[:2]
    netloc = f"[{address}]" if listener.family == socket.AF_INET6 else address
    return f"http://{netloc}:{port}"


class Server:
    """A server that runs.

    Attributes:
        url: its URL, such as ``http://127.0.0.1:7860``.
    """

    def __init__(self, listener: socket.socket, accepting: Accepting) -> None:
        self.url: str = listener_url(listener)
        self._accepting = accepting

    def stop_accepting(self) -> None:
        """Accept no further connections, and go on serving the others."""
        self._accepting.scope.cancel()


@asynccontextmanager
async def serve_listener(
    app: ASGIApp,
    listener: socket.socket,
    limits: RequestLimits | None = None,
    delay: Callable[[], float] = lambda: 0.0,
) -> AsyncGenerator[Server, None]:
    """Serve ``app`` at a listening socket while the block runs; see :func:`open_server`.

    The socket is closed at the end. ``delay`` returns the seconds to wait before a connection is
    accepted: another process that listens at the same socket may take it meanwhile.
    """
    stop, accepting = anyio.Event(), Accepting(delay=delay)
    with listener, collapse_groups():
        server = Server(listener, accepting)
        async with create_task_group() as tg:
            try:
                await tg.start(_serve, app, listener, limits or RequestLimits(), stop, accepting)
                yield server
            finally:
                stop.set()


async def _serve(
    app: ASGIApp,
    listener: socket.socket,
    limits: RequestLimits,
    stop: anyio.Event,
    accepting: Accepting,
    *,
    task_status: TaskStatus[None],
) -> None:
    async with create_task_group() as tg:
        ready = anyio.Event()
        tg.start_soon(serve, app, listener, limits, ready, stop, accepting)
        try:
            await ready.wait()
            _freeze_garbage_collector()
            task_status.started()
            await stop.wait()
        finally:
            stop.set()
