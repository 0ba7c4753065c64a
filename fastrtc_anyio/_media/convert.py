"""Convert a stream of audio frames to one sample rate and channel count."""

from __future__ import annotations

import numpy as np

from .frames import AudioFrame, Int16Array, mix_channels
from .resample import StreamResampler


class AudioConverter:
    """Converter of audio at any rate and layout to one rate and layout.

    Call it with one frame after another: the filter keeps its state, and follows a change of the
    input rate without losing samples.

    Args:
        sample_rate: output rate, Hz.
        channels: output channels, 1 or 2.
        primed: whether a frame in gives a frame out. Otherwise the first one lacks the 1 to 3 ms
            that the resampler looks ahead. Primed with as much silence, it lacks nothing, and the
            audio comes as much later.
    """

    def __init__(self, sample_rate: int, channels: int, *, primed: bool = False) -> None:
        self._sample_rate = sample_rate
        self._channels = channels
        self._primed = primed
        self._resampler: StreamResampler | None = None

    def __call__(self, frame: AudioFrame) -> Int16Array:
        """Convert the next frame.

        Returns:
            The samples that are ready: int16, shape ``(channels, n)``. They are the frame's own
            array if there is nothing to convert.
        """
        samples = frame.samples
        if samples.shape[0] != self._channels:
            samples = mix_channels(samples, self._channels)
        resampler = self._resampler
        if resampler is None and frame.sample_rate == self._sample_rate:
            return samples
        tail: Int16Array | None = None
        if resampler is None or resampler.from_rate != frame.sample_rate:
            tail = self.flush()
            self.reset()
            resampler = self._resampler = StreamResampler(
                frame.sample_rate, self._sample_rate, self._channels
            )
            if self._primed and tail.shape[1] == 0:
                resampler.push(np.zeros((self._channels, resampler.look_ahead), np.int16))
        converted = resampler.push(samples)
        return converted if tail is None else np.concatenate([tail, converted], axis=1)

    def flush(self) -> Int16Array:
        """Return the samples still inside the filter: int16, shape ``(channels, n)``.

        The next frame starts a new stream.
        """
        if self._resampler is None:
            return np.empty((self._channels, 0), np.int16)
        return self._resampler.flush()

    def reset(self) -> None:
        """Discard the samples still inside the filter."""
        if self._resampler is not None:
            self._resampler.close()
            self._resampler = None
