"""Measures turn taking on conversations whose every start and end is known.

Run it: ``python examples/turn_benchmark.py``; ``--help`` lists what can be chosen.

Conversations are made from generated speech: by the program espeak-ng if it is installed, else
from the recording that comes with the demo. Noise is added, pauses inside sentences, coughs and
clicks, and words spoken over the replies. The same audio then goes through a whole call of
ReplyOnPause, on virtual time, and through FastRTC's algorithm, with the same voice-activity model
and the same thresholds. docs/turn_benchmark.md says what each line of the table means.
"""

import argparse
import io
import shutil
import subprocess
import wave
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import trio
from numpy.typing import NDArray
from trio.testing import MockClock

import fastrtc_anyio._cli
from fastrtc_anyio._media.frames import Int16Array, float32_to_int16
from fastrtc_anyio._media.resample import StreamResampler
from fastrtc_anyio.conversation.events import (
    ReplyStarted,
    TurnEvent,
    UserStartedSpeaking,
    UserStoppedSpeaking,
)
from fastrtc_anyio.conversation.handlers import ReplyOnPause
from fastrtc_anyio.conversation.pause_rules import AlgoOptions
from fastrtc_anyio.speech.energy import EnergyVad
from fastrtc_anyio.speech.silero import SileroVadOptions, get_silero_model
from fastrtc_anyio.speech.vad import Vad
from fastrtc_anyio.testing import open_call, tone

RATE = 16_000
FRAME = RATE // 50  # 20 ms, as a session gives them
REPLY_S = 5.0
SPEECH_LEVEL = 0.08  # RMS; 1.0 is full scale
OPTIONS = AlgoOptions()
# With either algorithm, speech has to leave the window before a pause can be found.
NEEDED_S = OPTIONS.audio_chunk_duration - OPTIONS.speech_threshold

Wave = NDArray[np.floating]
# Says something: a sentence, or only a word.
Speaker = Callable[[np.random.Generator, bool], Wave]

SENTENCES = """what is the weather like in Paris today
please book a table for four people at eight
how long does the train to the airport take
turn off the lights in the kitchen and the hall
I would like to change the date of my flight
she sells sea shells by the shore every summer
five hundred and twenty seven euros and ten cents
could you read me the last message again
for how much longer is the museum open
that is not what I asked you to do""".splitlines()
WORDS = ["yes", "stop", "no thanks", "wait", "hello", "why not", "four", "go on"]
VOICES = ["en-us", "en-gb", "en-us+f3", "en-gb-scotland+m3", "en-gb+f2", "en-gb-x-rp+m7"]
# What there is beside the speech, and by how many dB the speech is louder.
NOISES = [("none", 60), ("white", 20), ("white", 10), ("hum", 10)]
VOICES_IN_THE_ROOM = [("babble", 20), ("babble", 10)]


# The conversations.


@dataclass(frozen=True)
class Utterance:
    """What was really said: places in samples."""

    start: int
    end: int
    over_reply: bool


@dataclass(frozen=True)
class Conversation:
    samples: Int16Array
    utterances: list[Utterance]


def trimmed(sound: Wave) -> Wave:
    """Without the silence at both ends: 10 ms that are 40 dB below the loudest 10 ms."""
    step = RATE // 100
    blocks = sound[: len(sound) // step * step].reshape(-1, step)
    power = np.mean(blocks**2, axis=1)
    loud = np.flatnonzero(power > 1e-4 * power.max())
    return sound[loud[0] * step : (loud[-1] + 1) * step]


def at_level(sound: Wave, level: float) -> Wave:
    return sound * (level / np.sqrt(np.mean(sound**2)))


def read_wav(file: Path | io.BytesIO) -> Wave:
    with wave.open(str(file) if isinstance(file, Path) else file) as wav:
        samples = np.frombuffer(wav.readframes(wav.getnframes()), np.int16)[np.newaxis]
        resampler = StreamResampler(wav.getframerate(), RATE, 1)
    return np.concatenate([resampler.push(samples), resampler.flush()], axis=1)[0] / 2**15


def espeak(rng: np.random.Generator, only_a_word: bool) -> Wave:
    text, voice = str(rng.choice(WORDS if only_a_word else SENTENCES)), str(rng.choice(VOICES))
    command = ["espeak-ng", "-v", voice, "-s", str(rng.integers(140, 220)), "--stdout", text]
    output = subprocess.run(command, capture_output=True, check=True).stdout
    return trimmed(read_wav(io.BytesIO(output)))


@cache
def recorded_speech() -> Wave:
    return read_wav(Path(fastrtc_anyio._cli.__file__).with_name("speech.wav"))


def recording(rng: np.random.Generator, only_a_word: bool) -> Wave:
    whole = recorded_speech()
    length = round(RATE * (0.4 if only_a_word else rng.uniform(1.2, 3.0)))
    begin = int(rng.integers(0, len(whole) - length))
    return trimmed(whole[begin : begin + length])


SPEAKERS: dict[str, Speaker] = {"espeak": espeak, "recording": recording}


def sentence_with_a_pause(speak: Speaker, rng: np.random.Generator) -> Wave:
    """Two sentences, and too little silence between them for the turn to end."""
    silence = np.zeros(round(RATE * rng.uniform(0.2, 0.4)))
    return np.concatenate([speak(rng, False), silence, speak(rng, False)])


def click(rng: np.random.Generator) -> Wave:
    return rng.standard_normal(RATE // 200) * 0.2


def cough(rng: np.random.Generator) -> Wave:
    """Two bursts of hoarse noise, each dying away."""
    time = np.arange(round(0.2 * RATE)) / RATE
    hoarse = np.convolve(rng.standard_normal(len(time) + 7), np.ones(8) / 8, "valid")
    burst = hoarse * np.minimum(time / 0.005, 1) * np.exp(-time / 0.05) * 0.8
    return np.concatenate([burst, burst * 0.6])


def make_noise(kind: str, length: int, speak: Speaker, rng: np.random.Generator) -> Wave:
    if kind == "hum":
        time = np.arange(length) / RATE
        return sum((np.sin(2 * np.pi * 50 * n * time) / n for n in range(1, 6)), np.zeros(length))
    noise = rng.standard_normal(length)
    if kind == "babble":
        noise *= 0.01
        for _ in range(6):
            voice = at_level(np.concatenate([speak(rng, False) for _ in range(4)]), 1.0)
            noise += np.roll(np.resize(voice, length), int(rng.integers(length)))
    return noise


def make_conversation(
    noise: str, speech_to_noise: int, speak: Speaker, rng: np.random.Generator, turns: int = 6
) -> Conversation:
    """A caller says a word, a sentence, two sentences, and so on, some of them over a reply."""
    sounds: list[tuple[int, Wave]] = []
    utterances: list[Utterance] = []
    now = RATE  # here something is said next
    over_reply = False
    for turn in range(turns):
        # Not in step with any chunk.
        start = now + int(rng.integers(RATE))
        sound = sentence_with_a_pause(speak, rng) if turn % 3 == 2 else speak(rng, turn % 3 == 0)
        said = at_level(sound, SPEECH_LEVEL * 10 ** (rng.uniform(-4, 4) / 20))
        end = start + len(said)
        sounds.append((start, said))
        utterances.append(Utterance(start, end, over_reply))
        over_reply = bool(rng.integers(2))  # what is said next
        if over_reply:
            now = end + 2 * RATE
        else:  # a cough or a click, over the reply or after it
            at = end + round(RATE * rng.uniform(2.5, 8))
            sounds.append((at, cough(rng) if rng.integers(2) else click(rng)))
            now = max(end + round((REPLY_S + 2) * RATE), at + 2 * RATE)
    background = make_noise(noise, now + RATE, speak, rng)
    mix = at_level(background, SPEECH_LEVEL * 10 ** (-speech_to_noise / 20))
    for start, sound in sounds:
        mix[start : start + len(sound)] += sound
    return Conversation(float32_to_int16(mix.astype(np.float32)[np.newaxis]), utterances)


def make_conversations(
    count: int, noises: list[tuple[str, int]], seed: int, speak: Speaker
) -> list[Conversation]:
    return [
        make_conversation(*noises[n % len(noises)], speak, np.random.default_rng([seed, n]))
        for n in range(count)
    ]


# The two that listen.


@dataclass(frozen=True)
class Turn:
    """An utterance as it was given out, and when the reply was due: places in samples."""

    start: int
    end: int
    due: int | None
    """None: the conversation was over before a pause was found."""


@dataclass
class Outcome:
    """What somebody made of a conversation."""

    turns: list[Turn] = field(default_factory=list)
    replies: list[tuple[int, int]] = field(default_factory=list)
    """From when to when each was heard."""


# Given the audio, the model, and the probability from which on a window of it is speech.
Listener = Callable[[Int16Array, Vad, float], Outcome]


def speech_seconds(chunk: Int16Array, vad: Vad, threshold: float) -> float:
    """How much of one chunk FastRTC's model with its default options calls speech.

    Every chunk is a recording of its own. Speech ends after 2 s of silence, which no chunk has:
    what begins in it lasts to its end, counts if that is more than 250 ms, and then 400 ms before
    it count as well.
    """
    stream = vad.new_stream()
    size = chunk.shape[1]
    for start in range(0, size, vad.window):
        window = chunk[:, start : start + vad.window]
        padding = vad.window - window.shape[1]
        if stream.probability(np.pad(window, ((0, 0), (0, padding)))) >= threshold:
            long_enough = size - start > 0.25 * RATE
            return (size - max(0, start - 0.4 * RATE)) / RATE if long_enough else 0.0
    return 0.0


def fastrtc(samples: Int16Array, vad: Vad, threshold: float) -> Outcome:
    """FastRTC's ReplyOnPause: one chunk after another, and a new pause ends the last reply.

    Its best case: threads, queues and the reply function take no time.
    """
    outcome = Outcome()
    chunk = round(OPTIONS.audio_chunk_duration * RATE)
    began: int | None = None
    for now in range(chunk, samples.shape[1] + 1, chunk):
        seconds = speech_seconds(samples[:, now - chunk : now], vad, threshold)
        if began is None and seconds > OPTIONS.started_talking_threshold:
            began = now - chunk
        if began is not None and seconds < OPTIONS.speech_threshold:
            outcome.replies = [(begin, min(end, now)) for begin, end in outcome.replies]
            outcome.replies.append((now, now + round(REPLY_S * RATE)))
            outcome.turns.append(Turn(began, now, now))
            began = None
    if began is not None:
        outcome.turns.append(Turn(began, samples.shape[1], None))
    return outcome


def ours(samples: Int16Array, vad: Vad, threshold: float) -> Outcome:
    """A whole call of ReplyOnPause, on virtual time: what counts is what the client hears."""
    return trio.run(hold_call, samples, vad, threshold, clock=MockClock(autojump_threshold=0))


async def hold_call(samples: Int16Array, vad: Vad, threshold: float) -> Outcome:
    outcome = Outcome()
    speaking_since: float | None = None

    def take_note(event: TurnEvent) -> None:
        nonlocal speaking_since
        # A frame is sent when its last sample has been spoken.
        now = round(event.at * RATE) + FRAME
        match event:
            case UserStartedSpeaking():
                speaking_since = now
            case UserStoppedSpeaking():
                speaking_since = None
            case ReplyStarted():
                outcome.turns.append(Turn(now - round(event.utterance_s * RATE), now, now))

    async def answer(audio: object) -> AsyncIterator[tuple[int, Int16Array]]:
        yield RATE, tone(440, RATE, REPLY_S)

    handler = ReplyOnPause(
        answer,
        algo_options=OPTIONS,
        model_options=SileroVadOptions(threshold=threshold),
        output_sample_rate=RATE,
        input_sample_rate=RATE,
        model=vad,
        on_event=take_note,
    )
    async with open_call(handler, thread_limit=30) as call:
        await call.speak(samples, RATE)
        if speaking_since is not None:
            outcome.turns.append(Turn(speaking_since, samples.shape[1], None))
        outcome.replies = sounds_in(call.heard[0])
    return outcome


def sounds_in(heard: Int16Array) -> list[tuple[int, int]]:
    """Where something is heard, for as long as no 20 ms are silent; in the caller's time."""
    places = np.flatnonzero(heard) + FRAME
    if not places.size:
        return []
    gaps = np.flatnonzero(np.diff(places) > FRAME)
    begins, ends = [0, *(gaps + 1)], [*gaps, places.size - 1]
    return [(int(places[b]), int(places[e]) + 1) for b, e in zip(begins, ends, strict=True)]


LISTENERS: dict[str, Listener] = {"FastRTC": fastrtc, "fastrtc_anyio": ours}


# What came of it.


@dataclass
class Score:
    """Counts, and times in ms."""

    utterances: int = 0
    missed: int = 0
    false: int = 0
    split: int = 0
    cut_short: int = 0
    unanswered: int = 0
    late_by: list[float] = field(default_factory=list)
    stopped_after: list[float] = field(default_factory=list)
    first_missing: list[float] = field(default_factory=list)

    def add(self, conversation: Conversation, outcome: Outcome) -> None:
        spoken = conversation.utterances
        self.false += sum(not any(overlap(said, turn) for said in spoken) for turn in outcome.turns)
        for said in spoken:
            self._add_utterance(said, outcome)

    def _add_utterance(self, said: Utterance, outcome: Outcome) -> None:
        self.utterances += 1
        if said.over_reply:
            for begin, end in outcome.replies:
                if begin <= said.start < end:
                    self.stopped_after.append(in_ms(end - said.start))
        turns = [turn for turn in outcome.turns if overlap(said, turn)]
        if not turns:
            self.missed += 1
            return
        self.split += len(turns) > 1
        self.first_missing.append(in_ms(max(0, turns[0].start - said.start)))
        if turns[-1].due is None:
            self.unanswered += 1
        elif turns[-1].end < said.end:
            self.cut_short += 1
        else:
            self.late_by.append(in_ms(turns[-1].due - said.end))

    def rows(self) -> list[tuple[str, str]]:
        over = [late - 1000 * NEEDED_S for late in self.late_by]
        return [
            ("utterances", f"{self.utterances}"),
            ("missed starts", f"{self.missed}"),
            ("false starts", f"{self.false}"),
            ("split utterances", f"{self.split}"),
            ("last words lost", f"{self.cut_short}"),
            ("pauses never found", f"{self.unanswered}"),
            ("first syllable cut", f"{sum(ms > 0 for ms in self.first_missing)}"),
            ("... missing at most, ms", f"{max(self.first_missing, default=0):.0f}"),
            ("pause latency, ms", summary(self.late_by)),
            (f"... beyond the {1000 * NEEDED_S:.0f} needed, ms", summary(over)),
            ("interruption latency, ms", summary(self.stopped_after)),
        ]


def overlap(said: Utterance, turn: Turn) -> bool:
    return turn.start < said.end and said.start < turn.end


def in_ms(samples: int) -> float:
    return 1000 * samples / RATE


def summary(values: list[float]) -> str:
    """Median, 90th percentile, maximum."""
    if not values:
        return "-"
    return " / ".join(f"{x:.0f}" for x in np.quantile(values, [0.5, 0.9, 1.0]))


Scores = dict[str, Score]


def measure(
    conversations: list[Conversation], vad: Vad, threshold: float, listeners: dict[str, Listener]
) -> Scores:
    scores = {name: Score() for name in listeners}
    for conversation in conversations:
        for name, listen in listeners.items():
            scores[name].add(conversation, listen(conversation.samples, vad, threshold))
    return scores


def print_table(title: str, scores: Scores, markdown: bool) -> None:
    columns = [score.rows() for score in scores.values()]
    lines = [[rows[0][0], *(value for _, value in rows)] for rows in zip(*columns, strict=True)]
    lines.insert(0, [title, *scores])
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print(f"| {' | '.join(cells)} |" if markdown else "  ".join(cells).rstrip())
    print()


def main() -> None:
    speech = "espeak" if shutil.which("espeak-ng") else "recording"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--conversations", type=int, default=12, help="for each table")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speech", choices=SPEAKERS, default=speech)
    parser.add_argument("--vad", choices=["silero", "energy"], default="silero")
    parser.add_argument("--threshold", type=float, default=0.5, help="of what is speech")
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    vad: Vad = get_silero_model() if args.vad == "silero" else EnergyVad()
    # FastRTC begins anew with each chunk, which a model that has to learn the noise can't do.
    listeners = LISTENERS if args.vad == "silero" else {"fastrtc_anyio": ours}
    print(
        f"Speech: {args.speech}. Voice activity: {args.vad}, from {args.threshold} on. "
        f"Seed: {args.seed}. Times: median / 90th percentile / maximum.\n"
    )
    for title, noises in {"Noise": NOISES, "Other voices": VOICES_IN_THE_ROOM}.items():
        conversations = make_conversations(
            args.conversations, noises, args.seed, SPEAKERS[args.speech]
        )
        minutes = sum(conversation.samples.shape[1] for conversation in conversations) / RATE / 60
        scores = measure(conversations, vad, args.threshold, listeners)
        print_table(f"{title}, {minutes:.0f} minutes", scores, args.markdown)


if __name__ == "__main__":
    main()
