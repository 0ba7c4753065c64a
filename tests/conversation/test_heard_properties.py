"""Heard text of a reply: any script, any chunks, any moment."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.conversation.heard import TOLERANCE_S, Script, cut_text, join_texts
from fastrtc_anyio.speech.notes import Note, Part, Sentence, find_note, note_audio

RATE = 1000
WORDS = st.sampled_from(["one", "two,", "three", "a", "seventeen", "é", "ok!"])
TEXTS = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)
SECONDS = st.integers(50, 4000).map(lambda n: n / RATE)


@st.composite
def notes(draw: st.DrawFn, recognisable: bool = True) -> list[Note]:
    """Sentences with pauses between them, one or more to a note."""
    made = []
    for _ in range(draw(st.integers(0, 4))):
        parts = []
        for _ in range(draw(st.integers(1, 3))):
            pause = draw(st.sampled_from([0.0, 0.15]))
            seconds = draw(SECONDS)
            parts += [Part(None, pause), Part(Sentence(draw(TEXTS), seconds), seconds)]
        made.append(Note(tuple(parts), recognisable))
    return made


def text_of(*made: Note) -> str:
    return " ".join(part.sentence.text for note in made for part in note.parts if part.sentence)


def length_of(note: Note) -> float:
    return sum(part.seconds for part in note.parts)


def chunks(total: float, sizes: Sequence[float]) -> list[float]:
    """Cut a duration into pieces of the given sizes, again and again."""
    cut: list[float] = []
    left = total
    while left > 1e-9:
        piece = min(sizes[len(cut) % len(sizes)], left)
        cut.append(piece)
        left -= piece
    return cut


SIZES = st.lists(st.sampled_from([0.02, 0.1, 0.33, 1.0, 10.0]), min_size=1, max_size=3)


@given(notes(), SIZES, st.booleans(), st.lists(st.floats(0, 60), max_size=6))
def test_text_grows_by_whole_words_and_is_complete_at_the_end(
    made: list[Note], sizes: list[float], ahead: bool, moments: list[float]
) -> None:
    script = Script()
    if ahead:
        for note in made:
            script.note(note)
    for note in made:
        if not ahead:
            script.note(note)
        for piece in chunks(length_of(note), sizes):
            script.emit(piece)
    whole = text_of(*made)
    assert script.heard(math.inf) == whole
    assert script.heard(sum(map(length_of, made))) == whole
    assert script.heard(0.0) == ""
    before = ""
    for moment in sorted(moments):
        heard = script.heard(moment)
        assert heard.startswith(before)
        assert whole.startswith(heard)
        assert not heard or whole[len(heard) :][:1] in ("", " ")  # it ends at the end of a word
        before = heard


@given(notes(), st.data())
def test_recognised_arrays_may_come_in_any_order_between_other_sound(
    made: list[Note], data: st.DataObject
) -> None:
    script = Script()
    for note in made:
        script.note(note)
    order = data.draw(st.permutations(made))
    played = data.draw(st.integers(0, len(order)))  # the others are never emitted
    at = 0.0
    for note in order[:played]:
        other = data.draw(st.sampled_from([0.0, 0.5, 5.0]))
        script.emit(other)
        for piece in chunks(length_of(note), data.draw(SIZES)):
            script.emit(piece, note)
        at += other + length_of(note)
        assert script.heard(at) == text_of(*order[: order.index(note) + 1])
    if played:  # otherwise the reply may convert all of its audio
        script.emit(5.0)
    assert script.heard(math.inf) == text_of(*order[:played])


@given(notes(recognisable=False), st.floats(0.995, 1.005))
def test_conversion_may_change_the_duration_a_little(made: list[Note], factor: float) -> None:
    script = Script()
    for note in made:
        script.note(note)
    for note in made:
        script.emit(length_of(note) * factor)
    script.emit(2.0)  # beyond the script: other sound
    assert script.heard(math.inf) == text_of(*made)


@given(TEXTS, SECONDS, st.floats(0, 5), st.floats(0, 5))
def test_words_in_proportion_to_time(text: str, duration: float, one: float, other: float) -> None:
    less, more = (cut_text(text, s, duration) for s in sorted([one, other]))
    assert text.startswith(more)
    assert more.startswith(less)
    assert cut_text(text, duration, duration) == text
    share = (max(one, other) + TOLERANCE_S) / duration
    assert len(more) <= max(share, 1.0 if more == text else 0.0) * len(text)


@given(notes(), st.floats(0, 10), st.floats(0, 10))
def test_dropped_audio_was_not_heard(made: list[Note], played: float, later: float) -> None:
    script = Script()
    for note in made:
        script.note(note)
        script.emit(length_of(note), note)
    played = min(played, sum(map(length_of, made)))
    heard = script.heard(played)
    script.cut(played)
    assert script.heard(math.inf) == heard
    after = Note((Part(Sentence("After that.", 1.0), 1.0),), recognisable=True)
    script.note(after)
    script.emit(1.0, after)
    assert script.heard(played + 1.0) == join_texts([heard, "After that."])
    assert script.heard(played) == heard


def said(text: str, seconds: float, recognisable: bool = True) -> Note:
    return Note((Part(Sentence(text, seconds), seconds),), recognisable)


def test_cached_audio_may_be_played_twice() -> None:
    script, note = Script(), said("One moment.", 1.0)
    script.emit(1.0, note)
    script.emit(1.0, note)
    assert script.heard(2.0) == "One moment. One moment."


def test_audio_before_the_first_recognised_array_is_other_sound() -> None:
    script, note = Script(), said("Hello there.", 2.0)
    script.note(note)  # generated ahead
    script.emit(1.5)  # a jingle
    script.emit(2.0, note)
    assert script.heard(1.5) == ""
    assert script.heard(2.5) == "Hello"
    assert script.heard(3.5) == "Hello there."


def test_note_without_duration_lasts_until_the_next() -> None:
    script = Script()
    script.note(Note((Part(Sentence("How are you", 0.0, False), math.inf),), False))
    for _ in range(50):
        script.emit(0.02)
    assert script.heard(0.3) == "How"  # estimated: 11 characters take 1 s or longer
    script.note(said("today?", 1.0, False))
    script.emit(1.0)
    assert script.heard(1.0) == "How are you"
    assert script.heard(2.0) == "How are you today?"


def test_end_completes_a_sentence_without_duration() -> None:
    script = Script()
    script.note(Note((Part(Sentence("A long sentence.", 0.0, False), math.inf),), False))
    script.emit(0.2)
    assert script.heard(math.inf) == "A"
    script.end()
    assert script.heard(math.inf) == "A long sentence."


def test_incomplete_sentence_is_estimated_at_the_pace_of_complete_ones() -> None:
    script, slow = Script(), said("Slowly.", 7.0)
    script.emit(7.0, slow)
    part = Sentence("one two", 1.0, complete=False)
    script.emit(1.0, Note((Part(part, 1.0),), True))
    assert script.heard(8.0) == "Slowly."
    part.seconds += 3.5
    script.emit(3.5, Note((Part(part, 3.5),), True))
    assert script.heard(11.5) == "Slowly. one"


@pytest.mark.parametrize(
    ("text", "cuts"),
    [
        ("你好。世界", ["", "你", "你好", "你好。", "你好。世", "你好。世界"]),
        ("ที่นี่", ["", "", "", "ที่", "ที่", "ที่", "ที่นี่"]),
        ("(a b)", ["", "", "(a", "(a", "(a", "(a b)"]),
    ],
)
def test_words_of_a_script_without_spaces_are_characters(text: str, cuts: list[str]) -> None:
    assert [cut_text(text, float(n), float(len(text))) for n in range(len(text) + 1)] == cuts


def test_sentences_are_joined_with_spaces_where_the_script_has_them() -> None:
    assert join_texts(["One.", "", "Two?", "Three"]) == "One. Two? Three"
    assert join_texts(["你好。", "世界", "です"]) == "你好。世界です"


def test_slices_are_recognised_and_copies_are_not() -> None:
    samples = np.zeros((1, 100), np.int16)
    note_audio(samples, [Part(None, 0.1)])
    note = find_note(samples)
    assert note is not None
    slices: list[Int16Array] = [samples[:, 10:20], samples[0], samples.reshape(-1)[5:][::2]]
    assert all(find_note(part) is note for part in slices)
    assert find_note(samples.copy()) is None
    assert find_note(samples.astype(np.float32)) is None


def test_note_ends_with_its_array() -> None:
    samples = np.zeros(100, np.int16)
    note_audio(samples, [Part(None, 0.1)])
    place = samples.ctypes.data
    del samples
    others = [np.zeros(100, np.int16) for _ in range(100)]  # may have its id, or its memory
    assert [find_note(other) for other in others] == [None] * 100
    assert place
