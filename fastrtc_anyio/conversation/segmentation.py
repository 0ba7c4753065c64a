"""Segmentation of the input into utterances.

A pause rule detects speech some time after it began. The buffer therefore keeps the audio back to
where speech may have begun, and the pre-roll before it, so that no utterance loses its first
syllable. An utterance is one slice of the input. No sample belongs to two utterances: of two
utterances close to each other, the second begins where the first ended.

Memory: during silence, the pre-roll, the rule's window and two hops; during speech, the utterance.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from fastrtc_anyio._media.frames import Int16Array

__all__ = ["UtteranceBuffer"]


class UtteranceBuffer:
    """Recent input, and the utterance in progress within it.

    Places are samples since the first sample appended.

    Args:
        pre_roll: samples before the first speech that belong to an utterance.

    Attributes:
        now: place after the last sample.
        began: place at which the utterance in progress begins; None without one.
        continued: whether that utterance continues one that was cut while the user spoke.
    """

    def __init__(self, pre_roll: int) -> None:
        self.now: int = 0
        self.began: int | None = None
        self.continued: bool = False
        self._pre_roll = pre_roll
        self._chunks: deque[Int16Array] = deque()
        self._held_from = 0
        # Samples before this place belong to earlier utterances.
        self._earliest = 0

    @property
    def held(self) -> int:
        """Number of samples in memory."""
        return self.now - self._held_from

    def append(self, samples: Int16Array) -> None:
        """Append a copy of the next samples: int16, shape ``(1, n)``."""
        # A copy, because the caller may reuse its array.
        self._chunks.append(samples.copy(order="C"))
        self.now += int(samples.shape[1])

    def begin(self, lookback: int) -> int:
        """Begin an utterance with speech that began ``lookback`` samples ago.

        Returns:
            Place of the first speech. It is later than ``lookback`` says where those samples
            belong to an earlier utterance or are no longer in memory.
        """
        earliest = max(self._earliest, self._held_from)
        speech_at = max(self.now - lookback, earliest)
        self.began = max(speech_at - self._pre_roll, earliest)
        self.continued = False
        return speech_at

    def continue_from(self, place: int) -> None:
        """Cut the utterance: a new one begins at ``place`` without another onset."""
        self.began = place
        self.continued = True

    def end(self) -> None:
        """End the utterance. Its audio may still become the pre-roll of the next."""
        self.began = None

    def in_progress(self) -> Int16Array:
        """Copy the utterance in progress: int16, shape ``(1, n)``; empty without one."""
        return self._slice(self.now if self.began is None else self.began, self.now)

    def take(self, begin: int, end: int) -> Int16Array:
        """Copy the samples of an utterance. No later utterance reaches back before ``end``."""
        if begin < end:  # an empty utterance must not cut off the pre-roll of the next
            self._earliest = end
        return self._slice(begin, end)

    def exclude_before(self, ago: int) -> None:
        """Let no utterance reach back further than ``ago`` samples before now."""
        self._earliest = max(self._earliest, self.now - ago)

    def discard(self, lookback: int) -> None:
        """Drop audio that no utterance can contain: speech may begin ``lookback`` samples ago."""
        needed = self.began
        if needed is None:
            needed = self.now - lookback - self._pre_roll
        while self._chunks and self._held_from + self._chunks[0].shape[1] <= needed:
            self._held_from += int(self._chunks.popleft().shape[1])

    def _slice(self, begin: int, end: int) -> Int16Array:
        if begin == end:
            return np.empty((1, 0), np.int16)
        samples = np.concatenate(list(self._chunks), axis=1)
        return samples[:, begin - self._held_from : end - self._held_from].copy(order="C")
