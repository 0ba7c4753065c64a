"""Kokoro: FastRTC's voice. It downloads its weights on first use."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from fastrtc_anyio._core.host import Lock
from fastrtc_anyio._core.options import check_number

from .sentences import speakable
from .tts import SentenceTTS, Speech, TTSOptions

__all__ = ["KokoroTTSModel", "KokoroTTSOptions"]

_OFFLINE = 'offline, install the program espeak-ng and use "espeak-ng"'


@dataclass(frozen=True)
class KokoroTTSOptions(TTSOptions):
    """Options of Kokoro.

    Attributes:
        voice: name of a voice of the model.
        speed: factor from 0.5 to 2; 1 is the natural speed of the voice.
        lang: language code of espeak-ng.

    Raises:
        TypeError: ``speed`` is not a number.
        ValueError: ``speed`` is out of range.
    """

    voice: str = "af_heart"
    speed: float = 1.0
    lang: str = "en-us"

    def __post_init__(self) -> None:
        check_number("speed", self.speed, at_least=0.5, at_most=2)


class KokoroTTSModel(SentenceTTS[KokoroTTSOptions]):
    """Speak with Kokoro. Any thread may call it; one call runs at a time.

    Raises:
        ImportError: a package is missing.
        RuntimeError: its weights could not be loaded.
    """

    def __init__(self) -> None:
        # find_spec only looks: a package that is installed but broken raises its own error below.
        missing = [name for name in ("kokoro_onnx", "huggingface_hub") if find_spec(name) is None]
        if missing:
            packages = " and ".join(missing).replace("_", "-")
            raise ImportError(
                f"Kokoro needs {packages}: pip install 'fastrtc-anyio[tts]'. It downloads its "
                f"weights on first use; {_OFFLINE}"
            )
        download = import_module("huggingface_hub").hf_hub_download
        kokoro_onnx = import_module("kokoro_onnx")
        try:
            model = download("fastrtc/kokoro-onnx", "kokoro-v1.0.onnx")
            voices = download("fastrtc/kokoro-onnx", "voices-v1.0.bin")
            self._model = kokoro_onnx.Kokoro(model_path=model, voices_path=voices)
        except Exception as exc:
            raise RuntimeError(
                f"could not load the weights of Kokoro ({exc}). They are downloaded on first use; "
                f"{_OFFLINE}"
            ) from exc
        self._lock = Lock()

    def speak(self, sentence: str, options: KokoroTTSOptions | None) -> Speech:
        """Synthesise one sentence; see :meth:`.tts.SentenceTTS.speak`."""
        options = options or KokoroTTSOptions()
        with self._lock:
            samples, rate = self._model.create(
                speakable(sentence), voice=options.voice, speed=options.speed, lang=options.lang
            )
        return int(rate), samples
