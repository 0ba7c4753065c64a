"""Split text into sentences, including text that arrives in pieces.

A sentence ends at ``.``, ``!``, ``?`` or an ellipsis and any closing quotes and brackets, if white
space and then a possible beginning of a sentence follow. The first letter after a full stop
decides, so a sentence is complete one token of a language model after its end. Full stops of
abbreviations, initials and numbered lists end no sentence. In doubt the rules do not split: two
sentences spoken as one sound better than one spoken as two.

Splitting depends on the text alone, never on its division into pieces.
"""

from __future__ import annotations

import re

__all__ = ["LONGEST_SENTENCE", "SentenceSplitter", "split_sentences"]

LONGEST_SENTENCE = 400
"""Characters of a sentence. A longer sentence is cut at a comma or a space: a listener should not
wait for the end of a paragraph, and models take about 500 phonemes."""

# Closing quotes and brackets; the last three are curly quotes and a guillemet.
CLOSE = r"\"')\]\u2019\u201d\u00bb"
# Full stop, exclamation and question mark of Chinese and Japanese: no space follows them.
WIDE_STOP = r"\u3002\uff01\uff1f"
BOUNDARY = re.compile(
    rf"(?P<stop>[.!?\u2026]+)[{CLOSE}]*(?P<space>\s+)(?P<next>\S)"
    rf"|[{WIDE_STOP}]+[{CLOSE}]*\s*(?=[^\s{WIDE_STOP}{CLOSE}])"
    r"|\n[^\S\n]*\n\s*(?=\S)"
)
# The word before a full stop: letters, and full stops between them.
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
# Ordinary words too: abbreviations only before a number.
BEFORE_NUMBERS = frozenset(WORD.findall("art ch fig figs no nos p pp sec vol vols"))


class SentenceSplitter:
    """Splits a text that arrives in pieces, such as the tokens of a language model."""

    def __init__(self) -> None:
        self._rest = ""

    def push(self, text: str) -> list[str]:
        """Append a piece of text and return the complete sentences.

        Args:
            text: cut anywhere; may be empty.

        Returns:
            Sentences without surrounding white space, and with single spaces inside.

        Raises:
            TypeError: ``text`` is not a string.
        """
        # Clients of language models may yield None.
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"text must be a str; got {type(text).__name__}")
        self._rest = (self._rest + text).lstrip()
        sentences: list[str] = []
        while end := _end_of_sentence(self._rest):
            sentences.append(" ".join(self._rest[:end].split()))
            self._rest = self._rest[end:].lstrip()
        return sentences

    def flush(self) -> list[str]:
        """End the text, return its last sentence if there is one, and start anew."""
        rest, self._rest = " ".join(self._rest.split()), ""
        return [rest] if rest else []


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences.

    Joined with spaces, the sentences are the text with single spaces.

    Returns:
        The sentences, without surrounding white space. None is empty. A sentence is longer than
        `LONGEST_SENTENCE` characters only if it contains a longer word.

    Raises:
        TypeError: ``text`` is not a string.
    """
    splitter = SentenceSplitter()
    return splitter.push(text) + splitter.flush()


def _end_of_sentence(text: str) -> int:
    """Return the end of the first sentence, or 0 if the text so far does not decide it."""
    window = text[: LONGEST_SENTENCE + 1]  # Independent of how much more text has arrived.
    for found in BOUNDARY.finditer(window):
        if found["stop"] is None:
            return found.end()
        if _ends(window[: found.start()], found["stop"], found["space"], found["next"]):
            return found.start("next")
    if len(text) <= LONGEST_SENTENCE:
        return 0
    # At the last comma of the second half, else at the last space, else after the long word.
    clauses = list(re.finditer(r"[,;:]\s", window))
    if clauses and clauses[-1].end() > LONGEST_SENTENCE // 2:
        return clauses[-1].end()
    spaces = list(re.finditer(r"\s", window)) or list(re.finditer(r"\s", text))[:1]
    return spaces[-1].end() if spaces else 0


def _ends(before: str, stop: str, space: str, following: str) -> bool:
    """Whether ``stop`` ends a sentence."""
    if space.count("\n") > 1:  # The paragraph ends.
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
