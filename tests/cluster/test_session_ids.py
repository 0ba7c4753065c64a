"""Ids that name the process of their session."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._signaling.session_ids import (
    check_owner,
    make_session_id,
    owner_of,
    shorten,
)

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
KEYS = st.from_regex(r"[A-Za-z0-9_-]{22}", fullmatch=True)


@given(NAMES, KEYS)
def test_an_id_names_its_owner(name: str, key: str) -> None:
    session_id = make_session_id(check_owner(name), key)
    assert owner_of(session_id) == name
    assert shorten(session_id) == f"{name}.{key[:8]}"
    assert owner_of(shorten(session_id)) == name, "what logs show finds the process, too"


@given(KEYS)
def test_an_id_of_a_single_process_is_its_key(key: str) -> None:
    assert make_session_id(None, key) == key
    assert owner_of(key) is None
    assert shorten(key) == key[:8]


@given(st.text())
def test_any_text_of_a_client_has_a_valid_owner_or_none(text: str) -> None:
    owner = owner_of(text)
    assert owner is None or (check_owner(owner) == owner and text.startswith(f"{owner}."))


@pytest.mark.parametrize("name", ["", "a.b", "a b", "ä", "x" * 65, "a\n"])
def test_wrong_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {name!r}")):
        check_owner(name)
    with pytest.raises(TypeError, match="must be a str; got int"):
        check_owner(5)
