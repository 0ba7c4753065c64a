"""Processes of a cluster in one process: each has an application, a public and an own port."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
from anyio import CancelScope, create_task_group
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fastrtc_anyio import AdditionalOutputs, AsyncStreamHandler, Slider, Stream, Textbox
from fastrtc_anyio.cluster import Member, SessionDirectory, Switchboard
from fastrtc_anyio.server.launch import create_listener, listener_url, serve_listener

from .calls import make_stream

SECRET = "the secret of the test's cluster"


class Setting(AsyncStreamHandler):
    """An echo that puts out the inputs which it is given."""

    def copy(self) -> Setting:
        return Setting()

    async def receive(self, frame: Any) -> None:
        pass

    async def emit(self) -> Any:
        await self.wait_for_args()
        self.args_set.clear()
        return AdditionalOutputs(self.latest_args[-1])


@dataclass
class Node:
    """One process.

    Attributes:
        url: of its public port.
        http: a client of it.
        uploads: bodies that ``POST /upload`` has received.
        seen: scopes of requests to ``/where``.
    """

    stream: Stream
    member: Member
    url: str
    http: httpx.AsyncClient
    scope: CancelScope
    uploads: list[bytes] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)

    def kill(self) -> None:
        """Close all ports at once."""
        self.scope.cancel()


def _make_app(stream: Stream, uploads: list[bytes], seen: list[Any]) -> Starlette:
    async def where(request: Request) -> Response:
        seen.append(request.scope)
        return JSONResponse({"served": len(seen), "host": request.headers["host"]})

    async def upload(request: Request) -> Response:
        uploads.append(await request.body())
        return Response(status_code=201)

    async def events(request: Request) -> Response:
        async def make() -> AsyncIterator[str]:
            for number in range(3):
                yield f"data: {number}\n\n"
            seen.append("waits")
            try:
                await anyio.sleep_forever()
            finally:
                seen.append("closed")

        return StreamingResponse(make(), media_type="text/event-stream")

    app = Starlette(
        routes=[
            Route("/where", where, methods=["GET", "POST"]),
            Route("/upload", upload, methods=["POST"]),
            Route("/events", events),
        ]
    )
    stream.mount(app)
    return app


@asynccontextmanager
async def open_nodes(
    directory: SessionDirectory,
    *names: str,
    make: Callable[..., Stream] = make_stream,
    **options: Any,
) -> AsyncGenerator[list[Node], None]:
    """Run processes of a cluster."""
    options = {
        "additional_inputs": [Slider(label="level", minimum=0, maximum=10)],
        "additional_outputs": [Textbox(label="shown")],
        **options,
    }
    async with create_task_group() as tasks:
        nodes = []
        for name in names:
            stream = make(Setting(), **options)
            nodes.append(await tasks.start(_run_node, directory, name, stream))
        yield nodes
        tasks.cancel_scope.cancel()


async def _run_node(
    directory: SessionDirectory,
    name: str,
    stream: Stream,
    *,
    task_status: anyio.abc.TaskStatus[Node],
) -> None:
    own, public = create_listener("127.0.0.1", 0), create_listener("127.0.0.1", 0)
    member = Member(directory, listener_url(own), name=name)
    stream.claims = member
    uploads: list[bytes] = []
    seen: list[Any] = []
    app = _make_app(stream, uploads, seen)
    board = Switchboard(app, member, SECRET, stream.request_limits)
    with CancelScope() as scope:
        async with (
            create_task_group() as tasks,
            serve_listener(board.inlet, own),
            serve_listener(board, public) as server,
            httpx.AsyncClient(base_url=server.url, timeout=20) as http,
        ):
            await tasks.start(member.run)
            task_status.started(Node(stream, member, server.url, http, scope, uploads, seen))
            await anyio.sleep_forever()
