"""Conceal lost audio by repeating the last pitch period, for codecs without concealment.

The method follows ITU-T G.711 Appendix I, without its delay of 3.75 ms. Speech changes little
within a few tens of milliseconds, and a voice repeats itself with its pitch period. The period is
the shift at which the last 20 ms resemble the audio before them most. It is repeated while it fades
out, and the first real samples after the loss fade in over what would have come next.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from .frames import INT16_MAX, INT16_MIN, Int16Array

CONCEALED_SECONDS = 0.06
"""Seconds after which repeated audio has faded to silence."""
_FULL_SECONDS = 0.01
"""Seconds that it keeps its level. Longer repetition of one period sounds like a buzzer."""
FADE_IN_SECONDS = 0.005
# Pitch of 66 to 200 Hz. For higher voices the search finds a multiple of the period.
_MIN_PERIOD, _MAX_PERIOD = 0.005, 0.015
_TEMPLATE_SECONDS = 0.02
_RECENT_FRAMES = 4
"""Frames remembered: enough for the search if they last 10 ms or more."""

Samples = NDArray[np.float64]


def fade(position: int, count: int, begin: float, end: float) -> Samples:
    """Return a gain for each of ``count`` samples: 1 until ``begin``, 0 from ``end``.

    All arguments are in samples since the beginning of the concealed audio.
    """
    remaining = end - position - np.arange(count, dtype=np.float64)
    return np.clip(remaining / (end - begin), 0.0, 1.0)


def fade_in(samples: Int16Array, before: Samples | float, count: int) -> Int16Array:
    """Replace the first ``count`` samples by a cross-fade from the samples ``before`` to them."""
    count = min(count, samples.shape[1])
    weight = np.arange(1, count + 1) / (count + 1)
    mixed = samples.astype(np.float64)
    mixed[:, :count] = mixed[:, :count] * weight + before * (1 - weight)
    return _quantise(mixed)


def _quantise(samples: Samples) -> Int16Array:
    return np.rint(np.clip(samples, INT16_MIN, INT16_MAX)).astype(np.int16)


class Concealer:
    """Continues a stream of PCM through losses. All arrays are int16, shape ``(channels, n)``.

    Args:
        sample_rate: Hz.
        channels: channels of the stream.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.sample_rate = sample_rate
        self._overlap = round(FADE_IN_SECONDS * sample_rate)
        self._kept = round((_TEMPLATE_SECONDS + _MAX_PERIOD) * sample_rate)
        self._recent = deque([np.zeros((channels, 0), np.int16)], _RECENT_FRAMES)
        self._period: Samples | None = None
        self._offset: Samples | float = 0.0
        self._position = 0  # samples since the last real one, if there is a period

    def receive(self, samples: Int16Array) -> Int16Array:
        """Return real samples, the first of which fade in if audio before them was lost."""
        if self._period is not None:
            count = min(self._overlap, samples.shape[1])
            samples = fade_in(samples, self._extend(count), count)
            self._period = None
        self._recent.append(samples.copy())  # a handler may change what it receives
        return samples

    def conceal(self, count: int) -> Int16Array:
        """Return ``count`` samples in place of lost ones; silence after ``CONCEALED_SECONDS``."""
        if self._period is None:
            self._period = self._find_period()
        samples = _quantise(self._extend(count))
        self._position += count
        self._recent.append(samples.copy())
        return samples

    def skip(self) -> None:
        """Note that silence follows: the next real samples fade in from it."""
        self._period = np.zeros((self._recent[0].shape[0], 1))
        self._offset = 0.0

    def _extend(self, count: int) -> Samples:
        """Return the next ``count`` samples of the repeated period."""
        assert self._period is not None
        at = self._position + np.arange(count)
        rate = self.sample_rate
        repeated = self._period[:, at % self._period.shape[1]]
        repeated += self._offset * fade(self._position, count, 0, self._overlap)
        return repeated * fade(
            self._position, count, _FULL_SECONDS * rate, CONCEALED_SECONDS * rate
        )

    def _find_period(self) -> Samples:
        """Return the last pitch period, smoothed where its end meets its beginning."""
        self._position, self._offset = 0, 0.0
        history = np.concatenate(self._recent, axis=1)[:, -self._kept :].astype(np.float64)
        heard = history.shape[1]
        longest = min(round(_MAX_PERIOD * self.sample_rate), heard // 2)
        shortest = min(round(_MIN_PERIOD * self.sample_rate), longest)
        if not shortest:
            return np.zeros((history.shape[0], 1))
        mono = history.sum(axis=0)
        template = mono[longest:]
        # Element i is for the audio that begins longest - i samples before the template.
        likeness = np.correlate(mono, template)
        power = np.concatenate([[0.0], np.cumsum(np.square(mono))])
        energy = power[template.size :] - power[: -template.size]
        likeness /= np.sqrt(energy + 1.0)
        period = longest - int(np.argmax(likeness[: longest - shortest + 1]))
        found = history[:, -period:].copy()
        seam = min(period // 4, heard - period)
        weight = np.arange(1, seam + 1) / (seam + 1) if seam else np.empty(0)
        before = history[:, heard - period - seam : heard - period]
        found[:, period - seam :] = found[:, period - seam :] * (1 - weight) + before * weight
        # The repeated period need not begin where the audio stopped. The difference fades out.
        self._offset = history[:, -1:] - before[:, -1:] if seam else 0.0
        return found
