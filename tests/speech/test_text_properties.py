"""Splitting of text into sentences: properties for any text and any pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastrtc_anyio.speech.sentences import (
    LONGEST_WORD,
    SentenceSplitter,
    speakable,
    split_sentences,
)

# Characters that the rules treat specially.
PARTS = st.sampled_from(
    [
        *("Mr", "e.g", "No", "p", "I", "a", "B", "word", "Über", "3", "14", "x" * 90),
        *(".", ".", "...", "…", "?", "!", '"', "”", ")", "(", ",", "\u3002", "\uff01"),
        *(
            "\u0964",
            "\u06d4",
            "你",
            "ก",
            "1",
            "#",
            "-",
            "*",
            "`",
            "»",
            "“",
            "😀",
            "\ud83d",
            "\ude00",
        ),
        *(
            "\n- ",
            "\n1. ",
            " 2. ",
            "iPhone",
            "mai",
            "Mai",
            "v",
            "II",
            "|",
            ";",
            "α",
            "\u2029",
            "\x00",
        ),
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
@example(text="Mr \u20293")
@example(text="1. \u2029.\n- ")
def test_single_characters_give_the_same_sentences(text: str) -> None:
    splitter = SentenceSplitter()
    sentences = [sentence for character in text for sentence in splitter.push(character)]
    assert sentences + splitter.flush() == split_sentences(text)


def visible(text: str) -> str:
    return "".join(speakable(text).split())


@given(text=TEXTS)
def test_sentences_preserve_the_text(text: str) -> None:
    sentences = split_sentences(text)
    assert visible("".join(sentences)) == visible(text)
    assert all(sentence == " ".join(sentence.split()) != "" for sentence in sentences)


WHOLE = st.sampled_from(
    [
        *(
            "https://example.com/a.b?c=d!e",
            "me@mail.example.org",
            "3.14",
            "1,000.5",
            "12:30",
            "v1.2",
        ),
        *("e\u0301\u0301", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea"),
        *("कि", "क्ष", "กำ", "သို့", "Word", "word", "main.py", "你好", "٣٫١٤"),
    ]
)


@given(
    parts=st.lists(
        st.tuples(WHOLE, st.sampled_from([" ", ". ", "! ", "\u3002 ", "\u0964 ", "\n\n"])),
        max_size=80,
    )
)
def test_words_numbers_addresses_and_graphemes_are_not_split(parts: list[tuple[str, str]]) -> None:
    words = " ".join(split_sentences("".join(word + mark for word, mark in parts))).split()
    # A mark after an emoji may stand alone.
    stripped = [word.rstrip(".!\u3002\u0964") for word in words]
    assert [word for word in stripped if word] == [word for word, _ in parts]


@pytest.mark.parametrize(
    "text", ["x", "你", "ก", "1 ", "a. ", "1. ", ".", "\u0301", "... ", "`. ", "😀", "1. A "]
)
def test_endless_text_is_cut_and_what_waits_stays_short(text: str) -> None:
    splitter = SentenceSplitter()
    longest = 0
    for character in text * (3000 // len(text)):
        for sentence in splitter.push(character):
            longest = max(longest, len(sentence))
        assert len(splitter._rest) <= LONGEST_WORD + 1
    assert longest <= LONGEST_WORD


def test_long_text_is_split_at_once() -> None:
    assert len(split_sentences("It is so. " * 10_000)) == 10_000
