"""Echo the caller. Run it, open the page at the printed address, and talk.

Install: ``pip install 'fastrtc-anyio[server]'``
"""

import anyio

from fastrtc_anyio import AsyncStreamHandler, Stream


class Echo(AsyncStreamHandler):
    def __init__(self) -> None:
        super().__init__()
        self.speak, self.listen = anyio.create_memory_object_stream(50)

    async def receive(self, frame):
        await self.speak.send(frame)

    async def emit(self):
        return await self.listen.receive()

    async def shutdown(self):
        self.speak.close()
        self.listen.close()

    def copy(self):
        return Echo()


stream = Stream(Echo, modality="audio", mode="send-receive")

if __name__ == "__main__":
    stream.launch()
