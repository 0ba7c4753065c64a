"""A stream among the routes of a Starlette application, under hypercorn on trio.

Run it, or ``hypercorn --worker-class trio mount_starlette:app``, and open the page it names.
"""

from functools import partial

import anyio
from hypercorn import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from fastrtc_anyio import Session, Stream
from fastrtc_anyio.server.launch import wait_for_interrupt
from fastrtc_anyio.server.routes import page_route


async def echo(session: Session) -> None:
    async for frame in session.audio_in:
        await session.audio_out.send(frame)


async def status(request):
    return JSONResponse({"calls": stream.active})


stream = Stream(echo, modality="audio", mode="send-receive", concurrency_limit=20)
app = Starlette(routes=[page_route("/"), Route("/status", status)])
stream.mount(app)  # adds POST /webrtc/offer; the stream is open while the application runs

if __name__ == "__main__":
    # hypercorn's types know no Starlette.
    run = partial(serve, app, Config(), shutdown_trigger=wait_for_interrupt)  # type: ignore[arg-type]
    anyio.run(run, backend="trio")
