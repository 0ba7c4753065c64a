"""Signatures of carriers and tokens for WebSockets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._wire.signatures import (
    TOKEN_SECONDS,
    is_plivo,
    is_token,
    is_twilio,
    make_token,
    sign_plivo,
    sign_twilio,
)

# The example in Twilio's documentation of request validation.
TOKEN = "12345"
URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
FORM = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Caller", "+14158675309"),
    ("Digits", "1234"),
    ("From", "+14158675309"),
    ("To", "+18005551212"),
]
SIGNATURE = "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def test_twilio_signature_of_the_documented_example() -> None:
    assert sign_twilio(TOKEN, URL, FORM) == SIGNATURE
    assert is_twilio(TOKEN, SIGNATURE, URL, FORM[::-1])
    assert is_twilio(TOKEN, SIGNATURE, URL.replace(".com/", ".com:443/"), FORM)
    assert not is_twilio(TOKEN, SIGNATURE, URL, FORM[1:])
    assert not is_twilio("54321", SIGNATURE, URL, FORM)
    assert not is_twilio(TOKEN, "", URL, FORM)


@given(st.text(), st.text())
def test_any_other_twilio_signature_is_invalid(signature: str, path: str) -> None:
    assert not is_twilio(TOKEN, signature, f"wss://example.com/{path}")


@pytest.mark.parametrize("end", ["", "/"])
def test_twilio_signature_of_websocket_with_and_without_slash(end: str) -> None:
    signature = sign_twilio(TOKEN, f"wss://example.com/handler{end}")
    assert is_twilio(TOKEN, signature, "wss://example.com/handler")


# Plivo documents no example of version 3; these are values from its Python package.
NONCE = "05429567804466091622"


@pytest.mark.parametrize(
    ("url", "form", "signature"),
    [
        ("https://answer.url", [], "Sje+RmAfqKW85pllpJWHcyXU1Sq3WAWackJlPiMnAGE="),
        (
            "https://answer.url/a?foo=2&bar=1%20b",
            [],
            "fCV/BOZNJhljq70bAXwPI8e3M0JFlAxvnbZKnpymlkc=",
        ),
        (
            "https://answer.url/a",
            [("To", "2"), ("From", "1")],
            "z6QsvnOlmlX0nX+iRogweyF0rY4TF4PLCdyklQoR4+w=",
        ),
        (
            "https://answer.url/a?foo=1",
            [("To", "2"), ("From", "1")],
            "oynOvAX2F2ceqrel94z8Ejg277+NOo2BwIXfT6IkNn8=",
        ),
    ],
)
def test_plivo_signatures(url: str, form: list[tuple[str, str]], signature: str) -> None:
    assert sign_plivo("my_auth_token", NONCE, url, form) == signature
    other = sign_plivo("another", NONCE, url, form)
    assert is_plivo("my_auth_token", f"{other}, {signature}", NONCE, url, form[::-1])
    assert not is_plivo("my_auth_token", other, NONCE, url, form)
    assert not is_plivo("my_auth_token", signature, NONCE[1:], url, form)
    assert not is_plivo("my_auth_token", "", NONCE, url, form)


@pytest.mark.parametrize("scheme", ["wss", "https"])
def test_plivo_signature_of_websocket_with_either_scheme(scheme: str) -> None:
    signature = sign_plivo("secret", NONCE, f"{scheme}://example.com/handler")
    assert is_plivo("secret", signature, NONCE, "wss://example.com/handler")


@given(st.floats(0, 2**40), st.floats(0, TOKEN_SECONDS - 1), st.text())
def test_token_is_valid_for_five_minutes(now: float, age: float, rubbish: str) -> None:
    token = make_token(b"key", now)
    assert is_token(b"key", token, now + age)
    assert not is_token(b"key", token, now + TOKEN_SECONDS + 1)
    assert not is_token(b"other", token, now)
    ends, _, seal = token.partition(".")
    assert not is_token(b"key", f"{int(ends) + 1}.{seal}", now)
    assert not is_token(b"key", rubbish, now)
