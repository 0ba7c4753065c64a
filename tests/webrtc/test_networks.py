"""Calls over networks that are slow, lose datagrams, fail for a while, or change."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import anyio
import numpy as np
from aiortc import MediaStreamTrack
from av import Packet

from fastrtc_anyio import Session
from fastrtc_anyio.abc import AudioInStatistics
from fastrtc_anyio.testing import LinkFaults
from tests.kit.aiortc_client import AiortcClient
from tests.kit.calls import make_stream, only_session, place_call
from tests.kit.loss import Packets, read_speech, spectral_distance
from tests.kit.network import Network, open_network
from tests.kit.waiting import wait_until


async def test_network_delays_and_loses_datagrams_as_configured() -> None:
    with open_network(delay=0.02, seed=3) as network:
        async with make_stream() as stream, place_call(stream, network=network) as client:
            client.send_message("hello")
            await wait_until(lambda: network.media["down"] > 20, "sound")
            network.loss, network.burst = 0.2, 3
            before = network.passed["up"], network.lost["up"]
            await wait_until(lambda: network.passed["up"] > before[0] + 50, "sound")
            assert network.lost["up"] > before[1]
            network.outage = True
            await anyio.sleep(0.05)
            passed = network.passed["down"]
            await anyio.sleep(0.1)
            assert network.passed["down"] == passed


def test_network_duplicates_reorders_and_limits_datagrams() -> None:
    with open_network(seed=3) as network, udp_socket() as server, udp_socket() as client:
        line = f"a=candidate:1 1 udp 1 127.0.0.1 {server.getsockname()[1]} typ host"
        (_, _, _, _, _, port, *_) = network.hide_server(line).split()

        def send(count: int) -> list[int]:
            for number in range(count):
                client.sendto(bytes([number]) * 100, ("127.0.0.1", int(port)))
            arrived = []
            with suppress(TimeoutError):
                while True:
                    arrived.append(server.recv(1000)[0])
            return arrived

        network.duplicates = 1.0
        assert sorted(send(10)) == sorted([*range(10), *range(10)])
        network.duplicates, network.detours = 0.0, 0.5
        arrived = send(10)
        assert arrived != sorted(arrived) == list(range(10))
        network.detours, network.rate = 0.0, 8000.0
        arrived = send(20)
        assert arrived[:3] == [0, 1, 2], "one takes 0.1 s, and the queue has 0.2 s"
        assert len(arrived) < 20


@contextmanager
def udp_socket() -> Generator[socket.socket, None, None]:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(0.5)
        yield sock


class Speaker(MediaStreamTrack):
    """Sends packets of Opus, one every 20 ms. The last one is repeated."""

    kind = "audio"

    def __init__(self, payloads: list[bytes]) -> None:
        super().__init__()
        self.payloads = payloads
        self.count = 0

    async def recv(self) -> Packet[Any]:
        self.count += 1
        await asyncio.sleep(0.02)
        packet = Packet(self.payloads[min(self.count, len(self.payloads)) - 1])
        packet.pts, packet.time_base = self.count * 960, Fraction(1, 48_000)
        return packet


@dataclass
class Recording:
    """A call over a network, to a server that records it."""

    network: Network
    client: AiortcClient
    session: Session
    heard: list[Any]
    """Samples of each frame, one channel."""

    def statistics(self) -> AudioInStatistics:
        found = self.session.statistics().audio_in
        assert found is not None
        return found


@asynccontextmanager
async def record() -> AsyncGenerator[Recording, None]:
    heard: list[Any] = []

    async def listen(session: Session) -> None:
        async for frame in session.audio_in:
            heard.append(frame.samples[0])

    with open_network(seed=5) as network:
        async with make_stream(listen) as stream, place_call(stream, network=network) as client:
            yield Recording(network, client, only_session(stream), heard)


async def test_lost_speech_is_recovered_from_redundancy() -> None:
    """Opus at 24 kbit/s with FEC through 10 % loss, as a browser sends it."""
    packets = Packets("opus+fec", read_speech())
    speaker = Speaker(packets.payloads)
    async with record() as call:
        call.network.loss = 0.1

        async def speak() -> None:
            call.client.pc.getSenders()[0].replaceTrack(speaker)

        call.client.run(speak)
        await wait_until(lambda: speaker.count > len(packets.payloads) + 20, "speech")
        audio = call.statistics()
    assert audio.lost > 10
    made_up = audio.concealed_seconds + audio.recovered_seconds
    assert abs(made_up - audio.lost * 0.02) < 0.2, "lost packets, but for those in a row"
    assert audio.recovered_seconds > made_up / 3
    # The recording is close to the speech, and in step with it to the end.
    sound = np.concatenate(call.heard)
    said = packets.transmit(LinkFaults()).samples
    begin = int(np.argmax(np.correlate(sound[::8].astype(float), said[::8].astype(float)))) * 8
    distance = spectral_distance(sound[begin : begin + said.size], said, 48_000)
    assert np.nanmean(distance) < 6


async def test_audio_continues_without_delay_after_an_outage() -> None:
    """The outage is a gap, of which only the beginning is concealed."""
    async with record() as call:
        for _ in range(150):
            call.client.microphone.frames.put(np.full((1, 960), 4000, np.int16))
        await wait_until(lambda: len(call.heard) > 25, "sound")
        call.network.outage = True
        await anyio.sleep(1)
        call.network.outage = False
        count = len(call.heard)
        await wait_until(lambda: len(call.heard) > count + 60, "sound after the outage")
        audio = call.statistics()
    assert 40 <= audio.lost <= 60
    assert audio.concealed_seconds <= 0.081
    assert 0.7 < audio.silence_seconds < 1.1
