"""Plivo audio streaming with ``bidirectional="true"``.

From Plivo: ``start``, ``media``, ``dtmf``, ``playedStream`` (a checkpoint was reached) and
``clearedAudio``. To it: ``playAudio``, ``checkpoint``, ``clearAudio``. The encoding is the one its
XML asked for: mu-law at 8 kHz, or 16-bit samples at 8 or 16 kHz. A checkpoint that was cleared is
not returned. There is no word for the end: the socket closes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio.errors import InvalidMessage

from .any_carrier import (
    check_stream,
    parse_body,
    parse_digit,
    parse_name,
    parse_number,
    parse_part,
    parse_text,
)
from .events import Clear, Event, KeyPressed, Mark, Media, Other, Start, Stop
from .payload import MULAW_8K, AudioEncoding, Codec, decode_base64, encode_base64, parse_json

__all__ = ["PlivoFraming"]

_CODECS: Mapping[str, Codec] = {"audio/x-mulaw": "mulaw", "audio/x-l16": "pcm16"}
_TYPES = {codec: name for name, codec in _CODECS.items()}
_POSSIBLE = {MULAW_8K, AudioEncoding("pcm16", 8_000), AudioEncoding("pcm16", 16_000)}


class PlivoFraming:
    """One audio stream of Plivo's.

    Attributes:
        stream_id: known once the start was read or written.
    """

    phone = True

    def __init__(self) -> None:
        self.stream_id: str | None = None
        self._encoding = MULAW_8K
        self._sequence = 0

    def decode(self, text: str) -> Event:
        """See :class:`.events.Framing`."""
        body = parse_body(parse_json(text))
        parse_number(body, "sequenceNumber")
        check_stream(body, "streamId", self.stream_id)
        match body["event"]:
            case "media":
                media = parse_part(body, "media")
                if media.get("track", "inbound") != "inbound":
                    return Other("media of the outbound track")
                return Media(decode_base64(body, "media"), parse_number(media, "chunk"))
            case "playAudio":
                return Media(decode_base64(body, "media"))
            case "playedStream" | "checkpoint":
                return Mark(parse_name(body, "name"))
            case "clearedAudio" | "clearAudio":
                return Clear()
            case "dtmf":
                return KeyPressed(parse_digit(parse_part(body, "dtmf")))
            case "start":
                return self._parse_start(body)
            case "stop":
                return Stop()
            case other:
                return Other(other)

    def _parse_start(self, body: Mapping[str, Any]) -> Start:
        start = parse_part(body, "start")
        form = parse_part(start, "mediaFormat")
        kind, rate = form.get("encoding"), form.get("sampleRate")
        codec = _CODECS.get(kind) if isinstance(kind, str) else None
        encoding = AudioEncoding(codec, rate) if codec and isinstance(rate, int) else None
        if encoding not in _POSSIBLE:
            raise InvalidMessage(
                '"mediaFormat" must be audio/x-mulaw at 8000 Hz, or audio/x-l16 at 8000 or 16000; '
                f"got {short_repr(kind)} at {short_repr(rate)}"
            )
        name = parse_name(start, "streamId")
        call, headers = parse_text(start, "callId"), parse_text(body, "extra_headers")
        self.stream_id = name
        self._encoding = encoding
        return Start(name, encoding, call, {"extra_headers": headers} if headers else {})

    def encode(self, event: Event) -> str | None:
        """See :class:`.events.Framing`. Writes Plivo's own messages too."""
        match event:
            case Media(payload, None):
                media = {
                    "contentType": _TYPES[self._encoding.codec],
                    "sampleRate": self._encoding.sample_rate,
                    "payload": encode_base64(payload),
                }
                return json.dumps({"event": "playAudio", "media": media})
            case Media(payload, chunk):
                media = {"track": "inbound", "chunk": chunk, "payload": encode_base64(payload)}
                return self._dump("media", {"media": media})
            case Mark(name):
                return json.dumps({"event": "checkpoint", "streamId": self.stream_id, "name": name})
            case Clear():
                return json.dumps({"event": "clearAudio", "streamId": self.stream_id})
            case Start():
                return self._dump_start(event)
            case KeyPressed(digit):
                return self._dump("dtmf", {"dtmf": {"track": "inbound", "digit": digit}})
            case Stop():
                return self._dump("stop", {})
            case _:
                return None

    def _dump_start(self, event: Start) -> str:
        self.stream_id = event.id
        self._encoding = event.encoding or MULAW_8K
        start = {
            "streamId": event.id,
            "callId": event.call_id,
            "tracks": ["inbound"],
            "mediaFormat": {
                "encoding": _TYPES[self._encoding.codec],
                "sampleRate": self._encoding.sample_rate,
            },
        }
        headers = event.parameters.get("extra_headers", "")
        return self._dump("start", {"start": start, "extra_headers": headers})

    def _dump(self, event: str, parts: Mapping[str, Any]) -> str:
        self._sequence += 1
        body = {"event": event, "streamId": self.stream_id, **parts}
        return json.dumps({**body, "sequenceNumber": self._sequence})
