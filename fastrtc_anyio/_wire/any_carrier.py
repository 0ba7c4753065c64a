"""What the carriers' framings share: how the fields of their messages are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio._signaling.messages import DIGITS
from fastrtc_anyio._signaling.requests import MAX_ID_LENGTH
from fastrtc_anyio.errors import InvalidMessage

from .events import Clear, Connected, Event, KeyPressed, Mark, Media, Other, Start, Stop
from .payload import decode_base64

__all__ = [
    "check_stream",
    "decode_event",
    "parse_body",
    "parse_digit",
    "parse_name",
    "parse_number",
    "parse_parameters",
    "parse_part",
    "parse_text",
]

_MAX_PARAMETERS = 64
_MAX_NUMBER = 2**53


def parse_body(body: object) -> Mapping[str, Any]:
    """A message that is a JSON object with a string ``event``.

    Raises:
        InvalidMessage: it is not.
    """
    if not isinstance(body, Mapping) or not isinstance(body.get("event"), str):
        raise InvalidMessage('a message must be a JSON object with a string "event"')
    return body


def parse_part(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object ``body[key]``.

    Raises:
        InvalidMessage: it is none.
    """
    part = body.get(key)
    if not isinstance(part, Mapping):
        raise InvalidMessage(f'"{key}" must be an object; got {short_repr(part)}')
    return part


def parse_name(part: Mapping[str, Any], key: str) -> str:
    """The short string ``part[key]``, which has to be there.

    Raises:
        InvalidMessage: it is not.
    """
    name = part.get(key)
    if not isinstance(name, str) or not 0 < len(name) <= MAX_ID_LENGTH:
        raise InvalidMessage(
            f'"{key}" must be a string of 1 to {MAX_ID_LENGTH} characters; got {short_repr(name)}'
        )
    return name


def parse_text(part: Mapping[str, Any], key: str) -> str:
    """The string ``part[key]``; empty where there is none.

    Raises:
        InvalidMessage: it is something else.
    """
    text = part.get(key, "")
    if text is None:
        return ""
    if not isinstance(text, str):
        raise InvalidMessage(f'"{key}" must be a string; got {short_repr(text)}')
    return text


def parse_digit(part: Mapping[str, Any]) -> str:
    """The key of a telephone in ``part["digit"]``.

    Raises:
        InvalidMessage: there is no such key.
    """
    digit = part.get("digit")
    if not isinstance(digit, str) or len(digit) != 1 or digit.upper() not in DIGITS:
        raise InvalidMessage(f'"digit" must be one of {DIGITS}; got {short_repr(digit)}')
    return digit.upper()


def parse_number(part: Mapping[str, Any], key: str) -> int | None:
    """The whole number ``part[key]``, which some carriers write as a string; None without one.

    Raises:
        InvalidMessage: it is something else.
    """
    number = part.get(key)
    if number is None:
        return None
    if isinstance(number, str) and number.isascii() and number.isdigit() and len(number) < 17:
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < _MAX_NUMBER:
        raise InvalidMessage(f'"{key}" must be a whole number; got {short_repr(number)}')
    return number


def parse_parameters(part: Mapping[str, Any], key: str) -> dict[str, str]:
    """The application's own parameters: an object of strings; empty where there is none.

    Raises:
        InvalidMessage: it is something else.
    """
    found = part.get(key)
    if found is None:
        return {}
    if (
        not isinstance(found, Mapping)
        or len(found) > _MAX_PARAMETERS
        or not all(isinstance(value, str) for value in found.values())
    ):
        raise InvalidMessage(
            f'"{key}" must be an object of at most {_MAX_PARAMETERS} strings; '
            f"got {short_repr(found)}"
        )
    return dict(found)


def check_stream(body: Mapping[str, Any], key: str, stream_id: str | None) -> None:
    """Refuse a message that names another stream than the one that was started.

    Raises:
        InvalidMessage: it does.
    """
    named = body.get(key)
    if named is not None and stream_id is not None and named != stream_id:
        raise InvalidMessage(f'"{key}" must be {short_repr(stream_id)}; got {short_repr(named)}')


def decode_event(
    body: Mapping[str, Any], parse_start: Callable[[Mapping[str, Any]], Start]
) -> Event:
    """An event of Twilio's, or of Telnyx's, which has the same but for the start.

    Raises:
        InvalidMessage: it is malformed.
    """
    match body["event"]:
        case "media":
            media = parse_part(body, "media")
            if media.get("track", "inbound") not in ("inbound", "inbound_track"):
                return Other("media of the outbound track")
            return Media(decode_base64(body, "media"), parse_number(media, "chunk"))
        case "mark":
            return Mark(parse_name(parse_part(body, "mark"), "name"))
        case "dtmf":
            return KeyPressed(parse_digit(parse_part(body, "dtmf")))
        case "start":
            return parse_start(body)
        case "stop":
            return Stop()
        case "connected":
            return Connected()
        case "clear":
            return Clear()
        case other:
            return Other(other)
