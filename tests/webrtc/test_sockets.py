"""The sockets of an ICE transport behind their guard: aioice without a network, on virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, cast

import pytest
from aioice import Candidate, ice, mdns, stun
from aiortc import RTCCertificate, RTCIceCandidate, RTCIceGatherer, RTCIceTransport
from aiortc.rtcdtlstransport import RTCDtlsTransport

from fastrtc_anyio import AddressPolicy, RtcConfiguration
from fastrtc_anyio._peers.discards import Discards
from fastrtc_anyio._peers.webrtc.consent import Clock
from fastrtc_anyio._peers.webrtc.guard import Admission
from fastrtc_anyio._peers.webrtc.ice_path import IcePath
from fastrtc_anyio._peers.webrtc.network import choose_addresses
from fastrtc_anyio._signaling.restart import IceCredentials
from tests.kit.strange_datagrams import (
    Credentials,
    authentic_oddities,
    check,
    rtp,
    strange_datagrams,
)
from tests.kit.virtual_asyncio import VirtualLoop

CLIENT = ("10.0.0.9", 5000)
STRANGER = ("10.0.0.66", 5000)
REMOTE = IceCredentials("remo", "r" * 24)
RESTARTED = IceCredentials("new1", "n" * 24), IceCredentials("serv", "s" * 24)
MEDIA = rtp(200)


class Wire(asyncio.DatagramTransport):
    """Records what a socket sends."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[bytes, Any]] = []

    def sendto(self, data: Any, addr: Any = None) -> None:
        self.sent.append((bytes(data), addr))


class Setup:
    """A path with a socket and a relay, whose client has sent its description."""

    def __init__(self, limit: int = 8, policy: AddressPolicy | None = None) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.ice = RTCIceTransport(RTCIceGatherer([]))
        self.dtls = RTCDtlsTransport(self.ice, [RTCCertificate.generateCertificate()])
        self.discards = Discards()
        self.clock = Clock()
        admission = Admission(self.clock, policy or AddressPolicy(), limit)
        self.path = IcePath(self.dtls, [], self.clock, admission, self.spawn, self.discards)
        self.sockets = self.path.sockets
        self.connection: Any = self.ice._connection
        self.connection.remote_username = REMOTE.ufrag
        self.connection.remote_password = REMOTE.password
        self.connection._local_candidates_end = True
        self.socket, self.relay = self.open("host", "10.0.0.1"), self.open("relay", "203.0.113.1")
        self.sockets.watch_all()
        self.credentials = self.credentials_of(self.connection)

    def open(self, kind: str, host: str) -> Any:
        protocol: Any = ice.StunProtocol(self.connection)
        protocol.transport = Wire()
        protocol.local_candidate = Candidate(kind, 1, "udp", 1, host, 4000, kind)
        self.connection._protocols.append(protocol)
        return protocol

    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> None:
        self.tasks.add(asyncio.get_running_loop().create_task(coroutine))

    def credentials_of(self, connection: Any) -> Credentials:
        return Credentials(
            connection.local_username, connection.local_password, connection.remote_username
        )

    async def connect(self) -> None:
        """Begin to check, as aiortc does."""
        self.spawn(self.connection.connect())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def received(self) -> list[bytes]:
        """Return what aiortc can read."""
        found = []
        try:
            while True:
                found.append(await asyncio.wait_for(self.ice._recv(), 0.001))
        except TimeoutError:
            return found

    async def end(self) -> None:
        for protocol in self.connection._protocols:
            protocol.connection_lost(None)
        self.connection._protocols.clear()
        await self.connection.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)


def answer_checks(setup: Setup, protocol: Any, password: str, source: Any = None) -> None:
    """Answer all checks that a socket has sent, from their destinations."""
    sent, protocol.transport.sent = protocol.transport.sent, []
    for data, to in sent:
        request = stun.parse_message(data)
        if request.message_class == stun.Class.REQUEST:
            reply = stun.Message(
                stun.Method.BINDING, stun.Class.RESPONSE, transaction_id=request.transaction_id
            )
            reply.attributes["XOR-MAPPED-ADDRESS"] = ("10.0.0.1", 4000)
            reply.add_message_integrity(password.encode())
            protocol.datagram_received(bytes(reply), source or to)


def test_nothing_of_a_stranger_is_read_or_answered() -> None:
    async def main() -> None:
        setup = Setup()
        for phase in range(2):
            for protocol in (setup.socket, setup.relay):
                for data in strange_datagrams(setup.credentials).values():
                    protocol.datagram_received(data, STRANGER)
                assert protocol.transport.sent == []
            assert await setup.received() == []
            if phase == 0:
                await setup.connect()
        assert setup.discards.statistics().datagrams == 0
        await setup.end()

    run(main())


@pytest.mark.parametrize("used", ["socket", "relay"])
def test_authentic_check_opens_its_origin_alone(used: str) -> None:
    async def main() -> None:
        setup = Setup()
        await setup.connect()
        mine, other = setup.socket, setup.relay
        if used == "relay":
            mine, other = other, mine
        mine.datagram_received(MEDIA, CLIENT)
        mine.datagram_received(check(setup.credentials), CLIENT)
        assert mine.transport.sent  # the answer
        mine.datagram_received(MEDIA, CLIENT)
        other.datagram_received(MEDIA, CLIENT)
        mine.datagram_received(MEDIA, STRANGER)
        mine.datagram_received(MEDIA, (CLIENT[0], 9))
        assert await setup.received() == [MEDIA]
        assert setup.sockets.origin == (mine, CLIENT)
        await setup.end()

    run(main())


def test_answer_to_a_check_opens_its_origin() -> None:
    """As of a client that implements ICE lite, which sends no checks."""

    async def main() -> None:
        setup = Setup()
        await setup.path.add_candidate(candidate(CLIENT[0], CLIENT[1]))
        await setup.connect()
        await asyncio.sleep(0.1)
        for password, source in (("x" * 24, None), (REMOTE.password, STRANGER)):
            answer_checks(setup, setup.socket, password, source)
            setup.socket.datagram_received(MEDIA, source or CLIENT)
            assert await setup.received() == []
            await asyncio.sleep(1)
        answer_checks(setup, setup.socket, REMOTE.password)
        setup.socket.datagram_received(MEDIA, CLIENT)
        assert await setup.received() == [MEDIA]
        await setup.end()

    run(main())


def test_odd_authentic_checks_affect_nothing_else() -> None:
    async def main() -> None:
        setup = Setup()
        await setup.connect()
        for data in authentic_oddities(setup.credentials).values():
            setup.socket.datagram_received(data, CLIENT)
        for message in (check(setup.credentials, nominate=True), check(setup.credentials)):
            setup.socket.datagram_received(message, CLIENT)
        await asyncio.sleep(0.1)
        answer_checks(setup, setup.socket, REMOTE.password)
        await asyncio.sleep(0.1)
        assert setup.sockets.agent.selected == (setup.socket, CLIENT)
        await setup.end()

    run(main())


def test_learned_addresses_are_limited() -> None:
    async def main() -> None:
        setup = Setup(limit=8)
        for port in (1, 2):
            await setup.path.add_candidate(candidate("10.0.0.9", port))
        for phase in range(2):
            for port in range(1, 100):
                setup.socket.datagram_received(check(setup.credentials), ("10.0.0.9", port))
                await asyncio.sleep(0.02)
            if phase == 0:
                await setup.connect()
        pairs = setup.connection._check_list
        assert len({pair.remote_addr for pair in pairs}) == 8
        answered = {to for data, to in setup.socket.transport.sent if data[:2] == b"\1\1"}
        assert len(answered) == 8
        await setup.end()

    run(main())


def test_paths_of_a_restart_replace_the_former_ones() -> None:
    async def main() -> None:
        setup = Setup()
        other = ("10.0.0.9", 5001)
        setup.spawn(setup.ice._connection.connect())  # replaced by the path
        await asyncio.sleep(0.1)
        for address in (CLIENT, other):
            setup.socket.datagram_received(check(setup.credentials, nominate=True), address)
            answer_checks(setup, setup.socket, REMOTE.password)
            await asyncio.sleep(0.1)
        setup.path.restart(*RESTARTED)
        await asyncio.sleep(0.1)
        remote, local = RESTARTED
        renewed = Credentials(local.ufrag, local.password, remote.ufrag)
        moved = ("192.168.7.7", 6000)
        setup.socket.datagram_received(check(renewed), moved)
        assert setup.ice._connection is setup.connection
        for address in (CLIENT, other, moved, STRANGER):
            setup.socket.datagram_received(MEDIA, address)
        assert len(await setup.received()) == 3  # until the new path is used
        setup.socket.datagram_received(check(renewed, nominate=True), moved)
        answer_checks(setup, setup.socket, remote.password)
        await asyncio.sleep(0.5)
        assert setup.ice._connection is not setup.connection
        for address in (CLIENT, other, moved, STRANGER):
            setup.socket.datagram_received(MEDIA, address)
        assert len(await setup.received()) == 2  # what the selected ones have under way
        setup.connection = setup.ice._connection
        await setup.end()

    run(main())


@pytest.mark.parametrize("error", [ValueError("too long"), IndexError(), OSError(5, "io")])
def test_exception_of_a_library_costs_one_datagram(error: Exception) -> None:
    async def main() -> None:
        setup = Setup()
        await setup.connect()
        setup.socket.datagram_received(check(setup.credentials), CLIENT)
        for _ in range(3):
            setup.socket.datagram_received(MEDIA, CLIENT)
        seen = []

        class Srtp:
            def unprotect(self, data: bytes) -> bytes:
                seen.append(data)
                raise error

        dtls = cast(Any, setup.dtls)
        dtls._rx_srtp = Srtp()
        dtls._RTCDtlsTransport__handshake_done = True
        for _ in range(3):
            await dtls._recv_next()
        assert seen == [MEDIA] * 3
        assert setup.discards.statistics().datagrams == 3
        await setup.end()
        with pytest.raises(ConnectionError):
            await dtls._recv_next()

    run(main())


def test_failure_without_a_datagram_ends_the_transport() -> None:
    """Otherwise aiortc's loop would call for ever."""

    async def main() -> None:
        setup = Setup()
        dtls = cast(Any, setup.dtls)
        with pytest.raises(AttributeError):  # there is no DTLS yet
            await dtls._recv_next()
        await setup.end()

    run(main())


def test_queue_of_datagrams_is_bounded() -> None:
    async def main() -> None:
        setup = Setup()
        await setup.connect()
        setup.socket.datagram_received(check(setup.credentials), CLIENT)
        for _ in range(1500):
            setup.socket.datagram_received(MEDIA, CLIENT)
        assert len(await setup.received()) == 1024
        assert setup.discards.statistics().datagrams == 1500 - 1024
        await setup.end()
        with pytest.raises(ConnectionError):
            await setup.ice._recv()

    run(main())


def test_burst_of_datagrams_is_interrupted_for_other_connections() -> None:
    async def main() -> None:
        setup = Setup()
        await setup.connect()
        setup.socket.datagram_received(check(setup.credentials), CLIENT)
        for _ in range(1000):
            setup.socket.datagram_received(MEDIA, CLIENT)
        turns: list[int] = []

        async def read() -> None:
            for _ in range(1000):
                await setup.ice._recv()
            turns.append(-1)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            while -1 not in turns:
                turns.append(len(turns))
                await asyncio.sleep(0)
        assert len(turns) > 100
        await setup.end()

    run(main())


def test_stranger_that_knows_the_user_name_does_not_starve_answers() -> None:
    async def main() -> None:
        setup = Setup()
        forged = replace(setup.credentials, password="x" * 22)
        await setup.path.add_candidate(candidate(*CLIENT))
        await setup.connect()
        await asyncio.sleep(0.1)
        for _ in range(500):
            setup.socket.datagram_received(check(forged), STRANGER)
        answer_checks(setup, setup.socket, REMOTE.password)
        setup.socket.datagram_received(MEDIA, CLIENT)
        assert await setup.received() == [MEDIA]
        await setup.end()

    run(main())


def candidate(host: str, port: int) -> RTCIceCandidate:
    return RTCIceCandidate(1, "1", host, port, 1, "udp", "host")


REFUSED = [
    ("224.0.0.1", 5353),
    ("255.255.255.255", 9),
    ("0.0.0.0", 9),
    ("::ffff:224.0.0.1", 9),
    ("169.254.169.254", 80),
    ("fe80::1", 80),
    ("127.0.0.1", 9),
    ("10.0.0.1", 0),
]


def test_refused_candidates_are_never_checked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether they are written in the candidate, or behind its name."""
    names = {f"name{number}.local": host for number, (host, _) in enumerate(REFUSED)}

    class Resolver:
        async def resolve(self, name: str) -> str:
            return names[name]

        async def close(self) -> None:
            pass

    async def get(subscriber: object) -> Any:
        return Resolver()

    monkeypatch.setattr(ice, "get_or_create_mdns_protocol", get)

    async def main() -> None:
        setup = Setup()
        for named, (host, port) in zip(names, REFUSED, strict=True):
            await setup.path.add_candidate(candidate(host, port))
            await setup.path.add_candidate(candidate(named, port))
        await setup.path.add_candidate(candidate("10.0.0.7", 7))
        await setup.connect()
        await asyncio.sleep(60)
        for protocol in (setup.socket, setup.relay):
            assert {to for _, to in protocol.transport.sent} == {("10.0.0.7", 7)}
        for host, port in REFUSED[4:6]:
            setup.socket.datagram_received(check(setup.credentials), (host, port))
        assert {to for _, to in setup.socket.transport.sent} == {("10.0.0.7", 7)}
        setup.socket.datagram_received(check(setup.credentials), ("127.0.0.1", 9))
        assert ("127.0.0.1", 9) in {to for _, to in setup.socket.transport.sent}
        await setup.end()

    with caplog.at_level("INFO"):
        run(main())
    own = [record for record in caplog.records if record.name == "fastrtc_anyio"]
    assert {record.levelname for record in own} == {"INFO"}
    assert not any(host in record.message for record in own for host, _ in REFUSED if "9" in host)


def test_names_are_resolved_only_with_mdns(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(subscriber: object) -> Any:
        raise AssertionError

    monkeypatch.setattr(ice, "get_or_create_mdns_protocol", fail)

    async def main() -> None:
        setup = Setup(policy=AddressPolicy(mdns=False))
        await setup.path.add_candidate(candidate("me.local", 7))
        with pytest.raises(AssertionError):
            await Setup().path.add_candidate(candidate("me.local", 7))
        await setup.end()

    assert mdns.is_mdns_hostname("me.local")
    run(main())


def test_hundred_candidates_make_few_datagrams() -> None:
    async def main() -> None:
        setup = Setup(limit=100)
        for port in range(1, 101):
            await setup.path.add_candidate(candidate("203.0.113.9", port))
        await setup.connect()
        await asyncio.sleep(30)
        sent = Counter(to[0] for p in (setup.socket, setup.relay) for _, to in p.transport.sent)
        assert sent["203.0.113.9"] <= 16 + 15
        await setup.end()

    run(main())


def test_each_socket_is_guarded_as_soon_as_it_is_open() -> None:
    """In each generation; and aioice's own way to aiortc does not exist."""

    async def main() -> None:
        setup = Setup()
        configuration = RtcConfiguration(addresses=("127.0.0.1",))
        choose_addresses(setup.dtls, configuration, setup.sockets)
        setup.connection._local_candidates_end = False
        await setup.connection.gather_candidates()
        setup.spawn(setup.connection.connect())
        await asyncio.sleep(0)
        setup.path.restart(*RESTARTED)
        agents = list(setup.sockets._agents.values())
        assert len(agents) == 2
        for agent in agents:
            assert len(agent.connection._protocols) == 3
            for protocol in agent.connection._protocols:
                replaced = vars(protocol)
                receive = replaced["datagram_received"]
                assert receive.__qualname__ == "Guard.make_filter.<locals>.receive"
                assert replaced["receiver"] is setup.sockets
        assert not hasattr(setup.sockets, "data_received")
        setup.socket.transport = setup.relay.transport = Wire()
        await setup.path.close()
        setup.connection._protocols[2].transport.abort()
        await setup.end()

    run(main())


def test_malformed_datagrams_of_other_sockets_affect_nothing_else() -> None:
    """Those of TURN and mDNS, whose parsers may raise anything."""

    class Parser(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            received.append(data)
            raise IndexError

    received: list[bytes] = []

    async def main() -> None:
        setup = Setup()
        configuration = RtcConfiguration(addresses=("127.0.0.1",))
        choose_addresses(setup.dtls, configuration, setup.sockets)
        setup.connection._local_candidates_end = False
        await setup.connection.gather_candidates()
        loop = asyncio.get_running_loop()
        server = ("127.0.0.1", 9)
        transport, protocol = await loop.create_datagram_endpoint(Parser, remote_addr=server)
        protocol.datagram_received(MEDIA, server)
        assert received == [MEDIA]
        transport.abort()
        setup.connection._protocols[2].transport.abort()
        await setup.end()

    run(main())
