"""Splitting of text into sentences: properties for any text and any pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from fastrtc_anyio.speech.sentences import SentenceSplitter, split_sentences

# Characters that the rules treat specially.
PARTS = st.sampled_from(
    [
        *("Mr", "e.g", "No", "p", "I", "a", "B", "word", "Über", "3", "14", "x" * 90),
        *(".", ".", "...", "…", "?", "!", '"', "”", ")", "(", ",", "\u3002", "\uff01"),
        *(" ", " ", "  ", "\n", "\n\n", "\t", "\u00a0", "\x1c", "\u0301", " " * 200),
    ]
)
TEXTS = st.one_of(st.lists(PARTS, max_size=60).map("".join), st.text(max_size=600))


@given(text=TEXTS, cuts=st.lists(st.integers(0, 2000), max_size=30))
@example(text="x" * 401 + " y", cuts=[400, 401])
@example(text="x." + " " * 500 + "Y", cuts=[2, 402])
@example(text="x" * 399 + ". Y", cuts=[400])
def test_pieces_of_a_text_give_the_same_sentences(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    splitter = SentenceSplitter()
    sentences: list[str] = []
    for begin, end in pairwise(places):
        sentences += splitter.push(text[begin:end])
    assert sentences + splitter.flush() == split_sentences(text)


@given(text=TEXTS)
def test_single_characters_give_the_same_sentences(text: str) -> None:
    splitter = SentenceSplitter()
    sentences = [sentence for character in text for sentence in splitter.push(character)]
    assert sentences + splitter.flush() == split_sentences(text)


@given(text=TEXTS)
def test_sentences_preserve_the_text(text: str) -> None:
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == " ".join(sentence.split()) != "" for sentence in sentences)


@given(text=TEXTS.filter(lambda text: not set(text) & set("\u3002\uff01\uff1f")))
def test_words_are_not_split(text: str) -> None:
    assert " ".join(split_sentences(text)) == " ".join(text.split())
