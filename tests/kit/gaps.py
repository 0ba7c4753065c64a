"""The longest gap in a call, while others do something to its server.

The server and the caller are separate processes, so that the work of an attacker, in the
process of the test, delays neither by Python's lock.

``python -m tests.kit.gaps serve asyncio|trio`` serves an echo at ``/``, video at ``/video`` and
prints its URL. ``python -m tests.kit.gaps listen URL`` calls it, sends a tone, and answers each
line on its standard input with the longest gap since the line before.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import Any

import anyio
import httpx
import numpy as np
from starlette.applications import Starlette

from fastrtc_anyio import Limits, RequestLimits, Stream, TelephoneOptions, Textbox
from fastrtc_anyio.server.launch import open_server
from fastrtc_anyio.testing import tone

from .aiortc_client import AiortcClient, Microphone, client_loop
from .calls import LOOPBACK
from .handlers import AsyncEcho

LIMIT = 0.06
"""Seconds that a gap may be longer than without the attack."""
ATTEMPTS = 4
"""Attempts on a busy machine until one leaves no gap. A stall leaves one each time."""
_SETTLED = 0.15
"""Seconds after an attack that belong to it: longer than a frame and its delay."""
_SOUND = 20
"""Bytes of an encoded frame of the tone, at least; silence has three."""


class Target:
    """A server with a live call."""

    def __init__(self, url: str, caller: Popen[str]) -> None:
        self.url = url
        self._caller = caller

    def measure(self, attack: Callable[[], object]) -> tuple[float, float]:
        """Return the longest gap in seconds during an attack, and in as much time before it."""
        self._ask()
        began = time.monotonic()
        attack()
        time.sleep(_SETTLED)
        lasted = time.monotonic() - began
        attacked = self._ask()
        time.sleep(min(max(lasted, 0.3), 1.0))
        return attacked, self._ask()

    def find_gap(self, attack: Callable[[], object]) -> float:
        """Return by how many seconds an attack lengthens the longest gap, in the best attempts."""
        attacked, quiet = self.measure(attack)
        for _ in range(ATTEMPTS - 1):
            if attacked - quiet <= LIMIT:
                break
            attacked_again, quiet_again = self.measure(attack)
            attacked, quiet = min(attacked, attacked_again), min(quiet, quiet_again)
        return attacked - quiet

    def _ask(self) -> float:
        assert self._caller.stdin is not None
        assert self._caller.stdout is not None
        self._caller.stdin.write("\n")
        self._caller.stdin.flush()
        answer = self._caller.stdout.readline()
        assert answer, "the call has ended"
        return float(answer)


@contextmanager
def open_target(backend: str) -> Generator[Target, None, None]:
    """Start a server and call it."""
    with _run("serve", backend) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        with _run("listen", url) as caller:
            assert caller.stdout is not None
            assert caller.stdout.readline() == "connected\n"
            yield Target(url, caller)


@contextmanager
def _run(*arguments: str) -> Generator[Popen[str], None, None]:
    command = [sys.executable, "-m", "tests.kit.gaps", *arguments]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def _serve() -> None:
    shared: dict[str, Any] = {
        "concurrency_limit": None,
        "server_rtc_configuration": LOOPBACK,
        # All clients have the same address.
        "request_limits": RequestLimits(client_requests=100_000, client_sessions=1000),
        "limits": Limits(lag=None),
        "verbose": False,
    }
    audio = Stream(
        AsyncEcho,
        modality="audio",
        additional_inputs=[Textbox("Name")],
        telephone=TelephoneOptions(),
        **shared,
    )
    video = Stream(lambda frame: frame[:64, :64], modality="video", **shared)
    app = Starlette()
    audio.mount(app)
    video.mount(app, path="/video")
    async with open_server(app) as url:
        print(url, flush=True)
        await anyio.sleep_forever()


def _listen(url: str) -> None:
    arrivals: list[float] = []
    with client_loop() as loop:
        microphone = Microphone()
        client = AiortcClient(loop, microphone)
        offer = client.run(client.make_offer, None, False)
        body = {"type": "offer", "sdp": offer, "webrtc_id": "victim"}
        answer = httpx.post(f"{url}/webrtc/offer", json=body, timeout=20)
        client.run(client.accept, answer.json()["sdp"])
        assert client.connected.wait(20)
        (transceiver,) = client.pc.getTransceivers()
        receiver: Any = transceiver.receiver
        handle = receiver._handle_rtp_packet

        async def handle_rtp_packet(packet: Any, arrival_time_ms: int) -> None:
            if len(packet.payload) > _SOUND:
                arrivals.append(time.monotonic())
            await handle(packet, arrival_time_ms)

        receiver._handle_rtp_packet = handle_rtp_packet
        samples = tone(440.0, 48_000, 1.0)
        asyncio.run_coroutine_threadsafe(_speak(microphone, samples), loop)
        while len(arrivals) < 50:
            time.sleep(0.02)
        print("connected", flush=True)
        for _ in sys.stdin:
            now = time.monotonic()
            heard = [*arrivals, now]
            gaps = np.diff(heard)
            print(float(gaps.max()) if len(gaps) else 0.0, flush=True)
            del arrivals[:-1]


async def _speak(microphone: Microphone, samples: Any) -> None:
    while True:
        for start in range(0, samples.shape[1], 960):
            microphone.frames.put(samples[:, start : start + 960])
        while microphone.frames.qsize() > 25:
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        anyio.run(_serve, backend=sys.argv[2])
    else:
        _listen(sys.argv[2])
