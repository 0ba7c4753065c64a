"""Cut text into sentences, also text that comes piece by piece.

A sentence ends at ``.``, ``!``, ``?`` or an ellipsis, with the quotes and brackets that close
after it, if white space follows and then something that can begin a sentence. So the first letter
after a full stop decides, and a sentence is known one token of a language model after its end.
Full stops of abbreviations, initials and numbered lists end nothing. Where the rules are in doubt
they do not cut: two sentences spoken as one sound better than one spoken as two.

The decision at a place depends on the text alone, never on how it was cut into pieces.
"""

from __future__ import annotations

import re

__all__ = ["LONGEST_SENTENCE", "SentenceSplitter", "split_sentences"]

# Characters. Longer ones are cut at a comma or a space: a listener should not wait for the end of
# a paragraph, and models take about 500 phonemes.
LONGEST_SENTENCE = 400

# Quotes and brackets; the last three are curly quotes and a guillemet.
CLOSE = r"\"')\]\u2019\u201d\u00bb"
# Full stop, exclamation and question mark of Chinese and Japanese: no space follows them.
WIDE_STOP = r"\u3002\uff01\uff1f"
BOUNDARY = re.compile(
    rf"(?P<stop>[.!?\u2026]+)[{CLOSE}]*(?P<space>\s+)(?P<next>\S)"
    rf"|[{WIDE_STOP}]+[{CLOSE}]*\s*(?=[^\s{WIDE_STOP}{CLOSE}])"
    r"|\n[^\S\n]*\n\s*(?=\S)"
)
# What stands before a full stop: letters, and full stops between them.
LAST_WORD = re.compile(r"[^\s(\[\"'\u2018\u201c\u00ab]*$")
INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")

WORD = re.compile(r"\w+")
ABBREVIATIONS = frozenset(
    WORD.findall(
        "adm approx apt assn ave blvd brig bros capt cf cmdr col comdr dept dr eds est esp etc "
        "gen gov hon incl inst lieut lt maj messrs misc mr mrs ms mt prof rd ref rep rev "
        "sen sgt sr st supt univ viz vs"
    )
)
# Words as well: abbreviations only if a number follows.
BEFORE_NUMBERS = frozenset(WORD.findall("art ch fig figs no nos p pp sec vol vols"))


class SentenceSplitter:
    """Sentences of a text that comes in pieces, such as the tokens of a language model."""

    def __init__(self) -> None:
        self._rest = ""

    def push(self, text: str) -> list[str]:
        """Add a piece of text.

        Args:
            text: cut anywhere; may be empty.

        Returns:
            The sentences that are complete by now, without white space around them and with single
            spaces inside.

        Raises:
            TypeError: for anything but a string.
        """
        # Text comes from clients of services whose pieces may be None.
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"text must be a str, got {type(text).__name__}")
        self._rest = (self._rest + text).lstrip()
        sentences: list[str] = []
        while end := _end_of_sentence(self._rest):
            sentences.append(_normalised(self._rest[:end]))
            self._rest = self._rest[end:].lstrip()
        return sentences

    def flush(self) -> list[str]:
        """End the text.

        Returns:
            The last sentence, if there is one. The splitter is then as new.
        """
        rest, self._rest = _normalised(self._rest), ""
        return [rest] if rest else []


def split_sentences(text: str) -> list[str]:
    """Cut a text into sentences.

    No word is lost: joined with spaces, the sentences are the text with single spaces.

    Args:
        text: any text.

    Returns:
        The sentences, without white space around them. None is empty, and few are longer than
        `LONGEST_SENTENCE` characters: those that hold one word without end.

    Raises:
        TypeError: for anything but a string.
    """
    splitter = SentenceSplitter()
    return splitter.push(text) + splitter.flush()


def _normalised(text: str) -> str:
    return " ".join(text.split())


def _end_of_sentence(text: str) -> int:
    """Where the first sentence ends, or 0 if that is not known yet."""
    window = text[: LONGEST_SENTENCE + 1]  # The same window however much text is there by now.
    for found in BOUNDARY.finditer(window):
        if found["stop"] is None:
            return found.end()
        if _ends(window[: found.start()], found["stop"], found["space"], found["next"]):
            return found.start("next")
    if len(text) <= LONGEST_SENTENCE:
        return 0
    # After the last comma of its second half, or the last space, or, in a word without end, there.
    clauses = list(re.finditer(r"[,;:]\s", window))
    if clauses and clauses[-1].end() > LONGEST_SENTENCE // 2:
        return clauses[-1].end()
    spaces = list(re.finditer(r"\s", window)) or list(re.finditer(r"\s", text))[:1]
    return spaces[-1].end() if spaces else 0


def _ends(before: str, stop: str, space: str, following: str) -> bool:
    """Whether a sentence ends with ``stop``."""
    if space.count("\n") > 1:  # A paragraph ends.
        return True
    if following.islower():
        return False
    if stop != ".":
        return True
    match = LAST_WORD.search(before)
    word = match[0] if match else ""
    if word.lower() in ABBREVIATIONS or (INITIALS.fullmatch(word) and word != "I"):
        return False
    if word.lower() in BEFORE_NUMBERS and following.isdigit():
        return False
    return not (word.isdigit() and word == before)  # "1. First"
