"""Voice activity: properties of segments, hops and probabilities for any input."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.errors import UnsupportedFormat
from fastrtc_anyio.speech.batch import BatchVad
from fastrtc_anyio.speech.energy import EnergyVad
from fastrtc_anyio.speech.segments import speech_segments
from fastrtc_anyio.speech.silero import SileroVadOptions, get_silero_model
from fastrtc_anyio.speech.vad import Hops
from fastrtc_anyio.testing.signals import speech_like
from fastrtc_anyio.testing.strategies import chunkings, pcm, sample_rates

WINDOW = 512
RATE = 16_000


@st.composite
def options(draw: st.DrawFn) -> SileroVadOptions:
    pad = draw(st.integers(0, 500))
    shortest = 2 * pad / 1000 + WINDOW / RATE
    return SileroVadOptions(
        threshold=draw(st.floats(0.01, 1)),
        min_speech_duration_ms=draw(st.integers(0, 500)),
        max_speech_duration_s=draw(
            st.just(math.inf) | st.floats(0, 5).map(lambda more: shortest + more)
        ),
        min_silence_duration_ms=draw(st.integers(0, 1000)),
        speech_pad_ms=pad,
    )


# Runs of equal windows: speech, pauses, and probabilities between the thresholds.
probabilities = st.lists(
    st.tuples(st.sampled_from([0.0, 0.4, 0.6, 1.0]) | st.floats(0, 1), st.integers(1, 20)),
    max_size=12,
).map(lambda runs: [p for p, count in runs for _ in range(count)])


@given(windows=probabilities, missing=st.integers(0, WINDOW - 1), chosen=options())
@settings(max_examples=400)
def test_segments_are_ordered_disjoint_and_within_limits(
    windows: list[float], missing: int, chosen: SileroVadOptions
) -> None:
    total = max(0, len(windows) * WINDOW - missing)
    segments = speech_segments(windows, total, chosen)
    places = [place for segment in segments for place in segment]
    assert places == sorted(places)
    assert all(0 <= begin < end <= total for begin, end in segments)
    longest = chosen.max_speech_duration_s * RATE
    assert all(end - begin <= longest + 1e-6 for begin, end in segments)


@given(windows=probabilities, chosen=options())
@settings(max_examples=400)
def test_segments_cover_speech_and_no_other_windows(
    windows: list[float], chosen: SileroVadOptions
) -> None:
    total = len(windows) * WINDOW
    segments = speech_segments(windows, total, chosen)
    covered = np.zeros(total, bool)
    for begin, end in segments:
        covered[begin:end] = True
    speech = np.repeat([p >= chosen.threshold for p in windows], WINDOW).astype(bool)
    if chosen.min_speech_duration_ms == 0:
        assert covered[speech].all()
    # No segment without speech, unless a cut separated uncertain windows.
    assert chosen.max_speech_duration_s < math.inf or all(
        speech[begin:end].any() for begin, end in segments
    )


@given(windows=probabilities, total=st.integers(0, 3))
def test_no_speech_gives_no_segments(windows: list[float], total: int) -> None:
    quiet = [p * 0.49 for p in windows]
    assert speech_segments(quiet, len(quiet) * WINDOW, SileroVadOptions()) == []


@given(
    rate=st.sampled_from([1000, 8000, 11_025, 16_000, 24_000, 44_100, 48_000]),
    count=st.integers(0, 2000),
    seed=st.integers(0, 9),
    chosen=options(),
)
@settings(max_examples=40)
def test_silero_seconds_are_the_sum_of_chunks(
    rate: int, count: int, seed: int, chosen: SileroVadOptions
) -> None:
    samples = speech_like(rate, count / 1000, seed=seed) if count else np.empty((1, 0), np.int16)
    # With this threshold most windows are speech.
    low = SileroVadOptions(**{**vars(chosen), "threshold": 0.01, "min_speech_duration_ms": 0})
    seconds, chunks = get_silero_model().vad((rate, samples), low)
    assert seconds == sum(chunk["end"] - chunk["start"] for chunk in chunks) / rate
    places = [place for chunk in chunks for place in (chunk["start"], chunk["end"])]
    assert places == sorted(places)
    assert all(0 <= place <= samples.shape[1] for place in places)


@given(seed=st.integers(0, 99), data=st.data())
@settings(max_examples=20)
def test_silero_batches_give_the_probabilities_of_single_windows(
    seed: int, data: st.DataObject
) -> None:
    """In each step, any of the speakers have a window, in any order."""
    model = get_silero_model()
    speakers = data.draw(st.integers(1, 12))
    voices = [speech_like(16_000, 0.6, seed=seed * 12 + n) for n in range(speakers)]
    alone = [model.new_stream() for _ in range(speakers)]
    together = [model.new_stream() for _ in range(speakers)]
    places = [0] * speakers
    for _ in range(12):
        chosen = data.draw(st.lists(st.integers(0, speakers - 1), min_size=1, unique=True))
        windows = [voices[n][:, places[n] * 512 : (places[n] + 1) * 512] for n in chosen]
        expected = [alone[n].probability(w) for n, w in zip(chosen, windows, strict=True)]
        heard = model.probabilities([together[n] for n in chosen], windows)
        assert heard == pytest.approx(expected, abs=1e-5)
        for n in chosen:
            places[n] += 1


def test_silero_batch_with_a_wrong_window_changes_no_stream() -> None:
    model = get_silero_model()
    window = speech_like(16_000, 0.6)[:, :512]
    streams = [model.new_stream() for _ in range(2)]
    with pytest.raises(UnsupportedFormat, match="expected a window of 512 samples, got 511"):
        model.probabilities(streams, [window, window[:, 1:]])
    assert streams[0].probability(window) == model.new_stream().probability(window)


def hops_of(rate: int, vad: Any, chunks: list[Int16Array]) -> list[tuple[Int16Array, Int16Array]]:
    hops = Hops(rate, vad)
    pushed = complete = 0
    pairs = []
    for chunk in chunks:
        pushed += chunk.shape[1]
        for hop, window in hops.push(chunk):
            complete += hop.shape[1]
            assert complete <= pushed
            pairs.append((hop, window))
    return pairs


@given(
    data=st.data(),
    rate=sample_rates(),
    vad_rate=st.sampled_from([8000, 16_000, 24_000, 22_050]),
    window=st.integers(8, 700),
    samples=pcm(1, max_samples=4000),
)
@settings(max_examples=150)
def test_hops_join_to_the_input_for_any_chunking(
    data: st.DataObject, rate: int, vad_rate: int, window: int, samples: Int16Array
) -> None:
    vad = SimpleNamespace(sample_rate=vad_rate, window=window)
    sizes = data.draw(chunkings(samples.shape[1]))
    edges = itertools.accumulate(sizes, initial=0)
    chunks = [samples[:, a:b] for a, b in itertools.pairwise(edges)]
    pairs = hops_of(rate, vad, chunks)
    whole = hops_of(rate, vad, [samples])
    assert [(hop.tolist(), window.tolist()) for hop, window in pairs] == [
        (hop.tolist(), window.tolist()) for hop, window in whole
    ]
    end = 0
    for place, (hop, heard) in enumerate(pairs, 1):
        assert np.array_equal(hop, samples[:, end : end + hop.shape[1]])
        end += hop.shape[1]
        assert end == place * window * rate // vad_rate
        assert heard.shape == (1, window)
    # At most a window and the resampler's delay are left.
    assert (samples.shape[1] - end) / rate <= window / vad_rate + 0.005


class Counts:
    """FastRTC-style model: returns the seconds of non-zero samples, without chunks."""

    def vad(self, audio: tuple[int, Any], options: Any) -> tuple[float, list[Any]]:
        rate, samples = audio
        return np.count_nonzero(samples) / rate, []

    def warmup(self) -> None:
        pass


@given(hops=st.lists(st.integers(0, 160), max_size=40), context=st.integers(1, 8))
def test_exact_seconds_give_exact_probability_per_hop(hops: list[int], context: int) -> None:
    stream = BatchVad(Counts(), hop_s=0.01, context_s=context / 100).new_stream()
    for count in hops:
        window = np.zeros((1, 160), np.int16)
        window[:, :count] = 1
        assert stream.probability(window) == pytest.approx(count / 160, abs=1e-9)


@given(
    answers=st.lists(
        st.tuples(
            st.floats(allow_nan=False),
            st.lists(
                st.fixed_dictionaries(
                    {"start": st.integers(-99, 999), "end": st.integers(-99, 999)}
                ),
                max_size=3,
            ),
        ),
        max_size=20,
    )
)
def test_any_model_result_gives_a_probability(answers: list[Any]) -> None:
    remaining = iter(answers)
    model: Any = SimpleNamespace(vad=lambda audio, options: next(remaining))
    stream = BatchVad(model, hop_s=0.01, context_s=0.04).new_stream()
    for _ in answers:
        assert 0 <= stream.probability(np.zeros((1, 160), np.int16)) <= 1


@given(windows=st.lists(pcm(1, min_samples=320, max_samples=320), max_size=20))
@settings(max_examples=50)
def test_energy_vad_gives_a_probability_for_any_audio(windows: list[Int16Array]) -> None:
    vad = EnergyVad()
    first, second = vad.new_stream(), vad.new_stream()
    for window in windows:
        probability = first.probability(window)
        assert 0 <= probability <= 1
        assert second.probability(window) == probability
