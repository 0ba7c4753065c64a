"""Messages on the data channel: JSON text, as FastRTC's clients expect them."""

from __future__ import annotations

import json

from fastrtc_anyio.errors import Closed, CloseReason

DIGITS = "0123456789*#ABCD"
"""Keys of a telephone (RFC 4733 3.2)."""

MAX_PARTS = 10_000
"""Maximum objects, arrays and strings in JSON of a client."""


def mend_text(text: str) -> str:
    """Replace each lone surrogate by U+FFFD, and join two halves of one character.

    UTF-8 has no lone surrogates, and clients other than browsers cannot parse them in JSON. A
    language model that streams may cut a character in half.
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def dump_json(value: object) -> str:
    """Encode JSON that every client can parse: no lone surrogates, no NaN, no infinity.

    Raises:
        TypeError, ValueError, RecursionError: ``value`` has no such form.
    """
    return mend_text(json.dumps(value, ensure_ascii=False, allow_nan=False))


def load_json(text: str | bytes) -> object:
    """Decode JSON of a client, in a few milliseconds at most.

    Raises:
        ValueError: ``text`` is not JSON. The message says why, in words for its author.
    """
    characters = text if isinstance(text, str) else text.decode("latin-1")
    parts = characters.count("{") + characters.count("[") + characters.count('"') // 2
    if parts > MAX_PARTS:
        raise ValueError(f"more than {MAX_PARTS} objects, arrays and strings")
    try:
        decoded: object = json.loads(text)
    except json.JSONDecodeError as exc:
        raise ValueError(f"syntax error at character {exc.pos + 1}") from None
    except UnicodeDecodeError:
        raise ValueError("the encoding must be UTF-8") from None
    except RecursionError:
        raise ValueError("the nesting is too deep") from None
    except ValueError:  # more digits than Python converts: sys.set_int_max_str_digits()
        raise ValueError("a number has too many digits") from None
    return decoded


def encode_message(kind: str, data: str | None = None, *, reason: str | None = None) -> str:
    """Encode ``{"type": kind, "data": data}``, with the ``reason`` of an ``end_stream`` message.

    Errors and warnings carry their text under ``message`` too. FastRTC's code sends it there; its
    documentation reads it from ``data``.
    """
    body: dict[str, object] = {"type": kind, "data": [] if data is None else data}
    if kind in ("error", "warning"):
        body["message"] = data
    if reason is not None:
        body["reason"] = reason
    return dump_json(body)


def encode_transcript(
    entry_id: str, role: str, text: str, *, final: bool = True, **details: object
) -> str:
    """Encode a ``transcript`` message: an entry, or a caption of a reply."""
    data = {"id": entry_id, "role": role, "text": text, "final": final, **details}
    return dump_json({"type": "transcript", "data": data})


def parse_digit(text: str) -> str | None:
    """Return the key in a message ``{"type": "dtmf", "data": key}``; None for other messages."""
    if "dtmf" not in text:  # the usual case, without parsing
        return None
    try:
        body = load_json(text)
    except ValueError:
        return None
    match body:
        case {"type": "dtmf", "data": str(digit)} if len(digit) == 1 and digit in DIGITS:
            return digit
        case _:
            return None


_ENDED_HERE = {
    CloseReason.VANISHED,
    CloseReason.PEER_FAILED,
    CloseReason.HANDLER_CLOSED,
    CloseReason.TIME_LIMIT,
    CloseReason.START_UP_TIMEOUT,
    CloseReason.IDLE,
    CloseReason.REJECTED,
    CloseReason.CANCELLED,
}
"""Reasons that the client learns from an ``end_stream`` message."""


def encode_end(closed: Closed) -> str | None:
    """Encode the end of a session for its client; None if the client caused it."""
    reason, message = closed.reason, closed.message
    if reason is CloseReason.HANDLER_ERROR:
        return encode_message("error", message)
    if reason not in _ENDED_HERE:
        return None
    if reason is CloseReason.PEER_FAILED:
        message = "the connection failed"  # the text for the log may quote an exception
    return encode_message("end_stream", message, reason=reason.value)
