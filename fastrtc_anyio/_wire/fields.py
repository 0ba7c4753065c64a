"""Parse and check the fields of carriers' JSON messages.

Functions raise :exc:`.InvalidMessage` for a malformed message or field, unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio._signaling.messages import DIGITS, load_json
from fastrtc_anyio._signaling.requests import MAX_ID_LENGTH
from fastrtc_anyio.errors import InvalidMessage

from .events import Event, Malformed

Fields: TypeAlias = Mapping[str, object]
"""A JSON object."""

_MAX_PARAMETERS = 64
_MAX_NUMBER = 2**53


def parse_body(text: str) -> Fields:
    """Parse a message: a JSON object with a string ``event``."""
    try:
        body = load_json(text)
    except ValueError as exc:
        raise InvalidMessage(f"the message is not JSON: {exc}") from None
    if not isinstance(body, dict) or not isinstance(body.get("event"), str):
        raise InvalidMessage('a message must be a JSON object with a string "event"')
    return body


def parse_part(body: Fields, key: str) -> Fields:
    """Return the object ``body[key]``."""
    part = body.get(key)
    if not isinstance(part, Mapping):
        raise InvalidMessage(f'"{key}" must be an object', short_repr(part))
    return part


def parse_name(part: Fields, key: str) -> str:
    """Return the short, required string ``part[key]``."""
    name = part.get(key)
    if not isinstance(name, str) or not 0 < len(name) <= MAX_ID_LENGTH:
        raise InvalidMessage(
            f'"{key}" must be a string of 1 to {MAX_ID_LENGTH} characters', short_repr(name)
        )
    return name


def parse_text(part: Fields, key: str) -> str:
    """Return the string ``part[key]``; empty if it is missing."""
    text = part.get(key)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise InvalidMessage(f'"{key}" must be a string', short_repr(text))
    return text


def parse_digit(part: Fields) -> str:
    """Return the telephone key ``part["digit"]`` in upper case."""
    digit = part.get("digit")
    if not isinstance(digit, str) or len(digit) != 1 or digit.upper() not in DIGITS:
        raise InvalidMessage(f'"digit" must be one of {DIGITS}', short_repr(digit))
    return digit.upper()


def parse_number(part: Fields, key: str) -> int | None:
    """Return the integer ``part[key]``, which some carriers write as a string.

    None if it is missing or malformed: a message is usable without its numbers.
    """
    number = part.get(key)
    if isinstance(number, str) and number.isascii() and number.isdigit() and len(number) < 17:
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < _MAX_NUMBER:
        return None
    return number


def parse_event(parse: Callable[[], Event]) -> Event:
    """Return the event that ``parse`` reads, or that it is malformed."""
    try:
        return parse()
    except InvalidMessage as exc:
        return Malformed(str(exc))


def parse_parameters(part: Fields, key: str) -> dict[str, str]:
    """Return the application's parameters ``part[key]``, an object of strings; empty if missing."""
    found = part.get(key)
    if found is None:
        return {}
    if (
        not isinstance(found, Mapping)
        or len(found) > _MAX_PARAMETERS
        or not all(isinstance(value, str) for value in found.values())
    ):
        raise InvalidMessage(
            f'"{key}" must be an object of at most {_MAX_PARAMETERS} strings',
            f"an object of type {type(found).__name__}",  # its values may be secret
        )
    return dict(found)
