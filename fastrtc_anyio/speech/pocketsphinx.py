"""PocketSphinx: speech to text and wake words, from a package that contains its model.

Each `PocketSphinxSTT` has a separate process. PocketSphinx holds the GIL, in a single call of its
library, for a third of the duration of free speech and for half a second to load a model. In this
process it would stop all calls.

The acoustic model was trained on recordings of rooms, and fails on digital silence, which a muted
or noise-suppressed microphone sends. Noise is therefore added to every recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np

from fastrtc_anyio._media.frames import Int16Array

from ._process import ModelProcess
from .stt import Audio, resample_for_stt

__all__ = ["PocketSphinxSTT"]

# Level of the added noise relative to the audio: 30 dB below it, as in the measurements of
# _pocketsphinx_process. Without noise, 22 of 44 phrases surrounded by digital silence were
# recognised; with it, all were.
NOISE = 0.03
PROGRAM = Path(__file__).with_name("_pocketsphinx_process.py")


class PocketSphinxSTT:
    """Recognise English: free speech or a list of phrases, and wake words.

    Free speech is transcribed with many errors. With ``phrases``, only those are recognised, and
    reliably if they have about eight phones or more: prefer "tell me a joke" to "joke". Pass one
    utterance at a time to ``stt``.

    Any thread may call it; one call runs at a time, in a process that ends with this object. All
    methods raise RuntimeError if that process ends unexpectedly; the next call starts it again.

    Args:
        phrases: phrases of words in the dictionary, separated by spaces. Empty for free speech.

    Raises:
        ImportError: the package pocketsphinx is missing.
        RuntimeError: the process could not be started.
        ValueError: a phrase is empty or has a word that is not in the dictionary; names it.
        TypeError: ``phrases`` is one string.
    """

    def __init__(self, phrases: Sequence[str] = ()) -> None:
        if find_spec("pocketsphinx") is None:
            raise ImportError(
                "PocketSphinxSTT needs its package: pip install 'fastrtc-anyio[stt]' (it contains "
                "the model)"
            )
        self._process = ModelProcess(PROGRAM, _as_list(phrases))

    def stt(self, audio: Audio) -> str:
        """Transcribe an utterance.

        Args:
            audio: as for :meth:`.stt.STTModel.stt`.

        Returns:
            One of the phrases, in lower case with single spaces, or an empty string for any other
            speech. Without phrases, the recognised text.

        Raises:
            UnsupportedFormat: for other audio.
        """
        samples = _with_noise(resample_for_stt(audio))
        return cast(str, self._process.request("stt", samples.tobytes())) if samples.size else ""

    def spot(self, audio: Audio, phrases: Sequence[str]) -> float | None:
        """Find the phrase that ends first, within any other speech.

        Args:
            audio: as for `stt`.
            phrases: phrases of words in the dictionary, of at least three syllables: longer phrases
                cause fewer false alarms.

        Returns:
            Seconds from the beginning of the audio to the end of the phrase, or None.

        Raises:
            UnsupportedFormat: for other audio.
            ValueError: a phrase is empty or has a word that is not in the dictionary; names it.
        """
        samples = _with_noise(resample_for_stt(audio))
        if not samples.size:
            self.check_phrases(phrases)
            return None
        found = self._process.request("spot", samples.tobytes(), _as_list(phrases))
        return cast("float | None", found)

    def check_phrases(self, phrases: Sequence[str]) -> None:
        """Check that `spot` can find some phrases.

        Raises:
            ValueError: a phrase is empty or has a word that is not in the dictionary; names it.
        """
        self._process.request("check", _as_list(phrases))


def _as_list(phrases: Sequence[str]) -> list[str]:
    if isinstance(phrases, str):
        raise TypeError(f"phrases must be a sequence of strings; got the string {phrases!r}")
    return list(phrases)


def _with_noise(samples: Int16Array) -> Int16Array:
    if not samples.size:
        return samples
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    # Seeded, so that the same audio gives the same text.
    noise = np.random.default_rng(0).normal(0, NOISE * level, samples.shape)
    return np.clip(samples + noise, -(2**15), 2**15 - 1).astype(np.int16)
