"""Serve an application over HTTP/1.1 and WebSockets, on trio or asyncio."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
from anyio import CancelScope, create_task_group, move_on_after, wait_readable
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from starlette.types import ASGIApp, Message

from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.records import log_failure
from fastrtc_anyio._core.shortage import find_shortage
from fastrtc_anyio.limits import RequestLimits

from ._http1 import Connection, ServedApp
from ._sockets import ClientSocket
from .stopping import drains_itself

__all__ = ["Accepting", "serve"]

_GRACE = 0.5
"""Seconds that open requests get to end when the server stops, and then to be cancelled."""
_PAUSE = 0.1
"""Seconds to wait for file descriptors before further connections are accepted."""
_REFUSING = 64
"""Maximum connections above the limit that receive a 503; further ones are closed."""
_REFUSAL = b"the server has as many connections as it may (RequestLimits.connections)"
_RESPONSE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
    b"Retry-After: 5\r\nConnection: close\r\n\r\n%b" % (len(_REFUSAL), _REFUSAL)
)


@dataclass(frozen=True)
class Accepting:
    """How a server accepts connections.

    Attributes:
        scope: cancel it, and no further connections are accepted.
        delay: returns seconds to wait before a connection is accepted: another process that listens
            at the same socket may take it meanwhile.
    """

    scope: CancelScope = field(default_factory=CancelScope)
    delay: Callable[[], float] = lambda: 0.0


async def serve(
    app: ASGIApp,
    listener: socket.socket,
    limits: RequestLimits,
    ready: anyio.Event,
    stop: anyio.Event,
    accepting: Accepting,
) -> None:
    """Serve until ``stop`` is set.

    Args:
        listener: the listening socket.
        ready: set once the server accepts connections.
        stop: ends the server.
        accepting: how connections are accepted.

    Raises:
        RuntimeError: the application's lifespan failed to start.

    Cancellation:
        Has no effect: the application's lifespan has to end. Set ``stop`` instead.
    """
    with CancelScope(shield=True):
        async with create_task_group() as tasks:
            lifespan = _Lifespan(app)
            tasks.start_soon(lifespan.run)
            await lifespan.started.wait()
            if lifespan.failure is not None:
                raise RuntimeError(f"the application failed to start: {lifespan.failure}")
            server = _Server(ServedApp(app, limits, lifespan.state), listener, accepting)
            ready.set()
            await server.run(stop)
            lifespan.stop.set()


class _Lifespan:
    """The application's lifespan. Applications may lack one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._begun = False
        self.state: dict[str, object] = {}
        self.started = anyio.Event()
        self.stop = anyio.Event()
        self.failure: str | None = None

    async def run(self) -> None:
        drains_itself.set(True)
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except Exception:
            if not self.started.is_set():
                logger.debug(
                    "the application is served without its lifespan",
                    exc_info=True,
                    event="server.no_lifespan",
                )
            elif self.failure is None:
                logger.exception(
                    "the application's lifespan failed", event="server.lifespan_failed"
                )
        finally:
            self.started.set()

    async def _receive(self) -> Message:
        await checkpoint()
        if not self._begun:
            self._begun = True
            return {"type": "lifespan.startup"}
        await self.stop.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        await checkpoint()
        kind, text = message["type"], message.get("message", "")
        if kind == "lifespan.startup.failed":
            self.failure = text
        elif kind == "lifespan.shutdown.failed":
            self.failure = text
            logger.error(
                "the application failed to shut down: %s", text, event="server.lifespan_failed"
            )
        if kind.startswith("lifespan.startup."):
            self.started.set()


class _Server:
    """Accepts connections within the limits."""

    def __init__(self, served: ServedApp, listener: socket.socket, accepting: Accepting) -> None:
        listener.setblocking(False)
        self._accepting = accepting
        self._served = served
        self._listener = listener
        self._connections: set[Connection] = set()
        self._by_address: Counter[str] = Counter()
        self._refusing = 0
        self._changed = anyio.Event()
        limit = served.limits.connections
        self._most = min(limit, _descriptor_limit() // 2)
        self._most_of_one = max(1, min(limit // 4, self._most // 2))

    async def run(self, stop: anyio.Event) -> None:
        """Serve until ``stop`` is set, and end all connections."""
        async with create_task_group() as tasks:
            async with create_task_group() as acceptor:
                acceptor.start_soon(self._accept, tasks)
                await stop.wait()
                self._accepting.scope.cancel()
            self._listener.close()
            for end in (Connection.stop, Connection.cancel_requests):
                for connection in list(self._connections):
                    end(connection)
                with move_on_after(_GRACE):
                    await self._wait_empty()
            tasks.cancel_scope.cancel()

    async def _accept(self, tasks: TaskGroup) -> None:
        with self._accepting.scope:
            while True:
                await self._accept_one(tasks)

    async def _accept_one(self, tasks: TaskGroup) -> None:
        await checkpoint()
        if (seconds := self._accepting.delay()) > 0:
            await wait_readable(self._listener)
            await anyio.sleep(seconds)
        try:
            accepted, (host, port, *_) = self._listener.accept()
        except BlockingIOError:
            await wait_readable(self._listener)
        except OSError as exc:  # the client has gone, or the process is out of resources
            if shortage := find_shortage(exc):
                logger.warning(
                    "no connection can be accepted: out of %s",
                    shortage,
                    event="server.accept_failed",
                )
                await anyio.sleep(_PAUSE)
        else:
            self._admit(accepted, (host, port), tasks)

    def _admit(self, accepted: socket.socket, client: tuple[str, int], tasks: TaskGroup) -> None:
        host = client[0]
        client_socket = ClientSocket(accepted)
        if len(self._connections) >= self._most or self._by_address[host] >= self._most_of_one:
            logger.warning(
                "a connection was refused: %s", _REFUSAL.decode(), event="connection.refused"
            )
            if self._refusing < _REFUSING:
                tasks.start_soon(self._refuse, client_socket)
            else:
                client_socket.close()
            return
        try:
            server = accepted.getsockname()[:2]
        except OSError:
            client_socket.close()
            return
        connection = Connection(self._served, client_socket, client, server)
        self._connections.add(connection)
        self._by_address[host] += 1
        tasks.start_soon(self._serve, connection, client_socket, host)

    async def _serve(self, connection: Connection, client_socket: ClientSocket, host: str) -> None:
        try:
            await connection.run()
        except Exception as exc:
            log_failure("a connection failed", error=exc, event="connection.failed")
        finally:
            client_socket.close()
            self._connections.discard(connection)
            self._by_address[host] -= 1
            if not self._by_address[host]:
                del self._by_address[host]
            self._changed.set()

    async def _refuse(self, client_socket: ClientSocket) -> None:
        self._refusing += 1
        try:
            client_socket.write(_RESPONSE)
            await client_socket.finish()
        finally:
            self._refusing -= 1
            client_socket.close()

    async def _wait_empty(self) -> None:
        while self._connections:
            self._changed = anyio.Event()
            await self._changed.wait()


def _descriptor_limit() -> int:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 1 << 20
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 20
