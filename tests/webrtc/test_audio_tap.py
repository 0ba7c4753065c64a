"""Reordering, timing and decoding of incoming audio packets, without a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from aiortc.rtp import RtpPacket

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._media.encode import OpusEncoder, create_encoder
from fastrtc_anyio._media.reorder import HOLD_SECONDS
from fastrtc_anyio._peers.discards import Discards
from fastrtc_anyio._peers.streams.audio import AudioInput
from fastrtc_anyio._peers.streams.link import Link
from fastrtc_anyio._peers.webrtc.audio import AUDIO_RATE, AudioTap
from fastrtc_anyio.abc import AudioInStatistics
from fastrtc_anyio.testing import tone, tone_snr

PCMU, OPUS = 0, 111
LOUD = bytes([0x80]) * 160


class Recorder:
    """Takes the place of the host's queue.

    Attributes:
        pieces: duration in seconds, gap, and whether it is concealed, for each frame.
    """

    def __init__(self) -> None:
        self.pieces: list[tuple[float, float | None, bool]] = []
        self.samples: list[Any] = []
        self.counters = AudioInStatistics()

    def push(
        self, frame: Any, gap: float | None = None, concealed: bool = False, recovered: bool = False
    ) -> None:
        self.pieces.append((frame.duration, None if gap is None else round(gap, 4), concealed))
        self.samples.append(frame.samples)
        self.counters.recovered_seconds += frame.duration if recovered else 0

    def count_lost(self, packets: int) -> None:
        self.counters.lost += packets


class Clock:
    """A loop's clock and timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Any:
        self.timers.append((when, callback))
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in [timer for timer in self.timers if timer[0] <= self.now]:
            self.timers.remove(timer)
            timer[1]()


class Line:
    """A tap, and a sender of packets of 20 ms."""

    def __init__(self, payload_type: int = PCMU, ticks: int = 160, **wanted: Any) -> None:
        self.wanted = wanted
        self.heard = Recorder()
        self.clock = Clock()
        self.tap = self.open(self.heard, self.clock)
        self.payload_type = payload_type
        self.ticks = ticks

    def open(self, recorder: Any, clock: Any) -> AudioTap:
        codecs = {PCMU: "PCMU", 9: "G722", OPUS: "opus"}
        return AudioTap(codecs, recorder, Discards(), clock, **self.wanted)

    def send(
        self,
        number: int,
        at: int | None = None,
        payload: bytes = bytes(160),
        ssrc: int = 1,
        wait: float = 0.02,
    ) -> None:
        """Send packet ``number`` with the timestamp of the ``at``-th frame, and wait."""
        place = number if at is None else at
        packet = RtpPacket(
            payload_type=self.payload_type,
            sequence_number=number & 0xFFFF,
            timestamp=place * self.ticks & 0xFFFFFFFF,
        )
        packet.ssrc = ssrc
        packet.payload = payload
        assert self.tap.add(packet) == (False, None)
        self.clock.advance(wait)


FRAME = 0.02, 0.0, False
CONCEALED = 0.02, 0.0, True


def test_packets_in_order_are_delivered_at_once() -> None:
    """Sequence numbers wrap after 36 packets, timestamps after 36 as well."""
    line = Line()
    first = (1 << 32) // 160 // (1 << 16) * (1 << 16) - 36
    for i in range(first, first + 100):
        line.send(i, at=(1 << 32) // 160 - 36 + i - first)
        assert len(line.heard.pieces) == i - first + 1
    assert line.heard.pieces == [(0.02, None, False)] + [FRAME] * 99
    assert {samples.shape for samples in line.heard.samples} == {(1, 160)}
    assert not line.clock.timers


def test_lost_packet_is_concealed() -> None:
    line = Line()
    for i in (0, 1, 3, 4, 5, 6):
        line.send(i, payload=LOUD)
    assert line.heard.pieces[1:] == [FRAME, CONCEALED, FRAME, FRAME, FRAME, FRAME]
    assert all(samples.any() for samples in line.heard.samples)
    assert line.heard.counters.lost == 1


def test_packet_behind_a_loss_is_not_held_for_the_next() -> None:
    """With DTX the next packet may come after 400 ms, or never."""
    line = Line()
    line.send(0)
    line.send(2, wait=0)
    assert len(line.heard.pieces) == 1
    line.clock.advance(HOLD_SECONDS)
    assert line.heard.pieces[1:] == [CONCEALED, FRAME]
    assert not line.clock.timers


def test_long_loss_is_concealed_for_60_ms_and_then_a_gap() -> None:
    line = Line()
    for i in (0, *range(51, 56)):
        line.send(i)
    assert line.heard.pieces[1:5] == [CONCEALED] * 3 + [(0.02, 0.94, False)]
    assert line.heard.counters.lost == 50


@pytest.mark.parametrize("frames", [1, 20, 500])
def test_gap_in_timestamps_alone_is_reported_not_concealed(frames: int) -> None:
    """A muted sender, or DTX: RFC 3550 5.1, RFC 7587 3.1.3."""
    line = Line()
    for i in range(3):
        line.send(i)
    line.send(3, at=3 + frames)
    line.send(4, at=4 + frames)
    assert line.heard.pieces[3:] == [(0.02, round(frames * 0.02, 4), False), FRAME]
    assert line.heard.counters.lost == 0


def test_g722_timestamps_count_at_8_khz() -> None:
    """RFC 3551 4.5.2: the clock rate is half the sample rate."""
    line = Line(payload_type=9)
    encoder = create_encoder("G722", 16_000, 1)
    payload = encoder.encode(np.zeros((1, 320), np.int16))
    for i in (0, 1, 2, 4, 5, 6, 7):
        line.send(i, payload=payload)
    line.send(8, at=108, payload=payload)
    assert line.heard.pieces[1:] == [
        FRAME, FRAME, CONCEALED, FRAME, FRAME, FRAME, FRAME, (0.02, 2.0, False)
    ]  # fmt: skip


def test_rounded_timestamps_show_no_gap() -> None:
    """Until their deviation adds up."""
    line = Line()
    line.ticks = 1
    for i in range(10):
        line.send(i, at=i * 160 + i % 3 * 10)
    assert line.heard.pieces[1:] == [FRAME] * 9


@pytest.mark.parametrize("at", [0, 10**6, 2**31 // 160])
def test_sender_that_restarts_begins_anew(at: int) -> None:
    """Timestamps that go back, or jump by hours, are those of another clock."""
    line = Line()
    for i in range(100):
        line.send(i, at=1000 + i)
    for i in range(100, 110):
        line.send(i, at=at + i)
    assert line.heard.pieces[100:] == [(0.02, None, False)] + [FRAME] * 9
    assert line.heard.counters.lost == 0


@pytest.mark.parametrize("jump", [-(2**31), -8000, 11 * 8000, 3599 * 8000, 5 * 3600 * 8000])
@pytest.mark.parametrize("pause", [0.0, 0.5])
@pytest.mark.parametrize("lost", [(), (100,), (101,)])
async def test_jump_of_timestamps_costs_no_audio_and_leaves_no_delay(
    jump: int, pause: float, lost: tuple[int, ...]
) -> None:
    """The numbers go on. Elapsed time shows the gap, and a lost packet is concealed."""
    line = Line()
    audio = AudioInput(Link(Host(), line.clock.time))
    line.tap = line.open(audio, line.clock)
    heard: list[float] = []
    for i in range(200):
        if i == 100:
            line.clock.advance(pause)
        if i not in lost:
            line.send(i, at=(2**31 + (jump if i >= 100 else 0)) // 160 + i, payload=LOUD)
        else:
            line.clock.advance(0.02)
        heard.append(0.0)
        while audio.statistics().buffered:
            heard[-1] += (await audio.receive()).duration
    assert heard[:100] == heard[103:] + [0.02] * 3 == [0.02] * 100
    surplus = sum(heard) - (200 - len(lost)) * 0.02
    assert 0 <= round(surplus, 6) <= pause + 0.08


def test_new_ssrc_restarts_reordering() -> None:
    line = Line()
    for i in (*range(1000, 1010), 1011):
        line.send(i, ssrc=1)
    for i in range(500, 510):
        line.send(i, ssrc=2)
    # The packet held for another one is not lost.
    assert len(line.heard.pieces) == 22
    assert [gap for _, gap, _ in line.heard.pieces].count(None) == 2


@pytest.mark.parametrize("bad", [b"", b"\xff\xff\xff", b"\x03", b"\xfb" + bytes(3)])
def test_malformed_packet_costs_only_itself(bad: bytes) -> None:
    line = Line(payload_type=OPUS, ticks=960)
    encoder = OpusEncoder(48_000, 1)
    sound = tone(440, 48_000, 0.2)
    for i in range(10):
        payload = encoder.encode(sound[:, i * 960 : i * 960 + 960])
        line.send(i, payload=bad if i == 4 else payload)
    assert line.heard.pieces[1:] == [FRAME] * 3 + [CONCEALED] + [FRAME] * 5
    assert line.heard.counters.lost == 1


def test_first_packets_may_be_malformed() -> None:
    line = Line(payload_type=OPUS, ticks=960)
    for i in range(3):
        line.send(i, payload=b"")
    line.send(3, payload=OpusEncoder(48_000, 1).encode(np.zeros((1, 960), np.int16)))
    assert line.heard.pieces == [(0.02, None, False)]


@pytest.mark.parametrize(
    ("rate", "decoded"), [(8_000, 8_000), (22_050, 24_000), (24_000, 24_000), (44_100, 48_000)]
)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sent", [1, 2])
def test_opus_is_decoded_in_the_format_of_the_handler(
    rate: int, decoded: int, channels: int, sent: int
) -> None:
    """Every packet gives a whole frame."""
    line = Line(OPUS, 960, sample_rate=rate, channels=channels)
    encoder = OpusEncoder(48_000, sent)
    for i in range(10):
        line.send(i, payload=encoder.encode(np.zeros((sent, 960), np.int16)))
    assert line.heard.pieces[1:] == [FRAME] * 9
    assert {samples.shape for samples in line.heard.samples} == {(channels, decoded // 50)}


def test_channels_follow_the_first_stereo_packet_if_none_are_wanted() -> None:
    line = Line(OPUS, 960)
    mono, stereo = OpusEncoder(48_000, 1), OpusEncoder(48_000, 2)
    sounds = tone(440, 48_000, 0.8), tone(700, 48_000, 0.8)
    for i in range(40):
        left, right = (sound[:, i * 960 : i * 960 + 960] for sound in sounds)
        both = np.concatenate([left, right])
        line.send(i, payload=stereo.encode(both) if 10 <= i < 30 else mono.encode(left))
    assert [len(samples) for samples in line.heard.samples] == [1] * 10 + [2] * 30
    assert line.heard.pieces[1:] == [FRAME] * 39
    heard = np.concatenate(line.heard.samples[15:30], axis=1)
    assert tone_snr(heard[1], 700, 48_000) > 30


def test_telephone_codecs_keep_their_format() -> None:
    line = Line(sample_rate=24_000, channels=2)
    line.send(0)
    assert line.heard.samples[0].shape == (1, 160)


def test_packet_of_another_payload_type_does_not_count_as_lost() -> None:
    """As a telephone event: audio stops meanwhile, and timestamps go on."""
    line = Line()
    line.send(0)
    line.payload_type = 101
    line.send(1)
    line.send(2)
    line.payload_type = PCMU
    line.send(3)
    assert line.heard.pieces[1:] == [(0.02, 0.04, False)]
    assert line.heard.counters.lost == 0


def test_closed_tap_ignores_packets_and_has_no_timer() -> None:
    line = Line()
    line.send(0)
    line.send(2, wait=0)
    assert line.clock.timers
    line.tap.close()
    line.tap.close()
    assert not line.clock.timers
    line.send(3)
    assert len(line.heard.pieces) == 1


def test_audio_much_faster_than_in_real_time_is_not_decoded() -> None:
    line = Line(OPUS, 5760)
    longest = bytes([0xE3, 48])  # 48 empty frames of 2.5 ms
    for i in range(300):
        line.send(i, payload=longest)
        line.clock.now -= 0.01
    heard = sum(duration for duration, _, _ in line.heard.pieces)
    assert 3 * AUDIO_RATE < heard < 4 * AUDIO_RATE + 1


def test_audio_of_a_network_that_stalled_for_seconds_is_decoded() -> None:
    line = Line()
    for i in range(200):
        line.send(i)
        line.clock.now = 0.0
    assert sum(duration for duration, _, _ in line.heard.pieces) == pytest.approx(4.0)
