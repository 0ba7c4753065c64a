"""The echo with synchronous methods. They run on threads of this call, so they may block.

Run it, open the page at the printed address, and talk.

Install: ``pip install 'fastrtc-anyio[server]'``
"""

import queue

from fastrtc_anyio import Stream, StreamHandler


class SyncEcho(StreamHandler):
    def __init__(self) -> None:
        super().__init__()
        self.frames = queue.Queue()

    def receive(self, frame):
        self.frames.put(frame)

    def emit(self):
        try:
            return self.frames.get_nowait()
        except queue.Empty:
            return None  # no audio yet: emit is called again after 20 ms

    def copy(self):
        return SyncEcho()


stream = Stream(SyncEcho, modality="audio", mode="send-receive")

if __name__ == "__main__":
    stream.launch()
