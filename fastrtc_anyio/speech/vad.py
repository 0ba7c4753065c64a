"""Voice activity: how probable it is that somebody speaks, window after window.

A `Vad` takes windows of its own size at its own sample rate. `Hops` cuts a call's audio into such
windows and keeps beside each the samples it stands for, as they came: those are what a handler
gets, never the resampled ones.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from fastrtc_anyio._media.frames import Int16Array, check_pcm, check_sample_rate
from fastrtc_anyio._media.resample import Rechunker, StreamResampler
from fastrtc_anyio.errors import UnsupportedFormat

__all__ = ["Hops", "Vad", "VadStream", "check_window"]


class VadStream(Protocol):
    """One speaker's audio. What was heard before is remembered."""

    def probability(self, window: Int16Array) -> float:
        """Hear the next window.

        Args:
            window: int16, shape ``(1, Vad.window)``, at ``Vad.sample_rate``.

        Returns:
            How probable it is that it is speech, 0 to 1.
        """
        ...


class Vad(Protocol):
    """A voice-activity model. All sessions share it; each listens through a stream of its own."""

    @property
    def sample_rate(self) -> int:
        """Of the audio it takes, Hz."""
        ...

    @property
    def window(self) -> int:
        """Samples it takes at a time."""
        ...

    @property
    def blocking(self) -> bool:
        """Whether a window takes so long that it belongs on a thread. A model does."""
        ...

    def new_stream(self) -> VadStream:
        """Begin to listen to somebody."""
        ...


def check_window(window: Int16Array, size: int) -> None:
    """Refuse anything but int16 PCM of shape ``(1, size)``.

    Raises:
        UnsupportedFormat: names the dtype and shape got and wanted.
    """
    check_pcm(window, 1)
    if window.shape[1] != size:
        raise UnsupportedFormat(f"expected a window of {size} samples, got {window.shape[1]}")


class Hops:
    """A stream of audio, cut for a `Vad`.

    Window ``k`` stands for the samples from the end of hop ``k - 1`` up to
    ``(k + 1) * vad.window * sample_rate // vad.sample_rate``. So the hops joined are the input,
    whatever the rates, and how the input was cut into chunks makes no difference.

    A window is returned when its hop is complete, and at another rate as soon as the resampler
    has the samples its filter looks ahead: 1.5 ms later for 24 and 48 kHz to 16 kHz, 3 ms later
    for 8 kHz.

    Args:
        sample_rate: Of what is pushed, Hz; a multiple of 50 from 8000 to 48000.
        vad: For its sample rate and window.

    Raises:
        TypeError: the sample rate is no whole number.
        ValueError: it is out of range, or a window of the model is shorter than a sample.
        UnsupportedFormat: the model's sample rate or window is not positive.
    """

    def __init__(self, sample_rate: int, vad: Vad) -> None:
        self._rate = check_sample_rate(sample_rate)
        self._vad_rate, self._window = vad.sample_rate, vad.window
        self._resampler = StreamResampler(self._rate, self._vad_rate, 1)
        self._windows = Rechunker(self._window, 1)
        if self._window * self._rate < self._vad_rate:
            raise ValueError(
                f"a window of the VAD must last a sample at least: it has {self._window} samples "
                f"at {self._vad_rate} Hz, the audio {self._rate} Hz"
            )
        # Input that no hop was made of yet, and the place of its first sample.
        self._tape = np.empty((1, 0), np.int16)
        self._begin = 0
        self._count = 0

    def push(self, samples: Int16Array) -> list[tuple[Int16Array, Int16Array]]:
        """Add samples and return what is complete.

        Args:
            samples: int16, shape ``(1, n)`` at ``sample_rate``; ``n`` may be 0.

        Returns:
            Pairs of a hop, int16 of shape ``(1, n)`` at ``sample_rate``, and its window, int16 of
            shape ``(1, vad.window)`` at ``vad.sample_rate``. No memory of ``samples`` is shared.

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
            # The hop is there: the last sample of its window was worked out from later ones.
            end = self._count * self._window * self._rate // self._vad_rate - self._begin
            pairs.append((tape[:, taken:end], window))
            taken = end
        # A copy: the rest must not keep all of the tape alive.
        self._tape = tape[:, taken:].copy()
        self._begin += taken
        return pairs

    def close(self) -> None:
        """Free the resampler. The samples of a hop that is not complete are lost. Idempotent."""
        self._resampler.close()
        self._tape = np.empty((1, 0), np.int16)
