"""Reception: audio and gaps add up to the time on the sender's clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtc_anyio._media.decode import MalformedPacket, WaveformDecoder, create_decoder
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._media.reception import RTP_MODULUS, Received, Reception

RATE = 8_000
FRAME = RATE // 50
LOUD = np.full((1, FRAME), 9_000, np.int16)


def identity(samples: Int16Array) -> Int16Array:
    if not samples.shape[1]:
        raise MalformedPacket
    return samples


def reception(tolerance: float = 0.005, modulus: int | None = RTP_MODULUS) -> Reception[Int16Array]:
    decoder = WaveformDecoder(identity, RATE, 1, RATE)
    return Reception(decoder, tolerance=tolerance, modulus=modulus)


def duration(pieces: list[Received]) -> float:
    """Return the time that pieces and the gaps before them take, in seconds."""
    return sum(piece.frame.duration + (piece.gap or 0.0) for piece in pieces)


fates = st.sampled_from(["arrives", "arrives", "lost", "malformed"])


@given(
    st.integers(0, RTP_MODULUS - 1),
    st.lists(st.tuples(fates, st.integers(0, 3_000), st.integers(20, 400)), max_size=60),
)
def test_audio_and_gaps_keep_up_with_the_senders_clock(
    origin: int, packets: list[tuple[str, int, int]]
) -> None:
    """For packets of any length, of which any may be lost, malformed or not sent."""
    receiver = reception()
    pieces = receiver.receive(LOUD, origin, 0)
    clock, lost, bad = origin + FRAME, 0, 0
    for fate, pause, size in [*packets, ("arrives", 0, FRAME)]:
        clock += pause if pause > 100 else 0
        if fate == "lost":
            lost += 1
            bad += 1
        else:
            samples = LOUD[:, :1].repeat(size if fate == "arrives" else 0, axis=1)
            pieces += receiver.receive(samples, clock % RTP_MODULUS, lost)
            lost = 0
            bad += fate == "malformed"
        clock += size
    assert duration(pieces) == pytest.approx((clock - origin) / RATE, abs=0.005)
    assert receiver.lost == bad
    assert all(piece.gap is None or piece.gap >= 0 for piece in pieces)
    assert all(piece.frame.samples.shape[1] > 0 for piece in pieces)


@given(st.lists(st.integers(-30, 30), max_size=100), st.integers(0, RTP_MODULUS - 1))
def test_jitter_of_timestamps_shows_no_gap(jitter: list[int], origin: int) -> None:
    receiver = reception()
    receiver.receive(LOUD, origin, 0)
    for i, error in enumerate(jitter, 1):
        pieces = receiver.receive(LOUD, (origin + i * FRAME + error) % RTP_MODULUS, 0)
        assert [piece.gap for piece in pieces] in ([0.0], [None])
        assert abs(error) > 20 or pieces[0].gap == 0.0


def test_drift_of_timestamps_adds_up_to_a_gap() -> None:
    """A sender whose clock is 1 % faster than its samples."""
    receiver = reception()
    pieces: list[Received] = []
    for i in range(1000):
        pieces += receiver.receive(LOUD, round(i * FRAME * 1.01), 0)
    assert duration(pieces) == pytest.approx(20.2, abs=0.01)


@given(st.integers(1, 1000))
def test_losses_without_timestamps_last_as_long_as_the_last_packet(count: int) -> None:
    """Chunks of carriers that have numbers alone."""
    receiver = reception()
    assert [piece.gap for piece in receiver.receive(LOUD, None, 5)] == [None]
    pieces = receiver.receive(LOUD, None, count)
    assert duration(pieces) == pytest.approx((count + 1) * 0.02)
    assert sum(piece.concealed for piece in pieces) == min(count, 3)
    assert [piece.gap for piece in receiver.receive(LOUD, None, 0)] == [None]


@pytest.mark.parametrize("jump", [-1_000, -(2**31), 2**31 - 1, 3_601 * RATE])
def test_absurd_timestamps_start_anew(jump: int) -> None:
    receiver = reception()
    for i in range(10):
        receiver.receive(LOUD, 10_000 + i * FRAME, 0)
    for i in range(10, 13):
        (piece,) = receiver.receive(LOUD, (10_000 + jump + i * FRAME) % RTP_MODULUS, 0)
        assert piece.gap == (None if i == 10 else 0.0)


def test_seams_with_gaps_are_smooth() -> None:
    """Concealment has faded out before a gap, and the packet after it fades in."""
    receiver = reception()
    heard: list[Int16Array] = []
    for i in (0, 1, 2, 3, 20, 21):
        for piece in receiver.receive(LOUD, i * FRAME, 16 if i == 20 else 0):
            heard.append(np.zeros((1, round((piece.gap or 0) * RATE)), np.int16))
            heard.append(piece.frame.samples)
    sound = np.concatenate(heard, axis=1).astype(int)
    assert sound.shape[1] == 22 * FRAME
    assert np.abs(np.diff(sound)).max() < 500


@pytest.mark.parametrize("codec", ["PCMU", "G722"])
def test_loss_of_very_short_packets_is_concealed_in_few_pieces(codec: str) -> None:
    decoder = create_decoder(codec)
    reception: Reception[bytes] = Reception(decoder, tolerance=0.005, modulus=RTP_MODULUS)
    reception.receive(b"\xff", 0, 0)
    pieces = reception.receive(b"\xff", 8000, 3)
    assert 1 < len(pieces) < 50
