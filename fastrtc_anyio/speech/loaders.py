"""Load speech models by name. Each model is loaded once for the process."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

from fastrtc_anyio._core.host import Lock
from fastrtc_anyio._core.options import check_choice

from .cartesia import CartesiaTTSModel, find_api_key
from .espeak import EspeakTTSModel
from .kokoro import KokoroTTSModel
from .moonshine import MoonshineName, MoonshineSTT
from .pocketsphinx import PocketSphinxSTT
from .stt import STTModel
from .tts import TTSModel

__all__ = ["STTModelName", "TTSModelName", "get_stt_model", "get_tts_model"]

STTModelName: TypeAlias = MoonshineName | Literal["pocketsphinx"]
TTSModelName: TypeAlias = Literal["kokoro", "espeak-ng", "cartesia"]

# lru_cache alone would let two threads that call at the same time load a model twice.
_stt_lock, _tts_lock = Lock(), Lock()


def get_stt_model(model: STTModelName = "moonshine/base") -> STTModel:
    """Load a speech recogniser. The same name returns the same object.

    * ``"moonshine/base"``, ``"moonshine/tiny"``: package useful-moonshine-onnx, which downloads the
      weights on first use.
    * ``"pocketsphinx"``: package pocketsphinx, which contains its model. Weak at free speech, good
      at a list of phrases: see :class:`.pocketsphinx.PocketSphinxSTT`.

    Loading blocks: load before the server starts, or ``await run_sync(get_stt_model, name)``.

    Raises:
        ImportError: a package is missing; names the package to install.
        RuntimeError: the weights could not be loaded.
        ValueError: ``model`` is another name.
    """
    with _stt_lock:
        return _load_stt(model)


@lru_cache
def _load_stt(model: STTModelName) -> STTModel:
    check_choice("model", model, [*get_args(MoonshineName), "pocketsphinx"])
    return PocketSphinxSTT() if model == "pocketsphinx" else MoonshineSTT(model)


def get_tts_model(model: TTSModelName = "kokoro", **kwargs: Any) -> TTSModel[Any]:
    """Load a voice. The same arguments return the same object.

    * ``"kokoro"``: package kokoro-onnx; the weights are downloaded on first use.
    * ``"espeak-ng"``: the program of that name; ``program=`` is its path.
    * ``"cartesia"``: a service, over httpx. ``api_key=``, or FastRTC's ``cartesia_api_key=``, is by
      default the variable ``CARTESIA_API_KEY``. See :class:`.cartesia.CartesiaTTSModel`.

    Loading blocks: load before the server starts, or ``await run_sync(get_tts_model, name)``.

    Raises:
        ImportError: a package is missing; names the package to install.
        FileNotFoundError: the program is missing.
        RuntimeError: the weights could not be loaded.
        TypeError: the model has no such argument.
        ValueError: ``model`` is another name, or the key is missing.
    """
    if model == "cartesia":  # a change of the variable takes effect
        given = kwargs.pop("cartesia_api_key", None)
        kwargs["api_key"] = find_api_key(kwargs.get("api_key") or given)
    with _tts_lock:
        return _load_tts(model, **kwargs)


@lru_cache
def _load_tts(model: TTSModelName, **kwargs: Any) -> TTSModel[Any]:
    check_choice("model", model, get_args(TTSModelName))
    if model == "cartesia":
        return CartesiaTTSModel(**kwargs)
    return KokoroTTSModel(**kwargs) if model == "kokoro" else EspeakTTSModel(**kwargs)
