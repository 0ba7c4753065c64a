"""The control call, which counts the frames that it misses.

``python -m tests.soak.control URL THREAD ...`` answers each line on its standard input with a line
of JSON. It is a separate process with plain aiortc, and sends packets that are encoded in advance.
A THREAD is one of the server with an event loop: frames that come late because the machine has no
processor for it are counted apart.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
from aiortc import MediaStreamTrack
from av import Packet

from fastrtc_anyio.testing import tone
from tests.kit.aiortc_client import AiortcClient, client_loop
from tests.kit.loss import Packets

FRAME = 0.02
LATE = 0.1
"""Seconds after which a frame is too late for a usual jitter buffer."""
SOUND = 20
"""Bytes of an encoded frame of the tone, at least; silence has three."""
_SETTLING = 2.0
_STALL = 0.04
"""Seconds that this process is late, or that an event loop of the server waits for a processor in
:data:`_WINDOW`. They excuse what the call hears in the next half second."""
_WINDOW = 0.2
_EXAMPLES = 20


@dataclass
class Counts:
    """Frames since the call has settled.

    Attributes:
        frames: received.
        lost: never arrived.
        silent: arrived without the tone: the server played silence.
        late: arrived too late.
        excused: would be missed, but this process or the server had no processor.
        latest: the largest lateness, seconds.
        stalls: times at which a thread had no processor.
        misses: the first missed frames, also those that are excused.
    """

    frames: int = 0
    lost: int = 0
    silent: int = 0
    late: int = 0
    excused: int = 0
    latest: float = 0.0
    stalls: int = 0
    misses: list[str] = field(default_factory=list)


class Waits:
    """Seconds that threads were ready to run, but had no processor."""

    def __init__(self, threads: list[str]) -> None:
        self._paths = [Path(f"/proc/{threads[0]}/task/{thread}/schedstat") for thread in threads]
        self._seen: deque[tuple[float, float]] = deque()

    def read(self, now: float) -> float:
        """Return the seconds in the last :data:`_WINDOW`."""
        waited = sum(int(path.read_text("ascii").split()[1]) for path in self._paths) / 1e9
        self._seen.append((now, waited))
        while now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()
        return waited - self._seen[0][1]


class Hearing:
    """Counts the packets of one call."""

    def __init__(self, waits: Waits) -> None:
        self.counts = Counts()
        self._waits = waits
        self._number: int | None = None
        self._base: float | None = None
        self._begin = self._excused_until = 0.0

    def stall(self, late: float, now: float) -> None:
        """Note how late this process runs."""
        if max(late, self._waits.read(now)) > _STALL:
            self.counts.stalls += 1
            self._excused_until = now + 0.5

    def hear(self, number: int, timestamp: int, size: int, now: float) -> None:
        """Count a packet."""
        counts = self.counts
        place = now - timestamp / 48_000
        if self._number is None:
            self._begin = now
        elif now - self._begin > _SETTLING:
            missed = {"lost": max((number - self._number - 1) % 65_536, 0)}
            if self._base is None or place < self._base:
                self._base = place
            late = place - self._base
            missed["late"] = int(late > LATE)
            missed["silent"] = int(size < SOUND)
            counts.frames += 1
            counts.latest = max(counts.latest, late)
            if late > LATE:  # a jitter buffer waits for the later frames from now on
                self._base = place
            if any(missed.values()) and len(counts.misses) < _EXAMPLES:
                counts.misses.append(f"{missed}, {1000 * late:.0f} ms late")
            for name, count in missed.items():
                where = "excused" if now < self._excused_until else name
                setattr(counts, where, getattr(counts, where) + count)
        self._number = number


class Speaker(MediaStreamTrack):
    """Sends a tone in packets of Opus, in time."""

    kind = "audio"

    def __init__(self, on_late: Callable[[float, float], None]) -> None:
        super().__init__()
        self._payloads = Packets("opus", tone(440, 48_000, 1.0), 48_000).payloads
        self._on_late = on_late
        self._begin: float | None = None
        self.count = 0

    async def recv(self) -> Packet[Any]:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._begin = now if self._begin is None else self._begin
        due = self._begin + self.count * FRAME
        if due > now:
            await asyncio.sleep(due - now)
        self._on_late(loop.time() - due, time.monotonic())
        packet = Packet(self._payloads[self.count % len(self._payloads)])
        packet.pts, packet.time_base = self.count * 960, Fraction(1, 48_000)
        self.count += 1
        return packet


def on_packets(client: AiortcClient, hear: Callable[[Any], None]) -> None:
    """Call a function with each RTP packet of audio that the client receives."""
    (receiver,) = [t.receiver for t in client.pc.getTransceivers() if t.kind == "audio"]
    one: Any = receiver

    async def handle(packet: Any, arrival_time_ms: int) -> None:
        hear(packet)

    one._handle_rtp_packet = handle


def main(url: str, threads: list[str]) -> None:
    hearing = Hearing(Waits(threads))
    with client_loop() as loop:
        client = AiortcClient(loop, None)
        client.microphone = Speaker(hearing.stall)  # type: ignore[assignment]
        offer = client.run(client.make_offer, None, False)
        body = {"type": "offer", "sdp": offer, "webrtc_id": f"control/{secrets.token_hex(16)}"}
        answer = httpx.post(f"{url}/control/webrtc/offer", json=body, timeout=20)
        client.run(client.accept, answer.json()["sdp"])
        assert client.connected.wait(20)
        on_packets(
            client,
            lambda packet: hearing.hear(
                packet.sequence_number, packet.timestamp, len(packet.payload), time.monotonic()
            ),
        )
        ended = threading.Event()
        client.pc.on("connectionstatechange", lambda: _note_end(client, ended))
        print("connected", flush=True)
        for _ in sys.stdin:
            found = {**asdict(hearing.counts), "ended": ended.is_set()}
            print(json.dumps(found), flush=True)
        client.run(client.close)


def _note_end(client: AiortcClient, ended: threading.Event) -> None:
    if client.pc.connectionState in ("closed", "failed"):
        ended.set()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
