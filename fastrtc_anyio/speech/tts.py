"""Text to speech: the protocol of a voice, and the base class of voices that speak by the sentence.

The text may arrive in pieces, as a language model writes it. Each sentence is spoken as soon as it
is complete::

    async with aclosing(model.stream_tts(answer)) as speech:
        async for chunk in speech: ...

Synthesis never runs ahead of the iteration: the session's output buffer does that.

Cancelling the iteration, or closing the generator, stops it at once. A program is killed. A model's
call on a thread continues, and its result is dropped.

:func:`.loaders.get_tts_model` loads a voice by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Generator
from contextlib import AsyncExitStack, aclosing
from typing import Generic, Protocol, TypeAlias, TypeVar, cast

import numpy as np
from anyio.lowlevel import checkpoint
from numpy.typing import NDArray

from fastrtc_anyio._core.threads import run_sync

from .sentences import SentenceSplitter, split_sentences

__all__ = ["SentenceTTS", "Speech", "TTSModel", "TTSOptions", "read_sentences"]

Samples: TypeAlias = NDArray[np.int16] | NDArray[np.float32]
Speech: TypeAlias = tuple[int, Samples]

PAUSE_S = 0.15
"""Seconds of silence between two sentences: half of what espeak-ng puts there."""
# Models surround a sentence with silence, which delays it. -50 dB is below the softest consonant;
# a margin keeps its onset and its decay.
_SILENCE = 0.003
_MARGIN_S = 0.01


class TTSOptions:
    """Base class of the options of a voice."""


OptionsT = TypeVar("OptionsT", bound=TTSOptions)
OptionsT_contra = TypeVar("OptionsT_contra", bound=TTSOptions, contravariant=True)


class TTSModel(Protocol[OptionsT_contra]):
    """Voice: synthesises speech from text."""

    def tts(self, text: str, options: OptionsT_contra | None = None) -> Speech:
        """Synthesise a whole text. Blocks: ``await run_sync(model.tts, text)``.

        Returns:
            ``(sample_rate, samples)``: int16 or float32 (full scale 1.0), shape ``(1, n)``.
        """
        ...

    def stream_tts(
        self, text: str | AsyncIterable[str], options: OptionsT_contra | None = None
    ) -> AsyncGenerator[Speech, None]:
        """Synthesise a text while it arrives.

        Args:
            text: a text, or pieces of one, cut anywhere.
            options: options of the voice.

        Yields:
            Values as `tts` returns them: a sentence, or a part of one.
        """
        ...

    def stream_tts_sync(
        self, text: str, options: OptionsT_contra | None = None
    ) -> Generator[Speech, None, None]:
        """Synthesise a text sentence by sentence, without an event loop."""
        ...


class SentenceTTS(ABC, Generic[OptionsT]):
    """`TTSModel` on top of one method that speaks one sentence."""

    @abstractmethod
    def speak(self, sentence: str, options: OptionsT | None) -> Speech:
        """Synthesise one sentence. Blocks.

        Returns:
            ``(sample_rate, samples)``: int16 or float32, shape ``(n,)`` or ``(1, n)``. Silence at
            both ends is trimmed later.
        """

    async def speak_async(self, sentence: str, options: OptionsT | None) -> Speech:
        """Synthesise one sentence on a thread. Override it for a voice that can wait."""
        return await run_sync(self.speak, sentence, options)

    def tts(self, text: str, options: OptionsT | None = None) -> Speech:
        """Synthesise a whole text; see :meth:`TTSModel.tts`.

        Raises:
            ValueError: the text has no sentence, or its speech is silent.
        """
        spoken = list(self.stream_tts_sync(text, options))
        if not spoken:
            raise ValueError(f"text must contain something to say; got {text!r}")
        joined = np.concatenate([samples for _, samples in spoken], axis=1)
        return spoken[0][0], cast(Samples, joined)

    async def stream_tts(
        self, text: str | AsyncIterable[str], options: OptionsT | None = None
    ) -> AsyncGenerator[Speech, None]:
        """Synthesise a text while it arrives; see :meth:`TTSModel.stream_tts`.

        Leaving the iteration closes ``text`` if it has ``aclose()``.

        Yields:
            ``(sample_rate, samples)`` for each sentence, shape ``(1, n)``. Every sentence after the
            first begins with a short pause.
        """
        pause = False
        async with aclosing(read_sentences(text)) as sentences:
            async for sentence in sentences:
                rate, samples = _trim(await self.speak_async(sentence, options), pause)
                if samples.size:
                    pause = True
                    yield rate, samples

    def stream_tts_sync(
        self, text: str, options: OptionsT | None = None
    ) -> Generator[Speech, None, None]:
        """Synthesise a text sentence by sentence, without an event loop."""
        pause = False
        for sentence in split_sentences(text):
            rate, samples = _trim(self.speak(sentence, options), pause)
            if samples.size:
                pause = True
                yield rate, samples


async def read_sentences(text: object) -> AsyncGenerator[str, None]:
    """Yield the sentences of a text, or of the pieces that an async iterable yields.

    Raises:
        TypeError: ``text`` or a piece is something else.
    """
    await checkpoint()
    if isinstance(text, str):
        for sentence in split_sentences(text):
            yield sentence
        return
    if not isinstance(text, AsyncIterable):
        raise TypeError(f"text must be a str or yield strings; got {type(text).__name__}")
    splitter = SentenceSplitter()
    async with AsyncExitStack() as stack:
        if (aclose := getattr(text, "aclose", None)) is not None:
            stack.push_async_callback(aclose)
        async for piece in text:
            for sentence in splitter.push(piece):
                yield sentence
        for sentence in splitter.flush():
            yield sentence


def _trim(speech: Speech, pause: bool) -> Speech:
    """Remove the silence at both ends, and optionally begin with a pause."""
    rate, samples = speech
    samples = samples.reshape(1, -1)
    threshold = _SILENCE * (2**15 if samples.dtype == np.int16 else 1)
    loud = np.flatnonzero(np.abs(samples[0].astype(np.float32)) > threshold)
    if not loud.size:
        return rate, samples[:, :0]
    margin = round(_MARGIN_S * rate)
    samples = samples[:, max(0, loud[0] - margin) : loud[-1] + 1 + margin]
    padded = np.pad(samples, ((0, 0), (round(PAUSE_S * rate) if pause else 0, 0)))
    return rate, cast(Samples, padded)
