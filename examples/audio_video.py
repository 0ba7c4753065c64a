"""Echo audio and video, with a level meter drawn into the picture.

Run it, open the page at the printed address, talk and look into the camera.

Install: ``pip install 'fastrtc-anyio[server]'``
"""

import anyio

from fastrtc_anyio import AsyncAudioVideoStreamHandler, Stream

GREEN = (0, 255, 0)  # blue, green, red
BAR_WIDTH = 16  # pixels


class Meter(AsyncAudioVideoStreamHandler):
    def __init__(self) -> None:
        super().__init__()
        self.speak, self.listen = anyio.create_memory_object_stream(50)
        # No buffer: a picture waits for the viewer, and video_receive gets the latest one next.
        self.show, self.watch = anyio.create_memory_object_stream(0)
        self.loudness = 0.0

    async def receive(self, frame):
        _, samples = frame
        self.loudness = samples.max() / 32767
        await self.speak.send(frame)

    async def emit(self):
        return await self.listen.receive()

    async def video_receive(self, frame):
        height = frame.shape[0]
        top = height - round(self.loudness * height)
        frame[top:, :BAR_WIDTH] = GREEN  # the handler owns the array
        await self.show.send(frame)

    async def video_emit(self):
        return await self.watch.receive()

    async def shutdown(self):
        for end in (self.speak, self.listen, self.show, self.watch):
            end.close()

    def copy(self):
        return Meter()


stream = Stream(Meter, modality="audio-video", mode="send-receive")

if __name__ == "__main__":
    stream.launch()
