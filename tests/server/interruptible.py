"""Serve and print the URL until interrupted: ``python interruptible.py MODE``."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import suppress

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from fastrtc_anyio import Limits, RtcConfiguration, Session, Stream
from fastrtc_anyio.server.launch import open_server, wait_for_interrupt


async def echo(session: Session) -> None:
    async for frame in session.audio_in:
        await session.audio_out.send(frame)


async def echo_text(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


async def events(_request: Request) -> Response:
    async def ticks() -> AsyncGenerator[str, None]:
        while True:
            yield "data: tick\n\n"
            await anyio.sleep(0.05)

    return StreamingResponse(ticks(), media_type="text/event-stream")


async def flood(_request: Request) -> Response:
    async def noise() -> AsyncGenerator[bytes, None]:
        while True:
            yield bytes(65_536)

    return StreamingResponse(noise())


async def persist(session: Session) -> None:
    session.messages.send_nowait("running")
    while True:
        with suppress(BaseException):
            await anyio.sleep(0.01)


def main(mode: str) -> None:
    stream = Stream(
        echo,
        modality="audio",
        server_rtc_configuration=RtcConfiguration(addresses=("127.0.0.1",)),
    )
    if mode in ("launch-trio", "launch-asyncio"):
        stream.launch(port=0, backend="trio" if mode == "launch-trio" else "asyncio")
        return
    if mode in ("stubborn-trio", "stubborn-asyncio"):
        stubborn = Stream(persist, modality="audio", limits=Limits(shutdown=0.1))
        stubborn.launch(port=0, backend="trio" if mode == "stubborn-trio" else "asyncio")
        return
    app = Starlette(
        routes=[
            WebSocketRoute("/socket", echo_text),
            Route("/events", events),
            Route("/flood", flood),
        ]
    )
    stream.mount(app)
    if mode == "uvicorn":
        import uvicorn

        # Without this timeout, uvicorn waits for open event streams indefinitely.
        uvicorn.run(app, port=0, timeout_graceful_shutdown=1)
        return

    async def serve() -> None:
        async with open_server(app) as url:
            await wait_for_interrupt(url)

    anyio.run(serve, backend=mode)


if __name__ == "__main__":
    main(sys.argv[1])
