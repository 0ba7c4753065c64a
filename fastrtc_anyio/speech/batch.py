"""Adapter from FastRTC's voice-activity models to a `Vad`.

FastRTC passes a model a chunk of audio, and the model returns the seconds of speech in it.
`BatchVad` passes the model the most recent audio of a call at regular intervals, and derives from
the results the fraction of speech in the newest interval.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, TypedDict, cast

import numpy as np

from fastrtc_anyio._core.options import check_number, short_repr
from fastrtc_anyio._media.frames import Int16Array

from .stt import Audio
from .vad import Vad, check_window

__all__ = [
    "AudioChunk",
    "BatchVad",
    "BatchVadStream",
    "ModelOptions",
    "PauseDetectionModel",
    "as_vad",
]

ModelOptions: TypeAlias = Any
"""Options of a model, in the type that the model defines."""


class AudioChunk(TypedDict):
    """Part of a recording, in samples."""

    start: int
    """Position of the first sample."""
    end: int
    """Position after the last sample."""


class PauseDetectionModel(Protocol):
    """Voice-activity model with FastRTC's interface. Any thread may call it."""

    def vad(self, audio: Audio, options: ModelOptions) -> tuple[float, list[AudioChunk]]:
        """Find the speech in a recording.

        Args:
            audio: ``(sample_rate, samples)``, the samples int16 or float32 of shape ``(n,)``.
            options: the options that the application passed for the model, or None.

        Returns:
            Seconds of speech, and its positions. A model without positions returns an empty list.
        """
        ...

    def warmup(self) -> None:
        """Prepare for the first call."""
        ...


class BatchVad:
    """`PauseDetectionModel` as a `Vad`.

    After every ``hop_s`` the model is called with the last ``context_s`` seconds, padded with
    silence before the first sample. The probability is the fraction of the newest hop that is
    speech:

    * the part of it that the returned chunks cover, or
    * if the model returns seconds without chunks, those seconds less the speech found in the
      earlier hops of the context. A model that measures correctly thus gets its value for each hop.
      A model that reports a sound only after some time gets it counted at that time.

    Args:
        model: the model. It is called on a thread, by several sessions at once.
        options: options to pass to the model.
        sample_rate: rate of the audio in Hz. FastRTC's models answer in samples at 16 kHz at every
            rate, so do not change it for them.
        hop_s: seconds between two calls of the model.
        context_s: seconds of audio in a call, rounded to whole hops.

    Raises:
        TypeError: an argument is not a number.
        ValueError: ``sample_rate`` or ``hop_s`` is not positive, a hop is shorter than a sample, or
            ``context_s`` is less than ``hop_s`` or infinite.
    """

    blocking = True  # the model may take any time

    def __init__(
        self,
        model: PauseDetectionModel,
        options: ModelOptions = None,
        *,
        sample_rate: int = 16_000,
        hop_s: float = 0.1,
        context_s: float = 0.6,
    ) -> None:
        check_number("sample_rate", sample_rate, above=0, unit="Hz")
        check_number("hop_s", hop_s, at_least=1 / sample_rate, unit="seconds (one sample)")
        check_number("context_s", context_s, at_least=hop_s, unit="seconds (hop_s)")
        self.model = model
        self.options = options
        self.sample_rate = sample_rate
        self.window: int = round(hop_s * sample_rate)
        """Samples per window: one hop."""
        self.hops: int = max(1, round(context_s / hop_s))
        """Hops in a call of the model."""

    def warmup(self) -> None:
        """Prepare the model for the first call."""
        self.model.warmup()

    def new_stream(self) -> BatchVadStream:
        """Return the state for a new speaker."""
        return BatchVadStream(self)


class BatchVadStream:
    """Recent audio of one speaker; see `BatchVad`."""

    def __init__(self, vad: BatchVad) -> None:
        self._vad = vad
        self._heard = np.zeros(vad.window * vad.hops, np.int16)
        # Speech found in the hops that the next call contains again.
        self._found: deque[float] = deque(maxlen=vad.hops - 1)

    def probability(self, window: Int16Array) -> float:
        """Process the next hop; see :meth:`.vad.VadStream.probability`.

        Errors of the model propagate.

        Raises:
            TypeError: the model did not return seconds and chunks.
            ValueError: the model returned NaN.
        """
        vad = self._vad
        check_window(window, vad.window)
        self._heard = np.concatenate([self._heard[vad.window :], window[0]])
        # A copy: the model may modify or keep it.
        answer = vad.model.vad((vad.sample_rate, self._heard.copy()), vad.options)
        seconds, chunks = _checked(answer, vad.model)
        if chunks:
            end = self._heard.size
            begin = end - vad.window
            covered = sum(
                max(0, min(chunk["end"], end) - max(chunk["start"], begin)) for chunk in chunks
            )
            speech = covered / vad.window
        else:
            speech = seconds / (vad.window / vad.sample_rate) - sum(self._found)
        # Overlapping chunks count twice.
        probability = min(1.0, max(0.0, speech))
        self._found.append(probability)
        return probability


def _checked(answer: object, model: object) -> tuple[float, Sequence[AudioChunk]]:
    name = type(model).__qualname__
    match answer if isinstance(answer, tuple | list) else None:  # numpy 2.5: an array is one too
        case (int() | float() | np.number() as seconds, list() | tuple() as chunks):
            if math.isnan(seconds):
                raise ValueError(f"{name}.vad() returned NaN as the seconds of speech")
            return float(seconds), cast("Sequence[AudioChunk]", chunks)
    raise TypeError(
        f"{name}.vad() must return seconds of speech and a list of chunks; got {short_repr(answer)}"
    )


def as_vad(model: object, options: ModelOptions = None, context_s: float = 0.6) -> Vad:
    """Return a model as a `Vad`.

    Args:
        model: a `Vad`, which is returned unchanged even if it has a method ``vad`` as `SileroVad`
            does; or FastRTC's `PauseDetectionModel`, which is wrapped in a `BatchVad`.
        options: options to pass to a `PauseDetectionModel`.
        context_s: seconds of audio in a call of a `PauseDetectionModel`.

    Raises:
        TypeError: ``model`` is neither.
        ValueError: ``context_s`` is not positive.
    """
    if isinstance(model, type):
        raise TypeError(f"model must be an object; got the class {model.__qualname__}: call it")
    if all(hasattr(model, name) for name in ("sample_rate", "window", "blocking", "new_stream")):
        return cast(Vad, model)
    if callable(getattr(model, "vad", None)):
        hop_s = min(0.1, context_s)
        return BatchVad(cast(PauseDetectionModel, model), options, hop_s=hop_s, context_s=context_s)
    raise TypeError(
        "model must be a Vad (sample_rate, window, blocking, new_stream) or a PauseDetectionModel "
        f"(vad, warmup); got {type(model).__qualname__}"
    )
