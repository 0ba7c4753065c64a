"""Mount a stream in a Starlette application, served by Hypercorn on trio.

Run it, or ``hypercorn --worker-class trio mount_starlette:app``, and open the printed address.

Install: ``pip install 'fastrtc-anyio[server]' 'hypercorn[trio]'``
"""

from functools import partial

import anyio
from hypercorn import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from fastrtc_anyio import Session, Stream
from fastrtc_anyio.server import page_route, wait_for_interrupt


async def echo(session: Session) -> None:
    async for frame in session.audio_in:
        await session.audio_out.send(frame)


async def status(request):
    return JSONResponse({"calls": stream.active})


stream = Stream(echo, modality="audio", mode="send-receive", concurrency_limit=20)
app = Starlette(routes=[page_route("/"), Route("/status", status)])
stream.mount(app)  # adds POST /webrtc/offer; the stream is open while the application runs

if __name__ == "__main__":
    wait = partial(wait_for_interrupt, drain=stream.drain)
    # Hypercorn's type hints do not accept a Starlette application.
    run = partial(serve, app, Config(), shutdown_trigger=wait)  # type: ignore[arg-type]
    anyio.run(run, backend="trio")
