"""An offline voice agent that understands a few phrases and answers in speech.

Talk over it, and it stops; say "uh-huh", and it continues. It needs a program and some packages:

    apt install espeak-ng
    pip install 'fastrtc-anyio[voice]'
    python examples/voice_agent.py               # serves a page to talk to it through
    python examples/voice_agent.py --headless    # calls it with a recorded caller

Both print the events of the call with the seconds since its start. The call with the recorded
caller takes place in memory and on virtual time: half a minute takes a few seconds and is the same
each time, but models appear to take no time. ``--real-time`` shows their latency.

``caller.wav`` was made by

    espeak-ng -m -v en-gb+f2 -s 160 --stdout 'tell me a story <break time="2300ms"/> uh-huh
        <break time="1900ms"/> count to ten <break time="3800ms"/> go on with the story
        <break time="3800ms"/> goodbye for now' |
        sox -t wav - -r 16000 caller.wav pad 3 1
"""

import argparse
import wave
from bisect import bisect_right
from contextlib import aclosing
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from textwrap import shorten

import anyio
import numpy as np
import trio
from trio.testing import MockClock

from fastrtc_anyio import (
    CloseStream,
    InterruptionRejected,
    ReplyFinished,
    ReplyInterrupted,
    ReplyOnPause,
    ReplyStarted,
    Stream,
    UserStoppedSpeaking,
    get_silero_model,
    get_tts_model,
    run_sync,
    testing,
)
from fastrtc_anyio.speech.pocketsphinx import PocketSphinxSTT

CALLER = Path(__file__).with_name("caller.wav")
SAID = [  # start of each utterance in the recording, seconds
    (3.0, "tell me a story"),
    (6.2, "uh-huh"),
    (8.5, "count to ten"),
    (13.1, "go on with the story"),
    (18.0, "goodbye for now"),
]
RATE = 16_000  # of the models, the caller and the agent, so that one file holds both sides
BACKCHANNEL_S = 1.3  # an "uh-huh" of up to half a second, 0.3 s before it and 0.5 s after it

GO_ON = "go on with the story"
GOODBYE = "goodbye for now"
ANSWERS = {
    "what can you do": ["Tell stories and jokes, and the time.", "Say goodbye, and I hang up."],
    "tell me a joke": ["I would tell you one about U D P.", "But you might not get it."],
    "count to ten": ["One two three four five six seven eight nine ten."],
    "tell me a story": [
        "Once upon a time there was a task.",
        "It was born in a nursery, with many brothers and sisters.",
        "One day its mother was cancelled, and they all had to go home.",
        "The others left at once, but our task had a shield, and sat behind it.",
        "It waited for a reply that never came, and so it sits there still.",
    ],
    GOODBYE: ["Goodbye!"],
}
TELL_TIME = "what time is it"


@cache
def recogniser():
    """Load the recogniser once, which takes half a second."""
    return PocketSphinxSTT([*ANSWERS, GO_ON, TELL_TIME])


class Agent(ReplyOnPause):
    """Speak in sentences, and remember which of them the caller heard."""

    def __init__(self) -> None:
        super().__init__(
            self.answer,
            startup_fn=partial(self.say, ["Hello!", "What can I do for you?"]),
            input_sample_rate=RATE,
            output_sample_rate=RATE,
            confirm_interruption=self.judge,
            on_event=self.tell,
        )
        self.began = anyio.current_time()
        self.saying, self.ends = [], []  # sentences of this reply, and the end of each, seconds
        self.unheard = ["Which story?"]  # of the last interrupted reply

    async def answer(self, audio):
        """Answer an utterance; called at each pause, cancelled when the caller interrupts."""
        heard = await run_sync(recogniser().stt, audio)
        self.note("agent", f'has heard "{heard}"' if heard else "has not understood")
        self.send_transcript("user", heard or "(not understood)")  # to the page
        async with aclosing(self.say(self.choose(heard))) as speech:
            async for chunk in speech:
                yield chunk
        if heard == GOODBYE:
            yield CloseStream("Goodbye.")  # after the last sentence has been played

    def choose(self, heard):
        now = {GO_ON: self.unheard, TELL_TIME: [f"It is {datetime.now():%H:%M}."]}
        return (ANSWERS | now).get(heard, ["I did not understand.", "Ask me what I can do."])

    async def say(self, sentences):
        self.saying, seconds = sentences, 0.0
        async with aclosing(get_tts_model("espeak-ng").stream_tts(" ".join(sentences))) as speech:
            async for rate, samples in speech:  # sentence by sentence
                if not self.ends:
                    self.note("agent", f'says "{shorten(" ".join(sentences), 60)}"')
                seconds += samples.shape[1] / rate
                self.ends.append(seconds)
                yield rate, samples

    async def judge(self, interruption):
        """Decide whether the caller interrupts or only says "uh-huh" while the reply is paused."""
        rate, samples = interruption.audio
        if samples.shape[1] > BACKCHANNEL_S * rate:
            return True
        return False if interruption.user_paused else None  # None: call again with more audio

    def tell(self, event):
        """Log an event of the conversation."""
        self.began = anyio.current_time() - event.at
        match event:
            case UserStoppedSpeaking():
                self.note("caller", "pauses")
            case ReplyStarted():
                self.saying, self.ends = [], []
                self.note("agent", f"reply {event.reply} starts")
            case InterruptionRejected():
                self.note("agent", f"reply {event.reply} goes on: that was no interruption")
            case ReplyInterrupted():
                seconds = event.played.seconds
                self.note("agent", f"reply {event.reply} was interrupted after {seconds:.2f} s")
                if rest := self.saying[bisect_right(self.ends, seconds) :]:
                    self.unheard = rest
                    self.note("agent", f'was not heard to say "{rest[0]}"')
            case ReplyFinished():
                seconds = event.played.seconds
                self.note("agent", f"reply {event.reply} was heard to its end, {seconds:.2f} s")

    def note(self, speaker, event):
        print(f"{anyio.current_time() - self.began:6.2f}  {speaker:<6}  {event}", flush=True)


stream = Stream(
    Agent,
    modality="audio",
    mode="send-receive",
    ui_args={
        "title": "Voice agent",
        "subtitle": "Try: tell me a story, count to ten, what can you do",
    },
)


async def call_agent(record):
    """Play the recorded caller to the agent, and record both sides, the caller on the left."""
    with wave.open(str(CALLER)) as file:
        said = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    agent = Agent()
    async with (
        testing.open_call(agent) as call,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(call.speak, said[np.newaxis], RATE)
        for at, text in SAID:
            await anyio.sleep_until(agent.began + at)
            agent.note("caller", f'says "{text}"')
        with anyio.move_on_after(10):
            await call.ended.wait()
    if closed := call.session.closed:
        print(f"The call is over: {closed.reason.name}.")
    if record:
        length = max(said.size, call.heard.shape[1])
        sides = [np.pad(side, (0, length - side.size)) for side in (said, call.heard[0])]
        with wave.open(record, "wb") as file:
            file.setparams((2, 2, RATE, length, "NONE", ""))
            file.writeframes(np.stack(sides, axis=1).tobytes())


def main():
    parser = argparse.ArgumentParser(description="A voice agent, offline.")
    parser.add_argument("--headless", action="store_true", help="call it with a recorded caller")
    parser.add_argument("--real-time", action="store_true", help="not on virtual time")
    parser.add_argument(
        "--record", metavar="WAV", help="write both sides: caller left, agent right"
    )
    arguments = parser.parse_args()
    for load in (get_silero_model, recogniser, lambda: get_tts_model("espeak-ng")):
        load()  # before the first call
    if arguments.headless:
        clock = None if arguments.real_time else MockClock(autojump_threshold=0)
        trio.run(call_agent, arguments.record, clock=clock)
    else:
        stream.launch()


if __name__ == "__main__":
    main()
