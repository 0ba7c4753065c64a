"""The short path of incoming audio against aiortc's, on virtual time without a network.

Two transports with the same keys get the same datagrams, one of them by the short path.
Both must count, report and pass on the same.
"""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from typing import Any, cast

import aiortc.rtcdtlstransport
import pytest
from aiortc import RTCCertificate, RTCIceGatherer, RTCIceTransport, RTCRtpReceiver
from aiortc.codecs import CODECS
from aiortc.rtcdtlstransport import RTCDtlsTransport, State
from aiortc.rtcrtpparameters import (
    RTCRtpCodecParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpReceiveParameters,
)
from aiortc.rtcrtpreceiver import RemoteStreamTrack
from aiortc.rtp import RtcpByePacket, RtcpSenderInfo, RtcpSrPacket
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastrtc_anyio import AddressPolicy
from fastrtc_anyio._media.encode import OpusEncoder
from fastrtc_anyio._peers.discards import Discards
from fastrtc_anyio._peers.webrtc import feedback
from fastrtc_anyio._peers.webrtc.audio import AudioTap
from fastrtc_anyio._peers.webrtc.consent import Clock
from fastrtc_anyio._peers.webrtc.fast_internals import VARIABLE
from fastrtc_anyio._peers.webrtc.guard import Admission
from fastrtc_anyio._peers.webrtc.ice_path import IcePath
from fastrtc_anyio._peers.webrtc.media_internals import replace_audio_jitter_buffer
from fastrtc_anyio.testing import tone
from tests.kit.virtual_asyncio import VirtualLoop

srtp: Any = aiortc.rtcdtlstransport
Policy, Session = srtp.Policy, srtp.Session  # of pylibsrtp, which aiortc requires

PROFILES = [Policy.SRTP_PROFILE_AEAD_AES_128_GCM, Policy.SRTP_PROFILE_AES128_CM_SHA1_80]
KEY = bytes(range(30))
CLIENT = ("10.0.0.9", 5000)
PCMU, OPUS, EVENT, VP8, RTX, UNKNOWN = 0, 126, 101, 97, 98, 120
"""Payload types. The type of Opus looks like the second byte of DTLS."""
SOUND = OpusEncoder(48_000, 1).encode(cast(Any, tone(440, 48_000, 0.02)))
CERTIFICATE = RTCCertificate.generateCertificate()


@pytest.fixture(autouse=True, scope="module")
def fast_path() -> Generator[None, None, None]:
    """Permit the short path although the whole run may be without it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(VARIABLE, raising=False)
        yield


def policy(kind: int, profile: int) -> Any:
    result = Policy(key=KEY, ssrc_type=kind, srtp_profile=profile)
    result.allow_repeat_tx = True
    result.window_size = 1024
    return result


class Recorder:
    """Takes the place of the queue of the host."""

    def __init__(self) -> None:
        self.pieces: list[Any] = []

    def push(self, frame: Any, *rest: Any) -> None:
        self.pieces.append((frame.samples.tobytes(), *rest))

    def count_lost(self, packets: int) -> None:
        self.pieces.extend([None] * packets)


class VideoBuffer:
    """Takes the place of aiortc's buffer of video."""

    def __init__(self) -> None:
        self.packets: list[Any] = []

    def add(self, packet: Any) -> Any:
        self.packets.append(packet.sequence_number)
        return False, None


class End:
    """A connected transport with receivers of audio and of video."""

    def __init__(self, *, short: bool, profile: int) -> None:
        self.ice = RTCIceTransport(RTCIceGatherer([]))
        dtls = RTCDtlsTransport(self.ice, [CERTIFICATE])
        self.dtls = cast(Any, dtls)
        self.discards, self.clock = Discards(), Clock()
        admission = Admission(self.clock, AddressPolicy(), 8)
        self.path = IcePath(dtls, [], self.clock, admission, self.ignore, self.discards)
        feedback.limit_feedback(dtls, [], self.discards)
        self.dtls._ssl = Ssl()
        self.dtls._RTCDtlsTransport__handshake_done = True
        self.dtls._rx_srtp = Session(policy(Policy.SSRC_ANY_INBOUND, profile))
        self.dtls._srtp_profiles = []  # aiortc exports no keys
        self.dtls._setup_srtp()
        self.protocol: Any = object()
        self.heard: list[Any] = []
        hear = self.path._hear_packet
        self.path._hear_packet = lambda origin: self.heard.append((origin, hear(origin)))  # type: ignore[method-assign]
        self.dtls._set_state(State.CONNECTED)
        assert self.path.sockets.take is not None
        if not short:
            self.path.sockets.take = None
        self.recorder, self.video = Recorder(), VideoBuffer()
        loop = asyncio.get_running_loop()
        names = {PCMU: "PCMU", OPUS: "opus"}
        self.tap = AudioTap(names, cast(Any, self.recorder), self.discards, loop)
        self.audio = self.receive("audio", [PCMU, OPUS, EVENT, RTX], self.tap)
        self.audio._RTCRtpReceiver__rtx_ssrc[3] = 1  # source 3 repeats packets of source 1
        self.pictures = self.receive("video", [VP8], self.video)

    def ignore(self, coroutine: Coroutine[Any, Any, object]) -> None:
        coroutine.close()

    def receive(self, kind: str, payload_types: list[int], buffer: Any) -> Any:
        receiver: Any = RTCRtpReceiver(kind, self.dtls)
        receiver._track = RemoteStreamTrack(kind)
        replace_audio_jitter_buffer(receiver, buffer)
        self.register(receiver, kind, payload_types)
        return receiver

    def register(self, receiver: Any, kind: str, payload_types: list[int]) -> None:
        known = {codec.payloadType: codec for codec in CODECS[kind]}
        event = RTCRtpCodecParameters(f"{kind}/telephone-event", 8000, payloadType=EVENT)
        known[RTX] = RTCRtpCodecParameters(
            f"{kind}/rtx", 48_000, payloadType=RTX, parameters={"apt": OPUS}
        )
        opus = next((one for one in CODECS[kind] if one.name == "opus"), event)
        codecs = [known.get(number, event if number == EVENT else opus) for number in payload_types]
        for number, codec in zip(payload_types, codecs, strict=True):
            receiver._RTCRtpReceiver__codecs[number] = codec
        parameters = RTCRtpReceiveParameters(
            codecs=[
                RTCRtpCodecParameters(one.mimeType, one.clockRate, payloadType=number)
                for number, one in zip(payload_types, codecs, strict=True)
            ],
            headerExtensions=[
                RTCRtpHeaderExtensionParameters(1, "urn:ietf:params:rtp-hdrext:sdes:mid")
            ],
        )
        self.dtls._register_rtp_receiver(receiver, parameters)

    async def deliver(self, data: bytes) -> None:
        """Receive a datagram from an established origin, and let aiortc read what it left."""
        self.path.sockets._receive_data(data, (self.protocol, CLIENT))
        while not self.path.sockets._datagrams.is_empty:
            await self.dtls._recv_next()

    def state(self) -> dict[str, Any]:
        """Return what must not depend on the path."""
        streams = self.audio._RTCRtpReceiver__remote_streams
        fields = ("base_seq", "max_seq", "cycles", "packets_received", "jitter", "packets_lost")
        return {
            "bytes": self.dtls._RTCDtlsTransport__rx_bytes,
            "packets": self.dtls._RTCDtlsTransport__rx_packets,
            "sources": set(self.dtls._rtp_router.ssrc_table),
            "active": set(self.audio._RTCRtpReceiver__active_ssrc),
            "streams": {n: [getattr(s, f) for f in fields] for n, s in streams.items()},
            "reports": dict(self.audio._RTCRtpReceiver__lsr),
            "audio": self.recorder.pieces,
            "video": self.video.packets,
            "alive": self.path.consent.heard,
            "discarded": vars(self.discards.statistics()),
        }


class Ssl:
    """Takes the place of OpenSSL, with keys exported already."""

    def get_selected_srtp_profile(self) -> bytes:
        return b""

    def DTLSv1_get_timeout(self) -> None:  # noqa: N802
        return None


@dataclass(frozen=True)
class Packet:
    """A packet of the client, or what happens instead."""

    kind: str = "rtp"
    payload_type: int = OPUS
    step: int = 1
    ssrc: int = 1
    first: int = 0x80
    middle: bytes = b""
    payload: bytes = SOUND
    tail: bytes = b""


KINDS = ["rtp"] * 12 + [
    "replay", "forged", "truncated", "report", "bye", "disable", "enable", "unregister",
    "register", "wait", "dtls",
]  # fmt: skip

MIDDLES = [
    (0x80, b"", b""),
    (0x82, bytes(8), b""),  # contributing sources
    (0x8F, b"", b""),  # that are not there
    (0x90, b"\xbe\xde\0\1\x100\0\0", b""),  # mid
    (0x90, b"\x12\x34\xff\xff", b""),  # an extension beyond the end
    (0xA0, b"", b"\0\0\3"),  # padding
    (0xA0, b"", b"\xff"),  # beyond the end
    (0xA0, b"", b"\0"),
]


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    first, middle, tail = draw(st.sampled_from([MIDDLES[0]] * 8 + MIDDLES[1:]))
    return Packet(
        draw(st.sampled_from(KINDS)),
        draw(st.sampled_from([OPUS] * 8 + [PCMU, EVENT, VP8, RTX, UNKNOWN])),
        draw(st.sampled_from([1] * 8 + [2, -1, 0, 5, 2000, 30_000])),
        draw(st.sampled_from([1] * 6 + [2, 3])),
        first,
        middle,
        draw(st.sampled_from([SOUND] * 6 + [b"", b"\xff\xff\xff"])),
        tail,
    )


class Client:
    """Encrypts the packets. ``sent`` are those of each source."""

    def __init__(self, profile: int) -> None:
        self.session = Session(policy(Policy.SSRC_ANY_OUTBOUND, profile))
        self.sent: list[bytes] = [b"\x80\x7e" + bytes(30)]
        self.numbers = {1: 65_500, 2: 7, 3: 1000}
        self.timestamp = 2**32 - 40 * 960

    def make(self, packet: Packet) -> Any:
        """Return a datagram."""
        match packet.kind:
            case "replay":
                return self.sent[-1]
            case "forged":
                data = self.sent[-1]
                return data[:-1] + bytes([data[-1] ^ 1])
            case "truncated":
                return self.sent[-1][: max(12, len(self.sent[-1]) // 2)]
            case "report":
                info = RtcpSenderInfo(2**40, 1, 2, 3)
                return self.session.protect_rtcp(bytes(RtcpSrPacket(packet.ssrc, info)))
            case "bye":
                return self.session.protect_rtcp(bytes(RtcpByePacket([packet.ssrc])))
            case "dtls":
                return b"\x16\xfe\xfd" + bytes(5) + packet.ssrc.to_bytes(4) + bytes(20)
        number = self.numbers[packet.ssrc] = (self.numbers[packet.ssrc] + packet.step) % 65_536
        self.timestamp = (self.timestamp + 960 * packet.step) % 2**32
        header = bytes([packet.first, packet.payload_type]) + number.to_bytes(2)
        header += self.timestamp.to_bytes(4) + packet.ssrc.to_bytes(4)
        try:
            data = self.session.protect(header + packet.middle + packet.payload + packet.tail)
        except Exception:  # libsrtp refuses to encrypt some malformed packets
            return self.sent[-1]
        self.sent.append(data)
        return data


def apply(end: End, packet: Packet) -> bool:
    """Change the state of an end; return False if ``packet`` is one."""
    match packet.kind:
        case "disable" | "enable":
            end.audio._enabled = packet.kind == "enable"
        case "unregister":
            end.dtls._unregister_rtp_receiver(end.audio)
        case "register":
            end.register(end.audio, "audio", [PCMU, OPUS, EVENT, RTX])
        case "wait":
            pass
        case _:
            return False
    return True


def run(main: Coroutine[Any, Any, object]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)


async def compare(sent: list[Packet], profile: int, patch: pytest.MonkeyPatch) -> int:
    """Deliver packets to both ends; return how many took the short path."""
    loop = asyncio.get_running_loop()
    patch.setattr("aiortc.rtcrtpreceiver.time.time", loop.time)
    plain, short = (End(short=short, profile=profile) for short in (False, True))
    assert short.path.sockets.take is not None
    took, take = 0, short.path.sockets.take

    def count(*args: Any) -> bool:
        nonlocal took
        result = take(*args)
        took += result
        return result

    short.path.sockets.take = count
    client = Client(profile)
    for packet in sent:
        if apply(plain, packet):
            apply(short, packet)
        else:
            data = client.make(packet)
            await plain.deliver(data)
            await short.deliver(data)
        await asyncio.sleep(0.06 if packet.kind == "wait" else 0.01)
    await asyncio.sleep(0.2)  # held packets are released
    one, other = plain.state(), short.state()
    assert other.pop("alive") == pytest.approx(one.pop("alive"), abs=0.05)
    assert other == one
    for end in (plain, short):
        end.tap.close()
    return took


@settings(deadline=None)
@given(st.lists(packets(), min_size=10, max_size=60), st.sampled_from(PROFILES))
@example([Packet(), Packet(), Packet("disable"), Packet(), Packet("enable"), Packet()], 1)
@example([Packet(), Packet(), Packet("unregister"), Packet(), Packet("register"), Packet()], 1)
@example([Packet(), Packet(), Packet(payload_type=EVENT), Packet(), Packet(ssrc=2)], 1)
@example([Packet(), Packet(), *[Packet(payload_type=RTX, ssrc=3)] * 2, Packet()], 1)
def test_both_paths_do_the_same(sent: list[Packet], profile: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        run(compare(sent, profile, patch))


@pytest.mark.parametrize("profile", PROFILES)
def test_all_packets_but_the_first_take_the_short_path(profile: int) -> None:
    """Also where the sequence numbers and the timestamps start again."""

    async def main() -> None:
        with pytest.MonkeyPatch.context() as patch:
            assert await compare([Packet()] * 100, profile, patch) == 99
            lost = [Packet(step=2 if number % 10 == 0 else 1) for number in range(100)]
            assert await compare(lost, profile, patch) == 99

    run(main())


def test_packets_behind_waiting_ones_take_the_path_of_aiortc() -> None:
    async def main() -> None:
        end, client = End(short=True, profile=PROFILES[0]), Client(PROFILES[0])
        await end.deliver(client.make(Packet()))
        waiting = end.path.sockets._datagrams
        for _ in range(3):
            waiting.put(client.make(Packet()), (end.protocol, CLIENT))
        end.path.sockets._receive_data(client.make(Packet()), (end.protocol, CLIENT))
        assert len(waiting._items) == 4
        while not waiting.is_empty:
            await end.dtls._recv_next()
        await end.deliver(client.make(Packet()))
        assert end.audio._RTCRtpReceiver__remote_streams[1].packets_received == 6
        assert len([piece for piece in end.recorder.pieces if piece is not None]) == 6
        assert end.path.consent.heard == 0.0
        end.tap.close()

    run(main())


def test_sources_are_reported_as_active() -> None:
    async def main() -> None:
        end, client = End(short=True, profile=PROFILES[0]), Client(PROFILES[0])
        await end.deliver(client.make(Packet()))
        active = end.audio._RTCRtpReceiver__active_ssrc
        active[1] = datetime.datetime.fromtimestamp(0, datetime.UTC)
        assert end.audio.getSynchronizationSources() == []
        await asyncio.sleep(0.1)
        await end.deliver(client.make(Packet()))
        assert [one.source for one in end.audio.getSynchronizationSources()] == [1]
        end.tap.close()

    run(main())


def test_exception_in_the_decoder_costs_one_packet() -> None:
    async def main() -> None:
        end, client = End(short=True, profile=PROFILES[0]), Client(PROFILES[0])
        await end.deliver(client.make(Packet()))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(end.recorder, "push", lambda *args: 1 / 0)
            await end.deliver(client.make(Packet()))
        await end.deliver(client.make(Packet()))
        assert end.discards.statistics().datagrams == 1
        assert len(end.recorder.pieces) == 2
        end.tap.close()

    run(main())


def test_closed_transport_takes_no_packet() -> None:
    async def main() -> None:
        end, client = End(short=True, profile=PROFILES[0]), Client(PROFILES[0])
        for _ in range(2):
            await end.deliver(client.make(Packet()))
        assert len(end.recorder.pieces) == 2
        end.dtls._set_state(State.CLOSED)
        end.path.sockets._receive_data(client.make(Packet()), (end.protocol, CLIENT))
        assert len(end.recorder.pieces) == 2
        end.tap.close()

    run(main())


@pytest.mark.parametrize("size", [12, 13, 100, 1500])
@pytest.mark.parametrize("first", [0x80, 0x8F, 0x90, 0xA0, 0xBF])
def test_forged_packets_of_a_known_source_move_nothing(size: int, first: int) -> None:
    async def main() -> None:
        end, client = End(short=True, profile=PROFILES[1]), Client(PROFILES[1])
        for _ in range(3):
            await end.deliver(client.make(Packet()))
        before, heard = end.state(), len(end.heard)
        for number in (0, 65_503, 65_504, 40_000):
            header = bytes([first, OPUS]) + number.to_bytes(2) + bytes(4) + (1).to_bytes(4)
            await end.deliver((header + os.urandom(size))[:size])
        after = end.state()
        assert after.pop("packets") == before.pop("packets") + 4
        assert after.pop("bytes") == before.pop("bytes") + 4 * size
        assert after == before
        assert len(end.heard) == heard
        await end.deliver(client.make(Packet()))
        assert len(end.recorder.pieces) == 4
        end.tap.close()

    run(main())
