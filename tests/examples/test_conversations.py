"""The voice agents with their recorded callers, real recognition and a voice of constant levels;
and the game, with recorded speech."""

from __future__ import annotations

import re
import wave
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import CloseReason
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.testing import Call, open_call, spoken

from .loading import load

RATE = 16_000
S_PER_CHARACTER = 0.06  # about the speed of human speech
LOUDNESS = 1000  # of the first sentence; each sentence is louder by 1 than the one before


class Voice:
    """Speaks each sentence as samples of a different constant value."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def loudness(self, sentence: str) -> int:
        """The sample value of a sentence when it was last spoken."""
        return LOUDNESS + len(self.said) - 1 - self.said[::-1].index(sentence)

    async def stream_tts(self, text: str) -> AsyncGenerator[tuple[int, Int16Array], None]:
        for sentence in re.split(r"(?<=[.!?]) ", text):
            self.said.append(sentence)
            length = round(S_PER_CHARACTER * len(sentence) * RATE)
            yield RATE, np.full((1, length), self.loudness(sentence), np.int16)


class Transcript:
    """The printed events: time, speaker and event."""

    def __init__(self, printed: str) -> None:
        lines = [
            re.fullmatch(r" *([\d.]+)  (agent|caller) +(.*)", line) for line in printed.split("\n")
        ]
        self.lines = [(float(line[1]), line[2], line[3]) for line in lines if line]

    @property
    def what(self) -> list[str]:
        """The recognised utterances and the outcome of each reply."""
        wanted = r"has .*|reply \d (goes on|was interrupted|was heard to its end)"
        return [found[0] for *_, what in self.lines if (found := re.match(wanted, what))]

    def at(self, beginning: str) -> float:
        """Time of the first event that begins so, seconds."""
        return next(at for at, _, what in self.lines if what.startswith(beginning))


@pytest.fixture
def voice() -> Voice:
    return Voice()


def prepare(example: Any, voice: Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "get_tts_model", {"espeak-ng": voice}.__getitem__)
    example.recogniser()  # load it before virtual time is held for it


def read(path: Path) -> Int16Array:
    """The channels of a recording: int16, shape ``(channels, n)``."""
    with wave.open(str(path)) as file:
        assert file.getframerate() == RATE
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        return samples.reshape(-1, file.getnchannels()).T


class TestVoiceAgent:
    async def test_recorded_call_is_answered_and_interrupted(
        self,
        voice: Voice,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        example = load("voice_agent")
        prepare(example, voice, monkeypatch)
        await example.call_agent(str(tmp_path / "call.wav"))
        printed = capsys.readouterr().out
        transcript = Transcript(printed)
        assert transcript.what == [
            "reply 1 was heard to its end",
            'has heard "tell me a story"',
            "reply 2 goes on",  # after an "uh-huh"
            "reply 2 was interrupted",
            'has heard "count to ten"',
            "reply 3 was heard to its end",
            'has heard "go on with the story"',
            "reply 4 was interrupted",
            'has heard "goodbye for now"',
            "reply 5 was heard to its end",
        ]
        assert printed.endswith("The call is over: HANDLER_CLOSED.\n")
        caller, agent = read(tmp_path / "call.wav")
        self.check_recording(example, caller, agent, transcript, voice)

    def check_recording(
        self, example: Any, caller: Any, agent: Any, transcript: Transcript, voice: Voice
    ) -> None:
        [said] = read(example.CALLER)
        np.testing.assert_array_equal(caller[: said.size], said)
        assert not caller[said.size :].any()
        # The reply is audible up to the interruption, and silent after it.
        story = example.ANSWERS["tell me a story"]
        interrupted, counting = transcript.at("reply 2 was"), transcript.at("reply 3 starts")
        assert not agent[round(interrupted * RATE) : round(counting * RATE)].any()
        heard = dict(zip(*np.unique(agent, return_counts=True), strict=True))
        told = [sentence for sentence in story if heard.get(voice.loudness(sentence))]
        assert story[0] in told
        assert 2 <= len(told) < len(story)
        assert told == story[: len(told)]
        # Whole sentences are played in full. An "uh-huh" pauses one: 5 ms fade out and in there.
        for sentence in ("Hello!", story[0], example.ANSWERS["count to ten"][0], "Goodbye!"):
            length = round(S_PER_CHARACTER * len(sentence) * RATE)
            assert heard[voice.loudness(sentence)] == pytest.approx(length, abs=0.01 * RATE)
        # The story continued with the interrupted sentence.
        assert voice.said.count(story[0]) == 1
        assert voice.said.count(story[1]) == 2


async def test_stop_words_example_answers_only_after_stop_word(
    voice: Voice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = load("stop_words")
    prepare(example, voice, monkeypatch)
    await example.call_agent(str(tmp_path / "call.wav"))
    transcript = Transcript(capsys.readouterr().out)
    assert transcript.what == [
        # Two utterances came before the stop word. The agent would understand the second one.
        "has heard the stop word, and listens",
        'has heard "what can you do"',
        "reply 1 was heard to its end",
        "has heard the stop word, and listens",
        'has heard "tell me a joke"',
        "reply 2 was heard to its end",
    ]
    caller, agent = read(tmp_path / "call.wav")
    # SAID matches the recording: half a second of silence before each utterance.
    for at, _ in example.SAID:
        begins = round(at * RATE)
        assert not np.any(np.abs(caller[begins - RATE // 2 : begins - RATE // 10]) > 100)
        assert np.any(np.abs(caller[begins : begins + RATE // 4]) > 1000)
    assert not agent[: round(transcript.at("reply 1 starts") * RATE)].any()
    assert voice.said == list(example.ANSWERS.values())
    heard = dict(zip(*np.unique(agent, return_counts=True), strict=True))
    for sentence in voice.said:
        length = round(S_PER_CHARACTER * len(sentence) * RATE)
        assert heard[voice.loudness(sentence)] == length


async def read_texts(call: Call) -> list[str]:
    """Read the messages of an ended call that are not JSON."""
    texts = []
    with suppress(anyio.EndOfStream):
        while True:
            texts.append(await call.client.receive_message())
    return [text for text in texts if not text.startswith("{")]


async def test_memory_game_repeats_all_things_until_the_bag_is_full() -> None:
    example = load("memory_game")
    heard = [0]
    async with open_call(example.play) as call:
        for _ in range(example.GOAL):
            await call.speak(spoken("Yes, please."))
            await anyio.sleep(15)
            heard.append(int(np.count_nonzero(call.heard)))
        await call.ended.wait()
    replies = np.diff(heard) / heard[1]
    np.testing.assert_allclose(replies, np.arange(example.GOAL) + 1, rtol=0.1)
    assert await read_texts(call) == [f"Things in the bag: {n}" for n in range(1, example.GOAL)]
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_CLOSED
    assert call.session.closed.message == "The bag is full."


async def test_memory_game_empties_the_bag_when_it_is_interrupted() -> None:
    async with open_call(load("memory_game").play) as call:
        await call.speak(spoken("What time is it?"))
        while not call.heard.any():
            await anyio.sleep(0.02)
        await call.speak(spoken("Stop."))
        await anyio.sleep(5)
    assert await read_texts(call) == [
        "You could not wait: the bag is empty.",
        "Things in the bag: 1",
    ]
