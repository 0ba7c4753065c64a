"""Framing for any carrier: the start of a call shows which carrier sent it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastrtc_anyio.errors import InvalidMessage

from .events import Connected, Event, Framing, Other, Start
from .fields import Fields, parse_body
from .plivo import PlivoFraming
from .telnyx import TelnyxCodec, TelnyxFraming
from .twilio import TwilioFraming


class TelephoneFraming:
    """Framing that becomes the carrier's own with the first ``start``.

    Args:
        codec: codec of the audio to Telnyx.
        admit: called with the start. It returns the start for the peer, or raises
            :exc:`.InvalidMessage` to reject the call.
    """

    phone = True

    def __init__(
        self, codec: TelnyxCodec = "PCMU", admit: Callable[[Start], Start] | None = None
    ) -> None:
        self._codec: TelnyxCodec = codec
        self._admit = admit
        self._carrier: Framing | None = None

    def decode(self, text: str) -> Event:
        """See :meth:`.events.Framing.decode`."""
        if self._carrier is not None:
            return self._carrier.decode(text)
        body = parse_body(text)
        match body["event"]:
            case "start":
                carrier = self._recognise(body)
                event = carrier.decode(text)
                if self._admit is not None and isinstance(event, Start):
                    event = self._admit(event)
                self._carrier = carrier
                return event
            case "connected":
                return Connected()
            case other:
                return Other(str(other))

    def encode(self, event: Event) -> str | None:
        """See :meth:`.events.Framing.encode`. Before the start every event encodes as None."""
        return None if self._carrier is None else self._carrier.encode(event)

    def _recognise(self, body: Fields) -> Framing:
        start = body.get("start")
        inner = start if isinstance(start, Mapping) else {}
        if "streamSid" in body or "streamSid" in inner:
            return TwilioFraming()
        if "stream_id" in body:
            return TelnyxFraming(self._codec)
        if "streamId" in inner:
            return PlivoFraming()
        raise InvalidMessage(
            'a "start" must have a "streamSid" (Twilio), a "stream_id" (Telnyx) or a '
            '"start.streamId" (Plivo)'
        )
