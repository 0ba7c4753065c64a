"""Twilio Media Streams in both directions, as with ``<Connect><Stream>``.

Twilio sends ``connected``, ``start``, ``media``, ``mark``, ``dtmf`` and ``stop``. The server sends
``media``, ``mark`` and ``clear``. Audio is mu-law at 8 kHz. Twilio returns a mark once the audio
before it has been played, and returns every open mark after a ``clear``.
"""

from __future__ import annotations

import json

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio.errors import InvalidMessage

from .events import Clear, Connected, Event, KeyPressed, Mark, Media, Start, Stop
from .fields import (
    Fields,
    decode_event,
    parse_message,
    parse_name,
    parse_parameters,
    parse_part,
    parse_text,
)
from .payload import MULAW_8K, encode_base64

_FORMAT = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}


class TwilioFraming:
    """Framing of one Twilio media stream.

    Attributes:
        stream_id: the ``streamSid``; None before the start.
    """

    phone = True

    def __init__(self) -> None:
        self.stream_id: str | None = None
        self._sequence = 0

    def decode(self, text: str) -> Event:
        """See :meth:`.events.Framing.decode`."""
        body = parse_message(
            text, sequence="sequenceNumber", stream="streamSid", stream_id=self.stream_id
        )
        return decode_event(body, self._parse_start)

    def _parse_start(self, body: Fields) -> Start:
        start = parse_part(body, "start")
        name = parse_name(start if "streamSid" in start else body, "streamSid")
        form = start.get("mediaFormat", _FORMAT)
        if form != _FORMAT:
            raise InvalidMessage(f'"mediaFormat" must be {_FORMAT}; got {short_repr(form)}')
        parameters = parse_parameters(start, "customParameters")
        self.stream_id = name
        return Start(name, MULAW_8K, parse_text(start, "callSid"), parameters)

    def encode(self, event: Event) -> str | None:
        """See :meth:`.events.Framing.encode`. Also encodes the messages that Twilio sends."""
        match event:
            case Media(payload, chunk):
                media = {"payload": encode_base64(payload)}
                if chunk is not None:
                    media |= {"track": "inbound", "chunk": str(chunk)}
                return self._dump("media", {"media": media}, chunk is not None)
            case Mark(name):
                return self._dump("mark", {"mark": {"name": name}})
            case Clear():
                return self._dump("clear", {})
            case Start():
                self.stream_id = event.id
                start = {
                    "streamSid": event.id,
                    "callSid": event.call_id,
                    "tracks": ["inbound"],
                    "mediaFormat": _FORMAT,
                    "customParameters": dict(event.parameters),
                }
                return self._dump("start", {"start": start}, numbered=True)
            case KeyPressed(digit):
                dtmf = {"track": "inbound_track", "digit": digit}
                return self._dump("dtmf", {"dtmf": dtmf}, numbered=True)
            case Stop():
                return self._dump("stop", {"stop": {}}, numbered=True)
            case Connected():
                return json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})
            case _:
                return None

    def _dump(self, event: str, parts: Fields, numbered: bool = False) -> str:
        # Twilio numbers its own messages only.
        body: dict[str, object] = {"event": event, "streamSid": self.stream_id, **parts}
        if numbered:
            self._sequence += 1
            body["sequenceNumber"] = str(self._sequence)
        return json.dumps(body)
