"""Split text into sentences, including text that arrives in pieces.

A sentence ends at a mark such as ``.``, ``?``, a danda or an ideographic full stop, with any
closing quotes, brackets and emoji, and at a blank line. After a mark that also has other uses,
white space and the possible beginning of a sentence must follow: its first letter decides, so a
sentence is complete one token of a language model after its end. Full stops of abbreviations,
initials, ordinals and lists end no sentence (:mod:`.full_stops`). An item of a list is a sentence,
and so is a heading. In Thai and Lao, a space between two phrases ends the first. In doubt the rules
do not split.

Splitting depends on the text alone, never on its division into pieces.
"""

from __future__ import annotations

import re
from unicodedata import category

from fastrtc_anyio._signaling.messages import mend_text

from .full_stops import ends_sentence, is_lower, is_next_item
from .scripts import CLAUSE_MARKS, CLOSING, EMOJI, NATIVE_STOPS, SUPERSCRIPTS, UNSPACED

__all__ = ["LONGEST_SENTENCE", "LONGEST_WORD", "SentenceSplitter", "speakable", "split_sentences"]

LONGEST_SENTENCE = 400
"""Characters of a sentence. A longer sentence is cut at a comma or a space: a listener should not
wait for the end of a paragraph, and models take about 500 phonemes."""
LONGEST_WORD = 2000
"""Characters of a word, such as a URL. A longer word is cut."""

# Control characters other than white space, and what replaces broken bytes and half characters.
UNSPEAKABLE = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufdd0-\ufdef\ufffd-\uffff]")

# Faces end sentences too: "Good 😀 Next". Greek writes ; for a question mark, Armenian : for a
# full stop, Ethiopic two word spaces.
STOPS = (
    r"(?:[.!?\u2024\u2026\u203c\u203d\u2047-\u2049\u2753-\u2755\u2757\uff0e\ufe52"
    rf"\U0001f600-\U0001f64f{NATIVE_STOPS}]"
    r"|\u1361\u1361|(?<=[\u0370-\u03ff\u1f00-\u1fff])[;\u037e]|(?<=[\u0561-\u0587]):)+"
)
IN_LINE = r"[^\S\n\u2028\u2029]"  # White space.
# French puts a space before a closing guillemet. Some write spaces between full stops. Citations
# look like [1] or [^1].
TAIL = (
    rf"(?:[{CLOSING}{EMOJI}{SUPERSCRIPTS}]|\[\^?\d{{1,3}}\]"
    rf"|{IN_LINE}+(?:[{EMOJI}]|[\xbb\u203a](?=[\s.,;:!?])|[.!?](?=\s)|\u0f0d))*"
)
OPENING = re.compile(r"[\xab\u2018\u201b\u201c\u201f]")
BOUNDARY = re.compile(
    rf"(?P<stop>{STOPS})(?P<tail>{TAIL})(?P<space>\s*)"
    r"|(?P<line>[\n\u2028\u2029]\s*)"
    rf"|(?P<item>{IN_LINE}+)(?=[(*_]*\d)"
    r"|(?P<phrase>(?<=[\u0e01-\u0e45\u0e47-\u0ec5\u0ec7-\u0ed9])[ \u200b]+)"
    r"(?=[\u0e01-\u0e2e\u0e40-\u0e44\u0e81-\u0eae\u0ec0-\u0ec4])"
)
CITATION_BEGINS = re.compile(r"\[\^?\d{0,3}")
PARAGRAPH = re.compile(r"\u2029|\n[^\S\n]*\n")
NATIVE = re.compile(rf"[{NATIVE_STOPS}\u1361]")
OF_UNSPACED = re.compile(rf"[{UNSPACED}]")
LETTER = re.compile(r"[^\W_]")
# The beginning of a line that does not continue the last one, and the beginning of that.
BULLET = r"[-+*\u2022\u2023\u25aa\u25cf\u25e6\u2013\u2014]|#{1,6}"
NEW_LINE = re.compile(
    rf"(?:{BULLET}|[(*_]*(?:\d{{1,3}}|[^\W\d_]|[ivxIVX]{{2,5}})[.)][*_]*)\s"
    rf"|[|>{EMOJI}]|\d\ufe0f?\u20e3|\[\d{{1,3}}\]\s|```|[\u4e00-\u9fff\d]{{1,3}}\u3001"
)
NEW_LINE_BEGINS = re.compile(
    rf"{BULLET}|`{{1,2}}|\d\ufe0f|\[(?:\d{{1,3}}\]?)?|[(*_]*(?:\d{{1,3}}|[\u4e00-\u9fff]{{1,3}}|[ivxIVX]{{2,5}}|[^\W\d_])?[.)]?[*_]*"
)
HEADING = re.compile(r"#{1,6}\s|\||\*\*[^*]+\*\*:?\s*$")
NUMBER = re.compile(r"[(*_]*(\d{1,3})(?:[.)][*_]*(\s)?)?")
# Polite and questioning particles end sentences in Thai and Lao.
PARTICLES = re.compile("(?:ครับ|คับ|ค่ะ|คะ|จ้ะ|จ้า|ไหม|มั้ย|ບໍ່?|ເຈົ້າ|ເດີ້|ແດ່)$")
SHORTEST_PHRASE = 10
# Conjunctions continue the sentence.
CONJUNCTIONS = "และ หรือ ซึ่ง เพราะ แต่ ที่ เพื่อ โดย ແລະ ຫຼື ເພາະ ແຕ່ ທີ່ ເພື່ອ ໂດຍ".split()
# Particles behind a quotation in Japanese.
QUOTED_PARTICLES = frozenset("とっはがのをにでも")
CLAUSE = re.compile(
    rf"[,;:][{CLOSING}]*(?:\s+|(?=[{UNSPACED}]))|[{CLAUSE_MARKS}][{CLOSING}]*(?!\d)\s*"
)
SPACE = re.compile(r"\s*")


def speakable(text: str) -> str:
    """Join the halves of characters, and remove characters that no voice can speak."""
    return UNSPEAKABLE.sub("", mend_text(text))


class SentenceSplitter:
    """Splits a text that arrives in pieces, such as the tokens of a language model."""

    def __init__(self) -> None:
        self._rest = ""
        # The first half of a character.
        self._half = ""
        # Characters of the rest in which no sentence ends.
        self._decided = 0

    def push(self, text: str) -> list[str]:
        """Append a piece of text and return the complete sentences.

        Args:
            text: cut anywhere; may be empty.

        Returns:
            Sentences without surrounding white space, with single spaces inside, and without
            characters that cannot be spoken: control characters and halves of characters. A half
            joins the other half at the beginning of the next piece.

        Raises:
            TypeError: ``text`` is not a string.
        """
        # Clients of language models may yield None.
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"text must be a str; got {type(text).__name__}")
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        text, start = self._rest + speakable(text), 0
        sentences: list[str] = []
        while True:
            if not self._decided and (space := SPACE.match(text, start)):
                start = space.end()
            end = self._find_end(text[start : start + LONGEST_WORD + 1])
            if not end:
                break
            sentences.append(" ".join(text[start : start + end].split()))
            start, self._decided = start + end, 0
        self._rest = text[start:]
        return sentences

    def flush(self) -> list[str]:
        """End the text, return its last sentence if there is one, and start anew."""
        rest = " ".join(self._rest.split())
        self._rest, self._half, self._decided = "", "", 0
        return [rest] if rest else []

    def _find_end(self, text: str) -> int:
        """Return the end of the first sentence, or 0 if the text so far does not decide it."""
        window = text[: LONGEST_SENTENCE + 1]  # Independent of how much more text has arrived.
        for found in BOUNDARY.finditer(window, self._decided):
            end = _judge(window, found)
            if end is None:
                break
            if end:
                return end
            self._decided = found.end()
        return _cut_long(text) if len(text) > LONGEST_SENTENCE else 0


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences.

    Returns:
        The sentences, as from :meth:`SentenceSplitter.push`. None is empty. A sentence is longer
        than `LONGEST_SENTENCE` characters only if it contains a longer word.

    Raises:
        TypeError: ``text`` is not a string.
    """
    splitter = SentenceSplitter()
    return splitter.push(text) + splitter.flush()


def _judge(text: str, found: re.Match[str]) -> int | None:
    """Return the end of the sentence, 0 if none ends here, or None if that is not certain yet."""
    before, rest = text[: found.start()], text[found.end() :]
    if found["stop"] is not None:
        return _judge_stop(found, before, rest)
    if found["line"] is not None:
        return _judge_line(found["line"], before, rest, found.end())
    if found["item"] is not None:
        return _judge_item(before, rest, found.end())
    if rest.startswith(tuple(CONJUNCTIONS)):
        return 0
    if any(word.startswith(rest) for word in CONJUNCTIONS):
        return None
    long = len(before.strip()) >= SHORTEST_PHRASE
    return found.end() if long or PARTICLES.search(before) else 0


def _judge_item(before: str, rest: str, end: int) -> int | None:
    """Judge a space before a number, which may be that of the next item."""
    number = NUMBER.match(rest)
    if number is None:
        return 0
    if number[2]:
        return end if is_next_item(before, int(number[1])) else 0
    return None if number.end() == len(rest) else 0


def _judge_line(line: str, before: str, rest: str, end: int) -> int | None:
    """Judge the end of a line."""
    if PARAGRAPH.search(line) or HEADING.match(before.rpartition("\n")[2]):
        return end
    if NEW_LINE.match(rest):
        return end
    return None if NEW_LINE_BEGINS.fullmatch(rest) else 0


def _judge_stop(found: re.Match[str], before: str, rest: str) -> int | None:
    """Judge a mark that may end a sentence."""
    stop, tail, space, end = found["stop"], found["tail"], found["space"], found.end()
    native, spoken = NATIVE.search(stop), LETTER.search(before)
    if native and spoken and (opening := OPENING.search(tail)):
        return found.start("tail") + opening.start()
    if PARAGRAPH.search(space):
        return end
    if not spoken:
        return 0 if rest else None
    if not rest or (not space and CITATION_BEGINS.fullmatch(rest)):
        return None
    if (before + tail).count("`") % 2:
        return 0  # Within code.
    if native:
        if rest in {"\xbb", "\u203a", ".", "!", "?", "\u1361"}:  # They may belong to the tail.
            return None
        return 0 if tail and not space and rest[0] in QUOTED_PARTICLES else end
    ends = _begins_sentence(stop, before, rest, bool(space))
    if not ends and "\n" in space and (line := _judge_line(space, "", rest, end)) != 0:
        return line
    return None if ends is None else end if ends else 0


def _begins_sentence(stop: str, before: str, rest: str, spaced: bool) -> bool | None:
    """Whether a sentence begins after a mark that has other uses too; None if undecided."""
    if not spaced and ("." in stop or rest[0].isdecimal() or not OF_UNSPACED.match(rest)):
        return False
    letter = LETTER.search(rest)
    if letter is None:
        return None
    after = rest[letter.start() :]
    if is_lower(after[0]):  # A sentence may begin with iPhone.
        return None if len(after) == 1 else after[1].isupper()
    return stop not in {".", "\u2024", "\uff0e", "\ufe52"} or ends_sentence(before, after)


def _cut_long(text: str) -> int:
    """Return where to cut a long sentence: at the last comma of its second half, else at the last
    space, else after the long word."""
    window = text[: LONGEST_SENTENCE + 1]
    clauses = [found.end() for found in CLAUSE.finditer(window)]
    if clauses and clauses[-1] > LONGEST_SENTENCE // 2:
        return clauses[-1]
    spaces = [found.end() for found in re.finditer(r"\s", window)]
    if OF_UNSPACED.match(window[-1]) and (not spaces or spaces[-1] < LONGEST_SENTENCE // 2):
        return _grapheme_start(text, LONGEST_SENTENCE)
    if spaces:
        return spaces[-1]
    if later := re.search(r"\s", text):
        return later.end()
    return _grapheme_start(text, LONGEST_WORD) if len(text) > LONGEST_WORD else 0


def _grapheme_start(text: str, place: int) -> int:
    """Return the last place up to ``place`` that is not within a character as readers see it."""
    for cut in range(place, place // 2, -1):
        last, following = text[cut - 1], text[cut]
        # Thai and Lao vowels precede their consonant. A virama and a joiner join the next letter.
        joined = category(following)[0] == "M" or following in "\u200c\u200d\u0e33\u0eb3"
        joined = joined or last in "\u200d\u17d2\u1039\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1"
        if not joined and not "\U0001f1e6" <= following <= "\U0001f3ff":
            return cut
    return place
