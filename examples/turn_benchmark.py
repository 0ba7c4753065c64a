"""Measure turn taking on synthetic conversations with known utterances.

Run ``python examples/turn_benchmark.py``; ``--help`` lists the options.

The conversations are made from generated speech: from espeak-ng if it is installed, otherwise
from noise shaped like speech. Background noise, pauses inside sentences, coughs, clicks and words
spoken over the replies are added. The same audio then goes through a call of ReplyOnPause on
virtual time and through FastRTC's algorithm, with the same voice activity model and thresholds.
docs/concepts/turn_benchmark.md explains each row of the table.

Install: ``pip install 'fastrtc-anyio[vad]'``
"""

import argparse
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import numpy as np
import trio
from numpy.typing import NDArray
from trio.testing import MockClock

from fastrtc_anyio import (
    AlgoOptions,
    EnergyVad,
    ReplyOnPause,
    ReplyStarted,
    SileroVadOptions,
    TurnEvent,
    UserStartedSpeaking,
    UserStoppedSpeaking,
    Vad,
    audio_to_int16,
    get_silero_model,
)
from fastrtc_anyio.speech.espeak import EspeakOptions, EspeakTTSModel
from fastrtc_anyio.testing import open_call, speech_like, tone

RATE = 16_000
FRAME = RATE // 50  # 20 ms, the frame of a session
REPLY_S = 5.0
SPEECH_LEVEL = 0.08  # RMS; 1.0 is full scale
OPTIONS = AlgoOptions()
# Both algorithms need speech to leave the window before they can find a pause.
NEEDED_S = OPTIONS.audio_chunk_duration - OPTIONS.speech_threshold

Int16Array = NDArray[np.int16]
Wave = NDArray[np.floating]
# Returns speech: a single word if the flag is set, otherwise a sentence.
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
# Background noise, and the speech level above it in dB.
NOISES = [("none", 60), ("white", 20), ("white", 10), ("hum", 10)]
VOICES_IN_THE_ROOM = [("babble", 20), ("babble", 10)]


@dataclass(frozen=True)
class Utterance:
    """A spoken utterance; positions in samples."""

    start: int
    end: int
    over_reply: bool


@dataclass(frozen=True)
class Conversation:
    samples: Int16Array
    utterances: list[Utterance]


def trimmed(sound: Wave) -> Wave:
    """Strip the silence at both ends: blocks of 10 ms at least 40 dB below the loudest block."""
    step = RATE // 100
    blocks = sound[: len(sound) // step * step].reshape(-1, step)
    power = np.mean(blocks**2, axis=1)
    loud = np.flatnonzero(power > 1e-4 * power.max())
    return sound[loud[0] * step : (loud[-1] + 1) * step]


def at_level(sound: Wave, level: float) -> Wave:
    return sound * (level / np.sqrt(np.mean(sound**2)))


def resampled(sound: Wave, rate: int) -> Wave:
    """Resample from a rate above ``RATE`` by cutting off the upper end of the spectrum."""
    size = round(len(sound) * RATE / rate)
    return np.fft.irfft(np.fft.rfft(sound)[: size // 2 + 1], size) * (size / len(sound))


def espeak(rng: np.random.Generator, only_a_word: bool) -> Wave:
    text, voice = str(rng.choice(WORDS if only_a_word else SENTENCES)), str(rng.choice(VOICES))
    rate, samples = EspeakTTSModel().tts(text, EspeakOptions(voice, int(rng.integers(140, 220))))
    return trimmed(resampled(samples[0] / 2**15, rate))


def shaped_noise(rng: np.random.Generator, only_a_word: bool) -> Wave:
    seconds = 0.4 if only_a_word else rng.uniform(1.2, 3.0)
    return trimmed(speech_like(RATE, seconds, seed=int(rng.integers(2**31)))[0] / 2**15)


SPEAKERS: dict[str, Speaker] = {"espeak": espeak, "noise": shaped_noise}


def sentence_with_a_pause(speak: Speaker, rng: np.random.Generator) -> Wave:
    """Two sentences with too little silence between them to end the turn."""
    silence = np.zeros(round(RATE * rng.uniform(0.2, 0.4)))
    return np.concatenate([speak(rng, False), silence, speak(rng, False)])


def click(rng: np.random.Generator) -> Wave:
    return rng.standard_normal(RATE // 200) * 0.2


def cough(rng: np.random.Generator) -> Wave:
    """Two decaying bursts of hoarse noise."""
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
    """A caller who says a word, a sentence, two sentences, and so on, some of them over a reply."""
    sounds: list[tuple[int, Wave]] = []
    utterances: list[Utterance] = []
    now = RATE  # earliest start of the next utterance
    over_reply = False
    for turn in range(turns):
        # A random start, so that utterances do not align with FastRTC's chunks.
        start = now + int(rng.integers(RATE))
        sound = sentence_with_a_pause(speak, rng) if turn % 3 == 2 else speak(rng, turn % 3 == 0)
        said = at_level(sound, SPEECH_LEVEL * 10 ** (rng.uniform(-4, 4) / 20))
        end = start + len(said)
        sounds.append((start, said))
        utterances.append(Utterance(start, end, over_reply))
        over_reply = bool(rng.integers(2))  # the next utterance
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
    return Conversation(audio_to_int16(mix.astype(np.float32)[np.newaxis]), utterances)


def make_conversations(
    count: int, noises: list[tuple[str, int]], seed: int, speak: Speaker
) -> list[Conversation]:
    return [
        make_conversation(*noises[n % len(noises)], speak, np.random.default_rng([seed, n]))
        for n in range(count)
    ]


@dataclass(frozen=True)
class Turn:
    """An utterance as the algorithm found it, and when its reply was due; positions in samples."""

    start: int
    end: int
    due: int | None
    """None if the conversation ended before a pause was found."""


@dataclass
class Outcome:
    """The turns that an algorithm found in a conversation."""

    turns: list[Turn] = field(default_factory=list)
    replies: list[tuple[int, int]] = field(default_factory=list)
    """Start and end of each reply as the caller heard it."""


# Takes the audio, the model, and the minimum probability of a window of speech.
Listener = Callable[[Int16Array, Vad, float], Outcome]


def speech_seconds(chunk: Int16Array, vad: Vad, threshold: float) -> float:
    """Seconds of one chunk that FastRTC's model classifies as speech with its default options.

    FastRTC runs its model on every chunk separately. The model ends speech after 2 s of silence,
    and a chunk is shorter: speech that starts in a chunk lasts to its end. Speech of at least
    250 ms counts, with up to 400 ms before it.
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
    """FastRTC's ReplyOnPause: it processes chunk by chunk, and a new pause ends the last reply.

    This is its best case: threads, queues and the reply function take no time.
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
    """A call of ReplyOnPause on virtual time, measured by the audio that reaches the client."""
    return trio.run(hold_call, samples, vad, threshold, clock=MockClock(autojump_threshold=0))


async def hold_call(samples: Int16Array, vad: Vad, threshold: float) -> Outcome:
    outcome = Outcome()
    speaking_since: float | None = None

    def take_note(event: TurnEvent) -> None:
        nonlocal speaking_since
        # The client sends a frame after its last sample.
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
    async with open_call(handler) as call:
        await call.speak(samples, RATE)
        if speaking_since is not None:
            outcome.turns.append(Turn(speaking_since, samples.shape[1], None))
        outcome.replies = sounds_in(call.heard[0])
    return outcome


def sounds_in(heard: Int16Array) -> list[tuple[int, int]]:
    """Start and end of each sound, where 20 ms of silence end a sound; in the caller's time."""
    places = np.flatnonzero(heard) + FRAME
    if not places.size:
        return []
    gaps = np.flatnonzero(np.diff(places) > FRAME)
    begins, ends = [0, *(gaps + 1)], [*gaps, places.size - 1]
    return [(int(places[b]), int(places[e]) + 1) for b, e in zip(begins, ends, strict=True)]


LISTENERS: dict[str, Listener] = {"FastRTC": fastrtc, "fastrtc_anyio": ours}


@dataclass
class Score:
    """Counts, and latencies in ms."""

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
    speech = "espeak" if shutil.which("espeak-ng") else "noise"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--conversations", type=int, default=12, help="per table")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speech", choices=SPEAKERS, default=speech)
    parser.add_argument("--vad", choices=["silero", "energy"], default="silero")
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="minimum probability of speech"
    )
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    vad: Vad = get_silero_model() if args.vad == "silero" else EnergyVad()
    # FastRTC resets the model at each chunk. An energy model needs longer to learn the noise level.
    listeners = LISTENERS if args.vad == "silero" else {"fastrtc_anyio": ours}
    print(
        f"Speech: {args.speech}. Voice activity: {args.vad}, threshold {args.threshold}. "
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
