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
from numpy.typing import NDArray

from fastrtc_anyio._core.options import check_number, short_repr
from fastrtc_anyio._media.frames import Int16Array

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

    def vad(
        self, audio: tuple[int, NDArray[np.int16] | NDArray[np.float32]], options: ModelOptions
    ) -> tuple[float, list[AudioChunk]]:
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
        self._model = model
        self._options = options
        self._rate = sample_rate
        self._hop = round(hop_s * sample_rate)
        self._hops = max(1, round(context_s / hop_s))

    @property
    def sample_rate(self) -> int:
        """Input sample rate in Hz."""
        return self._rate

    @property
    def window(self) -> int:
        """Samples per window: one hop."""
        return self._hop

    @property
    def blocking(self) -> bool:
        """True: the model may take any time."""
        return True

    def warmup(self) -> None:
        """Prepare the model for the first call."""
        self._model.warmup()

    def new_stream(self) -> BatchVadStream:
        """Return the state for a new speaker."""
        return BatchVadStream(self._model, self._options, self._rate, self._hop, self._hops)


class BatchVadStream:
    """Recent audio of one speaker; see `BatchVad`."""

    def __init__(
        self, model: PauseDetectionModel, options: ModelOptions, rate: int, hop: int, hops: int
    ) -> None:
        self._model = model
        self._options = options
        self._rate = rate
        self._hop = hop
        self._heard = np.zeros(hop * hops, np.int16)
        # Speech found in the hops that the next call contains again.
        self._found: deque[float] = deque(maxlen=hops - 1)

    def probability(self, window: Int16Array) -> float:
        """Process the next hop. Errors of the model propagate.

        Args:
            window: int16, shape ``(1, BatchVad.window)``, at ``BatchVad.sample_rate``.

        Returns:
            The fraction of it that is speech, 0 to 1.

        Raises:
            UnsupportedFormat: for another dtype or shape.
            TypeError: the model did not return seconds and chunks.
            ValueError: the model returned NaN.
        """
        check_window(window, self._hop)
        self._heard = np.concatenate([self._heard[self._hop :], window[0]])
        # A copy: the model may modify or keep it.
        answer = self._model.vad((self._rate, self._heard.copy()), self._options)
        seconds, chunks = _checked(answer, self._model)
        if chunks:
            probability = self._covered(chunks)
        else:
            hop_s = self._hop / self._rate
            probability = min(1.0, max(0.0, seconds / hop_s - sum(self._found)))
        self._found.append(probability)
        return probability

    def _covered(self, chunks: Sequence[AudioChunk]) -> float:
        end = self._heard.size
        begin = end - self._hop
        covered = sum(
            max(0, min(chunk["end"], end) - max(chunk["start"], begin)) for chunk in chunks
        )
        # Overlapping chunks would count twice.
        return min(1.0, covered / self._hop)


def _checked(answer: object, model: object) -> tuple[float, Sequence[AudioChunk]]:
    match answer if isinstance(answer, tuple | list) else None:  # numpy 2.5: an array is one too
        case (int() | float() | np.number() as seconds, list() | tuple() as chunks):
            if math.isnan(seconds):
                raise ValueError(f"{_name(model)}.vad() returned NaN as the seconds of speech")
            return float(seconds), cast("Sequence[AudioChunk]", chunks)
    raise TypeError(
        f"{_name(model)}.vad() must return seconds of speech and a list of chunks; "
        f"got {short_repr(answer)}"
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
        f"(vad, warmup); got {_name(model)}"
    )


def _name(model: object) -> str:
    return type(model).__qualname__
