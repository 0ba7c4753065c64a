"""Telnyx media streaming in its bidirectional RTP mode.

As Twilio's protocol with other names. The codec is the call's: PCMU and PCMA at 8 kHz are taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastrtc_anyio.errors import InvalidMessage

from .carriers import (
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
from .payload import (
    MULAW_8K,
    AudioEncoding,
    encode_base64,
    parse_json,
    show,
)

__all__ = ["TelnyxFraming"]

_ENCODINGS = {"PCMU": MULAW_8K, "PCMA": AudioEncoding("alaw", 8_000)}
_NAMES = {encoding: name for name, encoding in _ENCODINGS.items()}


class TelnyxFraming:
    """One media stream of Telnyx's.

    Attributes:
        stream_id: known once the start was read or written.
    """

    phone = True

    def __init__(self) -> None:
        self.stream_id: str | None = None
        self._sequence = 0

    def decode(self, text: str) -> Event:
        """See :class:`.events.Framing`."""
        body = parse_body(parse_json(text))
        parse_number(body, "sequence_number")
        check_stream(body, "stream_id", self.stream_id)
        return decode_event(body, self._parse_start)

    def _parse_start(self, body: Mapping[str, Any]) -> Start:
        start = parse_part(body, "start")
        form = parse_part(start, "media_format")
        codec, rate = form.get("encoding"), form.get("sample_rate")
        encoding = _ENCODINGS.get(codec) if isinstance(codec, str) else None
        if encoding is None or rate != encoding.sample_rate:
            raise InvalidMessage(
                f'"media_format" must be PCMU or PCMA at 8000 Hz; got {show(codec)} at {show(rate)}'
            )
        name = parse_name(body, "stream_id")
        call = parse_text(start, "call_control_id")
        parameters = parse_parameters(start, "custom_parameters")
        self.stream_id = name
        return Start(name, encoding, call, parameters)

    def encode(self, event: Event) -> str | None:
        """See :class:`.events.Framing`. Writes Telnyx's own messages too."""
        match event:
            case Media(payload, chunk):
                media = {"payload": encode_base64(payload)}
                if chunk is None:
                    return json.dumps({"event": "media", "media": media})
                media |= {"track": "inbound", "chunk": str(chunk)}
                return self._dump("media", {"media": media})
            case Mark(name):
                return json.dumps({"event": "mark", "mark": {"name": name}})
            case Clear():
                return json.dumps({"event": "clear"})
            case Start():
                self.stream_id = event.id
                encoding = event.encoding or MULAW_8K
                form = {
                    "encoding": _NAMES[encoding],
                    "sample_rate": encoding.sample_rate,
                    "channels": 1,
                }
                start = {
                    "call_control_id": event.call_id,
                    "custom_parameters": dict(event.parameters),
                    "media_format": form,
                }
                return self._dump("start", {"start": start})
            case KeyPressed(digit):
                return self._dump("dtmf", {"dtmf": {"digit": digit}})
            case Stop():
                return self._dump("stop", {"stop": {}})
            case Connected():
                return json.dumps({"event": "connected", "version": "1.0.0"})
            case _:
                return None

    def _dump(self, event: str, parts: Mapping[str, Any]) -> str:
        self._sequence += 1
        body = {"event": event, "stream_id": self.stream_id, **parts}
        return json.dumps({**body, "sequence_number": str(self._sequence)})
