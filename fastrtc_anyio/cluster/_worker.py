"""A worker: one of the processes that serve a stream."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace

from anyio import create_task_group
from starlette.applications import Starlette

from fastrtc_anyio._core.groups import collapse_groups
from fastrtc_anyio.server.launch import (
    create_listener,
    listener_url,
    serve_listener,
    wait_for_interrupt,
)
from fastrtc_anyio.server.routes import create_page
from fastrtc_anyio.stream import Stream

from ._remote import RemoteDirectory
from .member import Member
from .switchboard import Switchboard

__all__ = ["Settings", "serve_worker"]


@dataclass(frozen=True)
class Settings:
    """What a worker has to know.

    Attributes:
        target: names the stream; see :func:`.load_stream`.
        backend: ``"trio"`` or ``"asyncio"``.
        name: of the process.
        listener: file descriptor of the listening socket, shared by all workers.
        directory: path of the socket of the directory.
        secret: of the cluster.
        drain_timeout: in place of the stream's, or None.
    """

    target: str
    backend: str
    name: str
    listener: int
    directory: str
    secret: str
    drain_timeout: float | None = None

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


async def serve_worker(stream: Stream, settings: Settings) -> None:
    """Serve a stream until a signal ends it; SIGTERM drains it first."""
    if settings.drain_timeout is not None:
        stream.drain_timeout = settings.drain_timeout
    if stream.telephone.telnyx_public_key is not None and stream.telephone.secret is None:
        stream.telephone = replace(stream.telephone, secret=settings.secret)
    public = socket.socket(fileno=settings.listener)
    own = create_listener("127.0.0.1", 0)
    address = listener_url(own)
    member = Member(RemoteDirectory(settings.directory), address, name=settings.name)
    stream.claims = member
    app = Starlette(routes=[create_page("/", stream, ())])
    stream.mount(app)
    board = Switchboard(app, member, settings.secret, stream.request_limits)
    limits = stream.request_limits
    async with (
        serve_listener(board.inlet, own, limits),
        serve_listener(board, public, limits) as server,
        _join(member),
    ):

        async def drain() -> None:
            server.stop_accepting()
            await stream.drain()

        await wait_for_interrupt(drain=drain)


@asynccontextmanager
async def _join(member: Member) -> AsyncGenerator[None, None]:
    with collapse_groups():
        async with create_task_group() as tasks:
            await tasks.start(member.run)
            yield
            tasks.cancel_scope.cancel()
