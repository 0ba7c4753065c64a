"""The turn-taking benchmark: its conversations, both algorithms, and their scores.

A model that knows the labels takes the place of a real one.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from fastrtc_anyio import EnergyVad
from tests.kit.documentation import find_block

from .loading import load

bench = load("turn_benchmark")
RATE: int = bench.RATE
HOP = 320
HOP_MS = 20


class Omniscient:
    """Returns the labels as probabilities. Each stream starts at the beginning of the audio."""

    sample_rate = RATE
    window = HOP
    blocking = False

    def __init__(self, conversation: Any) -> None:
        self.is_speech = np.zeros(conversation.samples.shape[1] + HOP, bool)
        for said in conversation.utterances:
            self.is_speech[said.start : said.end] = True

    def new_stream(self) -> KnownStream:
        return KnownStream(self.is_speech)


class KnownStream:
    def __init__(self, is_speech: Any) -> None:
        self.places = iter(range(0, len(is_speech), HOP))
        self.is_speech = is_speech

    def probability(self, window: Any) -> float:
        place = next(self.places)
        return float(self.is_speech[place : place + HOP].any())


class Sequence:
    """Returns a fixed sequence of probabilities, from the start for each stream."""

    sample_rate = RATE
    window = HOP
    blocking = False

    def __init__(self, *probabilities: float) -> None:
        self.probabilities = probabilities

    def new_stream(self) -> Sequence:
        self.left: Iterator[float] = iter(self.probabilities)
        return self

    def probability(self, window: Any) -> float:
        return next(self.left)


class Loud:
    """Classifies each window by itself."""

    sample_rate = RATE
    window = HOP
    blocking = False

    def new_stream(self) -> Loud:
        return self

    def probability(self, window: Any) -> float:
        return float(np.abs(window).max() > 100)


@cache
def conversations(count: int = 2) -> list[Any]:
    made: list[Any] = bench.make_conversations(count, [("none", 60)], 1, bench.shaped_noise)
    return made


def test_same_seed_makes_same_conversation() -> None:
    one, other = conversations(), conversations.__wrapped__()
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one[0].samples, one[1].samples)


def test_labels_match_the_audio() -> None:
    for conversation in conversations():
        for said in conversation.utterances:
            loud = np.abs(conversation.samples[0]) > 30
            assert loud[said.start : said.start + RATE // 100].any()
            assert loud[said.end - RATE // 100 : said.end].any()
            assert not loud[said.start - RATE // 2 : said.start].any()
            assert not loud[said.end : said.end + RATE // 2].any()


@pytest.fixture(scope="module")
def score() -> Any:
    """Score of a call with two conversations."""
    score = bench.Score()
    for conversation in conversations():
        outcome = bench.ours(conversation.samples, Omniscient(conversation), 0.5)
        score.add(conversation, outcome)
    return score


def test_every_utterance_is_found_once_and_whole(score: Any) -> None:
    assert score.utterances == sum(len(c.utterances) for c in conversations())
    assert score.missed == score.false == score.split == 0
    assert score.cut_short == score.unanswered == 0
    assert score.first_missing == [0.0] * score.utterances


def test_pause_is_found_within_one_hop(score: Any) -> None:
    """The hop in which the speech ends counts as speech; the pause is there one hop later."""
    needed = 1000 * bench.NEEDED_S
    assert len(score.late_by) == score.utterances
    assert all(needed < late <= needed + 2 * HOP_MS for late in score.late_by)


def test_reply_stops_soon_after_speech_starts_over_it(score: Any) -> None:
    over_replies = [said for c in conversations() for said in c.utterances if said.over_reply]
    assert len(score.stopped_after) == len(over_replies) > 0
    # At most the seconds that start a turn, the hop in which they are reached, and a faded frame.
    threshold = 1000 * bench.OPTIONS.started_talking_threshold
    assert all(0 < ms <= threshold + 3 * HOP_MS for ms in score.stopped_after)


def test_pause_inside_utterance_does_not_end_it() -> None:
    """With a model that measures loudness."""
    conversation = conversations()[0]
    score = bench.Score()
    score.add(conversation, bench.ours(conversation.samples, EnergyVad(), 0.5))
    assert score.missed == score.split == score.cut_short == 0
    assert max(score.first_missing) == 0


def test_fastrtc_waits_for_chunks_and_for_the_end_of_the_interruption() -> None:
    chunk = 1000 * bench.OPTIONS.audio_chunk_duration
    for conversation in conversations():
        score = bench.Score()
        score.add(conversation, bench.fastrtc(conversation.samples, Loud(), 0.5))
        assert all(chunk / 2 < late <= 2 * chunk for late in score.late_by)
        shortest = min(u.end - u.start for u in conversation.utterances if u.over_reply)
        assert min(score.stopped_after) > 1000 * shortest / RATE


@pytest.mark.parametrize(
    ("probabilities", "seconds"),
    [
        ([0.49] * 30, 0.0),
        ([1.0] * 30, 0.6),
        # Speech lasts to the end of the chunk. Below 0.25 s it is ignored; above, 0.4 s are added.
        ([0.0] * 18 + [1.0] * 12, 0.0),
        ([0.0] * 17 + [0.5] + [0.0] * 12, 0.6),
    ],
)
def test_speech_seconds_of_a_chunk_in_fastrtc(probabilities: list[float], seconds: float) -> None:
    chunk = np.zeros((1, 30 * HOP), np.int16)
    assert bench.speech_seconds(chunk, Sequence(*probabilities), 0.5) == pytest.approx(seconds)


def test_score_counts_each_kind_of_error() -> None:
    said = [bench.Utterance(n * RATE, n * RATE + 1600, n == 6) for n in (2, 4, 6, 8, 10)]
    turns = [
        (2 * RATE + 160, 3 * RATE, 3 * RATE),  # 10 ms late, 900 ms after its end
        (4 * RATE, 4 * RATE + 800, 4 * RATE + 800),  # the last 50 ms are missing
        (6 * RATE, 6 * RATE + 800, 6 * RATE + 800),  # two turns for one utterance
        (6 * RATE + 800, 7 * RATE, 7 * RATE),
        (8 * RATE, 9 * RATE, None),  # no pause found
        (12 * RATE, 13 * RATE, 13 * RATE),  # no utterance; the fifth is missed
    ]
    outcome = bench.Outcome(
        [bench.Turn(*turn) for turn in turns], [(5 * RATE, 6 * RATE + 480), (7 * RATE, 8 * RATE)]
    )
    score = bench.Score()
    score.add(bench.Conversation(np.zeros((1, 14 * RATE), np.int16), said), outcome)
    assert (score.utterances, score.missed, score.false) == (5, 1, 1)
    assert (score.split, score.cut_short, score.unanswered) == (1, 1, 1)
    assert score.first_missing == [10, 0, 0, 0]
    assert score.late_by == [900, 900]
    assert score.stopped_after == [30]


def test_documented_commands_print_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    block = find_block("docs/concepts/turn_benchmark.md", "--conversations 48")
    documented: list[str] = []
    for command in block.text.splitlines():
        python, script, *options = shlex.split(command, comments=True)
        assert (python, script) == ("python", "examples/turn_benchmark.py")
        documented += options
    # Repeated options replace the documented ones, which would take minutes.
    shorter = ["--conversations=1", "--speech=noise", "--vad=energy"]
    monkeypatch.setattr(sys, "argv", ["turn_benchmark.py", *documented, *shorter])
    bench.main()
    printed = capsys.readouterr().out
    assert "Speech: noise. Voice activity: energy" in printed
    assert printed.count("| utterances ") == 2
    assert printed.count("| pause latency, ms ") == 2
