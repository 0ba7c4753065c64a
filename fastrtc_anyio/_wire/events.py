"""Events of audio over a WebSocket, independent of the protocol.

A framing is both directions of one protocol: ``decode(encode(event)) == event`` for every event
that the protocol has. An event that it lacks, such as a mark for a browser, encodes as None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from .payload import MULAW_8K, AudioEncoding


@dataclass(frozen=True)
class Connected:
    """A carrier's first message, which names its protocol and precedes the start."""


@dataclass(frozen=True)
class Start:
    """The call begins."""

    id: str | None
    """The client's id of the connection: ``websocket_id``, or the carrier's stream id."""
    encoding: AudioEncoding | None = MULAW_8K
    """Encoding of the audio in both directions. None for mu-law at the handler's sample rates."""
    call_id: str = ""
    """The carrier's id of the telephone call."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Parameters that the application passed through the carrier."""
    encoding_out: AudioEncoding | None = None
    """Encoding of the audio to the client, if it differs from ``encoding``."""


@dataclass(frozen=True)
class Media:
    """Audio in the encoding of the start. It may begin and end within a sample."""

    payload: bytes
    chunk: int | None = None
    """The carrier's sequence number of the audio, from 1."""
    timestamp: int | None = None
    """The carrier's time of the audio's beginning, in milliseconds of any origin."""


@dataclass(frozen=True)
class Mark:
    """To a carrier: a position in the audio. From it: the position was played, or cleared."""

    name: str


@dataclass(frozen=True)
class Clear:
    """To a carrier: drop the audio not played yet. From it: the audio was dropped."""


@dataclass(frozen=True)
class KeyPressed:
    """The caller pressed a key."""

    digit: str
    """One of ``0123456789*#ABCD``."""


@dataclass(frozen=True)
class Ping:
    """The client checks the connection."""


@dataclass(frozen=True)
class Pong:
    """Answer to a :class:`Ping`."""


@dataclass(frozen=True)
class Stop:
    """The call has ended."""


@dataclass(frozen=True)
class Text:
    """A message outside the protocol, for the handler or from it."""

    text: str


@dataclass(frozen=True)
class Other:
    """A message of the protocol that needs no action."""

    kind: str


@dataclass(frozen=True)
class Malformed:
    """A message of the protocol that cannot be used. The connection goes on without it."""

    why: str


Event: TypeAlias = (
    Connected
    | Start
    | Media
    | Mark
    | Clear
    | KeyPressed
    | Ping
    | Pong
    | Stop
    | Text
    | Other
    | Malformed
)


class Framing(Protocol):
    """Translates one connection between events and the text messages of a protocol."""

    phone: bool
    """Whether the client is a telephone."""

    def decode(self, text: str) -> Event:
        """Decode a message.

        A message of the protocol that is useless without its malformed field decodes as
        :class:`Malformed`.

        Raises:
            InvalidMessage: the message violates the protocol. No text raises any other error.
        """
        ...

    def encode(self, event: Event) -> str | None:
        """Encode an event. Returns None if the protocol does not have it."""
        ...
