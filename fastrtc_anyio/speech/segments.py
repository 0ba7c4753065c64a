"""Where in a recording somebody speaks: from probabilities to segments.

Theory of operation. Four steps, each of which only removes or only adds:

1. *Runs*: speech begins with a window at the threshold and ends with one clearly below it. The
   distance between both keeps a probability that wavers from cutting a word to pieces.
2. Runs with little silence between them are one utterance; utterances too short are dropped.
3. What is too long is parted at its last pause that will do, and cut where it has none.
4. Each segment is padded. Neighbours whose pads would overlap share what is between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

__all__ = ["SileroVadOptions", "speech_segments"]

# Places of a segment's first sample and after its last.
Segment: TypeAlias = tuple[int, int]

# How far below the threshold speech ends: Silero's own distance.
HYSTERESIS = 0.15
# A pause of so many seconds will do for parting what is too long: Silero's own choice, rounded.
PAUSE_S = 0.1
SAMPLE_RATE = 16_000
WINDOW = 512


@dataclass(frozen=True)
class SileroVadOptions:
    """What counts as speech. The names and defaults are FastRTC's.

    A conversation (`ReplyOnPause`) uses ``threshold`` alone: there the model hears a stream, and
    `AlgoOptions` say when somebody has begun to talk or paused. The others are for finding the
    segments of a recording with `SileroVad.vad`.

    Args:
        threshold: A window with at least this probability is speech.
        min_speech_duration_ms: An utterance shorter than this is dropped.
        max_speech_duration_s: No segment is longer than this, pads included. What is longer is
            parted at the last pause of 0.1 s that will do, or cut where there is none.
        min_silence_duration_ms: A pause shorter than this does not end a segment.
        window_size_samples: Has no effect: the model takes 512 samples at a time. It is here
            because FastRTC has it.
        speech_pad_ms: Each segment begins so much earlier and ends so much later than the speech
            found, as far as there is audio, and no further than half way to the next.

    Raises:
        ValueError: names the option, its value and what it has to be.
    """

    threshold: float = 0.5
    min_speech_duration_ms: float = 250
    max_speech_duration_s: float = math.inf
    min_silence_duration_ms: float = 2000
    window_size_samples: int = 1024
    speech_pad_ms: float = 400

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise self._invalid("threshold", "must be more than 0 and at most 1")
        for name in ("min_speech_duration_ms", "min_silence_duration_ms", "speech_pad_ms"):
            if not 0 <= getattr(self, name) < math.inf:
                raise self._invalid(name, "must be 0 or more milliseconds")
        if self.window_size_samples < 1:
            raise self._invalid("window_size_samples", "must be 1 or more samples")
        shortest = 2 * self.speech_pad_ms / 1000 + WINDOW / SAMPLE_RATE
        if not self.max_speech_duration_s >= shortest:
            raise self._invalid(
                "max_speech_duration_s",
                f"must be {shortest:g} or more seconds: a window of speech and its two pads",
            )

    def _invalid(self, name: str, wanted: str) -> ValueError:
        return ValueError(f"{name} {wanted}; got {getattr(self, name)!r}")


def speech_segments(
    probabilities: Sequence[float], total: int, options: SileroVadOptions
) -> list[Segment]:
    """Find the speech in a recording at 16 kHz.

    Args:
        probabilities: One for each 512 samples; the last window may be incomplete.
        total: Samples in the recording.
        options: What counts as speech.

    Returns:
        The place of each segment's first sample and the place after its last: in order, none
        empty, none overlapping another, all between 0 and ``total``.

    Raises:
        ValueError: there are not ``ceil(total / 512)`` probabilities.
    """
    if len(probabilities) != -(-total // WINDOW):
        raise ValueError(
            f"expected a probability for each {WINDOW} of {total} samples, got {len(probabilities)}"
        )
    pad = int(options.speech_pad_ms * SAMPLE_RATE / 1000)
    longest = options.max_speech_duration_s * SAMPLE_RATE - 2 * pad
    least = options.min_speech_duration_ms * SAMPLE_RATE / 1000
    runs = [(begin, min(end, total)) for begin, end in _runs(probabilities, options.threshold)]
    segments: list[Segment] = []
    for utterance in _grouped(runs, options.min_silence_duration_ms * SAMPLE_RATE / 1000):
        if utterance[-1][1] - utterance[0][0] >= least:
            segments += _parted(utterance, longest)
    return _padded(segments, pad, total)


def _runs(probabilities: Sequence[float], threshold: float) -> list[Segment]:
    # With a low threshold the distance alone would be all there is, and speech would never end.
    ends_below = max(threshold - HYSTERESIS, threshold / 2)
    runs: list[Segment] = []
    begin: int | None = None
    for place, probability in enumerate(probabilities):
        if begin is None and probability >= threshold:
            begin = place
        elif begin is not None and probability < ends_below:
            runs.append((begin * WINDOW, place * WINDOW))
            begin = None
    if begin is not None:
        runs.append((begin * WINDOW, len(probabilities) * WINDOW))
    return runs


def _grouped(runs: Sequence[Segment], silence: float) -> list[list[Segment]]:
    """Runs with less than ``silence`` samples between them, together."""
    groups: list[list[Segment]] = []
    for run in runs:
        if groups and run[0] - groups[-1][-1][1] < silence:
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups


def _parted(utterance: Sequence[Segment], longest: float) -> list[Segment]:
    """One utterance as segments of at most ``longest`` samples."""
    segments: list[Segment] = []
    for phrase in _grouped(utterance, PAUSE_S * SAMPLE_RATE):
        begin, end = phrase[0][0], phrase[-1][1]
        if segments and end - segments[-1][0] <= longest:
            segments[-1] = (segments[-1][0], end)
            continue
        while end - begin > longest:
            segments.append((begin, begin + int(longest)))
            begin += int(longest)
        segments.append((begin, end))
    return segments


def _padded(segments: Sequence[Segment], pad: int, total: int) -> list[Segment]:
    if not segments:
        return []
    places = [max(0, segments[0][0] - pad)]
    for (_, end), (begin, _) in pairwise(segments):
        if begin - end < 2 * pad:
            places += [(end + begin) // 2] * 2
        else:
            places += [end + pad, begin - pad]
    places.append(min(total, segments[-1][1] + pad))
    return list(zip(places[::2], places[1::2], strict=True))
