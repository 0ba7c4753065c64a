"""Find a phrase in a transcript, in any script and however a recogniser writes it."""

from __future__ import annotations

import re
from unicodedata import category, combining, decimal, normalize

from fastrtc_anyio.speech.scripts import UNSPACED

__all__ = ["contains_phrase", "spoken_words"]

# Accents and modifier letters used as apostrophes. Translated first: NFKC takes some of them apart.
APOSTROPHES = dict.fromkeys(
    map(ord, "\u2018\u2019\u201b\u2032\u02b9\u02bb\u02bc\u02bd\u055a\u05f3\ua78c\uff07`\xb4"), "'"
)
# Vowel points of Arabic and Hebrew, which few write; the Arabic tatweel; variation selectors.
POINTS = re.compile(
    r"[\u0640\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06ed\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    r"\ufe00-\ufe0f]"
)
# Persian and Arabic keyboards differ in two letters. Turkish has i without a dot, and a dot on I.
# Many write no hamza on an alef, no dots on a final he, and no dots on a Russian e.
LETTERS = {
    "\u064a": "\u06cc",
    "\u0649": "\u06cc",
    "\u0643": "\u06a9",
    "\u0131": "i",
    **dict.fromkeys("\u0622\u0623\u0625", "\u0627"),
    "\u0629": "\u0647",
    "\u0451": "\u0435",
    "\u0153": "oe",
}
# Hiragana for katakana: a recogniser chooses either for a name.
FOLDING = str.maketrans(LETTERS | {chr(code): chr(code - 0x60) for code in range(0x30A1, 0x30F7)})
# A space between words of Khmer or Thai, and between the parts of a Persian word.
INVISIBLE_SPACE = re.compile(r"\u200b|(?<=[\u0600-\u06ff])\u200c")
GREEK_ACCENT = re.compile(r"(?<=[\u0370-\u03ff])\u0301")
ANY_UNSPACED = re.compile(f"[{UNSPACED}]")
UNSPACED_GAP = re.compile(rf"(?<=[{UNSPACED}]) | (?=[{UNSPACED}])")
HANGUL = re.compile(r"[\uac00-\ud7a3]")
# Particles follow a Korean noun without a space, the vocative first. Some depend on its last sound,
# a vowel or a consonant.
ALL_PARTICLES = "의|에|에게|에서|한테|도|만|님|씨|하고|로|까지|부터|처럼|보다|요"
AFTER_VOWELS = re.compile(rf"(?:야|여|가|는|를|와|랑|{ALL_PARTICLES})?(?!\w)")
AFTER_CONSONANTS = re.compile(rf"(?:아|이야|이여|이|은|을|과|이랑|으로|{ALL_PARTICLES})?(?!\w)")
# They belong to the sound before: the second half of a long vowel or of a syllable in Japanese.
CONTINUING_KANA = frozenset("\u30fcぁぃぅぇぉゃゅょゎ")
# Vowels that precede their consonant in Thai and Lao.
LEADING_VOWELS = frozenset("เแโใไເແໂໃໄ")


def spoken_words(text: str) -> str:
    """Reduce a text to its words in lower case, separated by single spaces."""
    return _words(normalize("NFC", text.translate(APOSTROPHES)).lower())


def contains_phrase(text: str, phrase: str) -> bool:
    """Whether a text contains a phrase as whole words.

    Scripts without spaces do not show where words begin: the phrase may be anywhere in them, but
    not end within a character as readers see it.
    """
    text, phrase = _fold(text), _fold(phrase)
    if not phrase:
        return False
    place = text.find(phrase)
    while place >= 0:
        if _begins(text, place) and _ends(text, place + len(phrase)):
            return True
        place = text.find(phrase, place + 1)
    return False


def _fold(text: str) -> str:
    """Remove differences of spelling that have no sound."""
    text = normalize("NFKC", text.translate(APOSTROPHES))
    text = normalize("NFKC", POINTS.sub("", text).casefold().replace("i\u0307", "i"))
    text = normalize("NFC", GREEK_ACCENT.sub("", normalize("NFD", text)))
    text = "".join(str(decimal(c)) if c.isdecimal() else c for c in text)
    return UNSPACED_GAP.sub("", _words(text.translate(FOLDING)))


def _words(text: str) -> str:
    """Replace everything but letters, marks, digits and apostrophes within words by spaces."""
    kept = "".join(
        character if _in_word(character) or character == "'" else " "
        for character in INVISIBLE_SPACE.sub(" ", text)
        if category(character) != "Cf"  # Joiners and directions, which are invisible.
    )
    return " ".join(word for part in kept.split() if (word := part.strip("'")))


def _in_word(character: str) -> bool:
    return category(character)[0] in "LMN"


def _begins(text: str, place: int) -> bool:
    """Whether a word may begin at a place."""
    if place == 0:
        return True
    last = text[place - 1]
    if ANY_UNSPACED.match(text[place]):
        # A virama joins the next letter.
        return combining(last) != 9 and last not in LEADING_VOWELS
    return not _in_word(last) or bool(ANY_UNSPACED.match(last))


def _ends(text: str, place: int) -> bool:
    """Whether a word may end at a place."""
    if place == len(text):
        return True
    following, last = text[place], text[place - 1]
    if category(following)[0] == "M" or following in CONTINUING_KANA:
        return False
    if not _in_word(following) or ANY_UNSPACED.match(following) or ANY_UNSPACED.match(last):
        return True
    if not HANGUL.match(last):
        return False
    ends_in_vowel = (ord(last) - 0xAC00) % 28 == 0
    return bool((AFTER_VOWELS if ends_in_vowel else AFTER_CONSONANTS).match(text, place))
