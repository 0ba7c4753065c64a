"""Twilio Media Streams, both directions, as ``<Connect><Stream>`` has them.

From Twilio: ``connected``, ``start``, ``media``, ``mark``, ``dtmf``, ``stop``. To it: ``media``,
``mark``, ``clear``. Audio is mu-law at 8 kHz. Twilio returns a mark when the audio sent before it
has been played, and returns all that are open when it is told to clear.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio.errors import InvalidMessage

from .any_carrier import (
    check_stream,
    decode_event,
    parse_body,
    parse_name,
    parse_number,
    parse_parameters,
    parse_part,
    parse_text,
)
from .events import Clear, Connected, Event, KeyPressed, Mark, Media, Start, Stop
from .payload import MULAW_8K, encode_base64, parse_json

__all__ = ["TwilioFraming"]

_FORMAT = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}


class TwilioFraming:
    """One media stream of Twilio's.

    Attributes:
        stream_id: the ``streamSid``; known once the start was read or written.
    """

    phone = True

    def __init__(self) -> None:
        self.stream_id: str | None = None
        self._sequence = 0

    def decode(self, text: str) -> Event:
        """See :class:`.events.Framing`."""
        body = parse_body(parse_json(text))
        parse_number(body, "sequenceNumber")
        check_stream(body, "streamSid", self.stream_id)
        return decode_event(body, self._parse_start)

    def _parse_start(self, body: Mapping[str, Any]) -> Start:
        start = parse_part(body, "start")
        name = parse_name(start if "streamSid" in start else body, "streamSid")
        form = start.get("mediaFormat", _FORMAT)
        if form != _FORMAT:
            raise InvalidMessage(f'"mediaFormat" must be {_FORMAT}; got {short_repr(form)}')
        parameters = parse_parameters(start, "customParameters")
        self.stream_id = name
        return Start(name, MULAW_8K, parse_text(start, "callSid"), parameters)

    def encode(self, event: Event) -> str | None:
        """See :class:`.events.Framing`. Writes Twilio's own messages too."""
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

    def _dump(self, event: str, parts: Mapping[str, Any], numbered: bool = False) -> str:
        """What Twilio sends is numbered; what is sent to it is not."""
        body: dict[str, Any] = {"event": event, "streamSid": self.stream_id, **parts}
        if numbered:
            self._sequence += 1
            body["sequenceNumber"] = str(self._sequence)
        return json.dumps(body)
