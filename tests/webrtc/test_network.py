"""Addresses, interfaces and ports of the server, and ICE servers that do not answer."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import anyio
import pytest
from anyio import to_thread

from fastrtc_anyio import (
    AdmissionError,
    Limits,
    NoFreePort,
    PeerFailed,
    RtcConfiguration,
    Stream,
    StreamNotOpen,
)
from fastrtc_anyio._peers.webrtc import WebRTCPeer
from fastrtc_anyio._signaling.ice import IceServer, parse_ice_servers
from tests.kit.aiortc_client import AiortcClient, open_client
from tests.kit.calls import place_call
from tests.kit.handlers import AsyncEcho
from tests.kit.waiting import wait_until


def make_stream(configuration: Any, **options: Any) -> Stream:
    options.setdefault("concurrency_limit", 4)
    return Stream(AsyncEcho, modality="audio", server_rtc_configuration=configuration, **options)


async def make_offer(client: AiortcClient) -> dict[str, str]:
    sdp = await to_thread.run_sync(client.run, client.make_offer, "opus", False)
    return {"type": "offer", "sdp": sdp}


async def answer(stream: Stream) -> str:
    async with open_client() as client:
        reply = await stream.offer(await make_offer(client))
        sdp: str = reply["sdp"]
        return sdp


def host_candidates(sdp: str) -> set[tuple[str, int]]:
    lines = [line.split() for line in sdp.splitlines() if line.startswith("a=candidate:")]
    return {(line[4], int(line[5])) for line in lines if line[7] == "host"}


@contextmanager
def silent_server() -> Generator[int, None, None]:
    """A port that receives datagrams and never answers."""
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def two_free_ports() -> Generator[tuple[int, int], None, None]:
    """Two consecutive unused UDP ports."""
    for first in range(50_000, 60_000, 2):
        with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
            try:
                a.bind(("127.0.0.1", first))
                b.bind(("127.0.0.1", first + 1))
            except OSError:
                continue
        yield first, first + 1
        return
    pytest.fail("no two consecutive ports are free")


async def test_address_policy_applies_to_described_and_trickled_candidates() -> None:
    policy = {"denied": ["10.0.0.0/8"]}
    configuration = {"addresses": ["127.0.0.1"], "address_policy": policy}
    lines = [
        f"candidate:1 1 udp 1 {host} 9 typ host"
        for host in ("10.0.0.1", "224.0.0.1", "192.168.0.1")
    ]
    async with make_stream(configuration) as stream, open_client() as client:
        body = await make_offer(client)
        described = "".join(f"a={line}\r\n" for line in lines)
        sdp = body["sdp"].replace("a=end-of-candidates\r\n", "") + described
        await stream.offer({**body, "sdp": sdp, "webrtc_id": "x"})
        for line in lines:
            trickled = {"candidate": line.replace(".1 9", ".2 9"), "sdpMid": "0"}
            await stream.offer({"type": "ice-candidate", "candidate": trickled, "webrtc_id": "x"})
        peer = stream.session("x").peer
        assert isinstance(peer, WebRTCPeer)
        pc = peer._connection._pc
        assert pc is not None
        ice = pc.getTransceivers()[0].sender.transport.transport

        def used() -> set[str]:
            return {candidate.ip for candidate in ice.getRemoteCandidates()}

        await wait_until(lambda: "192.168.0.2" in used())
        assert used() == {"127.0.0.1", "192.168.0.1", "192.168.0.2"}


async def test_exhausted_port_range_raises_no_free_port() -> None:
    with two_free_ports() as ports:
        configuration = {"addresses": ["127.0.0.1"], "ports": ports}
        async with make_stream(configuration) as stream:
            found = host_candidates(await answer(stream)) | host_candidates(await answer(stream))
            assert found == {("127.0.0.1", port) for port in ports}
            with pytest.raises(NoFreePort, match=f"no free UDP port from {ports[0]} to {ports[1]}"):
                await answer(stream)
            for session in stream.sessions.values():
                stream.update_connection(session.id, "closed")
            with anyio.fail_after(10):
                while stream.sessions:
                    await anyio.sleep(0.01)
            assert host_candidates(await answer(stream)) <= found  # the ports are free again


async def test_address_of_another_machine_raises_peer_failed() -> None:
    configuration = RtcConfiguration(addresses=("203.0.113.77",), ports=(50_000, 50_001))
    async with make_stream(configuration) as stream:
        with pytest.raises(PeerFailed, match=r"UDP socket on 203\.0\.113\.77") as caught:
            await answer(stream)
        assert not isinstance(caught.value, NoFreePort)  # not a lack of capacity


async def test_interfaces_by_name() -> None:
    async with make_stream(RtcConfiguration(interfaces=("lo",))) as stream:
        found = host_candidates(await answer(stream))
        assert "127.0.0.1" in {host for host, _ in found}
        assert len(found) <= 2
    async with make_stream(RtcConfiguration(interfaces=("nosuch0",))) as stream:
        with pytest.raises(PeerFailed, match="network interfaces; got nosuch0"):
            await answer(stream)


@pytest.mark.parametrize("kind", ["stun", "turn"])
async def test_silent_ice_server_delays_answer_by_gather_timeout_only(kind: str) -> None:
    with silent_server() as port:
        server = IceServer((f"{kind}:127.0.0.1:{port}",), "user", "pass")
        configuration = RtcConfiguration((server,), addresses=("127.0.0.1",), gather_timeout=0.3)
        async with make_stream(configuration) as stream:
            with anyio.fail_after(3):  # aioice's own timeout is 5 s
                assert host_candidates(await answer(stream))


async def test_silent_relay_raises_peer_failed() -> None:
    with silent_server() as port:
        server = IceServer((f"turn:127.0.0.1:{port}",), "user", "pass")
        async with make_stream(RtcConfiguration((server,), "relay", gather_timeout=0.3)) as stream:
            with pytest.raises(PeerFailed, match=r"did not answer within 0\.3 s"):
                await answer(stream)
            assert not stream.sessions


@pytest.mark.parametrize("plain", [True, False])
async def test_configuration_function_is_called_for_each_admitted_call(plain: bool) -> None:
    made: list[int] = []

    def make() -> Any:
        made.append(len(made))
        return {"addresses": ["127.0.0.1"]}

    async def make_async() -> Any:
        return make()

    stream = make_stream(
        make if plain else make_async, concurrency_limit=2, limits=Limits(lag=None)
    )
    async with stream, place_call(stream), place_call(stream):
        assert made == [0, 1]
        with pytest.raises(AdmissionError):
            await answer(stream)
        assert made == [0, 1]  # not called for a rejected offer


async def test_failing_configuration_function_raises_to_caller() -> None:
    def make() -> Any:
        raise ConnectionError("the provider is down")

    async with make_stream(make) as stream:
        with pytest.raises(ConnectionError, match="the provider is down"):
            await answer(stream)
        assert not stream.sessions
    async with make_stream(lambda: {"iceServer": []}) as stream:
        with pytest.raises(ValueError, match="got also iceServer"):
            await answer(stream)


async def test_stream_closed_during_configuration_raises_stream_not_open() -> None:
    began, go_on = anyio.Event(), anyio.Event()

    async def make() -> Any:
        began.set()
        await go_on.wait()
        return {"addresses": ["127.0.0.1"]}

    stream = make_stream(make)
    async with open_client() as client, anyio.create_task_group() as tg:
        body = await make_offer(client)

        async def call() -> None:
            with pytest.raises(StreamNotOpen):
                await stream.offer(body)

        async with stream:
            tg.start_soon(call)
            await began.wait()
        go_on.set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ports": (5, 1)}, "ports are the first and the last"),
        ({"ports": (0, 9)}, "ports are the first and the last"),
        ({"ports": (1, 70_000)}, "ports are the first and the last"),
        ({"gather_timeout": 0}, "gather_timeout"),
        ({"addresses": ["localhost"]}, "localhost"),
        ({"addresses": ["::1"], "interfaces": ["lo"]}, "not both"),
        ({"iceTransportPolicy": "relay"}, "needs a TURN server"),
        ({"iceTransportPolicy": "none"}, "ice_transport_policy"),
        ({"iceServers": [{"urls": "http://example.com"}]}, "http://example.com"),
        ({"iceServers": [{"url": "stun:x"}]}, 'a mapping with "urls"'),
        ({"iceServers": "stun:x"}, "a list of ICE servers"),
    ],
)
def test_invalid_configuration_is_a_value_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RtcConfiguration.parse(options)


def test_one_port_without_a_range_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="ports are the first and the last, 1 to 65535; got 5"):
        RtcConfiguration(ports=cast(Any, 5))


def test_single_ice_server_without_list() -> None:
    server = {"urls": ["turn:x:3478?transport=udp", "turns:x"], "username": "u", "credential": "c"}
    [parsed] = parse_ice_servers(server)
    assert parsed == IceServer(("turn:x:3478?transport=udp", "turns:x"), "u", "c")
    assert parse_ice_servers(None) == ()
