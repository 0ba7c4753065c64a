"""Valid inputs, which the targets mutate."""

from __future__ import annotations

import base64
import json

from fastrtc_anyio._wire.events import (
    Connected,
    Event,
    Framing,
    KeyPressed,
    Mark,
    Media,
    Start,
    Stop,
)
from fastrtc_anyio._wire.payload import MULAW_8K, AudioEncoding
from fastrtc_anyio._wire.plivo import PlivoFraming
from fastrtc_anyio._wire.telnyx import TelnyxFraming
from fastrtc_anyio._wire.twilio import TwilioFraming
from tests.kit.choices import Choices
from tests.kit.mutators import mutate_json
from tests.kit.offer_corpus import OFFERS

ALL_OFFERS = list(OFFERS.values())
CANDIDATES: list[dict[str, object]] = [
    {"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": "abcd"}
    for line in (
        "candidate:1 1 udp 2122260223 127.0.0.1 54321 typ host generation 0 network-id 1",
        "candidate:2 1 tcp 1518280447 127.0.0.1 9 typ host tcptype active generation 0 ufrag abcd",
        "candidate:3 1 udp 1685987071 127.0.0.2 5000 typ srflx raddr 127.0.0.1 rport 5000",
        "candidate:4 1 udp 2122260223 ::1 50000 typ host",
        "candidate:5 2 UDP 1 127.0.0.1 1 typ relay raddr 0.0.0.0 rport 0 tcptype passive",
    )
]
FRAGMENT = (
    "a=ice-ufrag:abcd\r\na=ice-pwd:" + "x" * 22 + "\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
    "a=candidate:1 1 udp 2122260223 127.0.0.1 54321 typ host\r\na=end-of-candidates\r\n"
)
FORM = {
    "CallSid": "CA1",
    "From": "+15550100",
    "Digits": "",
    "To": "+15550199",
    "CallStatus": "ringing",
}
_TEXTS = ({"type": "hello", "data": [1, {"a": None}]}, {"type": "dtmf", "data": "5"}, "text")


def trickled(candidate: object) -> dict[str, object]:
    """Return the request that adds a candidate."""
    return {"type": "ice-candidate", "candidate": candidate, "webrtc_id": "me"}


def client_messages() -> list[str]:
    """Messages of a client of FastRTC's WebSocket protocol."""
    sound = base64.b64encode(bytes([0x55] * 320)).decode()
    media = {"event": "media", "media": {"payload": sound}}
    start = {"event": "start", "websocket_id": "ws", "encoding": "mulaw", "sample_rate": 8000}
    ping, stop = {"event": "ping"}, {"event": "stop"}
    return [json.dumps(one) for one in (start, media, ping, *_TEXTS, media, media, stop)]


def carrier_messages(choices: Choices) -> list[str]:
    """Messages of a carrier's call."""
    l16 = AudioEncoding("l16", 16_000)
    possible: list[tuple[Framing, AudioEncoding]] = [
        (TwilioFraming(), MULAW_8K),
        (TelnyxFraming(), MULAW_8K),
        (TelnyxFraming(), l16),
        (PlivoFraming(), MULAW_8K),
        (PlivoFraming(), AudioEncoding("pcm16", 16_000)),
    ]
    framing, encoding = choices.pick(possible)
    sound = bytes([0x55] * 160 * encoding.sample_bytes)
    call: list[Event] = [Connected(), Start("MZ1", encoding, "CA1", {"customer": "Ada"})]
    media = [Media(sound, number, 20 * number) for number in (1, 2, 4, 3, 5)]
    events: list[Event] = [*call, *media[:3], KeyPressed("5"), *media[3:], Mark("1"), Stop()]
    return [text for event in events if (text := framing.encode(event)) is not None]


def mutate_messages(choices: Choices, messages: list[str]) -> list[str | bytes]:
    """Change some messages, and their order."""
    changed: list[str | bytes] = []
    for text in messages:
        match choices.number(8):
            case 1 | 2:
                changed.append(mutate_json(choices, json.loads(text)))
            case 3:
                changed += [text, text]
            case 4:
                pass
            case 5 if choices.chance(6):
                changed.append(text.encode())
            case _:
                changed.append(text)
    if choices.chance(4) and changed:
        changed.insert(choices.number(len(changed)), changed.pop())
    # A message of a WebSocket is valid UTF-8: the server has checked it.
    return [_as_utf8(one) if isinstance(one, str) else one for one in changed]


def _as_utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
