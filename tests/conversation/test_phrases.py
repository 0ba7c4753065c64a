"""Stop words in transcripts: scripts, normal forms, apostrophes and word boundaries."""

from __future__ import annotations

from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio.conversation.phrases import contains_phrase, spoken_words

FOUND = [
    ("hey computer", "Well, HEY —computer! What time is it?"),
    ("hey-computer", "hey computer"),
    ("Hey computer", "\uff48\uff45\uff59\u3000\uff23\uff4f\uff4d\uff50\uff55\uff54\uff45\uff52"),
    ("computer", "the computer's fan"),
    ("what's up", "What\u2019s up, doc?"),
    ("what\u02bcs up", "‘What\uff07s up’"),
    ("ordinateur", "Allume l’ordinateur."),
    ("café", normalize("NFD", "un café s'il vous plaît")),
    (normalize("NFD", "Café"), "UN CAFÉ"),
    ("straße", "DIE STRASSE"),
    ("istanbul", "İstanbul'a git"),
    ("ISTANBUL", "istanbul"),
    ("ışık aç", "IŞIK AÇ"),
    ("οδός", "ΟΔΟΣ Ερμού"),
    ("Καλημέρα", "ΚΑΛΗΜΕΡΑ!"),
    ("ёлка", normalize("NFD", "Ёлка, гори!")),
    ("გამარჯობა", "ᲒᲐᲛᲐᲠᲯᲝᲑᲐ!"),
    ("բարեւ", "Բարեւ, ընկեր։"),
    ("小爱同学", "小爱同学今天天气怎么样"),
    ("小爱同学", "你好，小爱，同学！"),
    ("小爱同学", "小 爱 同 学 你好"),
    ("hey 小爱", "Hey小爱，你好"),
    ("computer", "打开computer吧"),
    ("エリザ", "エリザカレンダーを開いて"),
    ("エリザ", "えりざ、おはよう"),
    ("エリザ", "\uff74\uff98\uff7b\uff9e"),
    ("ガイド", normalize("NFD", "ガイドを呼んで")),
    ("नमस्ते", "नमस्ते, आप कैसे हैं"),
    ("हिंदी", "हिंदी।"),
    ("கணினி", "வணக்கம் கணினி!"),
    ("مرحبا", "مَرْحَبًا، كيف حالك؟"),
    ("مرحبا", "مـرحـبـا"),
    ("علي", "علی،"),
    ("سلام", "سلام\u200c، خوبی؟"),
    ("می\u200cخواهم", "می خواهم"),
    ("hey jarvis", "hey\u200bjarvis"),
    ("שלום", "שָׁלוֹם!"),
    ("สวัสดี", "สวัสดีครับคุณ"),
    ("น้ำ", "ดื่มน้ำเย็น"),
    ("ສະບາຍດີ", "ສະບາຍດີເຈົ້າ"),
    ("សួស្តី", "សួស្តី។បង"),
    ("မင်္ဂလာပါ", "မင်္ဂလာပါခင်ဗျာ"),
    ("컴퓨터", "컴퓨터야, 불 켜"),
    ("지니", normalize("NFD", "지니에게 물어봐")),
    ("r2d2", "Hey, R2D2!"),
    ("привет ёлка", "Привет, елка!"),
    ("أهلا", "اهلا وسهلا"),
    ("مدرسة", "مدرسه"),
    ("צ'אט", "היי צ׳אט"),
    ("رقم 2", "رقم ٢"),
    ("œuvre", "une oeuvre"),
    ("시리", "시리야, 불 켜"),
    ("지민", "지민아 안녕"),
    ("ヘイシリ", "ヘイシリって何"),
]
NOT_FOUND = [
    ("computer", "these are supercomputers"),
    ("computer", "computer2 and 2computer"),
    ("hey computer", "hey there computer"),
    ("hey computer", "they computer"),
    ("cafe", "café"),
    ("cafe", normalize("NFD", "café")),
    ("نام", "نامه"),
    ("कल", "कला"),
    ("कल", "शकल"),
    ("नमस", "नमस्ते"),
    ("สวัสด", "สวัสดี"),
    ("ស", "សួស្តី"),
    ("တ", "ကတ်"),
    ("컴퓨터", "슈퍼컴퓨터"),
    ("컴퓨터", "컴퓨터공학"),
    ("小爱同学", "小爱是同学"),
    ("we're", "we were"),
    ("computer", ""),
    ("시리", "시리아"),
    ("지민", "지민야"),
    ("ヘイシリ", "ヘイシリーズ"),
    ("キ", "キャベツ"),
    ("ปมา", "ไปมา"),
]


@pytest.mark.parametrize(("phrase", "text"), FOUND)
def test_phrase_is_found(phrase: str, text: str) -> None:
    assert contains_phrase(text, phrase)
    assert contains_phrase(text, spoken_words(phrase))


@pytest.mark.parametrize(("phrase", "text"), NOT_FOUND)
def test_part_of_a_word_is_not_found(phrase: str, text: str) -> None:
    assert not contains_phrase(text, phrase)


@pytest.mark.parametrize("text", ["", " ", "?!", "🙂", "'", "\u200d", "\ud83d", "。"])
def test_text_without_words_is_empty(text: str) -> None:
    assert spoken_words(text) == ""
    assert not contains_phrase("?! 🙂", text)


@given(text=st.text(max_size=40), form=st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_phrase_is_found_in_every_normal_form(text: str, form: str) -> None:
    if words := spoken_words(text):
        assert not contains_phrase("", words)
        letters_only = all("a" <= letter <= "z" or letter == " " for letter in words)
        assert not letters_only or contains_phrase(normalize(form, f"«{text}»"), words)  # type: ignore[arg-type]


@given(
    word=st.sampled_from([phrase for phrase, _ in FOUND]),
    form=st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]),
    around=st.sampled_from(["{}", "«{}!»", "1, {}; 2", "好。{}？", "x {}, y"]),
)
def test_phrase_is_found_between_punctuation(word: str, form: str, around: str) -> None:
    assert contains_phrase(normalize(form, around.format(word)), word)  # type: ignore[arg-type]
