"""Connections relayed by coturn on the loopback interface."""

from __future__ import annotations

import shutil
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import numpy as np
import pytest

from fastrtc_anyio import AudioFrame, IceServer, RtcConfiguration, Stream
from fastrtc_anyio._peers.portal import open_portal
from fastrtc_anyio._peers.webrtc import WebRTCPeer
from fastrtc_anyio._signaling.requests import SessionDescription
from fastrtc_anyio.testing import tone
from tests.kit.calls import LOOPBACK, make_stream
from tests.kit.measure import typical_snr
from tests.kit.waiting import SECONDS

pytestmark = pytest.mark.interop

RELAY_PORTS = range(40_000, 40_101)
USER, PASSWORD = "user", "pass"


@asynccontextmanager
async def open_coturn() -> AsyncGenerator[int, None]:
    """Start the TURN server; fail without coturn."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.fail("coturn is missing: apt-get install coturn", pytrace=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        *(program, "-n", "--no-cli", "--no-tls", "--no-dtls", "--log-file", "stdout"),
        *("-L", "127.0.0.1", "-E", "127.0.0.1", "-p", str(port), "--allow-loopback-peers"),
        *(f"--min-port={RELAY_PORTS[0]}", f"--max-port={RELAY_PORTS[-1]}"),
        *("--lt-cred-mech", "-u", f"{USER}:{PASSWORD}", "-r", "test"),
        *("--pidfile", "/dev/null", "--userdb", "/dev/null"),
    ]
    async with await anyio.open_process(command, stdout=-3, stderr=-3) as process:
        try:
            with anyio.fail_after(SECONDS):
                while not await answers(port):
                    assert process.returncode is None, "coturn has ended"
                    await anyio.sleep(0.05)
            yield port
        finally:
            process.terminate()


async def answers(port: int) -> bool:
    try:
        await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
    except OSError:
        return False
    return True


def relay_only(port: int, transport: str = "udp", password: str = PASSWORD) -> RtcConfiguration:
    server = IceServer((f"turn:127.0.0.1:{port}?transport={transport}",), USER, password)
    return RtcConfiguration((server,), "relay")


def candidates(sdp: str) -> list[list[str]]:
    return [line.split() for line in sdp.splitlines() if line.startswith("a=candidate:")]


def check_relayed(sdp: str) -> None:
    found = candidates(sdp)
    assert found
    for candidate in found:
        assert candidate[7] == "relay"
        assert int(candidate[5]) in RELAY_PORTS
        assert candidate[4] == "127.0.0.1"
        assert candidate[9] == "0.0.0.0"  # the related address is not disclosed


async def call(stream: Stream, configuration: RtcConfiguration) -> tuple[str, str]:
    """Place a call, measure the echo of a tone, and return the offer and the answer."""
    async with stream, open_portal() as portal:
        peer = WebRTCPeer(portal, configuration=configuration)
        try:
            offer = await peer.offer()
            began = anyio.current_time()
            reply = await stream.offer({"type": "offer", "sdp": offer.sdp})
            await peer.accept(SessionDescription("answer", reply["sdp"]))
            with anyio.fail_after(SECONDS):
                await peer.wait_connected()
                print(f"connected after {anyio.current_time() - began:.3f} s")
                await peer.audio_out.send((48_000, tone(440, 48_000, 3.0)))
                heard: list[AudioFrame] = []
                while len(heard) < 50:
                    frame = await peer.audio_in.receive()
                    if abs(frame.samples).max() > 3000:
                        heard.append(frame)
            samples = np.concatenate([frame.samples[0] for frame in heard])
            snr = typical_snr(samples, 440, heard[0].sample_rate)
            print(f"the echo has {snr:.1f} dB")
            assert snr > 20
            return offer.sdp, reply["sdp"]
        finally:
            with anyio.CancelScope(shield=True):
                await peer.aclose()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_relay_only_server(transport: str) -> None:
    async with open_coturn() as port:
        asked = []

        async def configure() -> RtcConfiguration:  # per connection: credentials expire
            asked.append(port)
            return relay_only(port, transport)

        _, answer = await call(make_stream(server_rtc_configuration=configure), LOOPBACK)
        check_relayed(answer)
        assert asked == [port]


async def test_relay_only_client() -> None:
    async with open_coturn() as port:
        offer, answer = await call(make_stream(server_rtc_configuration=LOOPBACK), relay_only(port))
        check_relayed(offer)
        assert {candidate[7] for candidate in candidates(answer)} == {"host"}


async def test_relay_only_client_and_server() -> None:
    async with open_coturn() as port:
        servers = [{"urls": f"turn:127.0.0.1:{port}", "username": USER, "credential": PASSWORD}]
        w3c = {"iceServers": servers, "iceTransportPolicy": "relay"}
        offer, answer = await call(
            make_stream(server_rtc_configuration=lambda: w3c), relay_only(port)
        )
        check_relayed(offer)
        check_relayed(answer)


async def test_rejected_turn_credentials_raise_error() -> None:
    async with open_coturn() as port, open_portal() as portal:
        peer = WebRTCPeer(portal, configuration=LOOPBACK)
        offer = await peer.offer()
        body = {"type": "offer", "sdp": offer.sdp}
        wrong = relay_only(port, password="wrong")
        async with make_stream(server_rtc_configuration=wrong) as stream:
            with pytest.raises(Exception, match="no relayed candidate: the TURN server refused"):
                await stream.offer(body)
            assert stream.active == 0
        await peer.aclose()
