"""PocketSphinx: speech to text and wake words, from a package that contains its model.

Theory of operation. Three searches of the recogniser work together:

* A *grammar* of the phrases returns the best-fitting phrase for any speech.
* A *keyphrase* search compares one phrase with a loop of all phones. It returns the position of the
  phrase and a score, which is a log likelihood ratio: 0 for a perfect fit.
* The *phone* loop finds the beginning and the end of the speech.

The grammar's phrase is accepted if it fits and fills the speech. A wake word is accepted if it
fits.

The acoustic model was trained on recordings of rooms, and fails on digital silence, which a muted
or noise-suppressed microphone sends. Noise is therefore added to every recording.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Protocol

import numpy as np

from fastrtc_anyio._core.host import Lock
from fastrtc_anyio._media.frames import Int16Array

from .stt import Audio, resample_for_stt

__all__ = ["PocketSphinxSTT"]

FRAMES_PER_SECOND = 100
# The recogniser keeps integer scores shifted by 10 bits (SENSCR_SHIFT in its hmm.h). Its Python
# interface returns e to that power.
SCORE_SCALE = 2**10
# Minimum score per phone of a spotted phrase. Measured, as the numbers below, on synthetic voices
# with noise 10 to 30 dB below them: "hey computer" scores -18 to -27, other speech -28 at best,
# with rare exceptions.
SPOT_SCORE_PER_PHONE = -28.0
# A phrase fits if the sum of two terms reaches the limit: its score per phone, with four phones
# added so that short phrases have a chance, and a reward for its share of the speech. With 20
# phrases, 171 of 180 utterances were recognised, and 5 of 180 other sentences were accepted.
FIT_LIMIT = -6.0
FIT_PER_COVERAGE = 30.0
FIT_EXTRA_PHONES = 4
# The default beam, 1e-48, would prune a phrase before its score is known.
WIDE_BEAM = 1e-120
LOWEST_THRESHOLD = 1e-200
# Level of the added noise relative to the audio: 30 dB below it, as in the measurements above. Of
# 44 phrases surrounded by digital silence, 22 were recognised without noise, and all with it.
NOISE = 0.03

NOT_SPEECH = frozenset({"SIL", "<s>", "</s>", "<sil>", "+NSN+", "+SPN+", "[NOISE]", "[SPEECH]"})


class _Hypothesis(Protocol):
    hypstr: str


class _Segment(Protocol):
    word: str
    prob: float
    start_frame: int
    end_frame: int


class _Decoder(Protocol):
    """The methods of ``pocketsphinx.Decoder`` that are used here."""

    def lookup_word(self, word: str) -> str | None: ...
    def add_keyphrase(self, name: str, phrase: str) -> None: ...
    def add_jsgf_string(self, name: str, grammar: str) -> None: ...
    def add_allphone_file(self, name: str, path: None) -> None: ...
    def activate_search(self, name: str) -> None: ...
    def start_utt(self) -> None: ...
    def process_raw(self, data: bytes, *, full_utt: bool) -> object: ...
    def end_utt(self) -> None: ...
    def hyp(self) -> _Hypothesis | None: ...
    def seg(self) -> Iterable[_Segment] | None: ...


class PocketSphinxSTT:
    """Recognise English: free speech or a list of phrases, and wake words.

    Free speech is transcribed with many errors. With ``phrases``, only those are recognised, and
    reliably if they have about eight phones or more: prefer "tell me a joke" to "joke". Pass one
    utterance at a time to ``stt``.

    Any thread may call it; one call runs at a time.

    Args:
        phrases: phrases of words in the dictionary, separated by spaces. Empty for free speech.

    Raises:
        ImportError: the package pocketsphinx is missing.
        ValueError: a phrase is empty or has a word that is not in the dictionary; names it.
        TypeError: ``phrases`` is one string.
    """

    def __init__(self, phrases: Sequence[str] = ()) -> None:
        self._lock = Lock()
        self._spotter = _decoder(lm=None)
        self._spotted: set[str] = set()
        self._phrases = _checked(phrases, self._spotter)
        if not self._phrases:
            self._free = _decoder()
            return
        self._chooser = _decoder(lm=None)
        grammar = " | ".join(self._phrases)
        self._chooser.add_jsgf_string(
            "phrases", f"#JSGF V1.0; grammar phrases; public <phrase> = {grammar};"
        )
        self._judge = _decoder(lm=None, beam=WIDE_BEAM, pbeam=WIDE_BEAM, wbeam=WIDE_BEAM)
        self._judge.add_allphone_file("phones", None)
        for phrase in self._phrases:
            self._judge.add_keyphrase(phrase, phrase)

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
        if not samples.size:
            return ""
        with self._lock:
            return self._phrase(samples) if self._phrases else _hear(self._free, samples)

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
        with self._lock:
            wanted = _checked(phrases, self._spotter)
            ends = [end for phrase in wanted if (end := self._spot(samples, phrase)) is not None]
        return min(ends, default=None)

    def check_phrases(self, phrases: Sequence[str]) -> None:
        """Check that `spot` can find some phrases.

        Raises:
            ValueError: a phrase is empty or has a word that is not in the dictionary; names it.
        """
        with self._lock:
            _checked(phrases, self._spotter)

    def _spot(self, samples: Int16Array, phrase: str) -> float | None:
        if not samples.size:
            return None
        if phrase not in self._spotted:
            self._spotter.add_keyphrase(phrase, phrase)
            self._spotted.add(phrase)
        limit = SPOT_SCORE_PER_PHONE * _phones(phrase, self._spotter)
        ends = [
            end for score, _, end in _detections(self._spotter, phrase, samples) if score >= limit
        ]
        # The end frame is inclusive.
        return (min(ends) + 1) / FRAMES_PER_SECOND if ends else None

    def _phrase(self, samples: Int16Array) -> str:
        phrase = _hear(self._chooser, samples, "phrases")
        if phrase not in self._phrases:  # The speech ended within a phrase.
            return ""
        _hear(self._judge, samples, "phones")
        speech = [part for part in _segments(self._judge) if part.word not in NOT_SPEECH]
        detections = _detections(self._judge, phrase, samples)
        if not speech or not detections:
            return ""
        length = speech[-1].end_frame - speech[0].start_frame + 1
        phones = _phones(phrase, self._judge) + FIT_EXTRA_PHONES
        fit = max(
            score / phones + FIT_PER_COVERAGE * min(1.0, (end - begin + 1) / length)
            for score, begin, end in detections
        )
        return phrase if fit >= FIT_LIMIT else ""


def _decoder(**settings: object) -> _Decoder:
    try:
        package = import_module("pocketsphinx")
    except ImportError as exc:
        raise ImportError(
            "PocketSphinxSTT needs its package: pip install pocketsphinx (it contains the model)"
        ) from exc
    # CI phones suffice: the loop only marks speech. Below FATAL it logs pages to the console.
    settings |= {"loglevel": "FATAL", "allphone_ci": True, "kws_threshold": LOWEST_THRESHOLD}
    decoder: _Decoder = package.Decoder(package.Config(**settings))
    return decoder


def _with_noise(samples: Int16Array) -> Int16Array:
    if not samples.size:
        return samples
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    # Seeded, so that the same audio gives the same text.
    noise = np.random.default_rng(0).normal(0, NOISE * level, samples.shape)
    return np.clip(samples + noise, -(2**15), 2**15 - 1).astype(np.int16)


def _checked(phrases: Sequence[str], decoder: _Decoder) -> list[str]:
    if isinstance(phrases, str):
        raise TypeError(f"phrases must be a sequence of strings; got the string {phrases!r}")
    checked: list[str] = []
    for phrase in phrases:
        words = phrase.lower().split()
        if not words:
            raise ValueError(f"a phrase must have at least one word; got {phrase!r}")
        for word in words:
            if decoder.lookup_word(word) is None:
                raise ValueError(
                    f"{word!r} of the phrase {phrase!r} is not in PocketSphinx's dictionary of "
                    "English words; write numbers in words"
                )
        checked.append(" ".join(words))
    return checked


def _phones(phrase: str, decoder: _Decoder) -> int:
    return sum(len((decoder.lookup_word(word) or "").split()) for word in phrase.split())


def _hear(decoder: _Decoder, samples: Int16Array, search: str | None = None) -> str:
    """Process an utterance and return its text."""
    if search is not None:
        decoder.activate_search(search)
    decoder.start_utt()
    # The whole utterance at once, so that its level is normalised as a whole.
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return found.hypstr if found else ""


def _segments(decoder: _Decoder) -> Iterable[_Segment]:
    return decoder.seg() or () if decoder.hyp() else ()


def _detections(
    decoder: _Decoder, phrase: str, samples: Int16Array
) -> list[tuple[float, int, int]]:
    """Return score, first and last frame of every possible occurrence of a keyphrase."""
    _hear(decoder, samples, phrase)
    return [
        (SCORE_SCALE * math.log(part.prob), part.start_frame, part.end_frame)
        for part in _segments(decoder)
        if part.prob > 0
    ]
