"""A bridge to a speech-to-speech service over a WebSocket, in the style of OpenAI's realtime API.

    pip install 'fastrtc-anyio[server]' httpx-ws
    python examples/realtime_api.py --demo             # talk to a service that only pretends
    python examples/realtime_api.py --model gpt-realtime
    python examples/realtime_api.py --demo --headless  # call it with recorded speech

The service takes turns: it detects speech, and answers it. When the user interrupts, the bridge
drops the queued audio and tells the service how much of its answer was played. The address and the
key are by default OPENAI_REALTIME_URL and OPENAI_API_KEY of the environment.
"""

import argparse
import base64
import logging
import os
import wave
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx
import numpy as np
import trio
from anyio.from_thread import start_blocking_portal
from httpx_ws import HTTPXWSException, aconnect_ws
from wsproto.utilities import LocalProtocolError

from fastrtc_anyio import (
    AsyncStreamHandler,
    Stream,
    Warning,
    WebRTCError,
    get_current_context,
    testing,
)
from fastrtc_anyio.server.launch import open_server

RATE = 24_000  # of the service: mono, 16 bits
CHUNKS = 10_000  # of audio that may wait to be played
FAILURES = (httpx.HTTPError, HTTPXWSException, LocalProtocolError, ValueError, anyio.WouldBlock)
SESSION = {
    "type": "realtime",
    "instructions": "You talk on the telephone. Answer in a few short sentences.",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": RATE},
            "transcription": {"model": "gpt-4o-mini-transcribe"},
            "turn_detection": {"type": "server_vad"},
        },
        "output": {"format": {"type": "audio/pcm", "rate": RATE}},
    },
}

environment = os.environ.get
parser = argparse.ArgumentParser(description="A bridge to a speech-to-speech service.")
parser.add_argument(
    "--url", default=environment("OPENAI_REALTIME_URL", "https://api.openai.com/v1/realtime")
)
parser.add_argument("--api-key", default=environment("OPENAI_API_KEY", "none"))
parser.add_argument("--model", default="gpt-realtime")
parser.add_argument("--demo", action="store_true", help="use fake_realtime.py")
parser.add_argument("--headless", action="store_true", help="call it with recorded speech")
options = parser.parse_args(None if __name__ == "__main__" else [])


@dataclass
class Answer:
    """An item that the service speaks. Times are seconds of audio since the call began."""

    id: str
    begins: float
    ends: float
    text: str = ""
    over: bool = False  # played to its end, or interrupted


class Bridge(AsyncStreamHandler):
    """Passes audio on in both directions."""

    receive_silence = True  # the service finds the ends of utterances

    def __init__(self) -> None:
        super().__init__(input_sample_rate=RATE, output_sample_rate=RATE)
        self.connected = anyio.Event()
        # The service sends faster than it speaks: room for some minutes.
        self.sender, self.chunks = anyio.create_memory_object_stream(CHUNKS)
        self.answer = Answer("", 0.0, 0.0, over=True)

    def copy(self):
        return Bridge()

    async def start_up(self):
        """Stay connected to the service until the call ends."""
        failures = []
        try:
            async with aconnect_ws(
                f"{options.url}?model={options.model}",
                headers={"Authorization": f"Bearer {options.api_key}"},
            ) as self.socket:
                await self.send("session.update", session=SESSION)
                self.connected.set()
                while True:
                    await self.handle(await self.socket.receive_json())
        except* FAILURES as group:
            failures += group.exceptions
        logging.error("the connection to %s failed: %r", options.url, failures)
        raise WebRTCError("The speech service is not available.")

    async def shutdown(self):
        self.sender.close()
        self.chunks.close()

    async def send(self, kind, **fields):
        await self.socket.send_json({"type": kind, **fields})

    async def receive(self, frame):
        """Send 20 ms of the user's audio to the service."""
        await self.connected.wait()
        _, samples = frame
        audio = base64.b64encode(samples.astype("<i2").tobytes()).decode()
        with suppress(*FAILURES):  # start_up reports it
            await self.send("input_audio_buffer.append", audio=audio)

    async def emit(self):
        """Return audio of the service; at the end of an answer, wait until it has been played."""
        chunk = await self.chunks.receive()
        if not isinstance(chunk, Answer):
            return RATE, chunk
        await self.session.audio_out.wait_played()
        if not chunk.over:
            self.tell(chunk)
        return None

    async def handle(self, event):
        """Process an event of the service. Each answer's audio events have older names, too."""
        match event:
            case {"type": "response.output_audio.delta" | "response.audio.delta"}:
                samples = np.frombuffer(base64.b64decode(event["delta"]), "<i2")
                answer = self.find(event["item_id"])
                if not answer.over:  # otherwise it was under way during the interruption
                    answer.ends += samples.size / RATE
                    self.sender.send_nowait(samples.astype(np.int16))
            case {
                "type": "response.output_audio_transcript.delta" | "response.audio_transcript.delta"
            }:
                self.find(event["item_id"]).text += event["delta"]
            case {"type": "response.output_audio.done" | "response.audio.done"}:
                self.sender.send_nowait(self.answer)
            case {"type": "input_audio_buffer.speech_started"}:
                await self.interrupt()
            case {"type": "conversation.item.input_audio_transcription.completed"}:
                self.send_transcript("user", event["transcript"])
            case {"type": "error"}:
                logging.error("the speech service reports %s", event["error"])
                Warning("The speech service reports an error.")  # on the page

    def find(self, id):
        """Return the answer to which audio or text belongs; a new one follows the last."""
        if self.answer.id != id:
            self.answer = Answer(id, self.answer.ends, self.answer.ends)
        return self.answer

    async def interrupt(self):
        """Drop the rest of the answer, and tell the service how much of it was played."""
        answer = self.answer
        while self.chunks.statistics().current_buffer_used:
            self.chunks.receive_nowait()
        self.clear_queue()
        if not answer.over and answer.ends > answer.begins:
            seconds = self.tell(answer)
            await self.send(
                "conversation.item.truncate",
                item_id=answer.id,
                content_index=0,
                audio_end_ms=round(1000 * seconds),
            )
        answer.over, answer.ends = True, self.played

    def tell(self, answer):
        """Add the played part of an answer to the transcript, and return its seconds."""
        answer.over = True
        seconds = max(0.0, min(self.played, answer.ends) - answer.begins)
        if seconds:
            words = answer.text.split()
            heard = round(len(words) * seconds / (answer.ends - answer.begins))
            self.send_transcript("assistant", " ".join(words[:heard]))
        return seconds

    @property
    def session(self):
        return get_current_context().session

    @property
    def played(self):
        """Seconds of audio that were played since the call began."""
        return self.session.audio_out.position / self.session.audio_out.sample_rate


stream = Stream(
    Bridge, modality="audio", mode="send-receive", ui_args={"title": "Speech to speech"}
)


async def call_service():
    """Ask a question, interrupt the answer with another question, and print the conversation."""
    async with testing.open_call(stream.handler) as call:
        with anyio.move_on_after(60):
            await call.speak(*read("stop_words_caller.wav", 0.5, 3.5))
            while not call.heard.any():
                await anyio.sleep(0.1)
            await anyio.sleep(2)
            await call.speak(*read("caller.wav", 8.0, 10.0))
            while len(call.session.transcript) < 4:
                await anyio.sleep(0.1)
    for role, text in call.session.transcript:
        print(f"{role}: {text}")


def read(name, start, end):
    """Return a part of a recording, and its rate."""
    with wave.open(str(Path(__file__).with_name(name))) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    return samples[np.newaxis, round(start * rate) : round(end * rate)], rate


def main():
    with ExitStack() as stack:
        if options.demo:
            import fake_realtime

            portal = stack.enter_context(start_blocking_portal("trio"))
            server = portal.wrap_async_context_manager(open_server(fake_realtime.app))
            options.url = f"{stack.enter_context(server)}/v1/realtime"
        if options.headless:
            trio.run(call_service)
        else:
            stream.launch()


if __name__ == "__main__":
    main()
