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
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterator
from contextlib import AsyncExitStack, aclosing
from typing import Generic, Protocol, TypeAlias, TypeVar, cast

import numpy as np
from anyio.lowlevel import checkpoint

from fastrtc_anyio._core.threads import run_sync

from .notes import Part, Samples, Sentence, note_audio
from .sentences import SentenceSplitter, split_sentences

__all__ = ["SentenceTTS", "Speech", "TTSModel", "TTSOptions", "read_sentences"]

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
        spoken = list(self._speak_sentences(text, options))
        if not spoken:
            raise ValueError(f"text must contain something to say; got {text!r}")
        joined = cast(Samples, np.concatenate([samples for (_, samples), _ in spoken], axis=1))
        note_audio(joined, [part for _, parts in spoken for part in parts])
        return spoken[0][0][0], joined

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
                speech, parts = _trim(sentence, await self.speak_async(sentence, options), pause)
                if parts:
                    pause = True
                    note_audio(speech[1], parts)
                    yield speech

    def stream_tts_sync(
        self, text: str, options: OptionsT | None = None
    ) -> Generator[Speech, None, None]:
        """Synthesise a text sentence by sentence, without an event loop."""
        for speech, parts in self._speak_sentences(text, options):
            note_audio(speech[1], parts)
            yield speech

    def _speak_sentences(
        self, text: str, options: OptionsT | None
    ) -> Iterator[tuple[Speech, list[Part]]]:
        pause = False
        for sentence in split_sentences(text):
            speech, parts = _trim(sentence, self.speak(sentence, options), pause)
            if parts:
                pause = True
                yield speech, parts


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


def _trim(sentence: str, speech: Speech, pause: bool) -> tuple[Speech, list[Part]]:
    """Remove the silence at both ends, and optionally begin with a pause.

    Returns:
        The speech, and its parts; none if it is silent.
    """
    rate, samples = speech
    samples = samples.reshape(1, -1)
    threshold = _SILENCE * (2**15 if samples.dtype == np.int16 else 1)
    loud = np.flatnonzero(np.abs(samples[0].astype(np.float32)) > threshold)
    if not loud.size:
        return speech, []
    margin = round(_MARGIN_S * rate)
    samples = samples[:, max(0, loud[0] - margin) : loud[-1] + 1 + margin]
    seconds, before = samples.shape[1] / rate, round(PAUSE_S * rate) if pause else 0
    padded = np.pad(samples, ((0, 0), (before, 0)))  # a copy, as its note requires
    parts = [Part(None, before / rate), Part(Sentence(sentence, seconds), seconds)]
    return (rate, cast(Samples, padded)), parts
