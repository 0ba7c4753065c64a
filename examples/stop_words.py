"""An offline voice agent that answers only after the words "hey computer".

It needs a program and some packages:

    apt install espeak-ng
    pip install 'fastrtc-anyio[voice]'
    python examples/stop_words.py               # serves a page to talk to it through
    python examples/stop_words.py --headless    # calls it with a recorded caller

Both print the events of the call with the seconds since its start. The call with the recorded
caller takes place in memory and on virtual time: twenty seconds pass in a few and are the same
each time, but models appear to take no time. ``--real-time`` shows their latency.

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
SAID = [  # start of each utterance in the recording, seconds
    (1.0, "Where is the train station?"),
    (4.0, "tell me a joke"),
    (6.3, "hey computer, what can you do"),
    (12.3, "hey computer"),
    (14.7, "tell me a joke"),
]
RATE = 16_000  # of the models, the caller and the agent, so that one file holds both sides
STOP_WORDS = ["hey computer"]  # at least three syllables: shorter ones cause false detections

ANSWERS = {
    "what can you do": "I tell jokes, and the time, when you say hey computer.",
    "tell me a joke": "There are ten kinds of people: those who know binary, and those who don't.",
}
TELL_TIME = "what time is it"


@cache
def recogniser():
    """Load the recogniser of phrases and stop words once, which takes half a second."""
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
        """Answer the utterance after the stop word; called when the caller pauses."""
        heard = await run_sync(recogniser().stt, audio)
        self.note("agent", f'has heard "{heard}"' if heard else "has not understood")
        self.send_transcript("user", heard or "(not understood)")  # to the page
        text = ANSWERS.get(heard, "I did not understand.")
        if heard == TELL_TIME:
            text = f"It is {datetime.now():%H:%M}."
        self.note("agent", f'says "{text}"')
        async with aclosing(get_tts_model("espeak-ng").stream_tts(text)) as speech:
            async for chunk in speech:
                yield chunk

    def tell(self, event):
        """Log an event of the conversation."""
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

    def note(self, speaker, event):
        print(f"{anyio.current_time() - self.began:6.2f}  {speaker:<6}  {event}", flush=True)


stream = Stream(
    Agent,
    modality="audio",
    mode="send-receive",
    ui_args={"title": "Hey computer", "subtitle": "Try: hey computer, tell me a joke"},
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
        load()  # before the first call
    if arguments.headless:
        clock = None if arguments.real_time else MockClock(autojump_threshold=0)
        trio.run(call_agent, arguments.record, clock=clock)
    else:
        stream.launch()


if __name__ == "__main__":
    main()
