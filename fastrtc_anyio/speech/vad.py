"""Voice activity: the protocol of a detector, and the segmentation of a call's audio for it.

A `Vad` defines a window size and a sample rate, and returns the probability of speech per window.
`Hops` cuts a call's audio into such windows, and keeps beside each window the original samples it
stands for. Handlers receive the original samples, never the resampled ones.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from fastrtc_anyio._media.frames import Int16Array, check_pcm, check_sample_rate
from fastrtc_anyio._media.resample import Rechunker, StreamResampler
from fastrtc_anyio.errors import UnsupportedFormat

__all__ = ["Hops", "Vad", "VadStream", "check_window"]


class VadStream(Protocol):
    """Detector state for one speaker's audio."""

    def probability(self, window: Int16Array) -> float:
        """Process the next window.

        Args:
            window: int16, shape ``(1, Vad.window)``, at ``Vad.sample_rate``.

        Returns:
            The probability that the window is speech, 0 to 1.

        Raises:
            UnsupportedFormat: for another dtype or shape.
        """
        ...


class Vad(Protocol):
    """Voice-activity detector, shared by all sessions. Each session opens its own stream."""

    @property
    def sample_rate(self) -> int:
        """Input sample rate in Hz."""
        ...

    @property
    def window(self) -> int:
        """Samples per window."""
        ...

    @property
    def blocking(self) -> bool:
        """Whether a window takes long enough to need a thread. True for a model."""
        ...

    def new_stream(self) -> VadStream:
        """Return the state for a new speaker."""
        ...


def check_window(window: Int16Array, size: int) -> None:
    """Check that a window is int16 PCM of shape ``(1, size)``.

    Raises:
        UnsupportedFormat: states the expected and the given dtype and shape.
    """
    check_pcm(window, 1)
    if window.shape[1] != size:
        raise UnsupportedFormat(f"expected a window of {size} samples, got {window.shape[1]}")


class Hops:
    """Audio stream cut into the windows of a `Vad`.

    Window ``k`` stands for the samples from the end of hop ``k - 1`` up to
    ``(k + 1) * vad.window * sample_rate // vad.sample_rate``. The hops joined are therefore the
    input at any combination of rates, and chunking of the input makes no difference.

    A window is returned when its hop is complete. At another rate it is returned once the resampler
    has the samples its filter looks ahead: 1.5 ms later from 24 and 48 kHz to 16 kHz, 3 ms later
    from 8 kHz.

    Args:
        sample_rate: rate of the pushed samples in Hz; a multiple of 50 from 8000 to 48000.
        vad: the detector, for its sample rate and window.

    Raises:
        TypeError: the sample rate is not an int.
        ValueError: it is out of range, or a window of the detector is shorter than a sample.
        UnsupportedFormat: the detector's sample rate or window is not positive.
    """

    def __init__(self, sample_rate: int, vad: Vad) -> None:
        self._rate = check_sample_rate(sample_rate)
        self._vad_rate, self._window = vad.sample_rate, vad.window
        self._resampler = StreamResampler(self._rate, self._vad_rate, 1)
        self._windows = Rechunker(self._window, 1)
        if self._window * self._rate < self._vad_rate:
            raise ValueError(
                f"vad.window must last at least one sample at {self._rate} Hz; got {self._window} "
                f"samples at {self._vad_rate} Hz"
            )
        # Input after the last hop, and the position of its first sample.
        self._tape = np.empty((1, 0), np.int16)
        self._begin = 0
        self._count = 0

    def push(self, samples: Int16Array) -> list[tuple[Int16Array, Int16Array]]:
        """Append samples and return the complete hops.

        Args:
            samples: int16, shape ``(1, n)`` at ``sample_rate``; ``n`` may be 0.

        Returns:
            Pairs of a hop, int16 of shape ``(1, n)`` at ``sample_rate``, and its window, int16 of
            shape ``(1, vad.window)`` at ``vad.sample_rate``. Neither shares memory with
            ``samples``.

        Raises:
            UnsupportedFormat: for another dtype or shape.
            RuntimeError: after `close`.
        """
        windows = self._windows.push(self._resampler.push(samples))
        tape = np.concatenate([self._tape, samples], axis=1)
        pairs: list[tuple[Int16Array, Int16Array]] = []
        taken = 0
        for window in windows:
            self._count += 1
            # The tape has the whole hop: the resampler computed the window from later samples too.
            end = self._count * self._window * self._rate // self._vad_rate - self._begin
            pairs.append((tape[:, taken:end], window))
            taken = end
        # A view would keep the whole tape alive.
        self._tape = tape[:, taken:].copy()
        self._begin += taken
        return pairs

    def close(self) -> None:
        """Free the resampler and drop the incomplete hop. Idempotent."""
        self._resampler.close()
        self._tape = np.empty((1, 0), np.int16)
