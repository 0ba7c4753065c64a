"""The voice agents as programs with espeak-ng, called by a recording or over WebRTC."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import wave
from pathlib import Path

import anyio
import numpy as np
import pytest

from fastrtc_anyio._core.threads import run_sync
from fastrtc_anyio._media.resample import StreamResampler
from fastrtc_anyio.speech.espeak import EspeakTTSModel
from fastrtc_anyio.speech.pocketsphinx import PocketSphinxSTT
from tests.examples.loading import EXAMPLES, NEEDS_ESPEAK, load
from tests.examples.test_scripts import RUN, check_serving
from tests.kit.calls import place_call, serve
from tests.kit.measure import speak

pytestmark = [
    pytest.mark.interop,
    pytest.mark.parametrize("anyio_backend", ["trio"]),
]

CALLS = {
    "voice_agent": """\
agent says "Hello! What can I do for you?"
caller says "tell me a story"
agent has heard "tell me a story"
agent says "Once upon a time
agent reply 2 goes on
agent reply 2 was interrupted
agent has heard "count to ten"
agent reply 3 was heard to its end
agent has heard "go on with the story"
agent reply 4 was interrupted
agent has heard "goodbye for now"
agent says "Goodbye!"
agent reply 5 was heard to its end
The call is over: HANDLER_CLOSED""",
    "stop_words": """\
caller says "Where is the train station?"
caller says "tell me a joke"
caller says "hey computer, what can you do"
agent has heard the stop word
agent has heard "what can you do"
agent says "I tell jokes
agent reply 1 was heard to its end
caller says "hey computer"
agent has heard the stop word
caller says "tell me a joke"
agent has heard "tell me a joke"
agent says "There are ten kinds
agent reply 2 was heard to its end""",
}


@pytest.mark.parametrize("name", CALLS)
async def test_headless_program_answers_recorded_caller(name: str, tmp_path: Path) -> None:
    recording = tmp_path / "call.wav"
    command = [sys.executable, str(RUN), str(EXAMPLES / f"{name}.py"), "--headless"]
    with anyio.fail_after(50):
        first = await anyio.run_process(
            [*command, "--record", str(recording)], stderr=subprocess.STDOUT, check=False
        )
        second = await anyio.run_process(command, stderr=subprocess.STDOUT, check=False)
    printed = first.stdout.decode()
    assert first.returncode == 0, printed
    assert second.stdout.decode() == printed  # identical to the hundredth of a second
    lines = [re.sub(r"^ *[\d.]+ +(\w+) +", r"\1 ", line) for line in printed.splitlines()]
    left = iter(lines)
    for wanted in CALLS[name].splitlines():
        assert any(line.startswith(wanted) for line in left), (wanted, printed)
    with wave.open(str(recording)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 16_000)
        sides = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2).T
    assert all(np.abs(side).max() > 3000 for side in sides)


@pytest.mark.parametrize("name", NEEDS_ESPEAK)
async def test_serves_until_interrupted(name: str) -> None:
    await check_serving(name)


async def test_interrupted_language_model_agent_remembers_the_heard_words() -> None:
    """In real time, with the fake model behind HTTP."""
    command = [sys.executable, str(EXAMPLES / "llm_agent.py"), "--demo", "--headless"]
    with anyio.fail_after(50):
        done = await anyio.run_process(command, stderr=subprocess.STDOUT, check=False)
    question, answer, second, count = done.stdout.decode().splitlines()
    assert question == "user: where is the train station"
    assert answer.startswith("assistant: Go down this street")
    assert "clock" not in answer
    assert second == "user: count to ten"
    assert count == "assistant: One, two, three, four, five, six, seven, eight, nine, ten."


async def test_recorded_caller_over_webrtc(capsys: pytest.CaptureFixture[str]) -> None:
    example = load("voice_agent")
    example.recogniser()
    with wave.open(str(example.CALLER)) as file:
        rate, said = file.getframerate(), file.readframes(file.getnframes())
    resampler = StreamResampler(rate, 48_000, 1)
    samples = resampler.push(np.frombuffer(said, np.int16)[np.newaxis])
    told: list[str] = []
    async with serve(example.stream) as url, place_call(url) as client:
        speak(client, samples)
        with anyio.fail_after(40):
            while "end_stream" not in (text := await client.receive_message()):
                told.append(text)
    messages = [json.loads(text) for text in told if text.startswith("{")]
    said = [message["data"] for message in messages if message["type"] == "transcript"]
    assert [entry["text"] for entry in said if entry["role"] == "user"] == [
        "tell me a story",
        "count to ten",
        "go on with the story",
        "goodbye for now",
    ]
    printed = capsys.readouterr().out
    assert "reply 2 goes on" in printed
    assert "reply 2 was interrupted" in printed
    assert 'says "Goodbye!"' in printed


async def test_speech_without_noise_is_recognised() -> None:
    """Digital silence around speech, as a noise-suppressing microphone sends it."""
    phrases = ["tell me a story", "count to ten", "what can you do", "what day is it today"]
    voice, model = EspeakTTSModel(), PocketSphinxSTT(phrases)
    for phrase in phrases:
        rate, speech = voice.tts(phrase)
        assert await run_sync(model.stt, (rate, np.pad(speech[0], rate // 3))) == phrase
