"""PocketSphinx: speech to text and wake words from a package that holds its model.

Theory of operation. Three searches of the same recogniser work together.

* A *grammar* of the phrases gives the phrase that fits best, whatever was said.
* A *keyphrase* search compares one phrase with a loop of all phones, and so says how well it fits,
  and where it lies. Its score is a log likelihood ratio, 0 for a perfect fit.
* The *phone* loop says where speech begins and ends at all.

The grammar's phrase counts if it fits and fills the speech; a wake word, if it fits.

All of them were trained on rooms, and are lost where there is no sound at all, as a microphone has
it that is muted or cleaned of noise. So what they hear always has some noise in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from fastrtc_anyio._core.host import Lock
from fastrtc_anyio._media.frames import Int16Array

from .stt import Audio, resample_for_stt

__all__ = ["PocketSphinxSTT"]

FRAMES_PER_SECOND = 100
# Where the recogniser's integer scores become logarithms: they are kept shifted by 10 bits
# (SENSCR_SHIFT in its hmm.h), and what its Python interface gives is e to that.
SCORE_SCALE = 2**10
# A spotted phrase scores at least so much for each of its phones. Measured, as the numbers below,
# on synthetic voices with noise 10 to 30 dB below them: "hey computer" reaches -18 to -27, other
# speech -28 at best, with rare exceptions.
SPOT_SCORE_PER_PHONE = -28.0
# A phrase fits if two things together come to the limit: its score per phone, with four phones
# more so that short ones have a chance, and a reward for its share of the speech. Of 20 phrases
# 171 in 180 were understood, and 5 in 180 other sentences were taken for one.
FIT_LIMIT = -6.0
FIT_PER_COVERAGE = 30.0
FIT_EXTRA_PHONES = 4
# The usual beam, 1e-48, would give a phrase up before it is known how well it fits.
WIDE_BEAM = 1e-120
LOWEST_THRESHOLD = 1e-200
# Of the level of the audio: 30 dB below it, where the numbers above were measured. Of 44 phrases
# with digital silence around them 22 were understood without it, and all with it.
NOISE = 0.03

NOT_SPEECH = frozenset({"SIL", "<s>", "</s>", "<sil>", "+NSN+", "+SPN+", "[NOISE]", "[SPEECH]"})


class PocketSphinxSTT:
    """Recognises English: any speech, or one of some phrases; and spots wake words.

    Free text comes out with many mistakes. With ``phrases`` it understands those alone, and
    well if they have about eight phones or more: prefer "tell me a joke" to "joke". Give ``stt``
    one utterance at a time.

    Any thread may call it; one call runs at a time.

    Args:
        phrases: what may be said: words of its dictionary, separated by spaces. Empty: anything.

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
        """Write down what is said.

        Args:
            audio: as for :meth:`.stt.STTModel.stt`.

        Returns:
            One of the phrases as it was given, with single spaces and in lower case, or an empty
            string if something else was said; without phrases, whatever was understood.

        Raises:
            UnsupportedFormat: for other audio.
        """
        samples = _with_noise(resample_for_stt(audio))
        if not samples.size:
            return ""
        with self._lock:
            if not self._phrases:
                _hear(self._free, samples)
                found = self._free.hyp()
                return found.hypstr if found else ""
            return self._phrase(samples)

    def spot(self, audio: Audio, phrases: Sequence[str]) -> float | None:
        """Find the phrase that ends first, whatever is said besides.

        Args:
            audio: as for `stt`.
            phrases: words of the dictionary. The longer a phrase, the fewer false alarms:
                three syllables at least.

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
        """Refuse phrases that `spot` could not find.

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
        # Frames count from 0, and the last one is part of the phrase.
        return (min(ends) + 1) / FRAMES_PER_SECOND if ends else None

    def _phrase(self, samples: Int16Array) -> str:
        _hear(self._chooser, samples, "phrases")
        found = self._chooser.hyp()
        phrase = found.hypstr if found else ""
        if phrase not in self._phrases:  # Speech that ended within a phrase.
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


def _decoder(**settings: Any) -> Any:
    try:
        package: Any = import_module("pocketsphinx")
    except ImportError as exc:
        raise ImportError(
            "PocketSphinxSTT needs its package: pip install pocketsphinx (it holds its model)"
        ) from exc
    # CI phones: the loop only marks where speech is. FATAL: it would log pages to the console.
    return package.Decoder(
        package.Config(
            loglevel="FATAL", allphone_ci=True, kws_threshold=LOWEST_THRESHOLD, **settings
        )
    )


def _with_noise(samples: Int16Array) -> Int16Array:
    if not samples.size:
        return samples
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    # The same each time, so that the same audio gives the same text.
    noise = np.random.default_rng(0).normal(0, NOISE * level, samples.shape)
    return np.clip(samples + noise, -(2**15), 2**15 - 1).astype(np.int16)


def _checked(phrases: Sequence[str], decoder: Any) -> list[str]:
    if isinstance(phrases, str):
        raise TypeError(f"phrases must be a sequence of strings, got the string {phrases!r}")
    checked: list[str] = []
    for phrase in phrases:
        words = phrase.lower().split()
        if not words:
            raise ValueError(f"a phrase must have at least one word; got {phrase!r}")
        for word in words:
            if decoder.lookup_word(word) is None:
                raise ValueError(
                    f"{word!r} of the phrase {phrase!r} is not in PocketSphinx's dictionary of "
                    "English words; numbers are written out"
                )
        checked.append(" ".join(words))
    return checked


def _phones(phrase: str, decoder: Any) -> int:
    return sum(len(decoder.lookup_word(word).split()) for word in phrase.split())


def _hear(decoder: Any, samples: Int16Array, search: str | None = None) -> None:
    if search is not None:
        decoder.activate_search(search)
    decoder.start_utt()
    # As a whole: the level is then normalised over all of it.
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()


def _segments(decoder: Any) -> Iterable[Any]:
    return decoder.seg() or () if decoder.hyp() else ()


def _detections(decoder: Any, phrase: str, samples: Int16Array) -> list[tuple[float, int, int]]:
    """Score, first and last frame of every place where a keyphrase may be."""
    _hear(decoder, samples, phrase)
    return [
        (SCORE_SCALE * math.log(part.prob), part.start_frame, part.end_frame)
        for part in _segments(decoder)
        if part.prob > 0
    ]
