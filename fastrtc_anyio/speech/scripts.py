"""Character classes of the world's scripts, as the inside of a ``[...]`` in a regular expression.

From the Unicode Character Database 17: Sentence_Terminal, Terminal_Punctuation and the general
categories of closing punctuation. ``re`` does not know these properties.
"""

from __future__ import annotations

__all__ = ["CLAUSE_MARKS", "CLOSING", "EMOJI", "NATIVE_STOPS", "SUPERSCRIPTS", "UNSPACED"]

NATIVE_STOPS = (
    r"\u0589\u061d-\u061f\u06d4\u0700-\u0702\u07f9\u0837\u0839\u083d\u083e\u0964\u0965\u0f0d-\u0f12"
    r"\u104b\u1362\u1367\u1368\u166e\u1735\u1736\u17d4\u17d5\u17da\u1803\u1809\u1944\u1945\u1aa8-"
    r"\u1aab\u1b4e\u1b4f\u1b5a\u1b5b\u1b5e\u1b5f\u1b7d-\u1b7f\u1c3b\u1c3c\u1c7e\u1c7f\u2cf9-\u2cfb"
    r"\u2e2e\u2e3c\u2e53\u2e54\u3002\ua4ff\ua60e\ua60f\ua6f3\ua6f7\ua876\ua877\ua8ce\ua8cf\ua92f"
    r"\ua9c8\ua9c9\uaa5d-\uaa5f\uaaf0\uaaf1\uabeb\ufe12\ufe15\ufe16\ufe56\ufe57\uff01\uff1f\uff61"
    r"\U00010a56\U00010a57\U00010f55-\U00010f59\U00010f86-\U00010f89\U00011047\U00011048"
    r"\U000110be-\U000110c1\U00011141-\U00011143\U000111c5\U000111c6\U000111cd\U000111de\U000111df"
    r"\U00011238\U00011239\U0001123b\U0001123c\U000112a9\U000113d4\U000113d5\U0001144b\U0001144c"
    r"\U000115c2\U000115c3\U000115c9-\U000115d7\U00011641\U00011642\U0001173c-\U0001173e\U00011944"
    r"\U00011946\U00011a42\U00011a43\U00011a9b\U00011a9c\U00011c41\U00011c42\U00011ef7\U00011ef8"
    r"\U00011f43\U00011f44\U00016a6e\U00016a6f\U00016af5\U00016b37\U00016b38\U00016b44\U00016d6e"
    r"\U00016d6f\U00016e98\U0001bc9f\U0001da88"
)
"""Marks that end a sentence and mean nothing else, so that no space has to follow. Tibetan has no
other mark than the shad."""

CLAUSE_MARKS = (
    r"\u0387\u055d\u060c\u061b\u0703-\u070a\u07f8\u104a\u1363-\u1366\u17d6\u1802\u1804\u1808\u2e41"
    r"\u3001\ua4fe\ua60d\ua6f4-\ua6f6\ua9c7\ufe10\ufe11\ufe13\ufe14\ufe50\ufe51\ufe54\ufe55\uff0c"
    r"\uff1a\uff1b\uff64"
)
"""Commas, semicolons and colons beyond ASCII."""

CLOSING = (
    r"\"')\]}*_`~\xab\xbb\u0f3b\u0f3d\u2018-\u201f\u2039\u203a\u2046\u207e\u2309\u2769-\u2775\u27e7"
    r"\u27e9\u27eb\u2e03\u2e05\u2e21\u3009\u300b\u300d\u300f\u3011\u3015\u3017\u3019\u301b\u301e"
    r"\u301f\ufd3e\ufd3f\ufe18\ufe36\ufe38\ufe3a\ufe3c\ufe3e\ufe40\ufe42\ufe44\uff02\uff07\uff09"
    r"\uff3d\uff5d\uff60\uff63"
)
"""Closing quotes and brackets, and the marks of Markdown. German and Polish close with the
quotes that open in English."""

EMOJI = (
    r"\u200d\u20e3\u2190-\u21ff\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\ufe0e\ufe0f"
    r"\U0001f000-\U0001faff\U000e0020-\U000e007f"
)
"""Emoji and the characters that join and vary them."""

SUPERSCRIPTS = r"\xb9\xb2\xb3\u2070\u2074-\u2079"

UNSPACED = (
    r"\u0e00-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029"
    r"\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua980-\ua9df\uaa60-\uaadf\uf900-\ufaff"
    r"\uff66-\uff9f\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
)
"""Scripts without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Javanese, Chinese,
Japanese."""
