"""The echo with plain methods. Each runs on a thread of the call's own, so it may take its time.

Run it, open the page it names, and talk.
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
            return None  # nothing now: it is asked again in 20 ms

    def copy(self):
        return SyncEcho()


stream = Stream(SyncEcho, modality="audio", mode="send-receive")

if __name__ == "__main__":
    stream.launch()
