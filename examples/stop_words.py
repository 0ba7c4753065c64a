"""An agent that answers only to who says "hey computer" first. It needs no network.

It takes a program and some packages:

    apt install espeak-ng
    pip install '.[server,stt,vad]'
    python examples/stop_words.py               # serves a page to talk to it through
    python examples/stop_words.py --headless    # has a recorded caller talk to it

Either prints what happens, with the seconds since the call began. A call with the recorded caller
takes place in memory and on virtual time: twenty seconds pass in a few and are the same each time,
but models seem to take no time. ``--real-time`` shows what they take.

``stop_words_caller.wav`` was made by

    espeak-ng -m -v en-gb+f2 -s 160 --stdout 'Where is the train station? <break time="1500ms"/>
        tell me a joke <break time="1500ms"/> hey computer, what can you do <break time="4000ms"/>
        hey computer <break time="1500ms"/> tell me a joke' |
        sox -t wav - -r 16000 stop_words_caller.wav pad 1 6
"""

import argparse
import wave
from contextlib import aclosing
from datetime import datetime
from functools import cache
from pathlib import Path

import anyio
import numpy as np
import trio
from trio.testing import MockClock

from fastrtc_anyio import (
    ReplyFinished,
    ReplyInterrupted,
    ReplyOnStopWords,
    ReplyStarted,
    StopWordHeard,
    Stream,
    UserStoppedSpeaking,
    get_silero_model,
    get_tts_model,
    run_sync,
    testing,
)
from fastrtc_anyio.speech.pocketsphinx import PocketSphinxSTT

CALLER = Path(__file__).with_name("stop_words_caller.wav")
SAID = [  # there, and when
    (1.0, "Where is the train station?"),
    (4.0, "tell me a joke"),
    (6.3, "hey computer, what can you do"),
    (12.3, "hey computer"),
    (14.7, "tell me a joke"),
]
RATE = 16_000  # what the models hear, the caller's, and the agent's, so that one file holds both
STOP_WORDS = ["hey computer"]  # three syllables at least: short ones are heard everywhere

ANSWERS = {
    "what can you do": "I tell jokes, and the time, to who says hey computer.",
    "tell me a joke": "There are ten kinds of people: those who know binary, and those who don't.",
}
TELL_TIME = "what time is it"


@cache
def recogniser():
    """Loaded once, which takes half a second. It understands phrases, and spots stop words."""
    return PocketSphinxSTT([*ANSWERS, TELL_TIME])


class Agent(ReplyOnStopWords):
    def __init__(self) -> None:
        super().__init__(
            self.answer,
            STOP_WORDS,
            input_sample_rate=RATE,
            output_sample_rate=RATE,
            stt_model=recogniser(),
            on_event=self.tell,
        )
        self.began = anyio.current_time()

    async def answer(self, audio):
        """Called when the caller pauses, with what they said after the stop word."""
        heard = await run_sync(recogniser().stt, audio)
        self.note("agent", f'has heard "{heard}"' if heard else "has not understood")
        await self.send_message(f"I heard: {heard or 'something else'}")  # to the page
        text = ANSWERS.get(heard, "I did not understand.")
        if heard == TELL_TIME:
            text = f"It is {datetime.now():%H:%M}."
        self.note("agent", f'says "{text}"')
        async with aclosing(get_tts_model("espeak-ng").stream_tts(text)) as speech:
            async for chunk in speech:
                yield chunk

    def tell(self, event):
        """Write down what happens."""
        self.began = anyio.current_time() - event.at
        match event:
            case StopWordHeard():
                self.note("agent", "has heard the stop word, and listens")
            case UserStoppedSpeaking():
                self.note("caller", "pauses")
            case ReplyStarted():
                self.note("agent", f"reply {event.reply} starts")
            case ReplyInterrupted():
                seconds = event.played.seconds
                self.note("agent", f"reply {event.reply} was interrupted after {seconds:.2f} s")
            case ReplyFinished():
                seconds = event.played.seconds
                self.note("agent", f"reply {event.reply} was heard to its end, {seconds:.2f} s")

    def note(self, who, what):
        print(f"{anyio.current_time() - self.began:6.2f}  {who:<6}  {what}", flush=True)


stream = Stream(Agent, modality="audio", mode="send-receive")


async def call_agent(record):
    """Have the recorded caller talk to the agent, and record both: left the caller."""
    with wave.open(str(CALLER)) as file:
        said = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    agent = Agent()
    async with (
        testing.open_call(agent, thread_limit=30) as call,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(call.speak, said[np.newaxis], RATE)
        for at, text in SAID:
            await anyio.sleep_until(agent.began + at)
            agent.note("caller", f'says "{text}"')
    print(f"The caller hung up after {said.size / RATE:.2f} s.")
    if record:
        length = max(said.size, call.heard.shape[1])
        sides = [np.pad(side, (0, length - side.size)) for side in (said, call.heard[0])]
        with wave.open(record, "wb") as file:
            file.setparams((2, 2, RATE, length, "NONE", ""))
            file.writeframes(np.stack(sides, axis=1).tobytes())


def main():
    parser = argparse.ArgumentParser(description="An agent with a stop word, offline.")
    parser.add_argument("--headless", action="store_true", help="call it with a recorded caller")
    parser.add_argument("--real-time", action="store_true", help="not on virtual time")
    parser.add_argument(
        "--record", metavar="WAV", help="write both sides: caller left, agent right"
    )
    arguments = parser.parse_args()
    for load in (get_silero_model, recogniser, lambda: get_tts_model("espeak-ng")):
        load()  # before anybody calls
    if arguments.headless:
        clock = None if arguments.real_time else MockClock(autojump_threshold=0)
        trio.run(call_agent, arguments.record, clock=clock)
    else:
        stream.launch()


if __name__ == "__main__":
    main()
