"""Twilio Media Streams in both directions, as with ``<Connect><Stream>``.

Twilio sends ``connected``, ``start``, ``media``, ``mark``, ``dtmf`` and ``stop``. The server sends
``media``, ``mark`` and ``clear``. Audio is mu-law at 8 kHz. Twilio returns a mark once the audio
before it has been played, and returns every open mark after a ``clear``.
"""

from __future__ import annotations

import json

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio.errors import InvalidMessage

from .carrier import CarrierFraming
from .events import Clear, Connected, Event, KeyPressed, Mark, Media, Start, Stop
from .fields import Fields, parse_name, parse_parameters, parse_part, parse_text
from .payload import MULAW_8K, encode_base64

_FORMAT = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}


class TwilioFraming(CarrierFraming):
    """Framing of one Twilio media stream."""

    _stream = "streamSid"
    _sequence = "sequenceNumber"

    def _parse_start(self, body: Fields) -> Start:
        start = parse_part(body, "start")
        name = parse_name(start if "streamSid" in start else body, "streamSid")
        form = start.get("mediaFormat", _FORMAT)
        if form != _FORMAT:
            raise InvalidMessage(f'"mediaFormat" must be {_FORMAT}', short_repr(form))
        parameters = parse_parameters(start, "customParameters")
        self.stream_id = name
        return Start(name, MULAW_8K, parse_text(start, "callSid"), parameters)

    def encode(self, event: Event) -> str | None:
        """See :meth:`.carrier.CarrierFraming.encode`."""
        match event:
            case Media(payload, None):
                return self._dump_own("media", {"media": {"payload": encode_base64(payload)}})
            case Media():
                return self._dump_media(event)
            case Mark(name):
                return self._dump_own("mark", {"mark": {"name": name}})
            case Clear():
                return self._dump_own("clear", {})
            case Start():
                self.stream_id = event.id
                start = {
                    "streamSid": event.id,
                    "callSid": event.call_id,
                    "tracks": ["inbound"],
                    "mediaFormat": _FORMAT,
                    "customParameters": dict(event.parameters),
                }
                return self._dump("start", {"start": start})
            case KeyPressed(digit):
                return self._dump("dtmf", {"dtmf": {"track": "inbound_track", "digit": digit}})
            case Stop():
                return self._dump("stop", {"stop": {}})
            case Connected():
                return json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})
            case _:
                return None

    def _dump_own(self, event: str, parts: Fields) -> str:
        """Return a message to Twilio, which is not numbered."""
        return json.dumps({"event": event, "streamSid": self.stream_id, **parts})
