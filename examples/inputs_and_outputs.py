"""A handler with inputs from a custom page and outputs to it, and the endpoints for that page.

The handler sends ``{"type": "send_input"}`` on the data channel, and the page posts its volume to
``/input_hook``. ``new EventSource("/outputs?webrtc_id=...")`` receives the loudness every second.

Install: ``pip install 'fastrtc-anyio[server]' fastapi 'hypercorn[trio]'``
"""

import json
from functools import partial

import anyio
import numpy as np
from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from hypercorn import Config
from hypercorn.trio import serve
from pydantic import BaseModel

from fastrtc_anyio import AdditionalOutputs, AsyncStreamHandler, Stream, UnknownSession
from fastrtc_anyio.server import wait_for_interrupt


class Amplifier(AsyncStreamHandler):
    def __init__(self) -> None:
        super().__init__()
        self.speak, self.listen = anyio.create_memory_object_stream(50)
        self.peaks = []

    async def start_up(self):
        await self.wait_for_args()  # request the inputs from the page

    async def receive(self, frame):
        await self.args_set.wait()  # silent until the inputs have arrived
        rate, samples = frame
        _, volume = self.latest_args  # always the latest
        louder = np.clip(samples * volume, -32768, 32767).astype(np.int16)
        await self.speak.send((rate, louder))
        self.peaks.append(int(louder.max()))
        if len(self.peaks) == 50:
            await self.speak.send(AdditionalOutputs({"loudness": max(self.peaks)}))
            self.peaks.clear()

    async def emit(self):
        return await self.listen.receive()

    async def shutdown(self):
        self.speak.close()
        self.listen.close()

    def copy(self):
        return Amplifier()


class Inputs(BaseModel):
    webrtc_id: str
    volume: float


stream = Stream(Amplifier, modality="audio", mode="send-receive")
app = FastAPI()
stream.mount(app)


@app.post("/input_hook")
async def input_hook(inputs: Inputs):
    stream.set_input(inputs.webrtc_id, inputs.volume)


@app.get("/outputs")
async def outputs(webrtc_id: str):
    reader = stream.output_stream(webrtc_id)
    await reader.wait_begun()  # the page may connect before its call has begun

    async def events():
        async for output in reader:
            yield f"data: {json.dumps(output.args[0])}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.exception_handler(UnknownSession)
async def unknown_session(request, error):
    return JSONResponse({"error": str(error)}, error.status_hint)


if __name__ == "__main__":
    wait = partial(wait_for_interrupt, drain=stream.drain)
    # Hypercorn's type hints do not accept a Starlette application.
    run = partial(serve, app, Config(), shutdown_trigger=wait)  # type: ignore[arg-type]
    anyio.run(run, backend="trio")
