"""Plivo audio streaming with ``bidirectional="true"``.

Plivo sends ``start``, ``media``, ``dtmf``, ``playedStream`` (a checkpoint was played) and
``clearedAudio``. The server sends ``playAudio``, ``checkpoint`` and ``clearAudio``. The XML of the
call chooses the encoding: mu-law at 8 kHz, or 16-bit samples at 8 or 16 kHz. Plivo does not return
a cleared checkpoint, and closes the socket at the end without a message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio.errors import InvalidMessage

from .carrier import CarrierFraming
from .events import Clear, Event, KeyPressed, Mark, Media, Start, Stop
from .fields import Fields, parse_event, parse_name, parse_part, parse_text
from .payload import MULAW_8K, AudioEncoding, Codec, decode_media, encode_base64

_CODECS: Mapping[str, Codec] = {"audio/x-mulaw": "mulaw", "audio/x-l16": "pcm16"}
_TYPES = {codec: name for name, codec in _CODECS.items()}
_POSSIBLE = {MULAW_8K, AudioEncoding("pcm16", 8_000), AudioEncoding("pcm16", 16_000)}


class PlivoFraming(CarrierFraming):
    """Framing of one Plivo audio stream."""

    _stream = "streamId"
    _sequence = "sequenceNumber"
    _number = int

    def __init__(self) -> None:
        super().__init__()
        self._encoding = MULAW_8K

    def _decode(self, body: Fields) -> Event:
        match body["event"]:
            case "playAudio":
                return Media(decode_media(body))
            case "playedStream" | "checkpoint":
                return parse_event(lambda: Mark(parse_name(body, "name")))
            case "clearedAudio" | "clearAudio":
                return Clear()
            case _:
                return super()._decode(body)

    def _parse_start(self, body: Fields) -> Start:
        start = parse_part(body, "start")
        form = parse_part(start, "mediaFormat")
        kind, rate = form.get("encoding"), form.get("sampleRate")
        codec = _CODECS.get(kind) if isinstance(kind, str) else None
        encoding = AudioEncoding(codec, rate) if codec and isinstance(rate, int) else None
        if encoding not in _POSSIBLE:
            raise InvalidMessage(
                '"mediaFormat" must be audio/x-mulaw at 8000 Hz, or audio/x-l16 at 8000 or 16000',
                f"{short_repr(kind)} at {short_repr(rate)}",
            )
        name = parse_name(start, "streamId")
        call, headers = parse_text(start, "callId"), parse_text(body, "extra_headers")
        self.stream_id = name
        self._encoding = encoding
        return Start(name, encoding, call, {"extra_headers": headers} if headers else {})

    def encode(self, event: Event) -> str | None:
        """See :meth:`.carrier.CarrierFraming.encode`."""
        match event:
            case Media(payload, None):
                media = {
                    "contentType": _TYPES[self._encoding.codec],
                    "sampleRate": self._encoding.sample_rate,
                    "payload": encode_base64(payload),
                }
                return json.dumps({"event": "playAudio", "media": media})
            case Media():
                return self._dump_media(event)
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
