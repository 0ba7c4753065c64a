"""Limits on RTP sources and RTCP of one client."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    RtcpPacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtpPacket,
)

from fastrtc_anyio import CloseReason, Session
from fastrtc_anyio._peers.discards import Discards
from fastrtc_anyio._peers.webrtc import feedback_internals
from fastrtc_anyio._peers.webrtc.feedback import (
    BITRATE_INTERVAL,
    KEY_FRAME_INTERVAL,
    MAX_REPORTS,
    MAX_SOURCES,
    REPEAT_INTERVAL,
    RETRANSMISSIONS,
    RTCP_RATE,
    FeedbackLimits,
    PacketGate,
)
from tests.kit.aiortc_client import AiortcClient
from tests.kit.calls import make_stream, only_session, place_call, wait_ended
from tests.kit.waiting import SECONDS, wait_until


class Time:
    """A loop whose clock a test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, due: float, function: Callable[[], None]) -> object:
        self._timers.append((due, function))
        return object()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self._timers if timer[0] <= self.now]
        self._timers = [timer for timer in self._timers if timer[0] > self.now]
        for _, function in due:
            function()


def nack(*lost: int) -> RtcpRtpfbPacket:
    return RtcpRtpfbPacket(RTCP_RTPFB_NACK, 1, 2, list(lost))


def test_sources_above_the_limit_are_refused_and_known_ones_pass() -> None:
    discards = Discards()
    gate = PacketGate(Time().time, discards)
    for i in range(MAX_SOURCES):
        source = i.to_bytes(4)
        assert gate.admits_rtp(source)
        assert gate.admits_rtp(source)  # a forged packet of it does not count
        gate.count_rtp(source)
    assert discards.statistics().packets == 0
    assert not gate.admits_rtp(MAX_SOURCES.to_bytes(4))
    assert gate.admits_rtp((0).to_bytes(4))
    assert discards.statistics().packets == 1


def test_sources_of_rtcp_count() -> None:
    discards = Discards()
    gate = PacketGate(Time().time, discards)
    for i in range(MAX_SOURCES):
        assert gate.admits_rtcp(i.to_bytes(4), 22)
        gate.count_rtcp(i.to_bytes(4), 22)
    assert not gate.admits_rtcp(MAX_SOURCES.to_bytes(4), 22)
    assert not gate.admits_rtp(MAX_SOURCES.to_bytes(4))
    assert gate.admits_rtcp((0).to_bytes(4), 22)
    assert discards.statistics().packets == 2


def test_rtcp_is_limited_in_bytes_per_second() -> None:
    time, discards = Time(), Discards()
    gate = PacketGate(time.time, discards)
    admitted = 0
    for _ in range(100 * 3):
        if gate.admits_rtcp(b"from", 1000):
            gate.count_rtcp(b"from", 1000)
            admitted += 1000
        time.advance(0.01)
    assert 3.9 * RTCP_RATE < admitted <= 4 * RTCP_RATE
    assert discards.statistics().packets == 300 - admitted // 1000


def test_retransmissions_are_limited_per_second() -> None:
    time: Any = Time()
    limits = FeedbackLimits(lambda: None, time)
    packet = nack(*range(2 * RETRANSMISSIONS))
    assert limits.accept(packet)
    assert packet.lost == list(range(RETRANSMISSIONS))
    assert limits.accept(refused := nack(1, 2, 3))
    assert refused.lost == []
    time.advance(0.1)
    assert limits.accept(later := nack(*range(1000, 1100)))
    assert len(later.lost) in (RETRANSMISSIONS // 10, RETRANSMISSIONS // 10 - 1)


def test_packet_is_not_retransmitted_twice_at_once() -> None:
    time: Any = Time()
    limits = FeedbackLimits(lambda: None, time)
    assert limits.accept(nack(1, 2))
    time.advance(0.6 * REPEAT_INTERVAL)
    assert limits.accept(again := nack(1, 2, 3, 3))
    assert again.lost == [3]
    time.advance(0.6 * REPEAT_INTERVAL)
    assert limits.accept(later := nack(1, 2, 3))
    assert later.lost == [1, 2]


def test_early_key_frame_request_is_made_up_for_once() -> None:
    time: Any = Time()
    made: list[float] = []
    limits = FeedbackLimits(lambda: made.append(time.now), time)
    request = RtcpPsfbPacket(RTCP_PSFB_PLI, 1, 2)
    assert limits.accept(request)
    for _ in range(5):
        assert not limits.accept(request)
    assert made == []
    time.advance(KEY_FRAME_INTERVAL)
    assert len(made) == 1
    assert not limits.accept(request)
    time.advance(KEY_FRAME_INTERVAL)
    time.advance(KEY_FRAME_INTERVAL)
    assert len(made) == 2
    assert limits.accept(request)


def test_bandwidth_estimates_are_limited() -> None:
    time: Any = Time()
    limits = FeedbackLimits(lambda: None, time)
    estimate = RtcpPsfbPacket(RTCP_PSFB_APP, 1, 0)
    assert [limits.accept(estimate) for _ in range(3)] == [True, False, False]
    time.advance(BITRATE_INTERVAL)
    assert limits.accept(estimate)


@pytest.mark.parametrize("count", [1, MAX_REPORTS, MAX_REPORTS + 1, MAX_SOURCES])
async def test_reports_are_split_into_packets(count: int) -> None:
    sent: list[AnyRtcpPacket] = []

    async def send(packet: AnyRtcpPacket) -> None:
        sent.append(packet)

    receiver: Any = SimpleNamespace(_send_rtcp=send)
    feedback_internals.split_reports(receiver, MAX_REPORTS)
    reports = [RtcpReceiverInfo(i, 0, 0, 0, 0, 0, 0) for i in range(count)]
    await receiver._send_rtcp(RtcpRrPacket(7, reports))
    packets = [packet for packet in sent if isinstance(packet, RtcpRrPacket)]
    assert [one for packet in packets for one in packet.reports] == reports
    assert max(len(packet.reports) for packet in packets) <= MAX_REPORTS
    assert all(len(bytes(packet)) < 1000 for packet in packets)


@pytest.mark.parametrize("cycles", [0, 1, 2**16 - 1, 2**16])
async def test_reports_count_the_cycles_of_sequence_numbers(cycles: int) -> None:
    sent: list[Any] = []

    async def send(packet: AnyRtcpPacket) -> None:
        sent.append(packet)

    receiver: Any = SimpleNamespace(_send_rtcp=send)
    receiver._RTCRtpReceiver__remote_streams = {5: SimpleNamespace(cycles=cycles << 16)}
    feedback_internals.report_cycles(receiver)
    await receiver._send_rtcp(RtcpRrPacket(7, [RtcpReceiverInfo(5, 0, 0, 65_000, 0, 0, 0)]))
    (parsed,) = RtcpPacket.parse(bytes(sent[0]))
    assert isinstance(parsed, RtcpRrPacket)
    assert parsed.reports[0].highest_sequence == (cycles % 2**16 << 16) + 65_000


async def listen(session: Session) -> None:
    await anyio.sleep_forever()


async def has_report(client: AiortcClient) -> bool:
    reports = await client.pc.getSenders()[0].getStats()
    return any(report.type == "remote-inbound-rtp" for report in reports.values())


@pytest.mark.parametrize("sources", [60, 3000])
async def test_client_with_many_sources_stays_connected_and_hangs_up(
    sources: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_stream(listen) as stream, place_call(stream) as client:
        session = only_session(stream)

        async def send() -> None:
            transport: Any = client.pc.getSenders()[0].transport
            for number in range(sources):
                packet = RtpPacket(
                    payload_type=96, sequence_number=number, ssrc=random.getrandbits(32)
                )
                packet.payload = b"\xf8\xff\xfe"
                await transport._send_rtp(packet.serialize())
                if number % 50 == 0:
                    await asyncio.sleep(0.001)

        await anyio.to_thread.run_sync(client.run, send)
        peer: Any = session.peer
        (receiver,) = peer._connection._pc.getReceivers()
        heard = receiver._RTCRtpReceiver__remote_streams
        await wait_until(lambda: len(heard) >= min(sources, MAX_SOURCES), "the sources")
        assert len(heard) <= MAX_SOURCES
        assert (session.statistics().discarded.packets > 0) == (sources > MAX_SOURCES)
        # Reports are sent every 0.5 to 1.5 s.
        with anyio.fail_after(SECONDS):
            while not await anyio.to_thread.run_sync(client.run, has_report, client):
                await anyio.sleep(0.05)
        assert session.closed is None
        client.hang_up()
        assert await wait_ended(stream, session) is CloseReason.HUNG_UP
    await wait_until(lambda: not stream.sessions)
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


async def test_client_cannot_have_its_requests_multiplied_into_a_flood(
    caplog: pytest.LogCaptureFixture,
) -> None:
    received: list[RtpPacket] = []
    async with make_stream(listen) as stream, place_call(stream) as client:
        session = only_session(stream)
        (receiver,) = client.pc.getReceivers()
        transport: Any = receiver.transport
        handle = receiver._handle_rtp_packet

        async def count(packet: RtpPacket, arrival_time_ms: int) -> None:
            received.append(packet)
            await handle(packet, arrival_time_ms)

        replaced: Any = receiver
        replaced._handle_rtp_packet = count
        peer: Any = session.peer
        (sender,) = peer._connection._pc.getSenders()
        repeated: list[int] = []
        retransmit = sender._retransmit

        async def count_retransmission(number: int) -> None:
            repeated.append(number)
            await retransmit(number)

        sender._retransmit = count_retransmission
        await wait_until(lambda: len(received) >= 10, "audio")

        async def request() -> int:
            """Request the last packets 500 times; return how many packets that would be."""
            lost = [packet.sequence_number for packet in received[-10:]]
            request = bytes(RtcpRtpfbPacket(RTCP_RTPFB_NACK, 1, received[-1].ssrc, lost))
            for _ in range(500):
                await transport._send_rtp(request)
                await asyncio.sleep(0)
            return 500 * len(lost)

        requested = await anyio.to_thread.run_sync(client.run, request)
        before = len(received)
        await wait_until(lambda: len({p.timestamp for p in received[before:]}) > 20, "more audio")
        assert requested == 5000
        # Ten packets, each of them again at intervals only.
        assert 10 <= len(repeated) < 4 * RETRANSMISSIONS
        assert session.closed is None
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []
