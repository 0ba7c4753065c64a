"""Decide whether a full stop ends a sentence, or belongs to an abbreviation, initial or number.

General rules carry most of it, because lists know few languages:

* a word without a vowel is an abbreviation (``Dr``, ``Nr``, ``стр``), unless it is a number's unit;
* a single letter is an initial, and letters between full stops are an abbreviation;
* a short capitalised word before a number is one too (``Jan. 5``, ``Fig. 2``);
* a number at the beginning of a sentence, or one more than the last such, counts the items of a
  list.

Only abbreviations with vowels are listed. In doubt the sentence goes on: two sentences spoken as
one sound better than one spoken as two.
"""

from __future__ import annotations

import re
from unicodedata import category, normalize

__all__ = ["ends_sentence", "is_lower", "is_next_item"]

# Titles and other abbreviations that a capital letter may follow.
ABBREVIATIONS = frozenset(
    # English
    "adm approx apt assn ave brig bros capt co col corp dept eds est esp gen gov hon inc incl inst "
    "lieut maj messrs misc prof ref rep rev sen supt univ viz adj assoc mrs hrsg "
    # Spanish, Portuguese, Catalan, Italian, French, Romanian
    "sra srta dra dña profa exmo exma av avda ud uds ee núm pág tel sig dott avv geom pag ecc mme "
    "mlle mgr ste ex env éd chap ing arq lic gral "
    # German, Dutch
    "ca evtl inkl exkl abb abs kap aufl tab dipl sog allg geb einschl mevr bijv drs "
    # Polish, Czech, Croatian, Hungarian
    "inż ul al hab godz prym nám např mudr judr phdr rndr bc ifj özv "
    # Turkish, Finnish, Nordic languages, Vietnamese
    "doç av örn cad sok mah esim eks tp ths pgs ts gs bs ks "
    # Russian, Ukrainian, Greek
    "див стор акад проф тов ул им обл рис руб тыс напр пер вул ім δηλ αρ σελ κα "
    # Hindi, Bengali, Tamil, Thai: more than one letter
    "श्री डॉ प्रो स्व मो मु ডাঃ திரு "
    # Eras in French and Finnish, and more German
    "apr ekr jkr insb".split()
)
# Abbreviations with a capital, words without one.
NAMES = frozenset("Mon Tue Tues Wed Thu Thur Thurs Fri Sat Fa Abt Mill Mio Mrd Tsd".split())
# Behind a number: "52 av. J.-C.", "44 a. C.", "44 f. Kr.".
ERAS = frozenset("av ap apr a d e f n v".split())
# The thing measured follows, with a capital at times: "8 oz. Philadelphia".
MEASURES = frozenset("tsp tbsp tbs oz lb lbs".split())
# The only ones in capitals: EST is a time zone.
CAPITAL_ABBREVIATIONS = frozenset("tp pgs ts gs bs ks ee".split())
# Ordinary words too: abbreviations only before a number.
BEFORE_NUMBERS = frozenset(
    "art ch fig figs no nos p pp sec vol vols cap kap abs ep op opus núm pág ex eq janv févr avr "
    "juil sept genn febbr jan feb fev mar abr apr mai maj jun jul ago aug sep set out okt oct nov "
    "dez dec dic ene max min mind".split()
)
# May end a sentence although they look like abbreviations.
ENDINGS = re.compile(
    r"(?:^|\W)(?:[ap]\.m|т\. ?[дп]|κ\. ?ά|κ\.?λπ|stb|dll|"
    r"hm+|mm+|hmph|sh+|psst|pfft|brr+|grr+|"
    r"tsk|zzz+|nth)$",
    re.IGNORECASE,
)
# Letters of languages in which a capital may follow an ordinal.
ORDINAL_LETTERS = re.compile("[äöüßğışčćđž]")
# Words before an ordinal, German but for the last two.
BEFORE_ORDINALS = frozenset(
    "am im der die das den dem des vom zum zur beim ein eine einen einem einer eines und bis seit "
    "ab jeder jede jedes jeden ihr ihre ihrem sein seine seinem unser unsere dieser diese u "
    "od".split()
)
GERMAN_MONTHS = tuple("Jan Feb Mär Apr Mai Jun Jul Aug Sep Okt Nov Dez Jän".split())
# Words of one letter, and verbs of Indian languages that are one letter with its vowel sign.
SHORTEST_WORDS = frozenset("I à è é ö ø ő я છે છું છો છ છીએ ය වේ है हैं हूँ हूं हो था थी थे छ ਹੈ".split())
# May continue a time: "8 p.m. Eastern", "10 a.m. Monday". So may time zones in capitals.
AFTER_CLOCKS = tuple(
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May "
    "June July August September October November December Eastern Central Mountain Pacific "
    "Greenwich".split()
)
# Begin a sentence even behind "Inc." or "U.S.".
BEGINNINGS = tuple("The It He She We They This That These Those There You But So".split())
NO_TITLES = frozenset("inc corp ltd llc co jr sr etc bros".split())
VOWELS = frozenset("aeiouyæœøəıаеёиоуыэюяіїєґўαεηιουω")

# The first words of a sentence in Russian, Ukrainian or Polish: "In the year 1812".
ONLY_A_YEAR = re.compile(r"\W*(?:в|во|у|w|z|до|od|с|к|od|do)\s+\d{1,4}\s*", re.IGNORECASE)

# The last word: after a space, an opening quote or bracket, Markdown or a hyphen.
WORD = re.compile(r"[^\s(\[{<\"'\u2018\u201a-\u201f\xab\xbb\u2039\u203a*_`¿¡/\u2013\u2014-]*$")
DOTTED = re.compile(r"(?!.*\.(?:ai|co|com|net|org|io|de)$)(?:[^\W\d_]{1,2}\.)+[^\W\d_]{1,3}")
# "p. ex.", "v. Chr."
ABBREVIATED_BEFORE = re.compile(r"(?:^|\s)[^\W\d_A-ZА-Я]\.\s?$")
CLOCK = re.compile(r"\d\s?[ap]\.m$", re.IGNORECASE)
ROMAN = re.compile(r"(?=.)(?:x{0,3})(?:ix|iv|v?i{0,3})", re.IGNORECASE)
ITEM = re.compile(r"(?:^|[\n:;,]|(?<=\s)|(?<=[(*]))[\s(*_#>•+-]*(\d{1,3})[.)](?=\s|\*|$)")


def is_lower(letter: str) -> bool:
    """Whether a sentence does not begin with this letter. Georgian letters have no title case."""
    return letter.islower() and letter.title() != letter


def ends_sentence(before: str, rest: str) -> bool | None:
    """Whether the full stop between ``before`` and ``rest`` ends a sentence.

    Args:
        before: the sentence up to the full stop.
        rest: the text from the next letter or digit on, a letter of it at least.

    Returns:
        None if ``rest`` is too short to decide.
    """
    word = WORD.search(before[-60:])
    last = word[0] if word else ""
    head = before[: len(before) - len(last)]
    if last.isdecimal():
        return _number_ends(before, head, last, rest)
    number_before = bool(re.search(r"\d[^\W\d]*\s*$", head))
    if rest[0].isdecimal():
        short = len(last) <= 4 and last[:1].isupper() and not last.isupper()
        unit = number_before and last.isalpha() and len(last) <= 3
        if short or unit or last.lower().endswith("str") or last.lower() in BEFORE_NUMBERS:
            return False
    if len(last) > 1 and ROMAN.fullmatch(last) and re.search(r"(?:^|\s)[^\W\d_A-Z]\w*\s$", head):
        return False  # An ordinal: "volt IV. Béla".
    bullet = not any(c.isalnum() for c in head.rpartition("\n")[2])
    if bullet and ROMAN.fullmatch(last):
        return False
    if CLOCK.search(before[-5:]) and rest[0].isupper():
        continues = _begins_with(AFTER_CLOCKS, rest) if len(rest) > 1 else None
        return None if continues is None else not continues and not rest[1].isupper()
    if ENDINGS.search(before[-12:]):
        return not rest[0].isdecimal()
    if ABBREVIATED_BEFORE.search(head) and len(last) <= 3:
        return False
    if number_before and last in MEASURES:
        return False
    unit = number_before and last.islower() and last.isalpha() and len(last) <= 3
    if unit and last not in ERAS:
        return not ONLY_A_YEAR.fullmatch(head)
    if not _is_abbreviation(last):
        return True
    plain = last.isupper() and len(last) == 1 and re.search(r"[a-z]\s$", head)
    if plain or last.lower() in NO_TITLES or (DOTTED.fullmatch(last) and last[0].isupper()):
        return _begins_with(BEGINNINGS, rest)
    return False


def _begins_with(words: tuple[str, ...], text: str) -> bool | None:
    """Whether the first word of a text is one of these; None if it is too short to decide."""
    found = re.match(r"[^\W\d_]+", text)
    first = found[0] if found else ""
    if len(first) < len(text):
        return first in words
    return None if any(word.startswith(first) for word in words) else False


def _number_ends(before: str, head: str, last: str, rest: str) -> bool | None:
    """Decide for a full stop after a number."""
    if rest[0].isdecimal() or (len(last) <= 3 and _is_item(before)):
        return False
    if len(last) > 2:
        return True
    words = head.split()
    if words and words[-1].lower().strip("(\"'„»") in BEFORE_ORDINALS:
        return False
    if ORDINAL_LETTERS.search(head.lower()):
        return False
    start = rest[:3]
    if head.rstrip()[-1:] in tuple(",(:-\u2013\u2014/") and any(
        month.startswith(start) for month in GERMAN_MONTHS
    ):
        return False if len(start) == 3 else None
    return True


def _is_item(before: str) -> bool:
    """Whether the number that ends a text counts an item of a list."""
    items = list(_items(before + "."))
    return bool(items) and items[-1][1] == len(before) + 1


def is_next_item(before: str, number: int) -> bool:
    """Whether a number after ``before`` counts the next item of a list within it."""
    items = list(_items(before))
    words = before.split()
    ordinal = bool(words) and words[-1].lower() in BEFORE_ORDINALS
    return bool(items) and items[-1][0] == number - 1 and not ordinal


def _items(text: str) -> list[tuple[int, int]]:
    """Find the numbers that count items: value, and end including the mark."""
    found: list[tuple[int, int]] = []
    for item in ITEM.finditer(text):
        value = int(item[1])
        lead = text[: item.start(1)].rstrip(" \t(*_#>•+-")
        begins = not lead or lead[-1] == "\n" or (value == 1 and lead[-1] in ":;,：")
        if begins or (found and value == found[-1][0] + 1):
            found.append((value, item.end()))
    return found


def _is_abbreviation(word: str) -> bool:
    lower = word.lower()
    if normalize("NFC", word) in SHORTEST_WORDS:
        return False
    if word in NAMES:
        return True
    if lower in ABBREVIATIONS and (lower in CAPITAL_ABBREVIATIONS or not word.isupper()):
        return True
    letters = [c for c in word if category(c)[0] != "M"]
    if len(letters) == 1:  # Syllables of Korean, Chinese and Japanese are words.
        return letters[0].isalpha() and not "\u1100" <= letters[0] <= "\ud7ff"
    if DOTTED.fullmatch(lower):
        return True
    if "\u0e00" <= word[:1] <= "\u0eff":  # Thai and Lao have no other use for a full stop.
        return len(letters) <= 4
    if not word.isalpha() or len(word) > 5 or sum(c.isupper() for c in word) > 1:
        return False
    plain = normalize("NFD", lower)
    if plain[0] not in VOWELS and not ("a" <= plain[0] <= "z" or "\u0370" <= plain[0] <= "\u04ff"):
        return False
    # In Czech and Croatian r and l between consonants are vowels: krk, vlk.
    return not VOWELS & set(plain) and not re.search(r"[^rl\W][rl][^rl\W]", plain)
