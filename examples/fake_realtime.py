"""A server that pretends to be a speech-to-speech service: it repeats each utterance.

It sends and receives events in the style of OpenAI's realtime API, needs no key and runs offline.
Run it alone, or let ``realtime_api.py --demo`` start it.
"""

import base64
from dataclasses import dataclass, field

import anyio
import numpy as np
from anyio import CancelScope
from anyio.abc import TaskGroup
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from fastrtc_anyio.server.launch import open_server, wait_for_interrupt

RATE = 24_000
LOUD = 1000  # of a sample of speech
PAUSE = 0.5  # seconds
SPEED = 4.0  # at which speech is sent, compared with its playback

received = []  # all events but those with audio


@dataclass
class Conversation:
    socket: WebSocket
    tasks: TaskGroup
    utterance: list = field(default_factory=list)  # audio since the user began to speak
    quiet: float = 0.0  # seconds since the user last spoke
    answers: int = 0
    answering: CancelScope = field(default_factory=CancelScope)

    async def send(self, kind, **fields):
        await self.socket.send_json({"type": kind, **fields})

    async def hear(self, samples):
        loud = np.abs(samples).max(initial=0) > LOUD
        if loud and not self.utterance:
            self.answering.cancel()
            await self.send("input_audio_buffer.speech_started")
        if loud or self.utterance:
            self.utterance.append(samples)
            self.quiet = 0.0 if loud else self.quiet + samples.size / RATE
        if self.utterance and self.quiet >= PAUSE:
            await self.send("input_audio_buffer.speech_stopped")
            said, self.utterance = np.concatenate(self.utterance), []
            text = f"{said.size / RATE - self.quiet:.1f} seconds of speech"
            kind = "conversation.item.input_audio_transcription.completed"
            await self.send(kind, transcript=text)
            self.answering = CancelScope()
            self.tasks.start_soon(self.answer, said, text, self.answering)

    async def answer(self, said, text, scope):
        """Say the utterance twice, in pieces of 100 ms, each after its words."""
        self.answers += 1
        item = {"item_id": f"item_{self.answers}"}
        words = f"I have heard {text}, and now you hear them twice.".split()
        pieces = np.array_split(np.concatenate([said, said]), len(words))
        with scope:
            for word, samples in zip(words, pieces, strict=True):
                audio = base64.b64encode(samples.astype("<i2").tobytes()).decode()
                await self.send("response.output_audio_transcript.delta", delta=f"{word} ", **item)
                await self.send("response.output_audio.delta", delta=audio, **item)
                await anyio.sleep(samples.size / RATE / SPEED)
            await self.send("response.output_audio.done", **item)


async def serve(socket):
    await socket.accept()
    async with anyio.create_task_group() as tasks:
        conversation = Conversation(socket, tasks)
        await conversation.send("session.created")
        try:
            while True:
                event = await socket.receive_json()
                if event["type"] == "input_audio_buffer.append":
                    audio = base64.b64decode(event["audio"])
                    await conversation.hear(np.frombuffer(audio, "<i2").astype(np.int16))
                else:
                    received.append(event)
        except WebSocketDisconnect:
            tasks.cancel_scope.cancel()


app = Starlette(routes=[WebSocketRoute("/v1/realtime", serve)])


async def main():
    async with open_server(app, port=8002) as url:
        await wait_for_interrupt(f"OPENAI_REALTIME_URL={url}/v1/realtime. Ctrl-C ends it.")


if __name__ == "__main__":
    anyio.run(main, backend="trio")
