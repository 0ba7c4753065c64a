"""Applications that drain: ``python drainable.py MODE`` serves one; servers import ``app``."""

from __future__ import annotations

import os
import sys
from functools import partial

import anyio
from starlette.applications import Starlette

from fastrtc_anyio import RtcConfiguration, Session, Stream
from fastrtc_anyio.server import open_server, wait_for_interrupt


async def echo(session: Session) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(echo_messages, session)
        async for frame in session.audio_in:
            await session.audio_out.send(frame)
        tasks.cancel_scope.cancel()


async def echo_messages(session: Session) -> None:
    async for message in session.messages:
        session.messages.send_nowait(message)


def make_stream() -> Stream:
    return Stream(
        echo,
        modality="audio",
        concurrency_limit=None,
        server_rtc_configuration=RtcConfiguration(addresses=("127.0.0.1",)),
        drain_timeout=float(os.environ.get("DRAIN_TIMEOUT", "25")),
    )


stream, other = make_stream(), make_stream()
app = Starlette()
stream.mount(app)
other.mount(app, "/other")


async def serve_app() -> None:
    async with open_server(app) as url:
        await wait_for_interrupt(url, drain=stream.drain)


def main(mode: str) -> None:
    kind, _, backend = mode.partition("-")
    if kind == "launch":
        stream.launch(port=0, backend="trio" if backend == "trio" else "asyncio")
    elif kind == "open":
        anyio.run(serve_app, backend=backend)
    else:
        from hypercorn import Config

        if backend == "trio":
            from hypercorn.trio import serve
        else:
            from hypercorn.asyncio import serve  # type: ignore[assignment]
        config = Config()
        config.bind = ["127.0.0.1:0"]
        wait = partial(wait_for_interrupt, drain=stream.drain)
        run = partial(serve, app, config, shutdown_trigger=wait)  # type: ignore[arg-type]
        anyio.run(run, backend=backend)


if __name__ == "__main__":
    main(sys.argv[1])
