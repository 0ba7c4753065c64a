"""FastRTC's kind of voice-activity model, and its use on a stream.

FastRTC gives a model a chunk of audio and asks how many seconds of it are speech. `BatchVad` gives
it the last moments of a call again and again, and makes of the answers what a stream needs: how
much of the newest moment is speech.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

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
"""Whatever a model takes as its options."""


class AudioChunk(TypedDict):
    """A part of some audio: the places of its first sample and after its last."""

    start: int
    end: int


class PauseDetectionModel(Protocol):
    """A voice-activity model as FastRTC has it. Any thread may call it."""

    def vad(
        self, audio: tuple[int, NDArray[np.int16] | NDArray[np.float32]], options: ModelOptions
    ) -> tuple[float, list[AudioChunk]]:
        """Find the speech in some audio.

        Args:
            audio: ``(sample_rate, samples)``, the samples int16 or float32 of shape ``(n,)``.
            options: What the user gave as the model's options, or None.

        Returns:
            Seconds of speech, and where it is. Models that don't know where return an empty list.
        """
        ...

    def warmup(self) -> None:
        """Be ready for the first call."""
        ...


class BatchVad:
    """A `PauseDetectionModel` as a `Vad`.

    After every ``hop_s`` the model hears the last ``context_s`` seconds, with silence in front of
    the first sample. The probability is the part of the newest hop that is speech:

    * what the chunks it returns cover of it, or
    * where it returns seconds and no chunks, the seconds less what the hops before in that context
      were found to have. A model that measures seconds rightly gives each hop its own that way;
      one that counts a sound late, when it has lasted for some time, has it counted then.

    Args:
        model: It is called on a thread, by several sessions at once.
        options: Handed to it as they are.
        sample_rate: Of the audio it is given, Hz. FastRTC's models answer in samples at 16 kHz
            whatever they are given, so this should not be changed for one of them.
        hop_s: Seconds between two calls of the model.
        context_s: Seconds that it hears at a time, rounded to whole hops.

    Raises:
        ValueError: ``sample_rate`` or ``hop_s`` is not positive, a hop has no sample, or
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
        if not sample_rate > 0:
            raise ValueError(f"sample_rate must be a positive number of Hz; got {sample_rate!r}")
        if not 1 / sample_rate <= hop_s < math.inf:
            raise ValueError(f"hop_s must be the time of a sample at least; got {hop_s!r}")
        if not hop_s <= context_s < math.inf:
            raise ValueError(f"context_s must be hop_s ({hop_s!r}) at least; got {context_s!r}")
        self._model = model
        self._options = options
        self._rate = sample_rate
        self._hop = round(hop_s * sample_rate)
        self._hops = max(1, round(context_s / hop_s))

    @property
    def sample_rate(self) -> int:
        """Of the audio it takes, Hz."""
        return self._rate

    @property
    def window(self) -> int:
        """Samples it takes at a time: a hop."""
        return self._hop

    @property
    def blocking(self) -> bool:
        """True: what the model does is unknown."""
        return True

    def warmup(self) -> None:
        """Have the model be ready for the first call."""
        self._model.warmup()

    def new_stream(self) -> BatchVadStream:
        """Begin to listen to somebody."""
        return BatchVadStream(self._model, self._options, self._rate, self._hop, self._hops)


class BatchVadStream:
    """One speaker's last moments; see `BatchVad`."""

    def __init__(
        self, model: PauseDetectionModel, options: ModelOptions, rate: int, hop: int, hops: int
    ) -> None:
        self._model = model
        self._options = options
        self._rate = rate
        self._hop = hop
        self._heard = np.zeros(hop * hops, np.int16)
        # What was found in the hops that the next call hears again.
        self._found: deque[float] = deque(maxlen=hops - 1)

    def probability(self, window: Int16Array) -> float:
        """Hear the next hop.

        Args:
            window: int16, shape ``(1, BatchVad.window)``, at ``BatchVad.sample_rate``.

        Returns:
            The part of it that is speech, 0 to 1.

        Raises:
            UnsupportedFormat: for another dtype or shape.
            TypeError: the model returned something else than seconds and chunks.
            ValueError: the seconds are no number.

        Whatever the model raises passes through.
        """
        check_window(window, self._hop)
        self._heard = np.concatenate([self._heard[self._hop :], window[0]])
        # A copy, which the model may change or keep.
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
        # Chunks that overlap would count twice.
        return min(1.0, covered / self._hop)


def _checked(answer: object, model: object) -> tuple[float, Sequence[AudioChunk]]:
    match answer if isinstance(answer, tuple | list) else None:  # an array may be a sequence, too
        case (int() | float() | np.number() as seconds, list() | tuple() as chunks):
            if math.isnan(seconds):
                raise ValueError(f"{_name(model)}.vad() returned NaN as the seconds of speech")
            return float(seconds), cast("Sequence[AudioChunk]", chunks)
    raise TypeError(
        f"{_name(model)}.vad() must return seconds of speech and a list of chunks; got {answer!r}"
    )


def as_vad(model: object, options: ModelOptions = None, context_s: float = 0.6) -> Vad:
    """Take either kind of model: a `Vad`, or FastRTC's `PauseDetectionModel`.

    Args:
        model: A `Vad` is returned as it is, also if it has a method ``vad`` like `SileroVad`; a
            `PauseDetectionModel` as a `BatchVad`.
        options: For a `PauseDetectionModel`.
        context_s: How much of the past a `PauseDetectionModel` hears at a time, seconds.

    Raises:
        TypeError: it is neither; names what was got and wanted.
        ValueError: ``context_s`` is not positive.
    """
    if isinstance(model, type):
        raise TypeError(f"model must be an object, got the class {model.__qualname__}: call it")
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
