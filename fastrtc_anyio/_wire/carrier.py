"""Base class of the framings of telephone carriers."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import ClassVar

from fastrtc_anyio._core.options import short_repr
from fastrtc_anyio.errors import InvalidMessage

from .events import Clear, Connected, Event, KeyPressed, Mark, Media, Other, Start, Stop
from .fields import (
    Fields,
    parse_body,
    parse_digit,
    parse_event,
    parse_name,
    parse_number,
    parse_part,
)
from .payload import decode_media, encode_base64


class CarrierFraming(ABC):
    """Framing of one stream from a carrier.

    Attributes:
        stream_id: the carrier's id of the stream; None before the start.
    """

    phone = True

    _stream: ClassVar[str]
    """Name of the field with the stream's id."""
    _sequence: ClassVar[str]
    """Name of the field with the number of a message from the carrier."""
    _number: ClassVar[type[int] | type[str]] = str
    """Type of this field."""

    def __init__(self) -> None:
        self.stream_id: str | None = None
        self._sent = 0

    def decode(self, text: str) -> Event:
        """See :meth:`.events.Framing.decode`."""
        body = parse_body(text)
        stream = body.get(self._stream)
        if stream is not None and self.stream_id is not None and stream != self.stream_id:
            raise InvalidMessage(
                f'"{self._stream}" must be that of the "start"',
                f"{short_repr(stream)} after {short_repr(self.stream_id)}",
            )
        return self._decode(body)

    def _decode(self, body: Fields) -> Event:
        match body["event"]:
            case "media":
                media = parse_part(body, "media")
                if media.get("track", "inbound") not in ("inbound", "inbound_track"):
                    return Other("media of the outbound track")
                number, time = parse_number(media, "chunk"), parse_number(media, "timestamp")
                return Media(decode_media(body), number, time)
            case "mark":
                return parse_event(lambda: Mark(parse_name(parse_part(body, "mark"), "name")))
            case "dtmf":
                return parse_event(lambda: KeyPressed(parse_digit(parse_part(body, "dtmf"))))
            case "start":
                return self._parse_start(body)
            case "stop":
                return Stop()
            case "connected":
                return Connected()
            case "clear":
                return Clear()
            case other:
                return Other(str(other))

    @abstractmethod
    def _parse_start(self, body: Fields) -> Start: ...

    @abstractmethod
    def encode(self, event: Event) -> str | None:
        """See :meth:`.events.Framing.encode`. Also encodes the messages that the carrier sends."""

    def _dump_media(self, event: Media) -> str:
        """Return numbered audio from the carrier."""
        assert event.chunk is not None
        media = {
            "track": "inbound",
            "chunk": self._number(event.chunk),
            "payload": encode_base64(event.payload),
        }
        if event.timestamp is not None:
            media["timestamp"] = str(event.timestamp)
        return self._dump("media", {"media": media})

    def _dump(self, event: str, parts: Fields) -> str:
        """Return a message from the carrier."""
        self._sent += 1
        numbered = {**parts, self._sequence: self._number(self._sent)}
        return json.dumps({"event": event, self._stream: self.stream_id, **numbered})
