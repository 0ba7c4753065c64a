"""The events of audio over a WebSocket, whoever is at the other end.

A framing is both directions of one protocol: ``decode(encode(event)) == event`` for every event it
has. What it does not have, such as a mark for a browser, it encodes as None: nothing is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from .payload import MULAW_8K, AudioEncoding

__all__ = [
    "Clear",
    "Connected",
    "Event",
    "Framing",
    "KeyPressed",
    "Mark",
    "Media",
    "Other",
    "Ping",
    "Pong",
    "Start",
    "Stop",
    "Text",
]


@dataclass(frozen=True)
class Connected:
    """A carrier's first message: which protocol it speaks. It says nothing of the call yet."""


@dataclass(frozen=True)
class Start:
    """The call begins."""

    id: str | None
    """The client's own name for the connection: ``websocket_id``, or the carrier's stream."""
    encoding: AudioEncoding | None = MULAW_8K
    """Of the audio, both ways. None: mu-law at the handler's own rates."""
    call_id: str = ""
    """The carrier's name for the telephone call."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """What the application gave the carrier to be told here."""
    encoding_out: AudioEncoding | None = None
    """Of the audio to the client, where it is another than ``encoding``."""


@dataclass(frozen=True)
class Media:
    """Audio, in the encoding that was agreed on."""

    payload: bytes
    chunk: int | None = None
    """The carrier's number of the message, from 1 on."""


@dataclass(frozen=True)
class Mark:
    """To a carrier: a place in the audio. From it: the place was reached, or cleared."""

    name: str


@dataclass(frozen=True)
class Clear:
    """To a carrier: drop the audio that was not played yet. From it: that was done."""


@dataclass(frozen=True)
class KeyPressed:
    """The caller pressed a key."""

    digit: str
    """One of ``0123456789*#ABCD``."""


@dataclass(frozen=True)
class Ping:
    """The client wants to know whether somebody is there."""


@dataclass(frozen=True)
class Pong:
    """Somebody is."""


@dataclass(frozen=True)
class Stop:
    """The call is over."""


@dataclass(frozen=True)
class Text:
    """A message that is not the protocol's: for the handler, or from it."""

    text: str


@dataclass(frozen=True)
class Other:
    """Something of the protocol's that means nothing here."""

    kind: str


Event: TypeAlias = (
    Connected | Start | Media | Mark | Clear | KeyPressed | Ping | Pong | Stop | Text | Other
)


class Framing(Protocol):
    """One client's protocol. Made anew for each connection."""

    phone: bool
    """Whether a telephone is at the other end."""

    def decode(self, text: str) -> Event:
        """Read a message.

        Raises:
            InvalidMessage: it is not of the protocol. Nothing else, whatever the text.
        """
        ...

    def encode(self, event: Event) -> str | None:
        """Write an event. None: the protocol has no such thing."""
        ...
