"""The process in which PocketSphinx works: a program that answers requests until its input ends.

:mod:`.pocketsphinx` runs this file by its path, so it imports the standard library and pocketsphinx
alone: it starts in a fraction of the time and memory that this package needs.

Requests and answers are pickles on standard input and output. The first request is a pair of
``sys.path`` and the phrases to recognise, the others are a method of `Recogniser` and its
arguments. An answer is a pair of success and the result or the exception.

Theory of operation. Three searches of the recogniser work together:

* A *grammar* of the phrases returns the best-fitting phrase for any speech.
* A *keyphrase* search compares one phrase with a loop of all phones. It returns the position of the
  phrase and a score, which is a log likelihood ratio: 0 for a perfect fit.
* The *phone* loop finds the beginning and the end of the speech.

The grammar's phrase is accepted if it fits and fills the speech. A wake word is accepted if it
fits.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Protocol

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


class Recogniser:
    """Decoders for free speech or for a list of phrases, and for wake words.

    Audio is 16-bit PCM in the byte order of the machine, mono, at 16 kHz, and not empty.

    Raises:
        ImportError: the package pocketsphinx is missing.
        ValueError: a phrase is empty or has a word that is not in the dictionary; names it.
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        self._spotter = _decoder(lm=None)
        self._spotted: set[str] = set()
        self._phrases = self.check(phrases)
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

    def check(self, phrases: Sequence[str]) -> list[str]:
        """Return the phrases in lower case with single spaces.

        Raises:
            ValueError: a phrase is empty or has a word that is not in the dictionary; names it.
        """
        checked: list[str] = []
        for phrase in phrases:
            words = phrase.lower().split()
            if not words:
                raise ValueError(f"a phrase must have at least one word; got {phrase!r}")
            for word in words:
                if self._spotter.lookup_word(word) is None:
                    raise ValueError(
                        f"{word!r} of the phrase {phrase!r} is not in PocketSphinx's dictionary of "
                        "English words; write numbers in words"
                    )
            checked.append(" ".join(words))
        return checked

    def stt(self, audio: bytes) -> str:
        """Return the phrase or the text of an utterance; empty for any other speech."""
        if not self._phrases:
            return _hear(self._free, audio)
        phrase = _hear(self._chooser, audio, "phrases")
        if phrase not in self._phrases:  # The speech ended within a phrase.
            return ""
        _hear(self._judge, audio, "phones")
        speech = [part for part in _segments(self._judge) if part.word not in NOT_SPEECH]
        detections = _detections(self._judge, phrase, audio)
        if not speech or not detections:
            return ""
        length = speech[-1].end_frame - speech[0].start_frame + 1
        phones = _phones(phrase, self._judge) + FIT_EXTRA_PHONES
        fit = max(
            score / phones + FIT_PER_COVERAGE * min(1.0, (end - begin + 1) / length)
            for score, begin, end in detections
        )
        return phrase if fit >= FIT_LIMIT else ""

    def spot(self, audio: bytes, phrases: Sequence[str]) -> float | None:
        """Return the seconds to the end of the phrase that ends first, or None.

        Raises:
            ValueError: a phrase is empty or has a word that is not in the dictionary; names it.
        """
        ends = [self._spot(audio, phrase) for phrase in self.check(phrases)]
        return min((end for end in ends if end is not None), default=None)

    def _spot(self, audio: bytes, phrase: str) -> float | None:
        if phrase not in self._spotted:
            self._spotter.add_keyphrase(phrase, phrase)
            self._spotted.add(phrase)
        limit = SPOT_SCORE_PER_PHONE * _phones(phrase, self._spotter)
        ends = [
            end for score, _, end in _detections(self._spotter, phrase, audio) if score >= limit
        ]
        # The end frame is inclusive.
        return (min(ends) + 1) / FRAMES_PER_SECOND if ends else None


def _decoder(**settings: object) -> _Decoder:
    package = import_module("pocketsphinx")
    # CI phones suffice: the loop only marks speech. Below FATAL it logs pages to the console.
    settings |= {"loglevel": "FATAL", "allphone_ci": True, "kws_threshold": LOWEST_THRESHOLD}
    decoder: _Decoder = package.Decoder(package.Config(**settings))
    return decoder


def _phones(phrase: str, decoder: _Decoder) -> int:
    return sum(len((decoder.lookup_word(word) or "").split()) for word in phrase.split())


def _hear(decoder: _Decoder, audio: bytes, search: str | None = None) -> str:
    """Process an utterance and return its text."""
    if search is not None:
        decoder.activate_search(search)
    decoder.start_utt()
    # The whole utterance at once, so that its level is normalised as a whole.
    decoder.process_raw(audio, full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return found.hypstr if found else ""


def _segments(decoder: _Decoder) -> Iterable[_Segment]:
    return decoder.seg() or () if decoder.hyp() else ()


def _detections(decoder: _Decoder, phrase: str, audio: bytes) -> list[tuple[float, int, int]]:
    """Return score, first and last frame of every possible occurrence of a keyphrase."""
    _hear(decoder, audio, phrase)
    return [
        (SCORE_SCALE * math.log(part.prob), part.start_frame, part.end_frame)
        for part in _segments(decoder)
        if part.prob > 0
    ]


def main() -> None:
    """Answer requests until standard input ends."""
    # Ctrl-C goes to all processes of a terminal. The end of the input ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The output of a library must not get into the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    recogniser: Recogniser | None = None
    while True:
        try:
            method, *arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            if recogniser is None:
                sys.path[:] = method
                recogniser = Recogniser(*arguments)
                answer: tuple[bool, object] = True, None
            else:
                answer = True, getattr(recogniser, method)(*arguments)
        except Exception as exc:
            answer = False, exc
        try:
            pickle.dump(answer, answers)
            answers.flush()
        except BrokenPipeError:  # the parent has ended
            os._exit(1)


if __name__ == "__main__":
    main()
