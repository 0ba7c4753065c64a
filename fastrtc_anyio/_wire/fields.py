"""Which carrier is calling: its first messages tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastrtc_anyio.errors import InvalidMessage

from .any_carrier import parse_body
from .events import Connected, Event, Framing, Other, Start
from .payload import parse_json
from .plivo import PlivoFraming
from .telnyx import TelnyxCodec, TelnyxFraming
from .twilio import TwilioFraming

__all__ = ["TelephoneFraming"]


class TelephoneFraming:
    """The framing of whichever carrier is at the other end, found out from its ``start``.

    Args:
        codec: of what is sent to Telnyx.
        admit: given the start, gives back what is to be known of it, or raises
            :exc:`.InvalidMessage`.
    """

    phone = True

    def __init__(
        self, codec: TelnyxCodec = "PCMU", admit: Callable[[Start], Start] | None = None
    ) -> None:
        self._codec: TelnyxCodec = codec
        self._admit = admit
        self._carrier: Framing | None = None

    def decode(self, text: str) -> Event:
        """See :class:`.events.Framing`."""
        if self._carrier is not None:
            return self._carrier.decode(text)
        body = parse_body(parse_json(text))
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
                return Other(other)

    def encode(self, event: Event) -> str | None:
        """See :class:`.events.Framing`. Before the start there is nothing to say."""
        return None if self._carrier is None else self._carrier.encode(event)

    def _recognise(self, body: Mapping[str, object]) -> Framing:
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
