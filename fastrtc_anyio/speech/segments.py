"""Speech segments of a recording, from speech probabilities.

Theory of operation. Each of four steps only removes or only adds speech:

1. *Runs*: speech begins with a window at the threshold and ends with a window clearly below it.
   This hysteresis keeps a fluctuating probability from splitting a word.
2. Runs with short silence between them form an utterance. Short utterances are dropped.
3. A long utterance is split at its last sufficient pause, or cut if it has none.
4. Each segment is padded. Neighbours whose padding would overlap meet half way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from fastrtc_anyio._core.options import check_number

__all__ = ["SileroVadOptions", "speech_segments"]

# Position of the first sample, and the position after the last.
Segment: TypeAlias = tuple[int, int]

# Distance below the threshold at which speech ends, and seconds of the shortest pause at which a
# long utterance is split: as in Silero's own code, the latter rounded.
HYSTERESIS = 0.15
PAUSE_S = 0.1
SAMPLE_RATE = 16_000
WINDOW = 512


@dataclass(frozen=True)
class SileroVadOptions:
    """Definition of speech, with FastRTC's names and defaults.

    A conversation (`ReplyOnPause`) uses only ``threshold``: the model processes a stream there, and
    `AlgoOptions` define the beginning and the end of an utterance. The other options apply to
    `SileroVad.vad`, which finds the segments of a recording.

    Args:
        threshold: minimum probability of a window that is speech.
        min_speech_duration_ms: duration below which an utterance is dropped.
        max_speech_duration_s: maximum duration of a segment, padding included. A longer utterance
            is split at its last pause of 0.1 s, or cut if it has none.
        min_silence_duration_ms: duration below which a pause does not end a segment.
        window_size_samples: no effect, since the model takes 512 samples; FastRTC has the option.
        speech_pad_ms: padding before and after each segment, limited by the ends of the recording
            and by half the distance to the next segment.

    Raises:
        TypeError: an option is not a number.
        ValueError: an option is out of range.
    """

    threshold: float = 0.5
    min_speech_duration_ms: float = 250
    max_speech_duration_s: float = math.inf
    min_silence_duration_ms: float = 2000
    window_size_samples: int = 1024
    speech_pad_ms: float = 400

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, above=0, at_most=1)
        for name in ("min_speech_duration_ms", "min_silence_duration_ms", "speech_pad_ms"):
            check_number(name, getattr(self, name), at_least=0, unit="ms")
        check_number("window_size_samples", self.window_size_samples, at_least=1)
        # A window of speech and its padding.
        shortest = 2 * self.speech_pad_ms / 1000 + WINDOW / SAMPLE_RATE
        longest = self.max_speech_duration_s
        name = "max_speech_duration_s"
        check_number(name, longest, at_least=shortest, finite=False, unit="seconds")


def speech_segments(
    probabilities: Sequence[float], total: int, options: SileroVadOptions
) -> list[Segment]:
    """Find the speech in a recording at 16 kHz.

    Args:
        probabilities: one for each 512 samples; the last window may be incomplete.
        total: samples in the recording.
        options: definition of speech.

    Returns:
        The position of each segment's first sample and the position after its last, in order,
        between 0 and ``total``. No segment is empty, and no two overlap.

    Raises:
        ValueError: the number of probabilities is not ``ceil(total / 512)``.
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
    for utterance in _group(runs, options.min_silence_duration_ms * SAMPLE_RATE / 1000):
        if utterance[-1][1] - utterance[0][0] >= least:
            segments += _split(utterance, longest)
    return _pad(segments, pad, total)


def _runs(probabilities: Sequence[float], threshold: float) -> list[Segment]:
    # A threshold below the hysteresis would otherwise make speech endless.
    ends_below = max(threshold - HYSTERESIS, threshold / 2)
    runs: list[Segment] = []
    begin: int | None = None
    for place, probability in enumerate([*probabilities, -math.inf]):
        if begin is None and probability >= threshold:
            begin = place
        elif begin is not None and probability < ends_below:
            runs.append((begin * WINDOW, place * WINDOW))
            begin = None
    return runs


def _group(runs: Sequence[Segment], silence: float) -> list[list[Segment]]:
    """Group runs with less than ``silence`` samples between them."""
    groups: list[list[Segment]] = []
    for run in runs:
        if groups and run[0] - groups[-1][-1][1] < silence:
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups


def _split(utterance: Sequence[Segment], longest: float) -> list[Segment]:
    """Split an utterance into segments of at most ``longest`` samples."""
    segments: list[Segment] = []
    for phrase in _group(utterance, PAUSE_S * SAMPLE_RATE):
        begin, end = phrase[0][0], phrase[-1][1]
        if segments and end - segments[-1][0] <= longest:
            segments[-1] = (segments[-1][0], end)
            continue
        while end - begin > longest:
            segments.append((begin, begin + int(longest)))
            begin += int(longest)
        segments.append((begin, end))
    return segments


def _pad(segments: Sequence[Segment], pad: int, total: int) -> list[Segment]:
    if not segments:
        return []
    places = [max(0, segments[0][0] - pad)]
    for (_, end), (begin, _) in pairwise(segments):
        middle = (end + begin) // 2
        places += [middle, middle] if begin - end < 2 * pad else [end + pad, begin - pad]
    places.append(min(total, segments[-1][1] + pad))
    return list(zip(places[::2], places[1::2], strict=True))
