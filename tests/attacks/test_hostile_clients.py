"""Malformed and excessive input of clients and strangers ends no other call."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import struct
from contextlib import suppress
from typing import Any

import pytest
from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    Chunk,
    DataChunk,
    ForwardTsnChunk,
    HeartbeatChunk,
    InitChunk,
    ReconfigChunk,
    SackChunk,
    serialize_packet,
    tsn_plus_one,
)
from aiortc.rtp import RtpPacket
from anyio import to_thread
from google_crc32c import value as crc32c

from fastrtc_anyio import CloseReason, InvalidCandidate, InvalidOffer, LimitExceeded
from fastrtc_anyio._peers.webrtc import WebRTCPeer
from fastrtc_anyio._signaling.requests import IceCandidate
from tests.kit.aiortc_client import open_client
from tests.kit.backends import on_trio
from tests.kit.calls import make_stream, place_call
from tests.kit.handlers import AsyncEcho
from tests.kit.measure import echo_of_tones
from tests.kit.waiting import wait_until

from .costly_inputs import many_acknowledgements

BAD = "9f86d081884c7d659a2feaa0c55ad015"
"""Id of a hostile client."""


async def test_malformed_offers_are_rejected_and_take_no_slot() -> None:
    stream = make_stream(AsyncEcho(), concurrency_limit=1)
    async with stream:
        for sdp in (
            "rubbish",
            "v=0",
            "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
            "v=0\r\nm=audio x y z\r\na=rtpmap:zz\r\n",
            "\0\xff",
        ):
            with pytest.raises(InvalidOffer):
                await stream.offer({"type": "offer", "sdp": sdp, "webrtc_id": "me"})
            assert not stream.sessions, sdp
        async with place_call(stream, webrtc_id="me"):
            await wait_until(lambda: stream.active == 1)


async def test_candidates_beyond_limit_are_rejected(caplog: Any) -> None:
    stream = make_stream(AsyncEcho())
    lines = "".join(
        f"a=candidate:{i} 1 udp {i + 1} 127.0.0.1 {20_000 + i} typ host\r\n" for i in range(4000)
    )
    async with stream, open_client() as client:
        offer = await to_thread.run_sync(client.run, client.make_offer, "opus", False)
        await stream.offer({"type": "offer", "sdp": offer + lines})
        (session,) = stream.sessions.values()
        assert isinstance(session.peer, WebRTCPeer)
        connection = session.peer._connection
        await wait_until(lambda: "an offer has too many candidates" in caplog.text)
        assert "RequestLimits.candidates" in caplog.text
        with pytest.raises(LimitExceeded, match="a client may send 100 candidates"):
            await stream.add_ice_candidate(
                session.id, IceCandidate("candidate:1 1 udp 1 127.0.0.1 9 typ host", "0")
            )
        assert connection._pc is not None
        (transceiver,) = connection._pc.getTransceivers()
        remote = transceiver.sender.transport.transport.getRemoteCandidates()
        assert 0 < len(remote) <= 100


@pytest.mark.parametrize("port", [-1, 65_536])
async def test_candidate_with_invalid_port_is_rejected(port: int) -> None:
    async with make_stream(AsyncEcho()) as stream, place_call(stream, webrtc_id="me"):
        line = f"candidate:1 1 udp 1 127.0.0.1 {port} typ host"
        candidate = {"candidate": line, "sdpMid": "0"}
        with pytest.raises(InvalidCandidate, match=f"0 to 65535; got {port}"):
            await stream.offer({"type": "ice-candidate", "candidate": candidate, "webrtc_id": "me"})


@on_trio
@pytest.mark.parametrize(
    ("streams", "size", "reason"),
    [
        (1, 1, "unfinished messages"),
        (1, 1100, "unfinished messages"),
        (200, 1, "unfinished messages"),
        (1000, 1, "more than 256 streams"),
    ],
    ids=["many", "large", "spread", "streams"],
)
async def test_too_many_unfinished_messages_end_the_call(
    streams: int, size: int, reason: str
) -> None:
    stream = make_stream(AsyncEcho, concurrency_limit=2)
    async with stream, place_call(stream) as good, place_call(stream) as bad:

        async def flood() -> None:
            sctp: Any = bad.pc.sctp
            for i in itertools.count():
                if len(stream.sessions) == 1:  # the server has ended this call
                    return
                chunk = DataChunk()
                chunk.flags = SCTP_DATA_FIRST_FRAG if i < streams else 0
                chunk.stream_id = i % streams
                chunk.tsn = sctp._local_tsn
                sctp._local_tsn = tsn_plus_one(sctp._local_tsn)
                chunk.user_data = bytes(size)
                await sctp._send_chunk(chunk)
                if i % 50 == 0:
                    await asyncio.sleep(0.01)  # a full socket buffer drops packets

        sessions = list(stream.sessions.values())
        with suppress(ConnectionError):
            await to_thread.run_sync(bad.run, flood)
        await wait_until(lambda: len(stream.sessions) == 1)
        (ended,) = [session for session in sessions if session.closed is not None]
        assert ended.closed is not None
        assert ended.closed.reason is CloseReason.PEER_FAILED
        assert reason in ended.closed.message
        (snr,) = await echo_of_tones(good, [440])
        assert snr > 30


@on_trio
async def test_257th_data_channel_ends_the_call_with_its_reason() -> None:
    async with make_stream(AsyncEcho()) as stream, place_call(stream) as client:
        (session,) = stream.sessions.values()
        await wait_until(lambda: client.channel_is_open)

        async def open_channels() -> None:
            for number in range(300):
                if session.closed is not None:
                    return
                client.pc.createDataChannel(str(number))
                await asyncio.sleep(0.002)

        with suppress(ConnectionError):
            await to_thread.run_sync(client.run, open_channels)
        await wait_until(lambda: session.closed is not None)
        assert session.closed is not None
        assert session.closed.reason is CloseReason.PEER_FAILED
        assert "more than 256" in session.closed.message


def many_resets(sctp: Any) -> list[Chunk]:
    chunk = ReconfigChunk()
    chunk.params = [(17, (sctp._local_tsn + i).to_bytes(8)[4:] + bytes(4)) for i in range(100)]
    return [chunk]


def many_forwarded_streams(sctp: Any) -> list[Chunk]:
    chunk = ForwardTsnChunk()
    chunk.cumulative_tsn = sctp._local_tsn + 10
    chunk.streams = [(number, 1) for number in range(300)]
    return [chunk]


@on_trio
@pytest.mark.parametrize("make", [many_acknowledgements, many_resets, many_forwarded_streams, None])
async def test_costly_sctp_packet_is_dropped_or_ends_its_call(make: Any) -> None:
    """A packet of 1500 bytes, with chunks that would each cost milliseconds."""
    stream = make_stream(AsyncEcho, concurrency_limit=2)
    async with stream, place_call(stream, webrtc_id=BAD) as bad:
        session = stream.session(BAD)
        await wait_until(lambda: bad.channel_is_open)

        async def send() -> None:
            sctp: Any = bad.pc.sctp
            chunks = [HeartbeatChunk() for _ in range(300)] if make is None else make(sctp)
            header = struct.pack("!HHL", 5000, 5000, sctp._remote_verification_tag)
            data = b"".join(map(bytes, chunks))
            checksum = crc32c(header + bytes(4) + data)
            await sctp.transport._send_data(header + struct.pack("<L", checksum) + data)

        for _ in range(3):
            await to_thread.run_sync(bad.run, send)
        statistics = session.statistics
        await wait_until(lambda: session.closed or statistics().discarded.packets == 3)
        if session.closed is not None:
            assert "streams of data channels" in session.closed.message


STRANGE_DATAGRAMS = [
    b"",
    b"\x00",
    # STUN: a mapped address of zero bytes.
    b"\x00\x01\x00\x04\x21\x12\xa4\x42" + bytes(12) + b"\x00\x01\x00\x00",
    b"\x16\xfe\xfd" + bytes(40),
    b"\x80\x6f" + bytes(40),
]


async def test_datagrams_from_strangers_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async with make_stream(AsyncEcho()) as stream, place_call(stream) as client:
        lines = client.answer["sdp"].splitlines()
        ports = {int(line.split()[5]) for line in lines if line.startswith("a=candidate:")}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for port, datagram in itertools.product(ports, STRANGE_DATAGRAMS):
                stranger.sendto(datagram, ("127.0.0.1", port))
        assert min(await echo_of_tones(client, [440])) > 15
        assert len(stream.sessions) == 1
    assert "Traceback" not in caplog.text


MALFORMED_MESSAGES = [
    (51, b"\xff"),  # text that is not UTF-8
    (50, b"\x03" + bytes(7) + b"\0\1\0\0\xff"),  # a channel whose label is not UTF-8
    (50, b"\x03" + bytes(11)),  # a channel that exists
    (50, b"\x02"),  # an acknowledgement of no channel
    (50, b"\x03" + bytes(11) + bytes(5000)),  # a channel with a very long name
]


async def test_malformed_messages_affect_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    class Listener(AsyncEcho):
        async def on_message(self, message: str) -> None:
            got.append(message)
            await self.send_message("ha \ud83d")

    got: list[str] = []
    stream = make_stream(Listener())
    async with stream, place_call(stream, webrtc_id=BAD) as client:
        await wait_until(lambda: client.channel_is_open)

        async def send() -> None:
            sctp: Any = client.pc.sctp
            assert client.channel is not None
            for kind, data in MALFORMED_MESSAGES:
                number = client.channel.id if kind == 51 or len(data) == 12 else 9
                await sctp._send(number, kind, data)
            sack = SackChunk()  # 300 gap blocks, each with all numbers
            sack.cumulative_tsn, sack.gaps = sctp._last_received_tsn, [(0, 65_535)] * 300
            await sctp._send_chunk(sack)
            client.channel.send(b"\xffbytes")
            await sctp._send(client.channel.id, 51, b"x" * 300_000)  # too long
            client.channel.send("text")

        await to_thread.run_sync(client.run, send)
        await wait_until(lambda: len(got) == 2)
        assert got == ["\ufffdbytes", "text"]
        texts = [await client.receive_message() for _ in range(3)]
        assert sorted(text for text in texts if "error" not in text) == ["ha \ufffd"] * 2
        assert min(await echo_of_tones(client, [440])) > 15
        discarded = stream.session(BAD).statistics().discarded
        assert discarded.messages_in == len(MALFORMED_MESSAGES) + 1
        assert discarded.messages_out == 2
        assert discarded.packets == 1
    entries = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(entries) == 3
    assert "Traceback" not in caplog.text


async def test_malformed_packets_affect_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """RTP and SCTP that aiortc cannot process, audio that Opus refuses, and long datagrams."""
    stream = make_stream(AsyncEcho())
    async with stream, place_call(stream, webrtc_id=BAD) as client:
        session = stream.session(BAD)

        async def send() -> None:
            (transceiver,) = client.pc.getTransceivers()
            sender: Any = transceiver.sender
            transport = sender.transport
            for number, payload in enumerate([b"", b"\xff" * 3, b"\x03", bytes(1200)]):
                packet = RtpPacket(payload_type=96, ssrc=7, sequence_number=number, payload=payload)
                await transport._send_rtp(packet.serialize())
            for level in (b"\x21", b"\x22"):  # 2 and 3 bytes, where an audio level has one
                extension = b"\xbe\xde\0\1" + level.ljust(4, b"\0")
                header = b"\x90\x60\0" + level + bytes(4) + b"\0\0\0\7"
                await transport._send_rtp(header + extension + b"audio")
            init = Chunk(body=b"\xff")  # truncated
            init.type = InitChunk.type
            endless = Chunk(body=bytes(16))  # parameters with a length of 0
            endless.type = HeartbeatChunk.type
            packets = [serialize_packet(5000, 5000, 0, chunk) for chunk in (init, endless)]
            for data in (bytes(40), *packets):
                await transport._send_data(data)
            await transport.transport._send(b"\x80" + bytes(1600))

        assert min(await echo_of_tones(client, [440])) > 15
        await to_thread.run_sync(client.run, send)
        assert min(await echo_of_tones(client, [440])) > 15
        discarded = session.statistics().discarded
        assert discarded.packets >= 2
        assert discarded.audio >= 2
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 2
