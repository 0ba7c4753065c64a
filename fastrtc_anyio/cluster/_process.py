"""A process of a cluster, whose requests of clients another server receives."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, cast

import anyio
from anyio import create_task_group
from starlette.types import ASGIApp, Receive, Scope, Send

from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio.resumption import MemoryStore, SessionStore
from fastrtc_anyio.server.launch import (
    create_app,
    create_listener,
    listener_url,
    serve_listener,
)
from fastrtc_anyio.stream import Stream

from .directory import SessionDirectory
from .member import Member
from .switchboard import Switchboard

__all__ = ["Built", "Process", "prepare"]

_POLL = 0.5
"""Seconds between two looks whether to stop."""

Built = Stream | tuple[ASGIApp, Stream]
"""A stream, or an application and the stream that is mounted in it."""


class Directory(SessionDirectory, SessionStore, Protocol):
    """A directory that keeps what sessions save, too."""


class Membership(NamedTuple):
    """What makes a process part of a cluster."""

    member: Member
    board: Switchboard
    listener: socket.socket
    """Where ``board.inlet`` has to be served."""


def prepare(
    app: ASGIApp, stream: Stream, directory: Directory, secret: str, *, host: str, name: str
) -> Membership:
    """Make a stream part of a cluster, before it has sessions. ``app`` has it mounted.

    Telnyx signs its webhook only: what this process says in the answer, another one may receive.

    Args:
        directory: of the cluster.
        secret: of the cluster.
        host: address at which the other processes reach this one.
        name: of this process.
    """
    listener = create_listener(host, 0)
    member = Member(directory, listener_url(listener), name=name)
    stream.claims = member
    if type(stream.store) is MemoryStore:  # the program has chosen no other
        stream.store = directory
    if stream.telephone.telnyx_public_key is not None and stream.telephone.secret is None:
        stream.telephone = replace(stream.telephone, secret=secret)
    board = Switchboard(app, member, secret, stream.request_limits)
    return Membership(member, board, listener)


@dataclass(frozen=True)
class Process:
    """What a process of the cluster is started with.

    Attributes:
        build: creates the application.
        name: of the process.
        host: address at which the other processes reach it.
        drain_timeout: of its stream.
        is_stopping: returns whether the stream shall drain now. The end of its block does it, too.
    """

    build: Callable[[], Built]
    name: str
    host: str
    drain_timeout: float
    is_stopping: Callable[[], bool] = lambda: False

    @asynccontextmanager
    async def open(
        self, directory: Directory, secret: str, streams: list[Stream]
    ) -> AsyncGenerator[ASGIApp, None]:
        """Serve the process's own port, and keep it in the directory, while the block runs.

        The end of the block drains the stream first, unless the block raises.

        Args:
            directory: of the cluster.
            secret: of the cluster.
            streams: receives the stream.

        Yields:
            The application for requests of clients.
        """
        app, stream = _read(self.build())
        stream.drain_timeout = self.drain_timeout
        stateful = _Stateful(app)
        member, board, listener = prepare(
            stateful, stream, directory, secret, host=self.host, name=self.name
        )
        entrance = _Entrance(stateful, board.inlet)
        with collapse_groups():
            async with (
                serve_listener(entrance, listener, stream.request_limits),
                create_task_group() as tasks,
            ):
                await tasks.start(member.run)
                tasks.start_soon(self._drain_early, stream)
                streams.append(stream)
                yield board
                await stream.drain()
                tasks.cancel_scope.cancel()

    async def _drain_early(self, stream: Stream) -> None:
        while not self.is_stopping():
            await anyio.sleep(_POLL)
        await stream.drain()


def _read(built: object) -> tuple[ASGIApp, Stream]:
    match built:
        case Stream() as stream:
            return create_app(stream), stream
        case (app, Stream() as stream) if callable(app):
            return cast("ASGIApp", app), stream
    raise TypeError(
        "build must return a Stream, or an ASGI application and the Stream that is mounted in it; "
        f"got {short_repr(built)}"
    )


class _Stateful:
    """An application whose requests have the state of its lifespan, whoever serves them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._state: dict[str, object] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope = {**scope, "state": self._state}
        else:
            scope = {**scope, "state": dict(self._state)}
        await self._app(scope, receive, send)


class _Entrance:
    """The application of a process's own port: its server runs the lifespan."""

    def __init__(self, app: ASGIApp, inlet: ASGIApp) -> None:
        self._app = app
        self._inlet = inlet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app if scope["type"] == "lifespan" else self._inlet
        await app(scope, receive, send)
