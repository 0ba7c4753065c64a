"""The strategies generate what they document, and examples shrink to readable values."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from fastrtc_anyio import (
    AdditionalOutputs,
    AudioFrame,
    CloseReason,
    CloseStream,
    EmitType,
    HandlerContractError,
)
from fastrtc_anyio._driver import read_audio_emission, read_audio_frame
from fastrtc_anyio._media.frames import as_int16, check_pcm, check_sample_rate
from fastrtc_anyio.testing import open_call
from fastrtc_anyio.testing.strategies import (
    HangUp,
    audio_frames,
    chunkings,
    emissions,
    hang_ups,
    link_faults,
    pcm,
    rubbish,
    sample_rates,
)
from tests.kit.handlers import Quiet


@given(sample_rates())
def test_sample_rates_are_valid_for_handlers(rate: int) -> None:
    assert check_sample_rate(rate) == rate
    Quiet(input_sample_rate=rate, output_sample_rate=rate)


@given(st.data(), st.sampled_from([None, 1, 2]), st.sampled_from([np.int16, np.float32]))
def test_pcm_is_valid_audio(data: Any, channels: int | None, dtype: Any) -> None:
    samples = data.draw(pcm(channels, dtype=dtype, min_samples=3, max_samples=50))
    assert samples.dtype == dtype
    assert 3 <= samples.shape[1] <= 50
    assert samples.shape[0] == (channels or samples.shape[0])
    as_int16(samples)


def test_pcm_rejects_other_dtypes() -> None:
    with pytest.raises(ValueError, match="int16 or float32; got float64"):
        pcm(dtype=np.float64)


@given(audio_frames(), audio_frames(16_000, 2, max_samples=9))
def test_audio_frames_are_valid(any_frame: AudioFrame, wide: AudioFrame) -> None:
    for frame in (any_frame, wide):
        check_pcm(frame.samples, frame.channels)
    assert wide.sample_rate == 16_000
    assert wide.channels == 2
    assert wide.samples.shape[1] <= 9


@given(st.data(), st.integers(0, 5_000))
def test_chunks_sum_to_total(data: Any, total: int) -> None:
    sizes = data.draw(chunkings(total))
    assert sum(sizes) == total
    assert all(size > 0 for size in sizes)


def test_chunkings_reject_negative_total() -> None:
    with pytest.raises(ValueError, match="got -1"):
        chunkings(-1)


@given(emissions())
def test_emissions_are_valid(value: EmitType) -> None:
    emission = read_audio_emission(value, "X.emit")
    assert emission.outputs is None or emission.close is None


@given(emissions() | rubbish())
def test_frame_read_fast_is_that_of_the_emission(value: Any) -> None:
    frame = read_audio_frame(value)
    if frame is not None:
        expected = read_audio_emission(value, "X.emit").media
        assert expected is not None
        assert type(frame) is type(expected)
        assert frame.samples is expected.samples
        assert frame.sample_rate == expected.sample_rate


@given(audio_frames(max_samples=800))
def test_frames_of_a_handler_are_read_fast(frame: AudioFrame) -> None:
    is_short = 0 < frame.samples.shape[1] <= frame.sample_rate // 10
    assert (read_audio_frame(tuple(frame)) is not None) == is_short


@pytest.mark.parametrize(
    "value",
    [
        (999, np.zeros((1, 20), np.int16)),
        (384_001, np.zeros((1, 20), np.int16)),
        (24_000.0, np.zeros((1, 480), np.int16)),
        (24_000, np.zeros(480, np.int16)),
        (24_000, np.zeros((3, 480), np.int16)),
        (24_000, np.zeros((1, 0), np.int16)),
        (24_000, np.zeros((1, 2_401), np.int16)),
        (24_000, np.zeros((1, 480), np.float32)),
        (24_000, np.zeros((480, 2), np.int16).T),
        (24_000, np.zeros((1, 480), np.int16), "mono"),
    ],
)
def test_other_values_are_not_read_fast(value: Any) -> None:
    assert read_audio_frame(value) is None


@given(emissions(closing=False))
def test_emissions_without_closing(value: EmitType) -> None:
    assert read_audio_emission(value, "X.emit").close is None


@settings(max_examples=500)
@given(rubbish())
def test_rubbish_is_invalid(value: Any) -> None:
    with pytest.raises(HandlerContractError, match=r"^X\.emit"):
        read_audio_emission(value, "X.emit")


@settings(max_examples=50, deadline=None)
@given(rubbish())
async def test_rubbish_ends_session_with_handler_error(value: Any) -> None:
    class Confused(Quiet):
        async def emit(self) -> EmitType:
            return value  # type: ignore[no-any-return]

    async with open_call(Confused(), raise_errors=False) as call:
        await call.ended.wait()
    assert isinstance(call.session.error, HandlerContractError)
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_ERROR


@settings(max_examples=50, deadline=None)
@given(st.lists(emissions(), max_size=10), hang_ups(max_seconds=2))
async def test_valid_emissions_and_any_hang_up_cause_no_error(
    values: list[EmitType], leaves: HangUp
) -> None:
    class Scripted(Quiet):
        async def emit(self) -> EmitType:
            return values.pop(0) if values else None

    async with open_call(Scripted()) as call:
        await anyio.sleep(leaves.after)
        call.client.hang_up(leaves.reason)
    assert call.session.error is None
    assert call.session.closed is not None
    assert call.session.closed.reason in (leaves.reason, CloseReason.HANDLER_CLOSED)


@given(hang_ups(2.0))
def test_hang_ups_stay_in_range(leaves: HangUp) -> None:
    assert 0.02 <= leaves.after <= 2


def least(strategy: st.SearchStrategy[Any], condition: Callable[[Any], bool]) -> Any:
    """Return the example that Hypothesis shrinks to. Explaining it would take most of the time."""
    phases = settings(phases=[Phase.generate, Phase.shrink])
    return find(strategy, condition, settings=phases)


def test_examples_shrink_to_the_minimum() -> None:
    assert least(sample_rates(), lambda _: True) == 48_000
    assert least(chunkings(999), lambda _: True) == [999]
    assert least(chunkings(999), lambda sizes: len(sizes) == 2) == [1, 998]
    assert least(chunkings(0), lambda _: True) == []
    assert least(emissions(), lambda _: True) is None
    assert repr(least(link_faults(), lambda f: f.loss > 0.25)) == "LinkFaults(loss=0.251)"
    assert least(hang_ups(), lambda _: True) == HangUp(0.02, CloseReason.HUNG_UP)
    assert least(hang_ups(min_seconds=0), lambda _: True) == HangUp(0.0, CloseReason.HUNG_UP)
    assert least(hang_ups(5), lambda h: h.after >= 1) == HangUp(1.0, CloseReason.HUNG_UP)
    frame = least(audio_frames(), lambda f: f.samples.shape[1] >= 7)
    assert frame.sample_rate == 48_000
    assert np.array_equal(frame.samples, np.zeros((1, 7)))


@pytest.mark.parametrize("kind", [AdditionalOutputs, CloseStream, tuple])
def test_emissions_include_every_kind(kind: type) -> None:
    assert isinstance(find(emissions(), lambda value: isinstance(value, kind)), kind)


def test_missing_hypothesis_names_the_package_to_install() -> None:
    program = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "import fastrtc_anyio.testing\n"
        "import fastrtc_anyio.testing.strategies"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        "ImportError: fastrtc_anyio.testing.strategies needs Hypothesis: pip install hypothesis"
    )
