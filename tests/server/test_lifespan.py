from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from tests.unit.handlers import AsyncEcho
from tests.webrtc.calls import open_stream


async def test_the_stream_is_open_while_the_application_runs() -> None:
    order: list[str] = []
    stream = open_stream(AsyncEcho)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        order.append(f"up {stream.is_open}")
        yield
        order.append(f"down {stream.is_open}")

    app = Starlette(lifespan=lifespan)
    stream.mount(app)
    async with app.router.lifespan_context(app):
        order.append(f"running {stream.is_open}")
    # What the application opens is there before the first session and after the last.
    assert order == ["up False", "running True", "down False"]


async def test_an_application_may_open_the_stream_itself() -> None:
    stream = open_stream(AsyncEcho)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        async with stream:
            yield

    app = Starlette(lifespan=lifespan)
    stream.mount(app)
    async with app.router.lifespan_context(app):
        assert stream.is_open
    assert not stream.is_open
