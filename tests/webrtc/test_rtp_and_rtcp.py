"""RTP, RTCP and statistics as a client of plain aiortc sees them, by both paths of audio.

The short paths of this package and those of aiortc must be the same for a client: each test runs
with both.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import anyio
import pytest
from aiortc.rtp import (
    RTCP_RTPFB_NACK,
    RtcpByePacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSrPacket,
)
from anyio import to_thread

from fastrtc_anyio import CloseReason, InvalidOffer, Session, Stream
from fastrtc_anyio._peers.webrtc import WebRTCPeer
from tests.kit.aiortc_client import AiortcClient, open_client
from tests.kit.backends import on_trio
from tests.kit.calls import accept, make_stream, only_session, wait_ended
from tests.kit.packets import (
    FIRST_NUMBER,
    FIRST_TIMESTAMP,
    PATHS,
    PacketLog,
    RtpFields,
    begin_near_the_wrap,
    choose_path,
    rtcp_of,
    rtp_of,
)
from tests.kit.waiting import SECONDS, wait_until

NTP_EPOCH = 2_208_988_800
CLOCK_RATE = 48_000
NEAR = 1.0
"""Maximum seconds between two times that a machine without load has within some milliseconds."""
QUIET = 0.3
"""Seconds without a packet, or a frame, after which none is expected: there is one every 20 ms."""
WEBRTC_ID = "c" * 32
MID_URI = "urn:ietf:params:rtp-hdrext:sdes:mid"


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of audio."""
    chosen = str(request.param)
    choose_path(monkeypatch, chosen)
    return chosen


@pytest.fixture
def near_the_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    begin_near_the_wrap(monkeypatch)


@dataclass
class Counted:
    """Frames that a handler has got."""

    frames: int = 0


@dataclass
class Call:
    """A call, and what the client knows of it."""

    stream: Stream
    client: AiortcClient
    log: PacketLog
    offer: str
    answer: str
    session: Session
    counted: Counted = field(default_factory=Counted)

    @property
    def peer(self) -> WebRTCPeer:
        peer = self.session.peer
        assert isinstance(peer, WebRTCPeer)
        return peer

    @property
    def transport(self) -> Any:
        return self.client.pc.getTransceivers()[0].sender.transport

    @property
    def sender(self) -> Any:
        """The client's sender of audio."""
        return self.client.pc.getTransceivers()[0].sender

    async def run(self, function: Any, *args: Any) -> Any:
        """Run a coroutine function on the client's loop."""
        return await to_thread.run_sync(self.client.run, function, *args)

    async def run_on_server(self, function: Callable[[Any], None]) -> None:
        """Call a function with the server's audio transceiver, on the loop of the server."""
        peer: Any = self.peer

        async def call() -> None:
            function(peer._connection._pc.getTransceivers()[0])

        await peer._portal.call(call)

    async def server_report(self, kind: str) -> dict[str, Any]:
        """Return the server's statistics of a type."""
        reports = await self.peer.transport_statistics()
        (found,) = [one for one in reports.values() if one["type"] == kind]
        return found

    async def client_report(self, kind: str) -> Any:
        """Return the client's statistics of a type."""
        (found,) = [
            one for one in (await self.run(self.client.pc.getStats)).values() if one.type == kind
        ]
        return found


@asynccontextmanager
async def place(
    loses: Callable[[int], bool] = lambda number: False,
    *,
    channel: bool = True,
    video: bool = False,
) -> AsyncGenerator[Call, None]:
    """Call an echo, and record the packets from the first on."""
    counted = Counted()

    async def echo_video(session: Session) -> None:
        async for frame in session.video_in:
            await session.video_out.send(frame)

    async def echo(session: Session) -> None:
        async with anyio.create_task_group() as tg:
            if video:
                tg.start_soon(echo_video, session)
            async for frame in session.audio_in:
                counted.frames += 1
                await session.audio_out.send(frame)

    modality = "audio-video" if video else "audio"
    async with make_stream(echo, modality=modality) as stream, open_client() as client:
        direction = "sendrecv" if video else None
        offer = await to_thread.run_sync(
            client.run, client.make_offer, None, channel, True, direction
        )
        log = PacketLog(client.pc.getTransceivers()[0].sender.transport, loses)
        body = {"type": "offer", "sdp": offer, "webrtc_id": WEBRTC_ID}
        answer = (await stream.offer(body))["sdp"]
        session = only_session(stream)
        await accept(client, answer)
        await wait_until(client.connected.is_set, "the connection")
        yield Call(stream, client, log, offer, answer, session, counted)


def attributes(sdp: str, pattern: str) -> list[str]:
    """Return the first group of each match."""
    return [match.group(1) for match in re.finditer(pattern, sdp)]


def has_wrapped(packets: list[RtpFields], ahead: int = 50) -> bool:
    return bool(packets) and ahead < packets[-1].number < 2**15


def check_headers(call: Call, payload_type: int) -> None:
    """Check the headers of all packets from the server."""
    packets = rtp_of(call.log.received)
    (mid,) = set(attributes(call.answer, r"a=extmap:(\d+)\S* " + MID_URI))
    (name,) = attributes(call.answer, r"m=audio[^\0]*?a=mid:(\S+)")
    assert packets[0].number == FIRST_NUMBER
    assert packets[0].timestamp == FIRST_TIMESTAMP
    check_numbers(packets)
    assert {packet.ssrc for packet in packets} == {described_ssrc(call)}
    assert {(packet.marker, packet.payload_type) for packet in packets} == {(1, payload_type)}
    assert {tuple(packet.extensions.items()) for packet in packets} == {
        ((int(mid), name.encode()),)
    }


def check_numbers(packets: list[RtpFields]) -> list[int]:
    """Check that sequence numbers have no gaps, and return the steps of timestamps.

    A stall of the server, or a pause, makes longer steps.
    """
    for before, after in pairwise(packets):
        assert (after.number - before.number) % 2**16 == 1
    steps = [(b.timestamp - a.timestamp) % 2**32 for a, b in pairwise(packets)]
    assert all(step % 960 == 0 and 0 < step < 10 * CLOCK_RATE for step in steps)
    assert steps.count(960) > 0.8 * len(steps)
    return steps


def described_ssrc(call: Call) -> int:
    (ssrc,) = set(attributes(call.answer, r"a=ssrc:(\d+) cname:"))
    return int(ssrc)


def check_sender_reports(call: Call, ssrc: int, clock_rate: int) -> None:
    """Check the reports on a source of the server against what the client has received."""
    received = call.log.received
    (cname,) = set(attributes(call.answer, rf"a=ssrc:{ssrc} cname:(\S+)"))
    reports = [(i, one) for i, one in rtcp_of(received, RtcpSrPacket) if one.ssrc == ssrc]
    assert len(reports) >= 2
    times = {r.rtp.timestamp: r.at for r in received if r.rtp is not None and r.rtp.ssrc == ssrc}
    for i, report in reports:
        before = [packet for packet in rtp_of(received[:i]) if packet.ssrc == ssrc]
        info = report.sender_info
        assert info.packet_count == len(before)
        assert info.octet_count == sum(len(packet.payload) for packet in before)
        assert info.rtp_timestamp == before[-1].timestamp
        sent_at = info.ntp_timestamp / 2**32 - NTP_EPOCH
        assert sent_at == pytest.approx(times[info.rtp_timestamp], abs=NEAR)
        (names,) = [p for p in received[i].rtcp if isinstance(p, RtcpSdesPacket)]
        assert [(c.ssrc, c.items) for c in names.chunks] == [(ssrc, [(1, cname.encode())])]
    first, last = reports[0][1].sender_info, reports[-1][1].sender_info
    by_rtp = (last.rtp_timestamp - first.rtp_timestamp) % 2**32 / clock_rate
    by_ntp = (last.ntp_timestamp - first.ntp_timestamp) / 2**32
    assert by_ntp == pytest.approx(by_rtp, abs=NEAR)


def receiver_reports(call: Call) -> list[tuple[int, RtcpReceiverInfo]]:
    """Return the server's reports on the client's source, each with the index of its record."""
    return [
        (i, report)
        for i, packet in rtcp_of(call.log.received, RtcpRrPacket)
        for report in packet.reports
        if report.ssrc == call.sender._ssrc
    ]


def extended(number: int) -> int:
    """Return a sequence number with its cycles, of a source that began at :data:`FIRST_NUMBER`."""
    return number + (2**16 if number < 2**15 else 0)


def check_receiver_reports(call: Call) -> None:
    """Check the reports on what the client sends against what it has sent, and has lost."""
    reports = receiver_reports(call)
    assert len(reports) >= 2
    lost = [extended(packet.number) for packet in call.log.lost_up]
    sender_reports = {
        (report.sender_info.ntp_timestamp >> 16) & 0xFFFFFFFF: call.log.sent[i].at
        for i, report in rtcp_of(call.log.sent, RtcpSrPacket)
    }
    before = FIRST_NUMBER - 1
    for i, report in reports:
        # The number of cycles is in the upper half.
        highest = report.highest_sequence
        assert before <= highest <= extended(rtp_of(call.log.sent)[-1].number)
        missed = [number for number in lost if before < number <= highest]
        if highest > before:
            assert report.fraction_lost == (len(missed) << 8) // (highest - before)
        assert report.packets_lost == len([number for number in lost if number <= highest])
        before = highest
        if report.lsr:
            passed = call.log.received[i].at - sender_reports[report.lsr]
            assert report.dlsr / 2**16 == pytest.approx(passed, abs=NEAR)
    _, last = reports[-1]
    assert last.lsr
    assert last.jitter / CLOCK_RATE < NEAR
    assert last.highest_sequence > 2**16


async def check_statistics(call: Call) -> None:
    """Check the statistics of both ends against what was on the wire."""
    log = call.log

    def payloads() -> int:
        return sum(len(packet.payload) for packet in rtp_of(log.received))

    least, octets = count_sent(call), payloads()
    ours = await call.server_report("outbound-rtp")
    assert ours["ssrc"] == described_ssrc(call)
    assert ours["packetsSent"] >= least
    assert ours["bytesSent"] >= octets
    await anyio.sleep(QUIET)
    assert ours["packetsSent"] <= count_sent(call)
    assert ours["bytesSent"] <= payloads()

    least, lost = len(rtp_of(log.sent)), len(log.lost_up)
    await anyio.sleep(QUIET)
    ours = await call.server_report("inbound-rtp")
    assert ours["ssrc"] == call.sender._ssrc
    assert least <= ours["packetsReceived"] <= len(rtp_of(log.sent))
    assert lost <= ours["packetsLost"] <= len(log.lost_up)
    assert ours["jitter"] / CLOCK_RATE < NEAR

    ours = await call.server_report("remote-inbound-rtp")
    assert 0 < ours["roundTripTime"] < NEAR
    assert 0 < ours["packetsLost"] <= len(log.lost_down)
    ours = await call.server_report("remote-outbound-rtp")
    assert 0 < ours["packetsSent"] <= len(rtp_of(log.sent)) + len(log.lost_up)

    theirs = await call.client_report("remote-outbound-rtp")
    assert 0 < theirs.packetsSent <= count_sent(call)
    assert theirs.remoteTimestamp.timestamp() == pytest.approx(log.received[-1].at, abs=3 * NEAR)
    theirs = await call.client_report("remote-inbound-rtp")
    assert 0 < theirs.roundTripTime < NEAR

    before = await call.client_report("transport")
    await anyio.sleep(QUIET)
    ours = await call.server_report("transport")
    await anyio.sleep(QUIET)
    after = await call.client_report("transport")
    assert before.packetsSent <= ours["packetsReceived"] <= after.packetsSent
    assert before.bytesSent <= ours["bytesReceived"] <= after.bytesSent
    assert before.packetsReceived <= ours["packetsSent"] <= after.packetsReceived
    assert before.bytesReceived <= ours["bytesSent"] <= after.bytesReceived


@on_trio
@pytest.mark.usefixtures("near_the_wrap")
async def test_packets_reports_and_statistics_describe_the_call(path: str) -> None:
    """One packet of 20 is lost in each direction, and the sequence numbers wrap."""
    async with place(lambda number: number % 20 == 7) as call:
        log = call.log
        await wait_until(lambda: has_wrapped(rtp_of(log.received)), "the roll-over to the client")
        await wait_until(lambda: has_wrapped(rtp_of(log.sent)), "the roll-over to the server")
        frames = call.counted.frames
        await wait_until(lambda: call.counted.frames > frames + 20, "audio after the roll-over")
        heard = call.client.heard.qsize()
        await wait_until(lambda: call.client.heard.qsize() > heard + 20, "an echo after it")
        await wait_until(
            lambda: len([r for _, r in receiver_reports(call) if r.lsr]) >= 2, "reports"
        )
        await wait_until(lambda: len(rtcp_of(log.received, RtcpSrPacket)) >= 3, "reports")
        await check_statistics(call)
        (payload_type,) = attributes(call.answer, r"a=rtpmap:(\d+) opus/48000/2")
        check_headers(call, int(payload_type))
        check_sender_reports(call, described_ssrc(call), CLOCK_RATE)
        check_receiver_reports(call)
        statistics = call.session.statistics()
        assert statistics.discarded.packets == 0
        assert log.lost_up
        assert log.lost_down


@on_trio
async def test_audio_and_video_on_a_transport_have_separate_reports(path: str) -> None:
    """Both have times of one clock, by which the client plays sound and pictures together."""
    async with place(video=True) as call:
        audio, video = (
            int(attributes(section, r"a=ssrc:(\d+) cname:")[0])
            for section in call.answer.split("m=")[1:3]
        )
        log = call.log
        await wait_until(lambda: len(rtcp_of(log.received, RtcpSrPacket)) >= 8, "reports")
        check_sender_reports(call, audio, CLOCK_RATE)
        check_sender_reports(call, video, 90_000)
        assert len(set(attributes(call.answer, r"a=ssrc:\d+ cname:(\S+)"))) == 1


async def wait_frames(call: Call, least: int = 10) -> None:
    frames = call.counted.frames
    await wait_until(lambda: call.counted.frames >= frames + least, "frames of the handler")


async def wait_echo(call: Call, least: int = 10) -> None:
    sent = count_sent(call)
    await wait_until(lambda: count_sent(call) >= sent + least, "packets of the server")


async def wait_quiet(count: Callable[[], int]) -> None:
    """Wait until ``count()`` has not changed for a while."""
    with anyio.fail_after(SECONDS):
        before = -1
        while before != (before := count()):
            await anyio.sleep(QUIET)


def count_sent(call: Call) -> int:
    """Return how many packets the server has sent."""
    return len(rtp_of(call.log.received))


async def check_direction(call: Call, direction: str) -> None:
    """Change the direction on the side of the server, and check what passes."""
    await call.run_on_server(lambda transceiver: transceiver._setCurrentDirection(direction))
    if direction in ("sendrecv", "sendonly"):
        await wait_echo(call)
    else:
        await wait_quiet(lambda: count_sent(call))
    if direction in ("sendrecv", "recvonly"):
        await wait_frames(call)
    else:
        await wait_quiet(lambda: call.counted.frames)


async def request_repetition(call: Call) -> None:
    """Send a NACK for the last three packets."""
    lost = [packet.number for packet in rtp_of(call.log.received)[-3:]]
    packet = RtcpRtpfbPacket(RTCP_RTPFB_NACK, 1, described_ssrc(call), lost)
    await call.run(call.transport._send_rtp, bytes(packet))


async def hold(call: Call) -> None:
    """Let the client be silent for a while: its timestamps go on, its sequence numbers do not."""
    call.sender._enabled = False
    await wait_quiet(lambda: call.counted.frames)
    await wait_echo(call)
    call.sender._enabled = True
    await wait_frames(call)


async def restart_source(call: Call) -> None:
    """Let the client say BYE, and go on with another source, as after a change of its track."""
    old = call.sender._ssrc
    await call.run(call.sender._send_rtcp, [RtcpByePacket([old])])
    new, offset = random.getrandbits(32), random.getrandbits(16)

    def renumber(data: bytes) -> bytes:
        number = (int.from_bytes(data[2:4]) + offset) % 2**16
        return data[:2] + number.to_bytes(2) + data[4:]

    call.log.rewrite = renumber
    call.sender._ssrc = new
    await wait_frames(call, 20)
    await wait_until(lambda: any(r.lsr for _, r in receiver_reports(call)), "a report on it")
    (_, report) = receiver_reports(call)[-1]
    numbers = {p.number for p in rtp_of(call.log.sent) if p.ssrc == new}
    assert report.highest_sequence % 2**16 in numbers
    assert report.packets_lost == 0


@on_trio
async def test_call_survives_changes_of_direction_holds_and_another_source(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with place() as call:
        await wait_echo(call)
        await request_repetition(call)
        for direction in ("recvonly", "inactive", "sendonly", "sendrecv"):
            await check_direction(call, direction)
        await hold(call)
        await restart_source(call)
        await wait_echo(call)

        packets = rtp_of(call.log.received)
        if path == "aiortc":  # which repeats packets of audio, too
            packets = list({packet.number: packet for packet in packets}.values())
        steps = check_numbers(packets)
        # Twice nothing was sent, and timestamps went on.
        assert max(steps) > 0.7 * QUIET * CLOCK_RATE
        assert call.session.closed is None
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@on_trio
async def test_offer_with_another_direction_is_rejected_and_the_call_goes_on(path: str) -> None:
    async with place() as call:
        await wait_echo(call)
        sdp = (await call.run(call.client.offer_restart)).replace("a=sendrecv", "a=recvonly")
        with pytest.raises(InvalidOffer, match="must be sendrecv; got recvonly"):
            await call.stream.offer({"type": "offer", "sdp": sdp, "webrtc_id": WEBRTC_ID})
        await wait_echo(call)
        await wait_frames(call)


@on_trio
async def test_bye_is_the_last_packet(path: str) -> None:
    async with place() as call:
        await wait_echo(call, 20)
        call.session.close(CloseReason.CANCELLED)
        assert await wait_ended(call.stream, call.session) is CloseReason.CANCELLED
        await wait_until(call.client.closed.is_set, "the end of the call at the client")
        last = call.log.received[-1].rtcp
        assert [p.sources for p in last if isinstance(p, RtcpByePacket)] == [[described_ssrc(call)]]


@on_trio
async def test_end_of_dtls_while_media_goes_on_is_a_hang_up(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with place(channel=False) as call:
        await wait_echo(call)

        async def shut_down() -> None:
            """Send the alert, and go on with media."""
            call.transport._ssl.shutdown()
            await call.transport._write_ssl()

        await call.run(shut_down)
        assert await wait_ended(call.stream, call.session) is CloseReason.HUNG_UP
        sent = len(rtp_of(call.log.sent))
        await wait_until(lambda: len(rtp_of(call.log.sent)) > sent + 20, "media after the end")
        await wait_quiet(lambda: count_sent(call))
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
