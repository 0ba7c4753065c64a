"""Refusals are written by this package, for clients: no text of a Python exception."""

from __future__ import annotations

import re

_FOREIGN = re.compile(
    r"""
    Traceback | \[Errno | <[\w.]+\ object\ at\ 0x | \bNoneType\b | \b__\w+__\b
    | \b(Key|Value|Type|Index|Attribute|Unicode\w*|Recursion|Overflow|Assertion|Runtime)Error\b
    | invalid\ literal | could\ not\ convert | cannot\ convert | too\ large\ to\ convert
    | codec\ can't | surrogates\ not\ allowed | ordinal\ not\ in | embedded\ null
    | has\ no\ attribute | not\ (subscriptable|iterable|callable|supported\ between) | unhashable
    | index\ out\ of\ range | to\ unpack | unpack\ requires | buffer\ (is|size)
    | positional\ argument
    | Expecting\ (value|property|','|':') | Unterminated\ string | Invalid\ (control|\\)
    | Extra\ data
    | Exceeds\ the\ limit | recursion\ depth | set_int_max_str_digits
    | Incorrect\ padding | Only\ base64 | base64\ data | -encoded\ string
    | Invalid\ IPv6\ URL | netloc | does\ not\ appear\ to\ be\ an\ IPv | Max\ number\ of\ fields
    """,
    re.VERBOSE,
)


def check_own_words(text: str) -> None:
    """Check the text of a refusal.

    Raises:
        AssertionError: it has a phrase of Python's or of a library's, or no text at all.
    """
    assert text.strip(), "a refusal has no text"
    found = _FOREIGN.search(text)
    assert found is None, f"a refusal has words of Python's, {found[0]!r}: {text[:300]!r}"
