"""Messages on the data channel: JSON text, as FastRTC's clients expect them."""

from __future__ import annotations

import json

DIGITS = "0123456789*#ABCD"
"""The keys of a telephone (RFC 4733 3.2)."""

_SAID_TWICE = ("error", "warning")


def encode_message(kind: str, data: object = None, *, reason: str | None = None) -> str:
    """Encode ``{"type": kind, "data": data}``, with the ``reason`` of an ``end_stream`` message.

    An error or a warning carries its text under ``message`` too: FastRTC's code sends it there,
    and its documentation reads it from ``data``.
    """
    body: dict[str, object] = {"type": kind, "data": [] if data is None else data}
    if kind in _SAID_TWICE:
        body["message"] = data
    if reason is not None:
        body["reason"] = reason
    return json.dumps(body)


def parse_digit(text: str) -> str | None:
    """The key in the message ``{"type": "dtmf", "data": key}``; None if it is another message."""
    if "dtmf" not in text:  # nearly always: no need to look closer
        return None
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match body:
        case {"type": "dtmf", "data": str(digit)} if len(digit) == 1 and digit in DIGITS:
            return digit
        case _:
            return None
