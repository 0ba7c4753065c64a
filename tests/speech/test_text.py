"""Sentences, speech to text and text to speech, with fake programs and packages."""

from __future__ import annotations

import gc
import os
import re
import stat
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio.errors import UnsupportedFormat
from fastrtc_anyio.speech import loaders
from fastrtc_anyio.speech.espeak import EspeakOptions, EspeakTTSModel
from fastrtc_anyio.speech.kokoro import KokoroTTSModel, KokoroTTSOptions
from fastrtc_anyio.speech.loaders import get_stt_model, get_tts_model
from fastrtc_anyio.speech.moonshine import MoonshineSTT
from fastrtc_anyio.speech.sentences import LONGEST_SENTENCE, SentenceSplitter, split_sentences
from fastrtc_anyio.speech.stt import resample_for_stt
from fastrtc_anyio.speech.tts import PAUSE_S, SentenceTTS, Speech, TTSModel, TTSOptions
from tests.kit.served import is_running

RATE = 22_050


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run on both backends in real time, which programs need."""
    return str(request.param), {}


# Sentences.


@pytest.mark.parametrize(
    "sentences",
    [
        ["Hello.", "How are you?", "Fine!"],
        ["Mr. Smith met Dr. Jones at 3.14 p.m. by the river.", "They talked."],
        ["J. R. R. Tolkien wrote it.", "Did he?!", "He did..."],
        ["Fruit, e.g. Apples, costs 2.50 here.", "Cheap."],
        ['"Really?" he asked.', 'She said "yes."', "(They left.)", "So did I.", "Bye."],
        ["Well... perhaps not.", "Wait…", "What?"],
        ["See No. 5 on p. 3.", "No.", "I mean it."],
        ["1. First things first.", "2. Then the rest.", "It was 1999.", "Then it rained."],
        ["no capitals here. none at all"],
        ["A title", "A paragraph."],
        ["好\u3002", "谢谢\uff01", "再见"],
    ],
)
def test_text_is_split_into_sentences(sentences: list[str]) -> None:
    joined = "\n\n" if sentences[0] == "A title" else " "
    assert split_sentences(joined.join(sentences)) == sentences


def test_sentence_is_complete_when_the_next_begins() -> None:
    splitter = SentenceSplitter()
    assert splitter.push("It is 3.") == []
    assert splitter.push("14 now.") == []
    assert splitter.push(" ") == []
    assert splitter.push("So") == ["It is 3.14 now."]
    assert splitter.flush() == ["So"]
    assert splitter.flush() == []


def test_long_sentence_is_cut_at_comma_or_space() -> None:
    words = "one two three four five, " * 40
    pieces = split_sentences(words)
    assert all(len(piece) <= LONGEST_SENTENCE for piece in pieces)
    assert all(piece.endswith("five,") for piece in pieces)
    assert " ".join(pieces) == words.strip()
    assert all(len(piece) <= LONGEST_SENTENCE for piece in split_sentences("word " * 500))


def test_splitter_rejects_none() -> None:
    with pytest.raises(TypeError, match="text must be a str; got NoneType"):
        SentenceSplitter().push(None)  # type: ignore[arg-type]


# Models and their packages.


@pytest.mark.parametrize(
    ("name", "missing", "install"),
    [
        ("moonshine/tiny", "moonshine_onnx", "pip install 'fastrtc-anyio[moonshine]'"),
        ("pocketsphinx", "pocketsphinx", "pip install 'fastrtc-anyio[stt]'"),
    ],
)
def test_missing_package_names_the_command_to_install(
    name: loaders.STTModelName, missing: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    loaders._load_stt.cache_clear()
    with pytest.raises(ImportError, match=re.escape(install)):
        get_stt_model(name)


def test_missing_kokoro_names_the_offline_alternative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrtc_anyio.speech.kokoro.find_spec", lambda _name: None)
    with pytest.raises(
        ImportError, match=r"kokoro-onnx and huggingface-hub: .*\[tts\].* \"espeak-ng\""
    ):
        get_tts_model()


@pytest.mark.parametrize(
    ("get", "name", "known"),
    [
        (get_stt_model, "whisper/tiny.en", "'moonshine/base', 'moonshine/tiny', 'pocketsphinx'"),
        (get_tts_model, "piper", "'kokoro', 'espeak-ng', 'cartesia'"),
    ],
)
def test_unknown_model_name_lists_the_known_names(
    get: Callable[[str], object], name: str, known: str
) -> None:
    with pytest.raises(ValueError, match=f"model must be one of {known}; got '{name}'"):
        get(name)


class FakeMoonshine:
    heard: np.ndarray[Any, Any]

    def __init__(self, model_name: str) -> None:
        self.name = model_name

    def generate(self, samples: np.ndarray[Any, Any]) -> list[list[int]]:
        FakeMoonshine.heard = samples
        return [[1, 2]]


def test_moonshine_receives_float32_at_16_khz(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("moonshine_onnx")
    module.MoonshineOnnxModel = FakeMoonshine
    module.load_tokenizer = lambda: SimpleNamespace(decode_batch=lambda tokens: [str(tokens)])
    monkeypatch.setitem(sys.modules, "moonshine_onnx", module)
    model = MoonshineSTT("moonshine/tiny")
    assert model.stt((48_000, np.full(48_000, 2**14, np.int16))) == "[[1, 2]]"
    assert FakeMoonshine.heard.dtype == np.float32
    assert FakeMoonshine.heard.shape == (1, 16_000)
    assert abs(float(FakeMoonshine.heard[0, 8000]) - 0.5) < 0.01
    assert model.stt((48_000, np.zeros((1, 0), np.int16))) == ""


def test_unavailable_weights_raise_runtime_error_with_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError("no route to the weights")

    moonshine: Any = ModuleType("moonshine_onnx")
    moonshine.MoonshineOnnxModel = fail
    hub: Any = ModuleType("huggingface_hub")
    hub.hf_hub_download = fail
    monkeypatch.setitem(sys.modules, "moonshine_onnx", moonshine)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "kokoro_onnx", ModuleType("kokoro_onnx"))
    monkeypatch.setattr("fastrtc_anyio.speech.kokoro.find_spec", lambda _name: object())
    with pytest.raises(RuntimeError, match=r"no route to the weights.*pocketsphinx") as caught:
        MoonshineSTT()
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(RuntimeError, match=r"no route to the weights.*espeak-ng"):
        KokoroTTSModel()


@pytest.mark.parametrize(
    "audio", [np.zeros(10, np.int16), (999, np.zeros(10, np.int16)), (16_000, [0.0]), ("16k", None)]
)
def test_invalid_audio_is_rejected(audio: Any) -> None:
    with pytest.raises(UnsupportedFormat):
        resample_for_stt(audio)


@pytest.mark.parametrize("bad", [{"speed": 10}, {"pitch": 100}, {"voice": "-q"}, {"voice": "a b"}])
def test_option_out_of_range_is_rejected(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
        EspeakOptions(**bad)


def test_option_of_wrong_type_is_rejected() -> None:
    with pytest.raises(
        TypeError, match="speed must be an int at least 80 and at most 450; got 'fast'"
    ):
        EspeakOptions(speed="fast")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"speed must be a number at least 0\.5 and at most 2; got 9"
    ):
        KokoroTTSOptions(speed=9)


# PocketSphinx without speech; tests/interop tests it with speech.


def test_pocketsphinx_recognises_nothing_in_silence_and_noise(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("pocketsphinx")
    from fastrtc_anyio.speech.pocketsphinx import PocketSphinxSTT

    model = PocketSphinxSTT(["tell me a joke", "Goodbye for  now"])
    noise = np.random.default_rng(1).normal(0, 300, 24_000).astype(np.int16)
    for samples in (np.zeros(0, np.int16), np.zeros((1, 24_000), np.int16), noise):
        assert model.stt((24_000, samples)) == ""
        assert model.spot((24_000, samples), ["hey computer"]) is None
    assert capfd.readouterr() == ("", "")


def test_pocketsphinx_rejects_unknown_words() -> None:
    pytest.importorskip("pocketsphinx")
    from fastrtc_anyio.speech.pocketsphinx import PocketSphinxSTT

    with pytest.raises(ValueError, match="'xyzzy' of the phrase 'say xyzzy'"):
        PocketSphinxSTT(["say xyzzy"])
    with pytest.raises(ValueError, match="at least one word"):
        PocketSphinxSTT([" "])
    with pytest.raises(TypeError, match="got the string 'stop'"):
        PocketSphinxSTT("stop")


# Streaming.


class Beeps(SentenceTTS[TTSOptions]):
    """Speaks each sentence as a beep between two silences."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.speaks, self.may_speak = threading.Event(), threading.Event()
        self.may_speak.set()

    def speak(self, sentence: str, options: TTSOptions | None) -> Speech:
        self.sentences.append(sentence)
        self.speaks.set()
        self.may_speak.wait()
        silence = np.zeros(4000, np.float32)
        return 8000, np.concatenate([silence, np.full(800, 0.5, np.float32), silence])


async def test_speech_is_trimmed_and_separated_by_pauses() -> None:
    model: TTSModel[TTSOptions] = Beeps()
    chunks = [samples async for _, samples in model.stream_tts("One. Two.")]
    room = 2 * 80
    assert [chunk.shape for chunk in chunks] == [(1, 800 + room), (1, 960 + int(PAUSE_S * 8000))]
    assert [c.shape for _, c in model.stream_tts_sync("One. Two.")] == [c.shape for c in chunks]
    assert np.array_equal(model.tts("One. Two.")[1], np.concatenate(chunks, axis=1))


async def test_sentence_is_spoken_before_the_text_is_complete() -> None:
    model, closed = Beeps(), anyio.Event()

    async def tokens() -> AsyncGenerator[str, None]:
        try:
            for token in ("One", " is", " enough.", " T"):
                yield token
            await anyio.sleep_forever()
        finally:
            closed.set()

    async with aclosing(model.stream_tts(tokens())) as speech:
        assert (await anext(speech))[0] == 8000
        assert model.sentences == ["One is enough."]
        assert not closed.is_set()
    assert closed.is_set()


async def test_stream_tts_rejects_other_types() -> None:
    with pytest.raises(TypeError, match="text must be a str or yield strings; got int"):
        await anext(Beeps().stream_tts(5))  # type: ignore[arg-type]


async def test_halves_of_characters_are_joined_or_left_out() -> None:
    async def pieces(*texts: str) -> AsyncGenerator[str, None]:
        for text in texts:
            yield text

    model = Beeps()
    for text in (
        "Hi \ud83d\x00the\x1bre. Bye\udc00.",
        pieces("Hi \ud83d", "there. Bye\udc00", ".\ud83d"),
    ):
        model.sentences.clear()
        assert len([chunk async for chunk in model.stream_tts(text)]) == 2
        assert model.sentences == ["Hi there.", "Bye."]
    model.sentences.clear()
    async for _ in model.stream_tts(pieces("Hi \ud83d", "", "\ude00 there.")):
        pass
    assert model.sentences == ["Hi \U0001f600 there."]


@pytest.mark.parametrize("piece", [None, b"bytes", 5, ["list"]])
async def test_error_shows_the_piece_that_is_not_a_string(piece: Any) -> None:
    async def pieces() -> AsyncGenerator[Any, None]:
        yield piece

    name = type(piece).__name__
    with pytest.raises(TypeError, match=f"text must be a str; got {name}"):
        await anext(Beeps().stream_tts(pieces()))
    with pytest.raises(TypeError, match=f"text must be a str; got {name}"):
        next(Beeps().stream_tts_sync(piece))


async def test_blank_text_yields_nothing_and_tts_raises() -> None:
    assert [chunk async for chunk in Beeps().stream_tts(" \n ")] == []
    with pytest.raises(ValueError, match="text must contain something to say; got ' '"):
        Beeps().tts(" ")


async def test_cancelled_stream_abandons_the_call_on_its_thread() -> None:
    model = Beeps()
    model.may_speak.clear()
    async with aclosing(model.stream_tts("One. Two.")) as speech:
        with anyio.move_on_after(0.05) as scope:
            await anext(speech)
    assert scope.cancelled_caught
    assert model.speaks.wait(10)  # the thread may start after the cancellation
    assert model.sentences == ["One."]
    model.may_speak.set()


# A program in place of espeak-ng.

WAV = (
    "import struct, sys\n"
    "def wav(n, size=0x7FFFF000, form=1):\n"
    "    sys.stdout.buffer.write(b'RIFF' + struct.pack('<I', size) + b'WAVEfmt ' + struct.pack(\n"
    "        '<IHHIIHH', 16, form, 1, 22050, 44100, 2, 16) + b'data' + struct.pack('<I', size)\n"
    "        + struct.pack('<h', 9000) * n)\n"
    "    sys.stdout.flush()\n"
)


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[[str], EspeakTTSModel]:
    def make(text: str) -> EspeakTTSModel:
        path = tmp_path / "speaks"
        path.write_text(f"#!{sys.executable}\n{WAV}{text}", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return EspeakTTSModel(program=str(path))

    return make


async def test_whole_text_reaches_the_program(
    make_model: Callable[[str], EspeakTTSModel],
) -> None:
    model = make_model("wav(len(sys.stdin.buffer.read()))")
    [(rate, samples)] = [chunk async for chunk in model.stream_tts("-v größer")]
    assert (rate, samples.shape) == (RATE, (1, len("-v größer".encode())))
    assert samples.dtype == np.int16
    assert model.tts("-v größer")[1].shape == samples.shape


async def test_unspeakable_characters_do_not_reach_the_program(
    make_model: Callable[[str], EspeakTTSModel],
) -> None:
    model = make_model("wav(len(sys.stdin.buffer.read()))")
    expected = (1, len(b"Hi  you."))
    async for _, samples in model.stream_tts("Hi \ud83d\x00 you."):
        assert samples.shape == (1, len("Hi you."))
    assert model.speak("Hi \ud83d\x00 you.", None)[1].shape == expected
    assert (await model.speak_async("Hi \udc00 you.", None))[1].shape == expected
    assert (await model.speak_async("\ud83d\ude00", None))[1].shape == (1, 4)


def test_kokoro_receives_speakable_text() -> None:
    model, spoken = KokoroTTSModel.__new__(KokoroTTSModel), []

    def create(text: str, **_options: object) -> tuple[Any, int]:
        spoken.append(text)
        return np.zeros(10, np.float32), 24_000

    model._lock, model._model = threading.Lock(), SimpleNamespace(create=create)
    model.speak("Hi \ud83d\x00you.", None)
    assert spoken == ["Hi you."]


async def test_options_reach_the_program(make_model: Callable[[str], EspeakTTSModel]) -> None:
    model = make_model(
        "sys.exit(0 if sys.argv[1:] == ['--stdout', '-v', 'de', '-s', '200', '-p', '9'] else 3)"
    )
    options = EspeakOptions("de", 200, 9)
    assert [chunk async for chunk in model.stream_tts("Eins.", options)] == []
    with pytest.raises(RuntimeError, match=r"status 3: \(no output\)"):
        await anext(model.stream_tts("Eins."))


async def test_failed_program_raises_error_with_its_output(
    make_model: Callable[[str], EspeakTTSModel],
) -> None:
    model = make_model("sys.stdin.close(); sys.exit('no such voice')")
    with pytest.raises(RuntimeError, match="failed with status 1: no such voice"):
        await anext(model.stream_tts("Hello."))
    with pytest.raises(RuntimeError, match="failed with status 1: no such voice"):
        model.tts("Hello.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("print('rubbish')", "8 bytes that begin with b'rubbish"),
        ("wav(10, form=3)", "got format 3, 1 channels, 16 bits"),
        ("sys.stdout.write('RIFF....WAVE')", "got one without samples"),
    ],
)
async def test_invalid_wav_output_raises_unsupported_format(
    text: str, message: str, make_model: Callable[[str], EspeakTTSModel]
) -> None:
    with pytest.raises(UnsupportedFormat, match=message):
        await anext(make_model(text).stream_tts("Hello."))


def test_missing_program_names_the_command_to_install() -> None:
    with pytest.raises(FileNotFoundError, match="apt install espeak-ng"):
        EspeakTTSModel(program="no-such-program-here")


async def test_cancellation_within_a_sentence_kills_the_program(
    make_model: Callable[[str], EspeakTTSModel], tmp_path: Path
) -> None:
    fifo = tmp_path / "pid"
    os.mkfifo(fifo)
    model = make_model(
        "import os, time, signal\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_IGN)\n"
        "wav(50)\n"
        f"open({str(fifo)!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(600)"
    )
    pids: list[int] = []

    async with anyio.create_task_group() as tasks:

        async def speak() -> None:
            async with aclosing(model.stream_tts("Hello.")) as speech:
                await anext(speech)

        tasks.start_soon(speak)
        pids.append(int(await anyio.Path(fifo).read_text()))
        assert is_running(pids[0])
        tasks.cancel_scope.cancel()
    assert not is_running(pids[0])
    gc.collect()  # Unclosed resources would warn, and warnings are errors.


async def test_early_aclose_starts_no_further_program(
    make_model: Callable[[str], EspeakTTSModel], tmp_path: Path
) -> None:
    count = tmp_path / "count"
    model = make_model(f"wav(50)\nopen({str(count)!r}, 'a').write('x')")
    async with aclosing(model.stream_tts("One. Two. Three.")) as speech:
        await anext(speech)
    assert count.read_text() == "x"
    gc.collect()
