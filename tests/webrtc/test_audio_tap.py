"""Reordering and decoding of incoming audio packets, without a network."""

from __future__ import annotations

from aiortc.codecs import PCMU_CODEC
from aiortc.rtp import RtpPacket

from fastrtc_anyio import AudioFrame
from fastrtc_anyio._peers.webrtc.audio import AudioTap


def packet(sequence: int, ssrc: int = 1, payload: bytes = bytes(160)) -> RtpPacket:
    made = RtpPacket(payload_type=0, sequence_number=sequence & 0xFFFF, timestamp=sequence * 160)
    made.ssrc = ssrc
    made.payload = payload
    return made


def open_tap() -> tuple[AudioTap, list[AudioFrame]]:
    delivered: list[AudioFrame] = []
    return AudioTap({0: PCMU_CODEC}, delivered.append), delivered


def test_packets_in_order_are_delivered_at_once() -> None:
    tap, delivered = open_tap()
    for i in range(65_500, 65_600):
        assert tap.add(packet(i)) == (False, None)
    assert len(delivered) == 100
    assert {(f.sample_rate, f.samples.shape) for f in delivered} == {(8_000, (1, 160))}


def test_lost_packet_becomes_silence() -> None:
    tap, delivered = open_tap()
    for i in (0, 1, 3, 4, 5, 6):
        tap.add(packet(i, payload=bytes([0x80]) * 160))
    assert len(delivered) == 7
    assert [bool(f.samples.any()) for f in delivered] == [True, True, False, True, True, True, True]


def test_new_ssrc_restarts_reordering() -> None:
    tap, delivered = open_tap()
    for i in range(1000, 1010):
        tap.add(packet(i, ssrc=1))
    for i in range(500, 510):
        tap.add(packet(i, ssrc=2))
    assert len(delivered) == 20


def test_undecodable_packet_becomes_silence() -> None:
    tap, delivered = open_tap()
    tap.add(packet(0))
    tap.add(packet(1, payload=b""))
    tap.add(packet(2))
    assert len(delivered) == 3
