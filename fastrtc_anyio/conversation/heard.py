"""Text of the audio of a reply that was played.

Theory of operation. A reply notes what its audio says (:mod:`fastrtc_anyio.speech.notes`) and emits
audio. An emission is recognised as a noted array, or else counts as the first noted audio that has
not been emitted; beyond that it is other sound. This gives a timeline: lines of text, each at
certain seconds of the emitted audio. Audio is played in the order in which it was emitted, so the
seconds played determine how much of each line was played.

A reply that plays some of its arrays unconverted converts none, so once it has, an emission that is
not recognised is other sound.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from unicodedata import category

from fastrtc_anyio.speech.notes import Note, Sentence
from fastrtc_anyio.speech.scripts import NATIVE_STOPS, UNSPACED

__all__ = ["Line", "Script", "cut_text", "join_texts"]

TOLERANCE_S = 0.03
"""Seconds that may be missing from a sentence or word that counts as heard: filters of a resampler,
and the frame of 20 ms that is being played."""
SECONDS_PER_CHARACTER = 0.065
"""Duration of a character, for sentences whose audio is not complete."""
_ROUNDING_S = 1e-6
_SNAP = 0.02
_SNAP_S = 0.02
"""Most of an emission, relative and in seconds, by which its duration may differ from the noted one
after a conversion."""

_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
_JOINS_UNSPACED = re.compile(rf"[{UNSPACED}]|(?![.!?])[{NATIVE_STOPS}]")


@dataclass(eq=False)
class Line:
    """A sentence in the emitted audio.

    Attributes:
        sentence: the sentence.
        begin: seconds of audio that the reply emitted before it.
        spans: its place or places in the emitted audio: ``(begin, seconds)``.
        noted: seconds of its audio as they were noted, before any conversion.
        captioned: whether its caption was sent.
    """

    sentence: Sentence
    begin: float
    spans: list[tuple[float, float]] = field(default_factory=list)
    noted: float = 0.0
    captioned: bool = False

    def seconds_before(self, played: float) -> float:
        """Return how much of it is within the first ``played`` seconds."""
        return sum(min(max(played - begin, 0.0), length) for begin, length in self.spans)

    @property
    def is_whole(self) -> bool:
        """Whether all of its audio has been emitted."""
        return self.sentence.complete and self.noted >= self.sentence.seconds - _ROUNDING_S


class _Cursor:
    """The parts of a note that have not been emitted."""

    def __init__(self, note: Note) -> None:
        self.note = note
        self.parts = deque(part for part in note.parts if part.seconds > 0)


class Script:
    """Texts of a reply and their times. Not thread-safe.

    Attributes:
        lines: the sentences emitted so far, in the order of their beginnings.
        has_notes: whether it has had a note.
        emitted: seconds of audio played or queued so far.
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.has_notes: bool = False
        self.emitted: float = 0.0
        self._waiting: deque[_Cursor] = deque()
        self._current: _Cursor | None = None
        self._guessed: list[Note] = []  # recognisable, but taken for the next without being it
        self._recognises = False
        self._open: Sentence | None = None  # its audio lasts until the next note

    def note(self, note: Note) -> None:
        """Add a note. Its audio has not been emitted."""
        self.has_notes = True
        self._waiting.append(_Cursor(note))

    def emit(self, seconds: float, note: Note | None = None) -> None:
        """Add emitted audio: ``note`` is its note if its array was recognised."""
        begin, self.emitted = self.emitted, self.emitted + seconds
        if note is not None:
            self._emit_parts(self._find(note), begin, seconds, _ROUNDING_S)
            return
        if not self._waiting:
            return
        rest, snap = seconds, max(_ROUNDING_S, min(_SNAP_S, _SNAP * seconds))
        while rest > snap and (cursor := self._next()) is not None:
            rest = self._emit_parts(cursor, begin + seconds - rest, rest, snap)

    def cut(self, played: float, queued: float = 0.0) -> None:
        """Forget the audio that was emitted but not played: it was dropped.

        ``queued`` seconds of other audio have been emitted since.
        """
        for line in self.lines:
            kept = [(begin, min(length, played - begin)) for begin, length in line.spans]
            line.spans = [(begin, length) for begin, length in kept if length > 0]
        self.lines = [line for line in self.lines if line.spans]
        self.emitted = played + queued

    def end(self) -> None:
        """Note that the reply has emitted all of its audio."""
        if self._open is not None:
            self._open.complete = True
            self._open = None

    def heard(self, played: float) -> str:
        """Return the text of the first ``played`` seconds of the emitted audio.

        It grows with ``played``: sentence by sentence, and within a sentence word by word, in
        proportion to time.
        """
        return join_texts(
            cut_text(line.sentence.text, line.seconds_before(played), self.duration(line.sentence))
            for line in self.lines
        )

    def text_until(self, line: Line) -> str:
        """Return the text up to the end of a line."""
        return join_texts(one.sentence.text for one in self.lines[: self.lines.index(line) + 1])

    def duration(self, sentence: Sentence) -> float:
        """Return the seconds of a sentence, estimated if its audio is not complete."""
        if sentence.complete:
            return sentence.seconds
        known = [line.sentence for line in self.lines if line.sentence.complete]
        characters = sum(len(one.text) for one in known)
        pace = SECONDS_PER_CHARACTER
        if characters:
            pace = sum(one.seconds for one in known) / characters
        return max(sentence.seconds, pace * len(sentence.text))

    def _find(self, note: Note) -> _Cursor:
        """Return the remaining parts of a recognised note, all of them if it is played again."""
        self.has_notes = True
        if not self._recognises:
            self._recognises = True
            self._take_back_guesses()
        if self._current is not None and self._current.note is note and self._current.parts:
            return self._current
        waiting = next((cursor for cursor in self._waiting if cursor.note is note), None)
        if waiting is not None:
            self._waiting.remove(waiting)
        self._current = waiting or _Cursor(note)
        return self._current

    def _take_back_guesses(self) -> None:
        """Take what was emitted for the noted arrays for other sound, as they follow only now."""
        sentences = {part.sentence for note in self._guessed for part in note.parts}
        self.lines = [line for line in self.lines if line.sentence not in sentences]
        partial = {cursor.note for cursor in self._waiting} & set(self._guessed)
        others = [cursor for cursor in self._waiting if cursor.note not in partial]
        self._waiting = deque([*map(_Cursor, self._guessed), *others])

    def _next(self) -> _Cursor | None:
        """Return the first note whose audio an emission may be that was not recognised."""
        while True:
            found = [c for c in self._waiting if not (self._recognises and c.note.recognisable)]
            if not found:
                return None
            cursor = found[0]
            if cursor.parts and not (len(found) > 1 and math.isinf(cursor.parts[0].seconds)):
                if cursor.note.recognisable and cursor.note not in self._guessed:
                    self._guessed.append(cursor.note)
                return cursor
            self._waiting.remove(cursor)
            self.end()

    def _emit_parts(self, cursor: _Cursor, begin: float, seconds: float, snap: float) -> float:
        """Emit the next parts of a note, and return the seconds that are beyond them."""
        parts = cursor.parts
        while seconds > snap and parts:
            sentence, left = parts[0]
            taken = noted = min(left, seconds)
            if left - taken <= snap:
                parts.popleft()
                noted = left
            else:
                parts[0] = parts[0]._replace(seconds=left - taken)
            if sentence is not None:
                self._add(sentence, begin, taken, noted)
                if math.isinf(left):
                    sentence.seconds += taken
                    self._open = sentence
            begin, seconds = begin + taken, seconds - taken
        return seconds

    def _add(self, sentence: Sentence, begin: float, seconds: float, noted: float) -> None:
        """Add the place of a sentence, or of a part of it."""
        line = next((one for one in reversed(self.lines) if one.sentence is sentence), None)
        if line is None or line.is_whole:
            line = Line(sentence, begin)
            self.lines.append(line)
        line.noted += noted
        if line.spans and line is self.lines[-1] and math.isclose(sum(line.spans[-1]), begin):
            first, length = line.spans[-1]
            line.spans[-1] = first, length + seconds
        else:
            line.spans.append((begin, seconds))


def cut_text(text: str, seconds: float, duration: float) -> str:
    """Return the words in the first ``seconds`` of a text.

    In scripts without spaces between words, a character counts as a word.
    """
    if seconds <= 0:
        return ""
    if seconds >= duration - TOLERANCE_S:
        return text
    limit = (seconds + TOLERANCE_S) / duration * len(text)
    end = 0
    for word in _WORD.finditer(text):
        last = word.end()
        while last < len(text) and category(text[last])[0] == "M":
            last += 1  # a vowel sign or tone mark belongs to its letter
        if last > limit:
            break
        end = last
    return text[:end]


def join_texts(texts: Iterable[str]) -> str:
    """Join sentences with spaces, but not in scripts that have none between sentences."""
    joined = ""
    for text in texts:
        spaced = joined and text and not _JOINS_UNSPACED.fullmatch(joined[-1])
        joined += f" {text}" if spaced else text
    return joined
