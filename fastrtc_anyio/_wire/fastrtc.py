"""FastRTC's WebSocket protocol, extended by a choice of encoding.

The client sends ``{"event": "start", "websocket_id": ..., "encoding": "mulaw" | "pcm16",
"sample_rate": Hz}``, where the last two fields are the extension, then ``{"event": "media",
"media": {"payload": base64}}``, ``{"event": "ping"}`` and ``{"event": "stop"}``. The server sends
``media`` and ``{"event": "pong"}``. Any other text is a message of the application.
"""

from __future__ import annotations

import json

from fastrtc_anyio._signaling.messages import load_json

from .events import Event, Media, Ping, Pong, Start, Stop, Text
from .fields import Fields, parse_name
from .payload import AudioEncoding, decode_media, encode_base64, parse_encoding

CODECS = ("mulaw", "pcm16")
DEFAULT_RATE = 48_000
"""Sample rate in Hz of an ``encoding`` without a ``sample_rate``."""


class FastRTCFraming:
    """Framing of FastRTC's JavaScript clients."""

    phone = False

    def decode(self, text: str) -> Event:
        """See :meth:`.events.Framing.decode`. Any other text decodes as :class:`Text`."""
        try:
            body = load_json(text)
        except ValueError:
            return Text(text)
        if not isinstance(body, dict):
            return Text(text)
        match body.get("event"):
            case "media":
                return Media(decode_media(body))
            case "start":
                return _parse_start(body)
            case "ping":
                return Ping()
            case "pong":
                return Pong()
            case "stop":
                return Stop()
            case _:
                return Text(text)

    def encode(self, event: Event) -> str | None:
        """See :meth:`.events.Framing.encode`."""
        match event:
            case Media(payload):
                return json.dumps({"event": "media", "media": {"payload": encode_base64(payload)}})
            case Text(text):
                return text
            case Start(id, encoding):
                start: dict[str, object] = {"event": "start"}
                if id is not None:
                    start["websocket_id"] = id
                if encoding is not None:
                    start |= {"encoding": encoding.codec, "sample_rate": encoding.sample_rate}
                return json.dumps(start)
            case Ping() | Pong() | Stop():
                return json.dumps({"event": type(event).__name__.lower()})
            case _:
                return None


def _parse_start(body: Fields) -> Start:
    named = body.get("websocket_id") is not None
    codec, rate = body.get("encoding"), body.get("sample_rate")
    encoding: AudioEncoding | None = None
    if codec is not None or rate is not None:
        codec = "mulaw" if codec is None else codec
        encoding = parse_encoding(codec, DEFAULT_RATE if rate is None else rate, CODECS)
    return Start(parse_name(body, "websocket_id") if named else None, encoding)
