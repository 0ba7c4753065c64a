"""Datagrams of strangers, and malformed ones of the client, in every phase of a call."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from time import sleep
from typing import Any

import anyio
import httpx
import pytest
from anyio import to_thread

from fastrtc_anyio import Stream
from fastrtc_anyio._peers.webrtc import WebRTCPeer
from tests.kit.aiortc_client import AiortcClient, client_loop, open_client
from tests.kit.calls import accept, make_offer, make_stream, only_session, place_call
from tests.kit.datagrams import OPUS
from tests.kit.gaps import LIMIT, open_target
from tests.kit.handlers import AsyncEcho
from tests.kit.measure import echo_of_tones
from tests.kit.network import open_network
from tests.kit.strange_datagrams import Credentials, authentic_oddities, check, strange_datagrams
from tests.kit.waiting import wait_until

CHECK = b"\0\1"
_REPEAT = 0.05
"""Seconds between two rounds of a stranger that does not stop."""


@dataclass
class Target:
    """The socket of a call, and what an observer of the network knows."""

    address: tuple[str, int]
    credentials: Credentials

    @property
    def strange(self) -> list[bytes]:
        return list(strange_datagrams(self.credentials).values())

    @property
    def without_dtls(self) -> list[bytes]:
        """Datagrams that a client may send before the handshake has ended.

        OpenSSL takes a plaintext record for the client's until then.
        """
        return [one for one in self.strange if not 20 <= (one or b"\0")[0] < 64]


def find_target(client: AiortcClient, answer: str, offer: str) -> Target:
    def find(pattern: str, sdp: str) -> str:
        found = re.search(pattern, sdp)
        assert found is not None
        return found[1]

    host, port = re.findall(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+)", answer)[0]
    user = r"a=ice-ufrag:(\S+)"
    credentials = Credentials(
        find(user, answer), find(r"a=ice-pwd:(\S+)", answer), find(user, offer)
    )
    return Target((host, int(port)), credentials)


def send_from_client(client: AiortcClient, target: Target, datagrams: Iterable[bytes]) -> None:
    """Send from the socket of the client. Blocks."""

    async def send() -> None:
        (transport,) = {t.sender.transport.transport for t in client.pc.getTransceivers()}
        protocol = transport._connection._protocols[0]
        for datagram in datagrams:
            if protocol.transport.is_closing():  # the server has ended the call
                return
            protocol.transport.sendto(datagram, target.address)
            await asyncio.sleep(0.001)  # a full socket buffer drops datagrams

    client.run(send)


@contextmanager
def strangers(target: Target) -> Generator[Callable[[], None], None, None]:
    """Yield a function that sends each strange datagram from two addresses.

    Fails if any of them is answered. A server that has lost its client may send checks.
    """
    with (
        socket.socket(type=socket.SOCK_DGRAM) as near,
        socket.socket(type=socket.SOCK_DGRAM) as far,
    ):
        near.bind(("127.0.0.1", 0))
        far.bind(("127.0.0.9", 0))

        def send() -> None:
            for sender in (near, far):
                for number, datagram in enumerate(target.strange):
                    sender.sendto(datagram, target.address)
                    if number % 20 == 0:
                        threading.Event().wait(0.001)

        yield send
        for sender in (near, far):
            sender.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    assert sender.recv(100).startswith(CHECK)


@asynccontextmanager
async def flooding(target: Target) -> AsyncGenerator[None, None]:
    """Let strangers send continuously while the block runs."""
    stop = threading.Event()

    def flood() -> None:
        with strangers(target) as send:
            while not stop.wait(_REPEAT):
                send()

    async with anyio.create_task_group() as tg:
        tg.start_soon(to_thread.run_sync, flood)
        try:
            yield
        finally:
            stop.set()


@asynccontextmanager
async def answered() -> AsyncGenerator[tuple[Stream, AiortcClient, Target], None]:
    """A call whose offer is answered, and whose client has not yet received the answer."""
    stream = make_stream(AsyncEcho())
    async with stream, open_client() as client:
        offer = await make_offer(client)
        client.answer = await stream.offer({"type": "offer", "sdp": offer, "webrtc_id": "x"})
        yield stream, client, find_target(client, client.answer["sdp"], offer)


async def connect(client: AiortcClient) -> None:
    await accept(client, client.answer["sdp"])
    await wait_until(client.connected.is_set, "the connection")


async def check_call(stream: Stream, client: AiortcClient) -> None:
    assert min(await echo_of_tones(client, [440])) > 15
    assert only_session(stream).closed is None


def check_log(caplog: pytest.LogCaptureFixture) -> None:
    assert "Traceback" not in caplog.text
    assert "Task " not in caplog.text
    assert [r.message for r in caplog.records if r.levelno >= logging.ERROR] == []


async def test_strangers_before_the_client_checks(caplog: pytest.LogCaptureFixture) -> None:
    async with answered() as (stream, client, target):
        with strangers(target) as send:
            await to_thread.run_sync(send)
            # The client has answered a check: it is established.
            await to_thread.run_sync(send_from_client, client, target, target.without_dtls)
            await connect(client)
            await check_call(stream, client)
            assert only_session(stream).statistics().discarded.datagrams == 0
    check_log(caplog)


async def test_strangers_while_the_client_checks(caplog: pytest.LogCaptureFixture) -> None:
    async with answered() as (stream, client, target):
        authentic = [check(target.credentials), *authentic_oddities(target.credentials).values()]
        await to_thread.run_sync(send_from_client, client, target, authentic)
        with strangers(target) as send:
            await to_thread.run_sync(send)
            await to_thread.run_sync(send_from_client, client, target, target.without_dtls)
            await connect(client)
            await check_call(stream, client)
    check_log(caplog)


async def test_strangers_during_the_handshake(caplog: pytest.LogCaptureFixture) -> None:
    async with answered() as (stream, client, target):
        (transport,) = {t.sender.transport for t in client.pc.getTransceivers()}
        begin, start = threading.Event(), transport.start

        async def start_later(*args: Any) -> None:
            await asyncio.get_running_loop().run_in_executor(None, begin.wait)
            await start(*args)

        transport.start = start_later  # type: ignore[method-assign, assignment]
        await accept(client, client.answer["sdp"])
        peer = only_session(stream).peer
        assert isinstance(peer, WebRTCPeer)
        pc = peer._connection._pc
        assert pc is not None
        dtls = pc.getTransceivers()[0].sender.transport
        await wait_until(lambda: dtls.state == "connecting", "the handshake")
        with strangers(target) as send:
            for _ in range(3):
                await to_thread.run_sync(send)
            await to_thread.run_sync(send_from_client, client, target, target.without_dtls)
            begin.set()
            await wait_until(client.connected.is_set, "the connection")
            await check_call(stream, client)
    check_log(caplog)


async def test_strange_datagrams_in_a_call_affect_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with answered() as (stream, client, target):
        await connect(client)
        with strangers(target) as send:
            for _ in range(2):
                await to_thread.run_sync(send)
                # Also those that would end the handshake: it is over.
                own = [*target.strange, *authentic_oddities(target.credentials).values()]
                await to_thread.run_sync(send_from_client, client, target, own)
                await check_call(stream, client)
    check_log(caplog)


async def make_odd_packets(client: AiortcClient) -> list[bytes]:
    """Return packets of the source of the client's audio: replayed, forged and malformed ones."""
    (sender,) = client.pc.getSenders()
    transport: Any = sender.transport
    sent: list[bytes] = []
    send = transport.transport._send

    async def record(data: bytes) -> None:
        sent.append(data)
        await send(data)

    transport.transport._send = record
    while not (sent and sent[-1][0] & 0xC0 == 0x80 and sent[-1][1] & 0x7F == OPUS):
        await asyncio.sleep(0.01)
    transport.transport._send = send
    last = sent[-1]
    replayed = [last] * 3
    forged = [
        *(last[:size] for size in (12, 13, 20, len(last) // 2, len(last) - 1)),
        *(last.ljust(size, b"\xff") for size in (1500, 1501, 9000)),
        *(bytes([first]) + last[1:] for first in (0x8F, 0x90, 0xA0, 0xBF)),
        last[:1] + bytes([last[1] ^ 1]) + last[2:],
        last[:2] + bytes(6) + last[8:],
        last[:-1] + bytes([last[-1] ^ 1]),
    ]
    malformed = []
    for number, (first, rest) in enumerate(MALFORMED):
        late = int.from_bytes(last[2:4]) - 300 - number  # no number that the client has used
        header = bytes([first, last[1]]) + (late % 65_536).to_bytes(2) + last[4:12]
        malformed.append(transport._tx_srtp.protect(header + rest))
    return replayed + forged + malformed


MALFORMED = [
    (0x80, b""),
    (0xA0, bytes(20)),
    (0xA0, bytes(20) + b"\xff"),
    (0x90, b"\xbe\xde\0\1\x1f\xff\xff\xff" + bytes(20)),
    (0x90, b"\x10\0\0\1\1\xff\xff\xff" + bytes(20)),
]
"""First bytes of packets, and what follows their headers: padding and extensions of wrong sizes."""


async def test_odd_audio_packets_of_a_call_affect_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with answered() as (stream, client, target):
        await connect(client)
        await check_call(stream, client)
        for _ in range(2):
            packets = await to_thread.run_sync(client.run, make_odd_packets, client)
            await to_thread.run_sync(send_from_client, client, target, packets)
            await check_call(stream, client)
        assert only_session(stream).statistics().discarded.datagrams == 0
    check_log(caplog)


async def test_strangers_while_a_call_closes(caplog: pytest.LogCaptureFixture) -> None:
    async with answered() as (stream, client, target):
        await connect(client)
        await check_call(stream, client)
        session = only_session(stream)
        async with flooding(target):
            own = target.strange * 3
            async with anyio.create_task_group() as tg:
                tg.start_soon(to_thread.run_sync, send_from_client, client, target, own)
                stream.update_connection(session.id, "closed")
                await wait_until(lambda: session.id not in stream.sessions, "the end")
        assert session.closed is not None
    check_log(caplog)


async def test_restart_leaves_the_guard_in_place() -> None:
    """Old and new paths pass data while both are used, and strangers' data never."""
    stream = make_stream(AsyncEcho)
    async with stream, place_call(stream) as client:
        for _ in range(2):
            sdp = await to_thread.run_sync(client.run, client.offer_restart)
            answer = await stream.offer(
                {"type": "offer", "sdp": sdp, "webrtc_id": only_session(stream).alias}
            )
            target = find_target(client, answer["sdp"], sdp)
            with strangers(target) as send:
                await to_thread.run_sync(send)
                await to_thread.run_sync(client.run, client.accept_restart, answer["sdp"])
                await to_thread.run_sync(send)
                await check_call(stream, client)
        assert only_session(stream).statistics().discarded.datagrams == 0


async def test_call_follows_its_client_while_strangers_send() -> None:
    with open_network() as network:
        stream = make_stream(AsyncEcho)
        async with stream, place_call(stream, network=network) as client:
            assert client.pc.localDescription is not None
            target = find_target(client, client.answer["sdp"], client.pc.localDescription.sdp)
            async with flooding(target):
                for _ in range(2):
                    network.rebind()
                    before = network.media["down"]
                    with anyio.fail_after(8):  # the client's own checks take up to 6 s
                        while network.media["down"] < before + 10:
                            await anyio.sleep(0.01)
                    await check_call(stream, client)


FLOOD = """
import socket, sys, time
address, rate, seconds = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3]), float(sys.argv[4])
datagrams = [bytes.fromhex(line) for line in sys.stdin.read().split()]
senders = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(16)]
for number, sender in enumerate(senders):
    sender.bind((f"127.0.0.{2 + number}", 0))
began, count = time.monotonic(), 0
while (passed := time.monotonic() - began) < seconds:
    while count < passed * rate:
        senders[count % 16].sendto(datagrams[count % len(datagrams)], address)
        count += 1
    time.sleep(0.001)
"""


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["strange", "authentic"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_flood_of_one_call_leaves_no_gap_in_another(backend: str, kind: str) -> None:
    """20,000 datagrams a second from strangers, or 1,200 checks that are authentic."""
    with open_target(backend) as server, client_loop() as loop:
        client = AiortcClient(loop, None)
        offer = client.run(client.make_offer, None, False)
        body = {"type": "offer", "sdp": offer, "webrtc_id": "flooded"}
        answer = httpx.post(f"{server.url}/webrtc/offer", json=body).json()["sdp"]
        client.run(client.accept, answer)
        assert client.connected.wait(20)
        target = find_target(client, answer, offer)
        if kind == "strange":
            rate, datagrams = 20_000, [one for one in target.strange if one]
        else:
            rate, datagrams = 1_200, [check(target.credentials) for _ in range(500)]
        command = [sys.executable, "-c", FLOOD, *map(str, (*target.address, rate, 2.0))]
        lines = "\n".join(one.hex() for one in datagrams if len(one) <= 1500)
        gap = server.find_gap(lambda: subprocess.run(command, input=lines, text=True, check=True))
        assert gap <= LIMIT
        heard = client.heard.qsize()
        sleep(1.0)
        assert client.heard.qsize() > heard + 25
        client.run(client.close)
