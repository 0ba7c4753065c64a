"""Messages on the data channel: JSON text, as FastRTC's clients expect them."""

from __future__ import annotations

import json

__all__ = ["encode_message"]

_SAID_TWICE = ("error", "warning")


def encode_message(kind: str, data: object = None) -> str:
    """Encode ``{"type": kind, "data": data}``.

    An error or a warning carries its text under ``message`` too: FastRTC's code sends it there,
    and its documentation reads it from ``data``.
    """
    body: dict[str, object] = {"type": kind, "data": [] if data is None else data}
    if kind in _SAID_TWICE:
        body["message"] = data
    return json.dumps(body)
