"""Audio sent at ticks against audio sent by aiortc's own loop, on virtual time and without ICE."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from aioice import Candidate, ice
from aiortc import RTCCertificate, RTCIceGatherer, RTCIceTransport, RTCRtpSender, rtcrtpsender
from aiortc.rtcdtlstransport import RTCDtlsTransport, State
from aiortc.rtcrtpparameters import (
    RTCRtcpParameters,
    RTCRtpCodecParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpSendParameters,
)
from aiortc.rtp import (
    AnyRtcpPacket,
    RtcpByePacket,
    RtcpPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSrPacket,
    is_rtcp,
)
from hypothesis import given
from hypothesis import strategies as st
from pylibsrtp import Policy, Session

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._media.encode import OpusOptions, create_encoder
from fastrtc_anyio._peers.streams.audio import AudioOutput, BufferOptions
from fastrtc_anyio._peers.streams.link import Link
from fastrtc_anyio._peers.webrtc import fast_internals, sending
from fastrtc_anyio._peers.webrtc.sending import AudioSender, PlayoutTrack
from fastrtc_anyio._peers.webrtc.ticks import Ticks
from fastrtc_anyio.testing import tone
from tests.kit.virtual_asyncio import VirtualLoop

CLIENT = ("10.0.0.9", 5000)
KEY = bytes(range(30))
OPUS = RTCRtpCodecParameters("audio/opus", 48_000, 2, 111)
PCMU = RTCRtpCodecParameters("audio/PCMU", 8000, 1, 0)
MID = RTCRtpHeaderExtensionParameters(5, "urn:ietf:params:rtp-hdrext:sdes:mid")
LEVEL = RTCRtpHeaderExtensionParameters(9, "urn:ietf:params:rtp-hdrext:ssrc-audio-level")
NTP_EPOCH = 2_208_988_800


class Wire(asyncio.DatagramTransport):
    """Records what a socket sends, with the time."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[float, bytes]] = []

    def sendto(self, data: Any, addr: Any = None) -> None:
        assert addr == CLIENT
        self.sent.append((asyncio.get_running_loop().time(), bytes(data)))


class Call:
    """A sender of aiortc, by its own loop or at ticks, whose packets the test decrypts."""

    def __init__(
        self,
        *,
        at_ticks: bool = True,
        codec: RTCRtpCodecParameters = OPUS,
        options: OpusOptions | None = None,
        extensions: tuple[RTCRtpHeaderExtensionParameters, ...] = (MID, LEVEL),
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ice = RTCIceTransport(RTCIceGatherer([]))
        self.dtls: Any = RTCDtlsTransport(self.ice, [RTCCertificate.generateCertificate()])
        self.dtls._state = State.CONNECTED
        self.dtls._tx_srtp = Session(Policy(KEY, Policy.SSRC_ANY_OUTBOUND))
        self._received = Session(Policy(KEY, Policy.SSRC_ANY_INBOUND))
        self.connection: Any = self.ice._connection
        self.wire = self.open_path()
        self.output = AudioOutput(Link(Host(), loop.time), 48_000, 1, BufferOptions())
        self.encoder = create_encoder(codec.name, 48_000, 1, options)
        self.output.bind(self.encoder.sample_rate, 1)
        self.broken: list[Exception] = []
        self.track = PlayoutTrack(self.output, self.encoder, self.broken.append)
        self.ended: list[None] = []
        self.track.on("ended", lambda: self.ended.append(None))
        self.sender: Any = RTCRtpSender(self.track, self.dtls)
        self.at_ticks = AudioSender(self.sender, self.track, loop.time)
        if at_ticks:
            fast_internals.replace_sending(self.sender, self.at_ticks.run)
        self._parameters = RTCRtpSendParameters(
            [codec], list(extensions), "audio-0", RTCRtcpParameters("name")
        )

    def open_path(self) -> Wire:
        """Nominate another path."""
        protocol = ice.StunProtocol(self.connection)
        protocol.transport = wire = Wire()
        candidate = Candidate("host", 1, "udp", 1, CLIENT[0], CLIENT[1], "host")
        self.connection._nominated[1] = ice.CandidatePair(protocol, candidate)
        return wire

    async def start(self) -> None:
        await self.sender.send(self._parameters)

    async def stop(self) -> None:
        await self.sender.stop()

    def decrypted(self) -> list[tuple[float, bytes]]:
        """Return the packets sent since the last call, each with its time."""
        found = []
        for when, data in self.wire.sent:
            unprotect = self._received.unprotect_rtcp if is_rtcp(data) else self._received.unprotect
            found.append((when, unprotect(data)))
        self.wire.sent.clear()
        return found

    def packets(self) -> list[bytes]:
        """Return the RTP packets sent since the last call."""
        return [data for _, data in self.decrypted() if not is_rtcp(data)]


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def number(packet: bytes) -> int:
    return int.from_bytes(packet[2:4])


def timestamp(packet: bytes) -> int:
    return int.from_bytes(packet[4:8])


@pytest.fixture
def near_the_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with numbers and timestamps that soon wrap around, and one source."""
    monkeypatch.setattr(rtcrtpsender, "random_sequence_number", lambda: 65_500)
    monkeypatch.setattr(rtcrtpsender, "random32", lambda: 2**32 - 30_000)
    fixed = SimpleNamespace(randrange=lambda end: 65_500, getrandbits=lambda bits: 2**32 - 30_000)
    monkeypatch.setattr(sending, "random", fixed)


@pytest.mark.usefixtures("near_the_wrap")
@pytest.mark.parametrize(
    ("codec", "extensions"), [(OPUS, (MID, LEVEL)), (OPUS, ()), (PCMU, (LEVEL, MID))]
)
def test_packets_are_those_of_aiortc(
    codec: RTCRtpCodecParameters, extensions: tuple[RTCRtpHeaderExtensionParameters, ...]
) -> None:
    sent: list[list[bytes]] = []

    async def main(at_ticks: bool) -> None:
        call = Call(at_ticks=at_ticks, codec=codec, extensions=extensions)
        await call.output.send((48_000, tone(440, 48_000, 0.5)))
        await call.start()
        await asyncio.sleep(2)
        await call.stop()
        sent.append(call.packets())

    run(lambda: main(False))
    run(lambda: main(True))
    theirs, ours = sent[0][:95], sent[1][:95]
    assert len(ours) == 95
    assert ours == theirs
    assert number(ours[0]) == 65_500
    assert number(ours[-1]) == 58


@pytest.mark.usefixtures("near_the_wrap")
def test_silence_with_dtx_has_two_packets_a_second() -> None:
    """Sequence numbers have no gaps, and timestamps go on."""
    sent: list[list[bytes]] = []

    async def main(at_ticks: bool) -> None:
        call = Call(at_ticks=at_ticks, options=OpusOptions(dtx=True))
        await call.output.send((48_000, tone(440, 48_000, 0.5)))
        await call.start()
        await asyncio.sleep(3)
        await call.output.send((48_000, tone(440, 48_000, 0.5)))
        await asyncio.sleep(0.4)
        await call.stop()
        sent.append(call.packets())

    run(lambda: main(False))
    run(lambda: main(True))
    for packets in sent:
        steps = [(timestamp(b) - timestamp(a)) % 2**32 for a, b in pairwise(packets)]
        assert all((number(b) - number(a)) % 2**16 == 1 for a, b in pairwise(packets))
        assert sum(steps) == pytest.approx(3.4 * 48_000, abs=3 * 960)
        assert all(step % 960 == 0 for step in steps)
        pauses = [step for step in steps if step > 960]
        assert 4 <= len(pauses) <= 7
        assert max(pauses) == 21 * 960
        assert set(steps[:25]) == set(steps[-15:]) == {960}
    assert sent[0][:40] == sent[1][:40]


def test_reports_describe_the_packets_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clock = SimpleNamespace(time_ns=lambda: int(loop.time() * 1e9))
        monkeypatch.setattr(fast_internals, "time", clock)
        call = Call()
        await call.start()
        await asyncio.sleep(20)
        packets = octets = reports = 0
        last: tuple[float, bytes] = 0, b""
        for when, data in call.decrypted():
            if not is_rtcp(data):
                last = when, data
                packets, octets = packets + 1, octets + len(data) - 12 - 12
                continue
            report, names = RtcpPacket.parse(data)
            assert isinstance(report, RtcpSrPacket)
            assert isinstance(names, RtcpSdesPacket)
            assert names.chunks[0].items == [(1, b"name")]
            assert report.ssrc == names.chunks[0].ssrc == call.sender._ssrc
            assert report.sender_info.packet_count == packets
            assert report.sender_info.octet_count == octets
            assert report.sender_info.rtp_timestamp == timestamp(last[1])
            assert report.sender_info.ntp_timestamp / 2**32 == pytest.approx(last[0] + NTP_EPOCH)
            reports += 1
        assert reports > 10
        outbound = next(iter((await call.sender.getStats()).values()))
        assert outbound.packetsSent == packets
        assert outbound.bytesSent == octets
        await call.stop()

    run(main)


def test_transport_counts_the_packets_of_both() -> None:
    async def main() -> None:
        call = Call()
        await call.start()
        await asyncio.sleep(3)
        (report,) = call.dtls._get_stats().values()
        assert report.packetsSent == len(call.wire.sent)
        assert report.bytesSent == sum(len(data) for _, data in call.wire.sent)
        await call.stop()

    run(main)


def test_last_packet_is_bye_and_the_timer_ends() -> None:
    async def main() -> None:
        call = Call()
        await call.start()
        await asyncio.sleep(1)
        await call.stop()
        assert call.ended == [None]
        assert call.sender.track is None
        await asyncio.sleep(1)
        packets: list[AnyRtcpPacket] = RtcpPacket.parse(call.decrypted()[-1][1])
        assert isinstance(packets[0], RtcpByePacket)
        assert vars(Ticks.of(asyncio.get_running_loop()))["_timer"] is None

    run(main)


def test_disabled_sender_plays_on_without_sending() -> None:
    async def main() -> None:
        call = Call()
        await call.output.send((48_000, tone(440, 48_000, 3)))
        await call.start()
        await asyncio.sleep(1)
        before = call.packets()
        call.sender._enabled = False
        await asyncio.sleep(1)
        assert call.packets() == []
        assert call.output.statistics().played == pytest.approx(2 * 48_000, abs=1920)
        call.sender._enabled = True
        await asyncio.sleep(1)
        after = call.packets()
        assert number(after[0]) == (number(before[-1]) + 1) % 65_536
        elapsed = (timestamp(after[0]) - timestamp(before[-1])) % 2**32
        assert elapsed == pytest.approx(48_000, abs=1920)
        assert elapsed % 960 == 0
        await call.stop()

    run(main)


def test_sender_without_track_idles_and_resumes_without_a_burst() -> None:
    async def main() -> None:
        call = Call()
        await call.start()
        await asyncio.sleep(1)
        first = call.packets()
        call.sender.replaceTrack(None)
        await asyncio.sleep(1)
        assert call.packets() == []
        call.sender.replaceTrack(call.track)
        await asyncio.sleep(1)
        second = call.packets()
        assert len(second) in (49, 50, 51)
        assert number(second[0]) == (number(first[-1]) + 1) % 65_536
        await call.stop()

    run(main)


def test_packets_follow_the_nominated_path() -> None:
    async def main() -> None:
        call = Call()
        await call.start()
        await asyncio.sleep(1)
        former, call.wire = call.wire, call.open_path()
        former.sent.clear()
        await asyncio.sleep(1)
        assert former.sent == []
        assert len([data for _, data in call.wire.sent if not is_rtcp(data)]) in (49, 50)
        await call.stop()

    run(main)


@pytest.mark.parametrize("end", ["dtls", "ice"])
@pytest.mark.parametrize("at_ticks", [True, False])
def test_end_of_the_transport_ends_the_track(end: str, at_ticks: bool) -> None:
    async def main() -> None:
        call = Call(at_ticks=at_ticks)
        await call.start()
        await asyncio.sleep(1)
        if end == "dtls":
            call.dtls._state = State.CLOSED
        else:
            call.connection._nominated.clear()
        await asyncio.sleep(0.1)
        assert call.ended == [None]
        assert call.broken == []
        call.dtls._state = State.CLOSED
        await call.stop()

    run(main)


def test_nack_of_audio_changes_nothing() -> None:
    async def main() -> None:
        call = Call()
        await call.start()
        await asyncio.sleep(1)
        sent = number(call.packets()[-1])
        packet = RtcpRtpfbPacket(1, 2, call.sender._ssrc, [sent, sent - 1])
        await call.sender._handle_rtcp_packet(packet)
        await asyncio.sleep(0.1)
        assert number(call.packets()[0]) == (sent + 1) % 65_536
        await call.stop()

    run(main)


def test_broken_encoder_is_reported_once_and_the_last_payload_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        call = Call()
        await call.start()
        await asyncio.sleep(1)
        good = call.packets()

        def encode(samples: object) -> bytes:
            raise ValueError("broken")

        monkeypatch.setattr(call.encoder, "encode", encode)
        await asyncio.sleep(1)
        bad = call.packets()
        assert len(bad) in (49, 50, 51)
        assert {packet[24:] for packet in bad} == {good[-1][24:]}
        assert [str(error) for error in call.broken] == ["broken"]
        await call.stop()

    run(main)


def test_failing_step_ends_its_own_sender_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        bad, good = Call(), Call()
        await bad.start()
        await good.start()
        await asyncio.sleep(0.5)
        monkeypatch.setattr(bad.at_ticks, "_header", None)
        good.wire.sent.clear()
        await asyncio.sleep(0.5)
        assert bad.ended == [None]
        task: asyncio.Task[None] = vars(bad.sender)["_RTCRtpSender__rtp_task"]
        assert isinstance(task.exception(), AttributeError)
        assert len(good.packets()) in (24, 25, 26)
        bad.dtls._state = State.CLOSED
        await bad.stop()
        await good.stop()

    run(main)


def test_stall_of_the_loop_costs_neither_delay_nor_samples() -> None:
    """An echo whose packets arrive while the loop stands still is as late afterwards as before."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        call = Call()
        sound = tone(440, 48_000, 0.02)
        await call.start()
        began = loop.time()

        async def echo() -> None:
            sent = 0
            while True:
                while sent * 0.02 + 0.005 < loop.time() - began:
                    await call.output.send((48_000, sound))
                    sent += 1
                await asyncio.sleep(0.001)

        source = asyncio.create_task(echo())
        await asyncio.sleep(2)
        before = call.output.statistics()
        call.packets()
        loop.stall(0.14)
        await asyncio.sleep(2)
        after = call.output.statistics()
        assert after.buffered <= before.buffered
        assert after.underruns == before.underruns
        assert after.played - before.played >= 2.1 * 48_000
        packets = call.packets()
        assert len(packets) == pytest.approx(2.14 * 50, abs=2)
        steps = [(timestamp(b) - timestamp(a)) % 2**32 for a, b in pairwise(packets)]
        assert set(steps) == {960}
        source.cancel()
        await call.stop()

    run(main)


class FakeOutput:
    """An output with as much audio queued as a test says."""

    def __init__(self) -> None:
        self.queued = 0
        self.pulls = 0
        self.skipped = 0.0
        self.pushed_at = self.needed_at = 0.0

    @property
    def frames_left(self) -> int:
        return self.queued

    def count_frames(self) -> int:
        return self.queued

    def pull(self) -> bytes:
        self.pulls += 1
        self.queued = max(0, self.queued - 1)
        return b"payload"

    def skip(self, seconds: float) -> None:
        self.skipped += seconds


@given(
    st.lists(
        st.tuples(st.sampled_from([1, 1, 1, 2, 3, 8, 11, 40]), st.integers(0, 6), st.booleans()),
        max_size=60,
    )
)
def test_timestamps_are_those_of_the_clock(ticks: list[tuple[int, int, bool]]) -> None:
    """For any ticks missed, audio pushed and moves to the other phase."""
    output = FakeOutput()
    sent: list[int] = []
    track: Any = SimpleNamespace(output=output, rtp_increment=960)
    track.encode_next = output.pull
    fake: Any = SimpleNamespace(track=track, _enabled=True)
    made = AudioSender(fake, track)
    first, phase = vars(made)["_first_timestamp"], vars(made)["_phase"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            fast_internals,
            "send_packet",
            lambda sender, srtp, packet, octets, stamp: sent.append((stamp - first) % 2**32),
        )
        passed = 0.0
        made.step(1000)
        for missed, pushed, moves in ticks:
            passed += missed * 0.02
            if moves and phase.moves < 4:
                phase.moves += 1
                passed -= 0.01
            output.queued += pushed
            before = len(sent)
            made.step(1000 + passed)
            assert len(sent) - before <= 11
            # At most the limit of a stall is owed, and the packet of a late tick.
            ahead = phase.moves * 480
            assert -1 <= passed * 48_000 + ahead - sent[-1] <= 11 * 960 + 1
        assert all(stamp % 960 == 0 for stamp in sent)
        assert sent == sorted(set(sent))
        assert output.pulls == len(sent)
        made.step(1000 + passed + 0.3)
        assert sent[-1] == round((passed + 0.3) * 48_000) + phase.moves * 480
        assert output.skipped == pytest.approx(sent[-1] / 48_000 + 0.02 - output.pulls * 0.02)
