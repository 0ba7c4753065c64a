"""An instant replay as a session function, the level below handlers: one function per call.

Run it, open the page at the printed address, and talk. Then write "play" in the page's field for
messages, to hear the last ten seconds, and "stop" to end the replay.

Install: ``pip install 'fastrtc-anyio[server]'``
"""

from collections import deque

import anyio
import numpy as np

from fastrtc_anyio import AudioFrame, Session, Stream


async def replay(session: Session) -> None:
    recorded: deque[AudioFrame] = deque(maxlen=10 * 50)  # frames of 20 ms

    async def listen() -> None:
        async for frame in session.audio_in:
            recorded.append(frame)

    # When the client hangs up, the session cancels this function.
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        while True:
            message = await session.messages.receive()
            if message == "play" and recorded:
                session.audio_out.flush()
                samples = np.concatenate([frame.samples for frame in recorded], axis=1)
                await session.audio_out.send((recorded[-1].sample_rate, samples))
            elif message == "stop":
                played = session.audio_out.flush()
                session.messages.send_nowait(f"stopped after {played.seconds:.2f} s")


stream = Stream(replay, modality="audio", mode="send-receive")

if __name__ == "__main__":
    stream.launch()
