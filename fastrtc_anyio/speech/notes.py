"""Notes of what synthesised audio says, for the reply that plays it.

A voice notes the sentences of an array of samples with :func:`note_audio`. The reply recognises the
array, or a slice of it, when it plays it: in any order, and even if it was made before the call. A
reply that converts its audio first plays other arrays. It then takes its audio for what was noted,
in that order.

:func:`note_speech` notes a text without an array, in the order in which the audio is played.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio._core.options import check_number, check_type

__all__ = ["Note", "Part", "Sentence", "find_note", "note_audio", "note_speech"]

Samples: TypeAlias = NDArray[np.int16] | NDArray[np.float32]


@dataclass(eq=False)
class Sentence:
    """A sentence, or any other text that is spoken without interruption.

    Attributes:
        text: its text.
        seconds: seconds of its audio so far.
        complete: whether no more of its audio will be made.
    """

    text: str
    seconds: float
    complete: bool = True


class Part(NamedTuple):
    """A part of an array of samples, or of the audio that follows a note."""

    sentence: Sentence | None
    """The sentence that it speaks; None for silence and for other sound."""
    seconds: float
    """Its duration. Infinite: it ends where the next note begins."""


@dataclass(frozen=True, eq=False)
class Note:
    """The parts of an array of samples, or of audio that follows, in the order of time.

    ``recognisable`` tells whether :func:`find_note` finds it by its array.
    """

    parts: tuple[Part, ...]
    recognisable: bool


on_note: ContextVar[Callable[[Note], object] | None] = ContextVar("on_note", default=None)
"""Called with each note; set in the task of a reply, so that its threads and child tasks have it.
It must be thread-safe."""
noted_arrays: dict[int, tuple[weakref.ref[Samples], Note]] = {}
"""Notes of the arrays that are alive, by the id of the array that owns the memory."""


def note_speech(text: str, seconds: float | None = None) -> None:
    """Note what the next audio of the running reply says, for a voice that does not note it itself.

    The voices of :func:`get_tts_model` do. Call this function before the reply yields the audio: in
    the reply function, in a task that it started, or on a thread of this library. The events
    :class:`ReplyFinished` and :class:`ReplyInterrupted` then have the words that were played.
    Outside a reply the call has no effect.

    Args:
        text: the text, at best a sentence. Empty for silence and for other sound.
        seconds: duration of its audio. None: all audio up to the next note. If the reply is
            interrupted before it has yielded all of that, the duration is estimated from the length
            of the text.

    Raises:
        TypeError: ``text`` is not a str, or ``seconds`` is not a number.
        ValueError: ``seconds`` is negative or not finite.
    """
    check_type("text", text, str)
    if seconds is not None:
        check_number("seconds", seconds, at_least=0)
    words = " ".join(text.split())
    sentence = Sentence(words, seconds or 0.0, seconds is not None) if words else None
    part = Part(sentence, math.inf if seconds is None else seconds)
    _report(Note((part,), recognisable=False))


def note_audio(samples: Samples, parts: Iterable[Part]) -> None:
    """Note what an array of samples says.

    Args:
        samples: any dtype and shape. Slices of it are recognised too, in the order of time. Other
            notes must not share its memory.
        parts: what it says, from its first sample to its last.
    """
    note = Note(tuple(parts), recognisable=True)
    owner = _owner(samples)
    key = id(owner)
    noted_arrays[key] = weakref.ref(owner, lambda _: noted_arrays.pop(key, None)), note
    _report(note)


def find_note(samples: Samples) -> Note | None:
    """Return the note of an array, or of the array of which it is a slice."""
    owner = _owner(samples)
    reference, note = noted_arrays.get(id(owner), (None, None))
    return note if reference is not None and reference() is owner else None


def _owner(samples: Samples) -> Samples:
    """Return the array that owns the memory of an array."""
    while isinstance(samples.base, np.ndarray):
        samples = samples.base
    return samples


def _report(note: Note) -> None:
    report = on_note.get()
    if report is not None:
        report(note)
