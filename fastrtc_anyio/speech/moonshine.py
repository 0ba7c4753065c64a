"""Moonshine: FastRTC's recogniser. It downloads its weights on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Literal, TypeAlias

from fastrtc_anyio._core.host import Lock
from fastrtc_anyio._media.frames import int16_to_float32

from .stt import STT_RATE, Audio, resample_for_stt

__all__ = ["MoonshineName", "MoonshineSTT"]

MoonshineName: TypeAlias = Literal["moonshine/base", "moonshine/tiny"]

_MIN_SAMPLES = STT_RATE // 10
"""The model rejects shorter audio."""
_OFFLINE = "offline, pip install 'fastrtc-anyio[stt]' and use \"pocketsphinx\""


class MoonshineSTT:
    """Recognise English with Moonshine. Any thread may call it; one call runs at a time.

    Args:
        model: ``"moonshine/base"`` or ``"moonshine/tiny"``.

    Raises:
        ImportError: the package useful-moonshine-onnx is missing.
        RuntimeError: its weights could not be loaded.
    """

    def __init__(self, model: MoonshineName = "moonshine/base") -> None:
        try:
            moonshine_onnx = import_module("moonshine_onnx")
        except ImportError as exc:
            raise ImportError(
                "Moonshine needs its package: pip install 'fastrtc-anyio[moonshine]'. It downloads "
                f"its weights on first use; {_OFFLINE}"
            ) from exc
        try:
            self._model = moonshine_onnx.MoonshineOnnxModel(model_name=model)
            self._tokenizer = moonshine_onnx.load_tokenizer()
        except Exception as exc:
            raise RuntimeError(
                f"could not load the weights of {model} ({exc}). They are downloaded on first use; "
                f"{_OFFLINE}"
            ) from exc
        self._lock = Lock()

    def stt(self, audio: Audio) -> str:
        """Transcribe an utterance; see :meth:`.stt.STTModel.stt`."""
        samples = int16_to_float32(resample_for_stt(audio))
        if samples.shape[1] < _MIN_SAMPLES:
            return ""
        with self._lock:
            [text] = self._tokenizer.decode_batch(self._model.generate(samples))
        return str(text)
