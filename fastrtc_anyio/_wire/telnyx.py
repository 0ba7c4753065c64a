"""Telnyx media streaming in its bidirectional RTP mode.

The messages are Twilio's with other names. ``media_format`` in the start is the codec of the audio
from Telnyx: the call's, or the requested ``codec``. The audio to Telnyx has the requested
``bidirectionalCodec``, which no message mentions.

Telnyx documents the audio as the payload of RTP, where L16 is big-endian (RFC 3551 4.5.11), but
users report little-endian audio as well. The encoding ``"l16"`` decides by the audio itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, TypeAlias

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio.errors import InvalidMessage

from .carrier import CarrierFraming
from .events import Clear, Connected, Event, KeyPressed, Mark, Media, Start, Stop
from .fields import Fields, parse_name, parse_parameters, parse_part, parse_text
from .payload import MULAW_8K, AudioEncoding, Codec, encode_base64

TelnyxCodec: TypeAlias = Literal["PCMU", "PCMA", "L16"]

_NAMES: Mapping[Codec, TelnyxCodec] = {"mulaw": "PCMU", "alaw": "PCMA", "l16": "L16"}
_OUT: Mapping[TelnyxCodec, AudioEncoding] = {
    "PCMU": MULAW_8K,
    "PCMA": AudioEncoding("alaw", 8_000),
    "L16": AudioEncoding("l16", 16_000),
}
_IN: Mapping[tuple[object, object], AudioEncoding] = {
    (_NAMES[encoding.codec], encoding.sample_rate): encoding
    for encoding in (*_OUT.values(), *(AudioEncoding("l16", rate) for rate in (8_000, 24_000)))
}


class TelnyxFraming(CarrierFraming):
    """Framing of one Telnyx media stream.

    Args:
        codec: codec of the audio to Telnyx: its ``bidirectionalCodec``. L16 is at 16 kHz.
    """

    _stream = "stream_id"
    _sequence = "sequence_number"

    def __init__(self, codec: TelnyxCodec = "PCMU") -> None:
        super().__init__()
        self._encoding_out = _OUT[codec]

    def _parse_start(self, body: Fields) -> Start:
        start = parse_part(body, "start")
        form = parse_part(start, "media_format")
        codec, rate = form.get("encoding"), form.get("sample_rate")
        known = isinstance(codec, str) and isinstance(rate, int)
        encoding = _IN.get((codec, rate)) if known else None
        if encoding is None:
            raise InvalidMessage(
                '"media_format" must be PCMU or PCMA at 8000 Hz, or L16 at 8000, 16000 or 24000',
                f"{short_repr(codec)} at {short_repr(rate)}",
            )
        name = parse_name(body, "stream_id")
        call = parse_text(start, "call_control_id")
        parameters = parse_parameters(start, "custom_parameters")
        self.stream_id = name
        out = self._encoding_out if self._encoding_out != encoding else None
        return Start(name, encoding, call, parameters, out)

    def encode(self, event: Event) -> str | None:
        """See :meth:`.carrier.CarrierFraming.encode`."""
        match event:
            case Media(payload, None):
                media = {"payload": encode_base64(payload)}
                return json.dumps({"event": "media", "media": media})
            case Media():
                return self._dump_media(event)
            case Mark(name):
                return json.dumps({"event": "mark", "mark": {"name": name}})
            case Clear():
                return json.dumps({"event": "clear"})
            case Start():
                self.stream_id = event.id
                encoding = event.encoding or MULAW_8K
                form = {
                    "encoding": _NAMES[encoding.codec],
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
