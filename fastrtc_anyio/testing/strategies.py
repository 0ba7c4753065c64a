"""Hypothesis strategies to test handlers: audio, emissions, networks and clients.

They need Hypothesis, which no extra installs. Failing examples shrink towards silence, one chunk, a
perfect network and a client that stays.

Example::

    from hypothesis import given, settings
    from fastrtc_anyio.testing import open_call
    from fastrtc_anyio.testing.strategies import audio_frames, hang_ups

    @settings(deadline=None)
    @given(audio_frames(), hang_ups(max_seconds=2))
    async def test_any_audio_and_any_end(open_call, frame, leaves):
        async with open_call(MyHandler()) as call:
            call.client.send_audio(frame)
            await anyio.sleep(leaves.after)
            call.client.hang_up(leaves.reason)
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastrtc_anyio._core.options import check_number
from fastrtc_anyio._media.frames import (
    FRAMES_PER_SECOND,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    AudioFrame,
)
from fastrtc_anyio.errors import CloseReason
from fastrtc_anyio.handlers import CloseStream, EmitType
from fastrtc_anyio.outputs import AdditionalOutputs

from .link import LinkFaults

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp
except ImportError as _error:  # pragma: no cover - tested in a subprocess
    raise ImportError(
        "fastrtc_anyio.testing.strategies needs Hypothesis: pip install hypothesis"
    ) from _error

__all__ = [
    "HangUp",
    "audio_frames",
    "chunkings",
    "emissions",
    "hang_ups",
    "link_faults",
    "pcm",
    "rubbish",
    "sample_rates",
]

_COMMON_RATES = [48_000, 24_000, 16_000, 8_000, 44_100, 22_050, 32_000]
_CLIENT_REASONS = [CloseReason.HUNG_UP, CloseReason.VANISHED, CloseReason.PEER_FAILED]


def sample_rates() -> st.SearchStrategy[int]:
    """Sample rates of handlers in Hz: multiples of 50 from 8000 to 48000.

    Common rates are frequent. Shrinks to 48000.
    """
    per_frame = st.integers(
        MIN_SAMPLE_RATE // FRAMES_PER_SECOND, MAX_SAMPLE_RATE // FRAMES_PER_SECOND
    )
    return st.sampled_from(_COMMON_RATES) | per_frame.map(lambda n: n * FRAMES_PER_SECOND)


def pcm(
    channels: int | None = None,
    *,
    dtype: DTypeLike = np.int16,
    min_samples: int = 0,
    max_samples: int = 2_000,
) -> st.SearchStrategy[NDArray[Any]]:
    """Samples: silence, full scale, single outliers.

    float32 samples may exceed full scale, but are finite. Shrinks to silence.

    Args:
        channels: 1 or 2; None for either.
        dtype: int16 or float32.
        min_samples: minimum samples per channel.
        max_samples: maximum samples per channel.

    Returns:
        Arrays of shape ``(channels, n)``.

    Raises:
        ValueError: ``dtype`` is another one.
    """
    elements: st.SearchStrategy[object]
    fill: st.SearchStrategy[object]
    if np.dtype(dtype) == np.int16:
        elements = st.integers(-(2**15), 2**15 - 1)
        fill = st.sampled_from([0, 2**15 - 1, -(2**15), 1, -1])
    elif np.dtype(dtype) == np.float32:
        elements = st.floats(-1, 1, width=32) | st.floats(
            width=32, allow_nan=False, allow_infinity=False
        )
        fill = st.sampled_from([0.0, 1.0, -1.0, 0.25, 2.0])
    else:
        raise ValueError(f"dtype must be int16 or float32; got {np.dtype(dtype)}")
    counts = st.sampled_from([1, 2]) if channels is None else st.just(channels)
    shape = st.tuples(counts, st.integers(min_samples, max_samples))
    return hnp.arrays(np.dtype(dtype), shape, elements=elements, fill=fill)


def audio_frames(
    sample_rate: int | None = None, channels: int | None = None, *, max_samples: int = 2_000
) -> st.SearchStrategy[AudioFrame]:
    """Frames from a client: 16-bit audio of any duration, including empty frames.

    Args:
        sample_rate: sample rate in Hz; None for any of :func:`sample_rates`.
        channels: 1 or 2; None for either.
        max_samples: maximum samples per channel.
    """
    rates = sample_rates() if sample_rate is None else st.just(sample_rate)
    return st.builds(AudioFrame, rates, pcm(channels, max_samples=max_samples))


def chunkings(total: int) -> st.SearchStrategy[list[int]]:
    """Divisions of ``total`` samples into chunks: lists of positive sizes with this sum.

    Shrinks to one chunk, or to none if ``total`` is 0.

    Raises:
        ValueError: ``total`` is negative.
    """
    check_number("total", total, at_least=0)
    if total < 2:
        return st.just([total] * total)
    cuts = st.lists(st.integers(1, total - 1), unique=True)
    return cuts.map(
        lambda places: [b - a for a, b in itertools.pairwise([0, *sorted(places), total])]
    )


def emissions(*, closing: bool = True, max_samples: int = 2_000) -> st.SearchStrategy[EmitType]:
    """Valid return values of ``emit``. Shrinks to None.

    Args:
        closing: include ``CloseStream``, which ends the session.
        max_samples: maximum samples per channel of the audio.
    """
    audio = _emitted_audio(max_samples)
    outputs = st.builds(AdditionalOutputs, st.integers(), st.text(max_size=5))
    alone = st.none() | audio | outputs
    beside = st.tuples(audio, outputs)
    if not closing:
        return alone | beside
    close = st.builds(CloseStream, st.text(max_size=20))
    return alone | close | beside | st.tuples(audio, close)


@st.composite
def _emitted_audio(draw: st.DrawFn, max_samples: int) -> Any:
    samples = draw(pcm(max_samples=max_samples) | pcm(dtype=np.float32, max_samples=max_samples))
    rate = draw(sample_rates() | st.integers(1_000, 384_000) | st.just(np.int64(16_000)))
    layout = "mono" if samples.shape[0] == 1 else "stereo"
    if layout == "mono" and draw(st.booleans()):
        samples = samples[0]
    return (rate, samples, layout) if draw(st.booleans()) else (rate, samples)


def rubbish() -> st.SearchStrategy[object]:
    """Invalid return values of ``emit``, which end the session with ``HANDLER_ERROR``.

    They are samples of a wrong dtype or shape, or with NaN or an infinity, invalid rates,
    malformed tuples, and values of other types. Arrays are small.
    """
    return st.one_of(
        _not_audio(),
        _wrong_samples().map(lambda samples: (16_000, samples)),
        st.tuples(_wrong_rates(), st.builds(_silence)),
        _wrong_tuples(),
        # A valid second element does not make the tuple valid.
        st.tuples(
            _wrong_samples().map(lambda samples: (16_000, samples)),
            st.builds(AdditionalOutputs) | st.builds(CloseStream),
        ),
    )


def _silence() -> NDArray[np.int16]:
    return np.zeros((1, 320), np.int16)


def _not_audio() -> st.SearchStrategy[object]:
    return (
        st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.binary(max_size=5)
        | st.lists(st.integers(), max_size=3)
        | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)
        | st.builds(object)
        | st.sampled_from([AdditionalOutputs, CloseStream])  # the class, not an object of it
        | st.builds(_silence)
    )


def _wrong_samples() -> st.SearchStrategy[object]:
    dtypes = ["u1", "i1", "u2", "i4", "i8", "f2", "f8", "?", "c8", ">i2", "S2", "O"]
    shapes = st.one_of(
        st.just(()),
        st.tuples(st.just(0), st.integers(0, 9)),
        st.tuples(st.integers(3, 400), st.integers(0, 3)),  # transposed, or too many channels
        st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(0, 9)),
    )
    return st.one_of(
        st.sampled_from(dtypes).map(lambda dtype: np.zeros((1, 320), dtype)),
        st.tuples(shapes, st.sampled_from([np.int16, np.float32])).map(lambda a: np.zeros(*a)),
        st.builds(
            _with_last,
            pcm(dtype=np.float32, min_samples=1, max_samples=400),
            st.sampled_from([np.nan, np.inf, -np.inf]),
        ),
        st.lists(st.integers(-9, 9), max_size=3),
        st.none() | st.binary(max_size=4) | st.text(max_size=4),
    )


def _with_last(samples: NDArray[Any], value: float) -> NDArray[Any]:
    samples = samples.copy()
    samples[0, -1] = value
    return samples


def _wrong_rates() -> st.SearchStrategy[object]:
    return st.one_of(
        st.integers(max_value=999),
        st.integers(min_value=384_001),
        st.floats().filter(lambda rate: not (1000 <= rate <= 384_000 and rate.is_integer())),
        st.booleans(),
        st.none(),
        st.text(max_size=5),
        st.just(np.True_),
    )


def _wrong_tuples() -> st.SearchStrategy[object]:
    layouts = st.sampled_from(["", "MONO", "left", "5.1"]) | st.integers() | st.none()
    wrong_layout: st.SearchStrategy[object] = st.one_of(
        st.builds(lambda layout: (16_000, _silence(), layout), layouts),
        st.builds(lambda: (16_000, _silence(), "stereo")),
        st.builds(lambda: (16_000, np.zeros((2, 320), np.int16), "mono")),
        st.builds(lambda: (16_000, np.zeros(320, np.int16), "stereo")),
    )
    return st.one_of(
        wrong_layout,
        st.just(()),
        st.just((16_000,)),
        st.builds(lambda: (_silence(),)),
        st.builds(lambda: (_silence(), 16_000)),
        st.builds(lambda: (16_000, _silence(), "mono", None)),
        st.builds(lambda: (16_000, _silence(), AdditionalOutputs())),
        st.builds(lambda: (AdditionalOutputs(), (16_000, _silence()))),
        st.builds(lambda: (CloseStream(), CloseStream())),
    )


def link_faults(
    *,
    max_loss: float = 0.5,
    max_delay: float = 1.0,
    max_jitter: float = 0.5,
    max_seconds: float = 10.0,
) -> st.SearchStrategy[LinkFaults]:
    """Networks from perfect to hardly usable. Shrinks to a perfect one.

    Args:
        max_loss: maximum fraction of lost frames, 0 to 1.
        max_delay: maximum delay in seconds.
        max_jitter: maximum jitter in seconds.
        max_seconds: duration of the call in seconds; outages end before.
    """
    time = _thousandths(0, max_seconds)
    outage = st.tuples(time, time).map(lambda span: (min(span), max(span)))
    return st.builds(
        LinkFaults,
        loss=_thousandths(0, max_loss),
        delay=_thousandths(0, max_delay),
        jitter=_thousandths(0, max_jitter),
        burst=st.integers(1, 20),
        outages=st.lists(outage, max_size=2).map(tuple),
        seed=st.integers(0, 2**32 - 1),
    )


@dataclass(frozen=True)
class HangUp:
    """A client's end of the call."""

    after: float
    """Seconds since the beginning of the call."""
    reason: CloseReason
    """Argument for ``client.hang_up``."""


def hang_ups(max_seconds: float = 5.0, *, min_seconds: float = 0.02) -> st.SearchStrategy[HangUp]:
    """Ends of a call by the client: it hangs up, vanishes, or its connection fails.

    Shrinks to hanging up as early as possible.

    Args:
        max_seconds: duration of the longest call.
        min_seconds: duration of the shortest call. At 0 the client may leave before it is
            connected, which the session reports as a ``PeerError``.
    """
    return st.builds(
        HangUp, _thousandths(min_seconds, max_seconds), st.sampled_from(_CLIENT_REASONS)
    )


def _thousandths(least: float, most: float) -> st.SearchStrategy[float]:
    """Multiples of 0.001. Unlike ``floats``, they shrink to the minimum, not to whole numbers."""
    return st.integers(math.ceil(least * 1000), math.floor(most * 1000)).map(lambda n: n / 1000)
