"""Speech from espeak-ng, recognised by PocketSphinx."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
import numpy as np
import pytest

from fastrtc_anyio._core.threads import run_sync
from fastrtc_anyio.conversation.events import ReplyInterrupted
from fastrtc_anyio.speech.espeak import EspeakOptions, EspeakTTSModel
from fastrtc_anyio.speech.loaders import get_tts_model
from fastrtc_anyio.speech.pocketsphinx import PocketSphinxSTT
from fastrtc_anyio.speech.stt import Audio
from fastrtc_anyio.testing import open_call
from tests.kit.conversations import RATE, Log, agent, silence
from tests.kit.conversations import voice as loud

pytestmark = pytest.mark.interop

COMMANDS = [
    "what time is it",
    "what day is it today",
    "tell me a joke",
    "tell me a story",
    "count to ten",
    "tell me something interesting",
    "what can you do",
    "goodbye for now",
]
OTHER = [
    "I would like to order a large pizza with mushrooms.",
    "My brother works in a hospital.",
    "Please send the report to my manager before Friday.",
    "Where is the train station?",
    "Read the newspaper to me.",
]
VOICES = ["en-us", "en-gb"]


@pytest.fixture(scope="module")
def voice() -> EspeakTTSModel:
    """The model; fails without the program."""
    return EspeakTTSModel()


def say(voice: EspeakTTSModel, text: str, name: str = "en-us") -> Audio:
    """Speak a text, with silence around it and noise 20 dB below it."""
    rate, speech = voice.tts(text, EspeakOptions(name))
    padded = np.pad(speech[0], rate // 3)
    level = float(np.sqrt(np.mean(speech.astype(np.float64) ** 2))) / 10
    noise = np.random.default_rng(len(text)).normal(0, level, padded.shape)
    return rate, np.clip(padded + noise, -(2**15), 2**15 - 1).astype(np.int16)


async def test_stream_tts_yields_one_chunk_per_sentence() -> None:
    model = get_tts_model("espeak-ng")
    chunks = [chunk async for chunk in model.stream_tts("Hello, Dr. Who. How are you?")]
    assert len(chunks) == 2
    for rate, samples in chunks:
        assert rate == 22_050
        assert samples.dtype == np.int16
        assert 0.5 < samples.shape[1] / rate < 2
        assert np.abs(samples).max() > 3000


async def test_interrupted_reply_has_the_words_that_were_played() -> None:
    sentences = ["Once upon a time there was a task.", "It was born in a nursery."]

    async def reply(audio: Audio) -> AsyncGenerator[Audio, None]:
        async with aclosing(get_tts_model("espeak-ng").stream_tts(" ".join(sentences))) as speech:
            async for chunk in speech:
                yield chunk

    log = Log()
    async with open_call(agent(reply, on_event=log)) as call:
        await call.speak(np.concatenate([loud(1), silence(3), loud(0.3)], axis=1), RATE)
    text = log.of(ReplyInterrupted)[0].text
    assert text.startswith(sentences[0])
    assert len(sentences[0]) + 1 < len(text) < len(" ".join(sentences))


async def test_cancelled_stream_leaves_no_process(voice: EspeakTTSModel) -> None:
    for delay in (0, 0.002, 0.005, 0.01):
        with anyio.move_on_after(delay):
            async with aclosing(voice.stream_tts("This is said. This is not.")) as speech:
                async for _ in speech:
                    break
    gc.collect()  # An open process or pipe would warn, and warnings are errors.


@pytest.mark.parametrize("text", ["-v is no option.", "--version", "<b>& größer 🎙"])
def test_option_and_markup_are_spoken_as_text(voice: EspeakTTSModel, text: str) -> None:
    assert voice.tts(text)[1].shape[1] > 5000


def test_unknown_voice_raises_runtime_error(voice: EspeakTTSModel) -> None:
    with pytest.raises(RuntimeError, match="voice does not exist"):
        voice.tts("Hello.", EspeakOptions("xx"))


async def test_only_known_phrases_are_recognised(voice: EspeakTTSModel) -> None:
    model = PocketSphinxSTT(COMMANDS)
    for name in VOICES:
        for text in COMMANDS:
            assert await run_sync(model.stt, say(voice, text, name)) == text
        for text in OTHER:
            assert await run_sync(model.stt, say(voice, text, name)) == ""


@pytest.mark.parametrize("name", VOICES)
def test_spot_returns_end_of_stop_word(voice: EspeakTTSModel, name: str) -> None:
    model = PocketSphinxSTT()
    rate, first = say(voice, "hey computer", name)
    _, second = say(voice, "what time is it", name)
    both = np.concatenate([first, second]).astype(np.int16)
    end = model.spot((rate, both), ["okay computer please", "hey computer"])
    # A third of a second of silence follows it.
    assert end == pytest.approx(first.size / rate - 1 / 3, abs=0.15)
    for text in OTHER:
        assert model.spot(say(voice, text, name), ["hey computer"]) is None


def test_free_speech_is_recognised(voice: EspeakTTSModel) -> None:
    assert "brother" in PocketSphinxSTT().stt(say(voice, "My brother works in a hospital."))
