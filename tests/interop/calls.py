"""What both kinds of peers call: a stream behind a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.applications import Starlette

from fastrtc_anyio import CloseReason, RtcConfiguration, Session, Stream
from fastrtc_anyio._media.media_plan import Modality
from fastrtc_anyio.server.launch import open_server
from fastrtc_anyio.server.routes import page_route
from tests.kit.handlers import AsyncEcho

SECONDS = 20.0
"""Foreign peers on a busy machine get this long for what takes them a fraction of it."""


class TalkativeEcho(AsyncEcho):
    """Says back what it hears, and answers messages."""

    async def on_message(self, message: str) -> None:
        await self.send_message(f"you said {message}")


def make_stream(
    handler: Any = TalkativeEcho,
    *,
    modality: Modality = "audio",
    concurrency_limit: int | None = 4,
    **options: Any,
) -> Stream:
    return Stream(
        handler,
        modality=modality,
        concurrency_limit=concurrency_limit,
        server_rtc_configuration=RtcConfiguration(addresses=("127.0.0.1",)),
        **options,
    )


@asynccontextmanager
async def serve(stream: Stream) -> AsyncGenerator[str, None]:
    """The stream and its page, as ``Stream.launch`` serves them."""
    app = Starlette(routes=[page_route()])
    stream.mount(app)
    async with open_server(app) as url:
        yield url


def only_session(stream: Stream) -> Session:
    (session,) = stream.sessions.values()
    return session


async def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that announces itself to nobody."""
    with anyio.move_on_after(SECONDS):
        while not condition():
            await anyio.sleep(0.01)
        return
    raise AssertionError(f"{what}: not within {SECONDS:g} s")


async def wait_ended(stream: Stream, session: Session) -> CloseReason:
    """Wait until nothing is left of a session, and tell why it ended."""
    await wait_until(lambda: session.id not in stream.sessions, "the end of the session")
    assert session.closed is not None
    return session.closed.reason
