"""Sentences of many languages, scripts and kinds of text, whole and in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from fastrtc_anyio.speech.sentences import SentenceSplitter


class Case(NamedTuple):
    """A text with its sentences.

    Attributes:
        certain: characters of the text that decide the end of the first sentence.
    """

    language: str
    text: str
    sentences: list[str]
    certain: int


def read_case(line: str) -> Case:
    language, text = line.split("\t")
    text = text.replace("\\n", "\n").replace("\\r", "\r")
    parts = [part.replace("\\p", "|") for part in text.split("|")]
    marked = "".join(parts)
    whole = marked.replace("^", "")
    sentences = [" ".join(part.replace("^", "").split()) for part in parts]
    rest = whole[len(parts[0].replace("^", "")) :]
    begins = re.search(r"[^\W_]", rest)
    letter = len(whole) - len(rest) + begins.end() if begins else len(whole)
    return Case(language, whole, sentences, marked.find("^") if "^" in marked else letter)


TABLE = Path(__file__).with_name("sentences.txt").read_text(encoding="utf-8").splitlines()
CASES = [read_case(line) for line in TABLE if "\t" in line]


def split(pieces: Iterable[str]) -> list[str]:
    splitter = SentenceSplitter()
    return [done for piece in pieces for done in splitter.push(piece)] + splitter.flush()


def release(text: str) -> int:
    """Return how many characters complete the first sentence."""
    splitter = SentenceSplitter()
    return next((at for at, c in enumerate(text, 1) if splitter.push(c)), len(text))


def test_table_covers_many_texts_and_languages() -> None:
    assert len(CASES) >= 150
    assert len({case.language for case in CASES}) >= 20


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.language}: {case.text}")
def test_sentences_are_the_same_whole_by_word_and_by_letter(case: Case) -> None:
    assert split([case.text]) == case.sentences
    assert split(re.findall(r"\s*\S+|\s+", case.text)) == case.sentences
    assert split(case.text) == case.sentences


@pytest.mark.parametrize(
    "case", [case for case in CASES if len(case.sentences) > 1], ids=lambda case: case.text
)
def test_first_sentence_is_complete_at_the_certain_letter(case: Case) -> None:
    assert release(case.text) == case.certain
