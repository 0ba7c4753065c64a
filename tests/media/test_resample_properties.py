"""Resampling and rechunking: the output does not depend on the division of the input."""

from __future__ import annotations

import math
import os
import sys
import weakref
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._media.resample import Rechunker, StreamResampler, _Polyphase
from fastrtc_anyio.errors import UnsupportedFormat

RATES = [8000, 12000, 16000, 16001, 22050, 22051, 24000, 32000, 44100, 48000]
CONVERSIONS = [
    (48000, 16000),
    (48000, 24000),
    (8000, 48000),
    (16000, 48000),
    (24000, 48000),
    (44100, 48000),
    (48000, 22050),
    # Without a common divisor.
    (44101, 48000),
    (191_999, 24000),
    (48000, 16001),
]


def noise(seed: int, channels: int, count: int) -> Int16Array:
    generator = np.random.default_rng(seed)
    return generator.integers(-32768, 32768, (channels, count)).astype(np.int16)


def cut(samples: Int16Array, cuts: list[int]) -> list[Int16Array]:
    total = samples.shape[1]
    edges = [0, *sorted(min(edge, total) for edge in cuts), total]
    return [samples[:, begin:end] for begin, end in pairwise(edges)]


def resample(resampler: StreamResampler, chunks: list[Int16Array]) -> Int16Array:
    parts = [resampler.push(chunk) for chunk in chunks]
    parts.append(resampler.flush())
    return np.concatenate(parts, axis=1)


def tone_snr(samples: NDArray[np.int16], frequency: float, rate: int) -> float:
    """Return the SNR of a tone of unknown amplitude and phase, in dB."""
    angle = 2 * np.pi * frequency * np.arange(samples.shape[0]) / rate
    basis = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    # Normal equations: two unknowns, and no BLAS threads that other tests would count.
    gram = np.array([[a @ b for a in basis.T] for b in basis.T])
    fit = basis @ np.linalg.solve(gram, basis.T @ samples)
    return float(10 * np.log10(np.mean(fit**2) / np.mean((samples - fit) ** 2)))


def native_threads() -> int:
    return len(os.listdir("/proc/self/task"))


@given(
    from_rate=st.sampled_from(RATES),
    to_rate=st.sampled_from(RATES),
    channels=st.sampled_from([1, 2]),
    count=st.integers(0, 5000),
    cuts=st.lists(st.integers(0, 5000), max_size=12),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_any_chunking_gives_the_same_output(
    from_rate: int, to_rate: int, channels: int, count: int, cuts: list[int], seed: int
) -> None:
    samples = noise(seed, channels, count)
    resampler = StreamResampler(from_rate, to_rate, channels)
    whole = resample(resampler, [samples])
    assert whole.dtype == np.int16
    # The same object again: a flush resets it.
    assert np.array_equal(resample(resampler, cut(samples, cuts)), whole)
    assert whole.shape[0] == channels
    if from_rate == to_rate:
        assert np.array_equal(whole, samples)
    assert whole.shape[1] == math.ceil(count * to_rate / from_rate)


@pytest.mark.parametrize(("from_rate", "to_rate"), CONVERSIONS)
def test_single_sample_chunks_give_the_same_output(from_rate: int, to_rate: int) -> None:
    samples = noise(1, 2, 700)
    singly = cut(samples, list(range(700)))
    whole = resample(StreamResampler(from_rate, to_rate, 2), [samples])
    assert np.array_equal(resample(StreamResampler(from_rate, to_rate, 2), singly), whole)


@pytest.mark.parametrize(("from_rate", "to_rate"), CONVERSIONS)
@pytest.mark.parametrize("frequency", [440, 1000])
def test_tone_keeps_its_snr(from_rate: int, to_rate: int, frequency: int) -> None:
    angle = 2 * np.pi * frequency * np.arange(from_rate) / from_rate
    samples = np.rint(20000 * np.sin(angle)).astype(np.int16).reshape(1, -1)
    frames = cut(samples, list(range(0, from_rate, from_rate // 50)))
    output = resample(StreamResampler(from_rate, to_rate, 1), frames)
    assert output.shape == (1, to_rate)
    assert tone_snr(output[0, to_rate // 10 : -to_rate // 10], frequency, to_rate) > 80


@given(st.integers(1000, 384_000), st.integers(8000, 48_000))
def test_filter_is_small_for_any_rates(from_rate: int, to_rate: int) -> None:
    """Computing its coefficients holds up the event loop: 5 ms for 30,000."""
    assert _Polyphase(from_rate, to_rate, 1)._bank.size <= 33_000


@pytest.mark.parametrize(("from_rate", "to_rate"), CONVERSIONS)
def test_delay_is_half_the_filter(from_rate: int, to_rate: int) -> None:
    resampler = StreamResampler(from_rate, to_rate, 1)
    delay = 0.0
    pushed, got = 0, 0
    for index in range(50):
        pushed += from_rate // 50
        got += resampler.push(noise(index, 1, from_rate // 50)).shape[1]
        delay = max(delay, pushed / from_rate - got / to_rate)
    assert delay <= 25 / min(from_rate, to_rate)


@pytest.mark.parametrize(("from_rate", "to_rate"), CONVERSIONS)
def test_stream_shorter_than_the_filter_is_kept(from_rate: int, to_rate: int) -> None:
    resampler = StreamResampler(from_rate, to_rate, 1)
    for count in range(1, 250):
        output = resample(resampler, [np.full((1, count), 1000, np.int16)])
        assert output.shape[1] == math.ceil(count * to_rate / from_rate)
        assert output.any()


def test_channels_do_not_mix() -> None:
    samples = noise(3, 2, 4800)
    samples[1] = 0
    output = resample(StreamResampler(48000, 16000, 2), [samples])
    assert not output[1].any()
    mono = resample(StreamResampler(48000, 16000, 1), [samples[:1]])
    assert np.array_equal(output[:1], mono)


@pytest.mark.usefixtures("no_garbage_collection")
def test_resampler_needs_no_native_thread_and_no_garbage_collection() -> None:
    before = native_threads()
    resamplers = [StreamResampler(48000, 8000 * (1 + i % 3), 1) for i in range(20)]
    for resampler in resamplers:
        resampler.push(noise(0, 1, 960))
    assert native_threads() <= before
    filters = [weakref.ref(resampler._filter) for resampler in resamplers]
    assert all(ref() is not None for ref in filters)
    for resampler in resamplers[:10]:
        resampler.close()
    assert [ref() is None for ref in filters] == [True] * 10 + [False] * 10
    resamplers.clear()
    resampler = StreamResampler(8000, 8000, 1)
    assert all(ref() is None for ref in filters)


@pytest.mark.parametrize(("from_rate", "to_rate"), CONVERSIONS)
def test_frequencies_above_nyquist_are_removed(from_rate: int, to_rate: int) -> None:
    # Downwards a tone above the new Nyquist frequency, upwards the images of a tone below it.
    angle = np.arange(from_rate) / from_rate * 2 * np.pi
    if to_rate < from_rate:
        samples = np.rint(20000 * np.sin(angle * to_rate * 0.55)).astype(np.int16)
        output = resample(StreamResampler(from_rate, to_rate, 1), [samples.reshape(1, -1)])
        assert np.abs(output[:, to_rate // 10 : -to_rate // 10]).max() <= 2
    else:
        frequency = round(from_rate * 0.4)
        samples = np.rint(20000 * np.sin(angle * frequency)).astype(np.int16)
        output = resample(StreamResampler(from_rate, to_rate, 1), [samples.reshape(1, -1)])
        assert tone_snr(output[0, to_rate // 10 : -to_rate // 10], frequency, to_rate) > 75


def test_full_scale_saturates_instead_of_wrapping() -> None:
    square = np.where(np.arange(4800) // 24 % 2, 32767, -32768).astype(np.int16).reshape(1, -1)
    output = resample(StreamResampler(24000, 48000, 1), [square])
    # Gibbs' overshoot is beyond full scale, and on the same side.
    assert (output[0].reshape(-1, 48)[1:-1, 8:40].min(axis=1) > 20000).sum() > 0
    assert np.all(np.sign(output[0].reshape(-1, 48)[1:-1, 8:40]).std(axis=1) == 0)


def test_equal_rates_return_the_chunk_itself() -> None:
    samples = noise(0, 1, 320)
    resampler = StreamResampler(16000, 16000, 1)
    assert resampler.push(samples) is samples
    assert resampler.flush().shape == (1, 0)


def test_closed_resampler_and_unsupported_formats_raise() -> None:
    resampler = StreamResampler(16000, 48000, 2)
    with pytest.raises(UnsupportedFormat, match=r"\(2, n\); got int16 array of shape \(1, 4\)"):
        resampler.push(np.zeros((1, 4), np.int16))
    wrong: Any = np.zeros((2, 4), np.float32)
    with pytest.raises(UnsupportedFormat, match="got float32"):
        resampler.push(wrong)
    resampler.close()
    resampler.close()
    with pytest.raises(RuntimeError, match="closed"):
        resampler.push(np.zeros((2, 4), np.int16))
    with pytest.raises(RuntimeError, match="closed"):
        resampler.flush()
    for arguments in [(0, 48000, 1), (48000, -1, 1), (48000, 16000, 0), (48000, 16000, 3)]:
        with pytest.raises(UnsupportedFormat):
            StreamResampler(*arguments)


def test_later_pushes_do_not_change_returned_arrays() -> None:
    resampler = StreamResampler(48000, 16000, 1)
    outputs = [resampler.push(noise(index, 1, 960)) for index in range(10)]
    copies = [output.copy() for output in outputs]
    for index in range(10):
        resampler.push(noise(index, 1, 960))
    assert all(map(np.array_equal, outputs, copies))


@given(
    frame_samples=st.integers(1, 200),
    channels=st.sampled_from([1, 2]),
    count=st.integers(0, 2000),
    cuts=st.lists(st.integers(0, 2000), max_size=20),
)
def test_rechunking_keeps_every_sample(
    frame_samples: int, channels: int, count: int, cuts: list[int]
) -> None:
    samples = noise(count, channels, count)
    rechunker = Rechunker(frame_samples, channels)
    frames: list[Int16Array] = []
    pushed = 0
    for chunk in cut(samples, cuts):
        frames += rechunker.push(chunk)
        pushed += chunk.shape[1]
        assert rechunker.buffered == pushed % frame_samples
        assert len(frames) == pushed // frame_samples
    assert all(frame.shape == (channels, frame_samples) for frame in frames)
    assert all(frame.flags.c_contiguous for frame in frames)
    remainder = rechunker.flush()
    assert rechunker.buffered == 0
    assert np.array_equal(np.concatenate([*frames, remainder], axis=1), samples)


def test_frames_do_not_share_memory_with_the_input() -> None:
    samples = noise(0, 1, 2000)
    wanted = samples.copy()
    rechunker = Rechunker(320, 1)
    frames = rechunker.push(samples)
    samples[:] = 0
    frames.append(rechunker.flush())
    assert np.array_equal(np.concatenate(frames, axis=1), wanted)


def test_frame_of_the_right_size_passes_uncopied_on_request() -> None:
    rechunker = Rechunker(320, 1, copy=False)
    frame = noise(0, 1, 320)
    assert rechunker.push(frame)[0] is frame
    whole = noise(0, 2, 640)
    read_only = whole[:1, :320].copy()
    read_only.flags.writeable = False
    for other, channels in ((whole[:, :320], 2), (read_only, 1)):
        (made,) = Rechunker(320, channels, copy=False).push(other)
        assert made.flags.carray
        assert not np.shares_memory(made, whole)
    rechunker.push(frame[:, :1])
    assert rechunker.push(frame)[0] is not frame


def test_rechunking_copies_each_sample_a_bounded_number_of_times() -> None:
    # Bytes allocated measure the copying: a clock would measure the machine as well.
    rechunker = Rechunker(480, 1)
    million = noise(0, 1, 1_000_000)
    assert len(rechunker.push(million)) == 2083
    assert rechunker.buffered == 160
    before = sys.getallocatedblocks()
    frames = sum(len(rechunker.push(million[:, i : i + 1])) for i in range(100_000))
    assert frames == math.floor((160 + 100_000) / 480)
    assert sys.getallocatedblocks() - before < 100


def test_rechunker_rejects_unsupported_formats() -> None:
    for arguments in [(0, 1), (-1, 1), (480, 0), (480, 3)]:
        with pytest.raises(UnsupportedFormat):
            Rechunker(*arguments)
    with pytest.raises(UnsupportedFormat, match=r"\(1, n\)"):
        Rechunker(480, 1).push(np.zeros(480, np.int16))
