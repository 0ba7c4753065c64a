"""What clients send that no client should: on WebSockets, in requests, and in WebRTC calls."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from itertools import cycle
from typing import Any

from aiortc.rtp import RtpPacket

from tests.kit.aiortc_client import AiortcClient

FRAMES: list[str | bytes] = [
    '{"event": "media", "media": {"payload": "&&&"}}',
    '{"event": "media", "media": {"payload": 5}}',
    '{"event": "media", "media": []}',
    '{"event": "media", "sequenceNumber": 1e400, "media": {"payload": "//8="}}',
    '{"event": "media"}',
    '{"event": "start", "start": {}}',
    '{"event": "start"}',
    '{"event": "mark", "mark": {"name": null}}',
    '{"event": "dtmf", "dtmf": {"digit": "\\ud800"}}',
    '{"event": 17}',
    "{}",
    "null",
    "not JSON",
    "",
    "[" * 10_000,
    b"\x00\xff" * 32,
]
"""Messages to a WebSocket or as a carrier."""
BODIES: list[bytes] = [
    b"",
    b"null",
    b"[]",
    b"\xff\xfe",
    b'{"type": "offer"',
    b"[" * 10_000,
    *[
        json.dumps(body).encode()
        for body in (
            {},
            {"type": "offer"},
            {"type": 5, "sdp": "v=0", "webrtc_id": "rubbish"},
            {"type": "offer", "sdp": 5, "webrtc_id": "rubbish"},
            {"type": "offer", "sdp": "v=0\r\nm=audio", "webrtc_id": "rubbish"},
            {"type": "offer", "sdp": "\x00" * 1000, "webrtc_id": "rubbish"},
            {"type": "offer", "sdp": "v=0", "webrtc_id": "x" * 10_000},
            {"type": "ice-candidate", "candidate": {"candidate": 5}, "webrtc_id": "rubbish"},
        )
    ],
]
"""Bodies of requests to ``/webrtc/offer``."""
_MESSAGES = ["", "{", "null", '{"type": 5}', '{"type": "stop"}', "[" * 5000, "x" * 50_000]
_COUNT = 50


async def _send_messages(client: AiortcClient, rng: random.Random) -> None:
    for text in _MESSAGES:
        client.send_message(text)


async def _send_payloads(client: AiortcClient, rng: random.Random) -> None:
    """Send packets in which no codec finds sound, from a new source."""
    for number in range(_COUNT):
        packet = RtpPacket(rng.choice([0, 8, 9, 96]), sequence_number=number * 7, ssrc=7)
        packet.payload = rng.randbytes(rng.randrange(1, 500))
        await _transport(client)._send_rtp(packet.serialize())


async def _send_reports(client: AiortcClient, rng: random.Random) -> None:
    """Send RTCP that nobody can parse (RFC 3550 6.1)."""
    for _ in range(_COUNT):
        content = rng.randbytes(4 * rng.randrange(1, 20))
        head = bytes([0x80 | rng.randrange(32), rng.randrange(200, 207)])
        await _transport(client)._send_rtp(head + (len(content) // 4).to_bytes(2) + content)


async def _send_datagrams(client: AiortcClient, rng: random.Random) -> None:
    """Send noise that is neither STUN, DTLS nor SRTP, or seems to be."""
    for _ in range(_COUNT):
        await _transport(client).transport._send(rng.randbytes(rng.randrange(1, 1400)))


def _transport(client: AiortcClient) -> Any:
    return client.pc.getTransceivers()[0].sender.transport


CALLS: list[Callable[[AiortcClient, random.Random], Awaitable[None]]] = [
    _send_messages,
    _send_payloads,
    _send_reports,
    _send_datagrams,
]
"""What a WebRTC client sends, once it is connected."""


class Rubbish:
    """Gives each kind of rubbish in turn, in an order that the seed decides."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._frames = self._shuffle(FRAMES)
        self._bodies = self._shuffle(BODIES)
        self._calls = self._shuffle(CALLS)

    def _shuffle(self, items: list[Any]) -> Any:
        return cycle(self._random.sample(items, len(items)))

    def frame(self) -> str | bytes:
        """Return a message for a WebSocket."""
        found: str | bytes = next(self._frames)
        return found

    def body(self) -> bytes:
        """Return the body of a request."""
        found: bytes = next(self._bodies)
        return found

    async def send(self, client: AiortcClient) -> None:
        """Send something in a call."""
        await next(self._calls)(client, self._random)
        await asyncio.sleep(0.2)
