"""FastRTC's WebSocket protocol, with a choice of encoding.

In: ``{"event": "start", "websocket_id": ..., "encoding": "mulaw" | "pcm16", "sample_rate": Hz}``,
of which the last two are ours, then ``{"event": "media", "media": {"payload": base64}}``,
``{"event": "ping"}`` and ``{"event": "stop"}``. Out: ``media`` and ``{"event": "pong"}``. Every
other text, either way, is a message of the application's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio._signaling.requests import MAX_ID_LENGTH
from fastrtc_anyio.errors import InvalidMessage

from .events import Event, Media, Ping, Pong, Start, Stop, Text
from .payload import AudioEncoding, decode_base64, encode_base64, parse_encoding

__all__ = ["CODECS", "FastRTCFraming"]

CODECS = ("mulaw", "pcm16")
DEFAULT_RATE = 48_000
"""Of an encoding that is named without a rate."""


class FastRTCFraming:
    """A browser, or whoever speaks as FastRTC's JavaScript does."""

    phone = False

    def decode(self, text: str) -> Event:
        """See :class:`.events.Framing`. What is no event of the protocol is a :class:`Text`."""
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            return Text(text)
        match body:
            case {"event": "media"}:
                return Media(decode_base64(body, "media"))
            case {"event": "start"}:
                return _parse_start(body)
            case {"event": "ping"}:
                return Ping()
            case {"event": "pong"}:
                return Pong()
            case {"event": "stop"}:
                return Stop()
            case _:
                return Text(text)

    def encode(self, event: Event) -> str | None:
        """See :class:`.events.Framing`."""
        match event:
            case Media(payload):
                return json.dumps({"event": "media", "media": {"payload": encode_base64(payload)}})
            case Text(text):
                return text
            case Start(id, encoding):
                start: dict[str, Any] = {"event": "start"}
                if id is not None:
                    start["websocket_id"] = id
                if encoding is not None:
                    start |= {"encoding": encoding.codec, "sample_rate": encoding.sample_rate}
                return json.dumps(start)
            case Ping() | Pong() | Stop():
                return json.dumps({"event": type(event).__name__.lower()})
            case _:
                return None


def _parse_start(body: Mapping[str, Any]) -> Start:
    name = body.get("websocket_id")
    if name is not None and (not isinstance(name, str) or not 0 < len(name) <= MAX_ID_LENGTH):
        raise InvalidMessage(
            f'"websocket_id" must be a string of 1 to {MAX_ID_LENGTH} characters; '
            f"got {short_repr(name)}"
        )
    return Start(name, _parse_wish(body))


def _parse_wish(body: Mapping[str, Any]) -> AudioEncoding | None:
    codec, rate = body.get("encoding"), body.get("sample_rate")
    if codec is None and rate is None:
        return None
    return parse_encoding(
        "mulaw" if codec is None else codec, DEFAULT_RATE if rate is None else rate, CODECS
    )
