"""A handler on trio that uses an asyncio library, websockets, to talk to a service.

The service echoes the audio; a speech API would take its place. Run it, open the page at the
printed address, and talk.

Install: ``pip install 'fastrtc-anyio[server]' websockets``
"""

import threading
from contextlib import AsyncExitStack
from functools import partial

import anyio
import numpy as np
from websockets.asyncio.client import connect
from websockets.sync.server import serve

from fastrtc_anyio import AsyncStreamHandler, Stream

SAMPLE_RATE = 16_000


class Remote(AsyncStreamHandler):
    def __init__(self, url: str = "ws://127.0.0.1:8765") -> None:
        super().__init__(input_sample_rate=SAMPLE_RATE, output_sample_rate=SAMPLE_RATE)
        self.url = url
        self.opened = AsyncExitStack()
        self.connected = anyio.Event()

    async def start_up(self):
        await self.run_asyncio(self.connect)
        self.connected.set()

    async def connect(self):
        # Enter the connection on the asyncio thread, where shutdown closes it in every case.
        self.socket = await self.opened.enter_async_context(connect(self.url))

    async def receive(self, frame):
        await self.connected.wait()
        _, samples = frame
        await self.run_asyncio(self.socket.send, samples.tobytes())

    async def emit(self):
        await self.connected.wait()
        reply = await self.run_asyncio(partial(self.socket.recv, decode=False))
        return SAMPLE_RATE, np.frombuffer(reply, np.int16)

    async def shutdown(self):
        await self.run_asyncio(self.opened.aclose)

    def copy(self):
        return Remote(self.url)


def service(socket):
    for message in socket:
        socket.send(message)


stream = Stream(Remote, modality="audio", mode="send-receive")

if __name__ == "__main__":
    with serve(service, "127.0.0.1", 8765) as server:
        threading.Thread(target=server.serve_forever).start()
        stream.launch()
