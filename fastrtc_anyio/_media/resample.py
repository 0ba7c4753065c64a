"""Change the sample rate and the frame size of a stream, with state.

Resampling each chunk on its own restarts the filter at every edge, which is audible: 27-41 dB
signal to noise for 20 ms chunks. One filter for the whole stream gives 90 dB.

Theory of operation of the resampler. With the rates reduced to ``to / from = L / M``, output
sample ``j`` lies at ``j * M / L`` on the axis of input samples. It is the dot product of the
input samples around that place and one of ``L`` phases of a windowed sinc: a polyphase filter.
The coefficients are integers, so every product and every sum is a whole number far below 2**53,
which float64 represents exactly. The order of summation cannot matter then, and the output depends
only on the input samples, never on their division into chunks.

Rates with a small common divisor, such as 22051 and 48000 Hz, would need tens of thousands of
phases, which take seconds to compute. Their outputs are interpolated between the two nearest of a
few hundred phases. The error of a tone at 0.4 of the sample rate is 98 dB down, as low as the
rounding to 16 bits.

It uses numpy and not PyAV, because FFmpeg's filter graphs there start a native thread per core
(av.AudioResampler) or are left to the garbage collector (av.filter.Graph since PyAV 19).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fastrtc_anyio.errors import UnsupportedFormat

from .frames import INT16_MAX, INT16_MIN, Int16Array, check_channels, check_pcm

# Taps on each side of the centre, in samples of the lower rate: the delay, 3 ms at 8000 Hz.
HALF_TAPS = 24
# Kaiser's beta for a stop band 90 dB down: 0.1102 * (90 - 8.7).
KAISER_BETA = 9.0
# Middle of the transition band, relative to the lower rate's Nyquist frequency. With the taps and
# beta above the transition is 0.12 of that rate wide: flat to 0.8, 90 dB down from 1.04 of Nyquist.
CUTOFF = 0.92
# Scale of the integer coefficients; 2**24 * 2**15 * (sum of a phase's magnitudes, < 4) < 2**53.
COEFFICIENT_SCALE = 2.0**24
# Outputs computed at once: at least a frame, and few enough to bound the arrays for a long chunk.
BLOCK = 1024
# More phases, or as many input samples between two outputs, are interpolated. All pairs of usual
# rates need fewer: 11025 to 48000 Hz needs 640 phases.
MOST_PHASES = 640
# Phases to interpolate between, for a filter that is not stretched.
INTERPOLATED_PHASES = 256
# Up to this number of phases, computing phase by phase is faster than gathering the windows.
FEW_PHASES = 8


class StreamResampler:
    """Sample rate converter of one stream.

    It delays the stream by half its filter, 24 periods of the lower rate: 3 ms at 8000 Hz, 1.5 ms
    at 16 kHz. `flush` returns the rest, so ``n`` input samples give
    ``ceil(n * to_rate / from_rate)`` output samples. With equal rates, chunks pass unchanged.

    Args:
        from_rate: input rate, Hz.
        to_rate: output rate, Hz.
        channels: 1 or 2, on both sides.

    Attributes:
        from_rate: input rate, Hz.

    Raises:
        UnsupportedFormat: a rate is not positive, or ``channels`` is not 1 or 2.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        if from_rate <= 0 or to_rate <= 0:
            raise UnsupportedFormat(
                f"sample rates must be positive; got {from_rate} and {to_rate} Hz"
            )
        self.from_rate = from_rate
        self._to_rate = to_rate
        self._channels = check_channels(channels)
        self._filter: _Polyphase | None = None
        self._closed = False

    @property
    def look_ahead(self) -> int:
        """Input samples behind an output sample that have to be known, with different rates."""
        return _half_taps(self.from_rate / self._to_rate)

    def push(self, samples: Int16Array) -> Int16Array:
        """Resample the next chunk of the stream.

        Args:
            samples: int16, shape ``(channels, n)`` at ``from_rate``; ``n`` may be 0.

        Returns:
            The samples that are ready, perhaps none: int16, shape ``(channels, m)`` at
            ``to_rate``. With equal rates, ``samples`` itself.

        Raises:
            UnsupportedFormat: another dtype or shape.
            RuntimeError: the resampler is closed.
        """
        self._check_open()
        check_pcm(samples, self._channels)
        if self.from_rate == self._to_rate:
            return samples
        if samples.shape[1] == 0:
            return np.empty((self._channels, 0), np.int16)
        if self._filter is None:
            self._filter = _Polyphase(self.from_rate, self._to_rate, self._channels)
        return self._filter.push(samples)

    def flush(self) -> Int16Array:
        """End the stream and return the samples still inside the filter, as `push` does.

        The next `push` starts a new stream.
        """
        self._check_open()
        if self._filter is None:
            return np.empty((self._channels, 0), np.int16)
        tail = self._filter.drain()
        self._filter = None
        return tail

    def close(self) -> None:
        """Free the filter and discard the samples inside. Idempotent."""
        self._closed = True
        self._filter = None

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this StreamResampler is closed")


class _Polyphase:
    """State of the filter for one stream."""

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        divisor = math.gcd(from_rate, to_rate)
        self._up = to_rate // divisor
        self._down = from_rate // divisor
        self._interpolates = max(self._up, self._down) > MOST_PHASES
        stretch = max(1.0, self._down / self._up)
        phases = math.ceil(INTERPOLATED_PHASES / stretch) if self._interpolates else self._up
        self._bank = _filter_bank(phases, stretch)
        self._taps = self._bank.shape[1]
        # Silence before the stream, so that the first output lies on the first sample.
        self._input = np.zeros((channels, self._taps // 2 - 1), np.float64)
        # Position of the next output in `_input`, in units of 1 / up samples.
        self._position = 0
        self._pushed = 0
        self._returned = 0

    def push(self, samples: Int16Array) -> Int16Array:
        self._pushed += samples.shape[1]
        return self._filter(samples)

    def drain(self) -> Int16Array:
        wanted = -(-self._pushed * self._up // self._down) - self._returned
        silence = np.zeros((self._input.shape[0], self._taps), np.int16)
        return self._filter(silence)[:, :wanted].copy(order="C")

    def _filter(self, samples: Int16Array) -> Int16Array:
        self._input = np.concatenate([self._input, samples.astype(np.float64)], 1)
        # An output is ready when the input covers all its taps.
        ready = (self._input.shape[1] - self._taps + 1) * self._up - self._position
        count = max(0, -(-ready // self._down))
        output = np.empty((self._input.shape[0], count), np.int16)
        for begin in range(0, count, BLOCK):
            end = min(begin + BLOCK, count)
            sums = self._sums(self._position + begin * self._down, end - begin)
            rounded = np.rint(sums / COEFFICIENT_SCALE)
            output[:, begin:end] = np.clip(rounded, INT16_MIN, INT16_MAX)
        self._returned += count
        self._position += count * self._down
        done = self._position // self._up
        self._input = self._input[:, done:]
        self._position -= done * self._up
        return output

    def _sums(self, position: int, count: int) -> NDArray[np.float64]:
        """Return ``count`` outputs from ``position`` on, before scaling."""
        windows = _sliding_windows(self._input, self._taps)
        sums = np.empty((self._input.shape[0], count), np.float64)
        if self._interpolates:
            return self._interpolated(windows, position + np.arange(count) * self._down)
        if self._up > FEW_PHASES:
            places = position + np.arange(count) * self._down
            np.vecdot(windows[:, places // self._up], self._bank[places % self._up], out=sums)
            return sums
        for first in range(min(self._up, count)):
            # Every up-th output has the same phase, and lies down samples further on.
            place, phase = divmod(position + first * self._down, self._up)
            outputs = sums[:, first :: self._up]
            end = place + (outputs.shape[1] - 1) * self._down + 1
            outputs[:] = np.vecdot(windows[:, place : end : self._down], self._bank[phase])
        return sums

    def _interpolated(
        self, windows: NDArray[np.float64], places: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the outputs at ``places``, each between the outputs of two phases."""
        # Both are exact, as without interpolation.
        inputs = windows[:, places // self._up]
        scaled = places % self._up * (self._bank.shape[0] - 1)
        phases, rest = scaled // self._up, scaled % self._up / self._up
        before = np.vecdot(inputs, self._bank[phases])
        after = np.vecdot(inputs, self._bank[phases + 1])
        interpolated: NDArray[np.float64] = before + (after - before) * rest
        return interpolated


def _sliding_windows(samples: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return every run of ``size`` samples as a view, shape ``(channels, n - size + 1, size)``.

    numpy's ``sliding_window_view`` takes longer than the filter itself for 20 ms.
    """
    channels, count = samples.shape
    row, step = samples.strides
    return np.ndarray(
        (channels, count - size + 1, size), np.float64, samples, strides=(row, step, step)
    )


def _half_taps(stretch: float) -> int:
    return math.ceil(HALF_TAPS * max(1.0, stretch))


@lru_cache(maxsize=32)
def _filter_bank(phases: int, stretch: float) -> NDArray[np.float64]:
    """Return the integer coefficients, shape ``(phases + 1, taps)``.

    The sum of each row is the scale. The last row is the first, a sample later.
    """
    half = _half_taps(stretch)
    offsets = np.arange(1 - half, half + 1)[None, :] - np.arange(phases + 1)[:, None] / phases
    window = np.i0(KAISER_BETA * np.sqrt(np.clip(1 - (offsets / half) ** 2, 0, 1)))
    bank = window * np.sinc(offsets * CUTOFF / stretch)
    bank /= bank.sum(axis=1, keepdims=True)
    bank = np.rint(bank * COEFFICIENT_SCALE)
    bank.flags.writeable = False
    return bank


class Rechunker:
    """Divides a stream into frames of one size, in time proportional to the samples.

    Args:
        frame_samples: samples per channel of a frame.
        channels: 1 or 2.
        copy: False to return an array that is a frame already as it is, if it is writable.
    """

    def __init__(self, frame_samples: int, channels: int, *, copy: bool = True) -> None:
        if frame_samples <= 0:
            raise UnsupportedFormat(f"frame_samples must be at least 1; got {frame_samples}")
        self._frame_samples = frame_samples
        self._channels = check_channels(channels)
        self._begun = np.empty((channels, frame_samples), np.int16)
        self._buffered = 0
        self._copy = copy

    @property
    def buffered(self) -> int:
        """Samples per channel kept for the next frame: less than a frame."""
        return self._buffered

    def push(self, samples: Int16Array) -> list[Int16Array]:
        """Add samples of shape ``(channels, n)`` and return the frames that are complete.

        The frames are new C-contiguous arrays of shape ``(channels, frame_samples)``.
        """
        check_pcm(samples, self._channels)
        size = self._frame_samples
        if samples.shape[1] == size and not (self._copy or self._buffered) and samples.flags.carray:
            return [samples]
        frames: list[Int16Array] = []
        total = int(samples.shape[1])
        position = 0
        if self._buffered:
            position = min(total, size - self._buffered)
            self._keep(samples[:, :position])
            if self._buffered == size:
                frames.append(self.flush())
        while total - position >= size:
            frames.append(samples[:, position : position + size].copy(order="C"))
            position += size
        if position < total:
            self._keep(samples[:, position:])
        return frames

    def flush(self) -> Int16Array:
        """Remove and return the remainder: int16, shape ``(channels, buffered)``."""
        remainder = self._begun[:, : self._buffered].copy(order="C")
        self._buffered = 0
        return remainder

    def _keep(self, samples: Int16Array) -> None:
        end = self._buffered + int(samples.shape[1])
        self._begun[:, self._buffered : end] = samples
        self._buffered = end
