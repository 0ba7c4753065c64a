"""Handlers with stop words, and their rule: only speech after a stop word counts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.conversation.events import ReplyFinished, StopWordHeard
from fastrtc_anyio.conversation.handlers import ReplyOnStopWords
from fastrtc_anyio.conversation.pause_rules import AlgoOptions, Verdict
from fastrtc_anyio.conversation.stop_words import StopWordRule
from fastrtc_anyio.testing import open_call
from tests.kit.conversations import (
    OUT,
    RATE,
    Log,
    LoudVad,
    heard_samples,
    say,
    silence,
    voice,
    words,
)

STOP_WORD = 12_000
"""Sample value that stands for the stop word."""


def stop_word() -> Int16Array:
    return voice(0.5, STOP_WORD)


class Spotter:
    """A model that finds the end of the stop word to the sample."""

    def __init__(self) -> None:
        self.looked: list[int] = []

    def spot(self, audio: tuple[int, Any], phrases: Sequence[str]) -> float | None:
        assert phrases == ["hey computer"]
        rate, samples = audio
        self.looked.append(samples.shape[1])
        found = np.flatnonzero(samples[0] == STOP_WORD)
        # Only the complete stop word is recognised.
        return (found[-1] + 1) / rate if found.size >= 0.5 * RATE else None


class Transcriber:
    """A model that transcribes the stop word without times."""

    def stt(self, audio: tuple[int, Any]) -> str:
        return "Hey, Computer! Well" if (audio[1] == STOP_WORD).sum() >= 0.5 * RATE else "Well"


def waiting(said: list[Int16Array], seconds: float = 0.2, **settings: Any) -> ReplyOnStopWords:
    async def reply(audio: tuple[int, Int16Array]) -> AsyncGenerator[Any, None]:
        said.append(audio[1])
        yield words(seconds)

    settings = {"model": LoudVad(), "stt_model": Spotter(), **settings}
    return ReplyOnStopWords(reply, ["Hey  computer".lower()], input_sample_rate=RATE, **settings)


async def test_speech_without_a_stop_word_starts_no_reply() -> None:
    said: list[Int16Array] = []
    log = Log()
    spotter = Spotter()
    async with open_call(waiting(said, on_event=log, stt_model=spotter)) as call:
        for _ in range(3):
            await say(call, voice(2), silence(1))
    assert said == []
    assert log.events == []
    # Repeated searches during speech, and one at the pause.
    assert 3 * 4 <= len(spotter.looked) <= 3 * 7
    assert max(spotter.looked) <= 2.6 * RATE


@pytest.mark.parametrize("pause", [0, 0.2, 1, 10])
async def test_speech_after_the_stop_word_starts_a_reply(pause: float) -> None:
    said: list[Int16Array] = []
    log = Log()
    async with open_call(waiting(said, on_event=log)) as call:
        await say(call, voice(1), stop_word(), silence(pause), voice(1), silence(2))
        assert heard_samples(call) == 0.2 * OUT
        await say(call, voice(1), silence(1))
    (utterance,) = said
    assert np.count_nonzero(utterance == 8000) == RATE
    assert not (utterance == STOP_WORD).any()
    assert log.kinds == [
        "StopWordHeard",
        "UserStartedSpeaking",
        "UserStoppedSpeaking",
        "ReplyStarted",
        "ReplyFinished",
    ]


async def test_client_receives_the_stopword_message() -> None:
    async with open_call(waiting([])) as call:
        await say(call, stop_word(), silence(1))
        assert await call.client.receive_message() == '{"type": "stopword", "data": ""}'


async def test_stt_model_without_phrase_spotting() -> None:
    said: list[Int16Array] = []
    async with open_call(waiting(said, stt_model=Transcriber())) as call:
        await say(call, voice(1), stop_word(), silence(1), voice(1), silence(1))
        await say(call, voice(1), silence(1))
    (utterance,) = said
    assert np.count_nonzero(utterance == 8000) == RATE


async def test_each_turn_requires_the_stop_word() -> None:
    said: list[Int16Array] = []
    log = Log()
    async with open_call(waiting(said, 10, on_event=log)) as call:
        await say(call, stop_word(), voice(1), silence(1))
        assert len(said) == 1
        await say(call, voice(1), silence(1))
        assert "ReplyInterrupted" not in log.kinds
        await say(call, stop_word(), voice(1), silence(1))
        assert len(said) == 2
    assert log.kinds.count("ReplyInterrupted") == 1
    assert len(log.of(StopWordHeard)) == 2
    assert not log.of(ReplyFinished)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Hey computer", True),
        ("well, HEY, computer!", True),
        ("hey there computer", False),
        ("they computers", False),
        ("", False),
    ],
)
def test_stop_word_detected_ignores_case_and_punctuation(text: str, found: bool) -> None:
    assert waiting([]).stop_word_detected(text) is found


@pytest.mark.parametrize(
    ("stop_words", "error", "message"),
    [
        ("computer", TypeError, "a list of strings; got 'computer'"),
        ([3], TypeError, r"a list of strings; got \[3\]"),
        ([], ValueError, "at least one word"),
        (["  "], ValueError, "at least one word"),
        (["hey", "?!"], ValueError, r"at least one word; got \['hey', '\?!'\]"),
    ],
)
def test_invalid_stop_words_are_refused(
    stop_words: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ReplyOnStopWords(lambda audio: iter(()), stop_words, model=LoudVad(), stt_model=Spotter())


def test_stop_words_are_checked_by_the_model_once() -> None:
    checked: list[Any] = []

    class Knowing(Spotter):
        def check_phrases(self, phrases: Sequence[str]) -> None:
            checked.append(list(phrases))
            if "jarvix" in phrases:
                raise ValueError("'jarvix' is not in the dictionary")

    def make(words: list[str]) -> ReplyOnStopWords:
        return ReplyOnStopWords(lambda audio: iter(()), words, model=LoudVad(), stt_model=Knowing())

    with pytest.raises(ValueError, match="'jarvix' is not"):
        make(["jarvix"])
    make(["Hey, Computer!"]).copy()  # runs on the event loop and must not read files
    assert checked == [["jarvix"], ["hey computer"]]


def test_determine_pause_with_stop_words_is_refused() -> None:
    class Mine(ReplyOnStopWords):
        def determine_pause(self, audio: Any, sampling_rate: int, state: Any) -> bool:
            return True

    with pytest.raises(TypeError, match="override find_stop_word"):
        Mine(lambda audio: iter(()), ["hey"], model=LoudVad(), stt_model=Spotter())


def test_copy_has_the_same_stop_words() -> None:
    handler = waiting([])
    assert handler.copy().stop_words == ["hey computer"]
    assert handler.copy().stt_model is handler.stt_model


class TestRule:
    HOP = 320

    def rule(self) -> StopWordRule:
        return StopWordRule(RATE, AlgoOptions())

    def push(self, rule: StopWordRule, hops: int, speech: bool) -> list[Verdict]:
        hop = np.zeros((1, self.HOP), np.int16)
        return [rule.push(hop, float(speech)) for _ in range(hops)]

    def test_rule_reports_silence_until_a_stop_word_wakes_it(self) -> None:
        rule = self.rule()
        assert set(self.push(rule, 50, True)) == {Verdict.SILENCE}
        candidate = rule.candidate()
        assert candidate is not None
        assert not candidate.complete
        assert rule.wake(candidate, candidate.samples.shape[1]) == 0
        assert rule.awake
        assert set(self.push(rule, 50, False)) == {Verdict.SILENCE}
        assert Verdict.SPEECH in self.push(rule, 50, True)

    def test_speech_during_the_search_counts(self) -> None:
        rule = self.rule()
        self.push(rule, 50, True)
        candidate = rule.candidate()
        assert candidate is not None
        self.push(rule, 50, True)
        assert rule.wake(candidate, candidate.samples.shape[1] - 100) == 50 * self.HOP + 100
        assert self.push(rule, 1, True) == [Verdict.SPEECH]
        assert rule.lookback == 51 * self.HOP + 100

    def test_wake_after_a_reset_has_no_effect(self) -> None:
        rule = self.rule()
        self.push(rule, 50, True)
        candidate = rule.candidate()
        assert candidate is not None
        rule.reset()
        self.push(rule, 10, False)
        assert rule.wake(candidate, 0) is None
        assert not rule.awake

    def test_candidate_from_before_a_reset_is_void(self) -> None:
        rule = self.rule()
        self.push(rule, 50, True)
        candidate = rule.candidate()
        assert candidate is not None
        rule.reset()
        assert rule.wake(candidate, candidate.samples.shape[1]) is None
        self.push(rule, 50, True)
        rule.reject(candidate)
        assert rule.wake(candidate, candidate.samples.shape[1]) is None
        assert not rule.awake

    def test_candidate_is_returned_once(self) -> None:
        rule = self.rule()
        assert rule.candidate() is None
        self.push(rule, 50, True)
        assert rule.candidate() is not None
        assert rule.candidate() is None
        self.push(rule, 30, False)
        candidate = rule.candidate()
        assert candidate is not None
        assert candidate.complete
        rule.reject(candidate)
        self.push(rule, 100, False)
        assert rule.candidate() is None

    def test_speech_after_a_complete_candidate_is_kept(self) -> None:
        rule = self.rule()
        self.push(rule, 50, True)
        self.push(rule, 30, False)
        candidate = rule.candidate()
        assert candidate is not None
        assert candidate.complete
        self.push(rule, 20, True)
        rule.reject(candidate)
        later = rule.candidate()
        assert later is not None
        assert later.samples.shape[1] > 50 * self.HOP

    def test_rule_memory_is_bounded(self) -> None:
        rule = self.rule()
        self.push(rule, 500, False)
        assert rule.lookback <= 0.4 * RATE
        self.push(rule, 5000, True)
        assert rule.lookback <= 2.6 * RATE


async def test_slow_recogniser_loses_no_speech_after_the_stop_word() -> None:
    """The search ends after the user has asked a question and paused."""
    said: list[Int16Array] = []

    class Slow(ReplyOnStopWords):
        async def find_stop_word(self, audio: tuple[int, Int16Array]) -> int | None:  # type: ignore[override]
            found = super().find_stop_word(audio)
            await anyio.sleep(1.9)
            return found

    async def reply(audio: tuple[int, Int16Array]) -> AsyncGenerator[Any, None]:
        said.append(audio[1])
        yield words(0.2)

    handler = Slow(
        reply, ["hey computer"], input_sample_rate=RATE, model=LoudVad(), stt_model=Spotter()
    )
    async with open_call(handler) as call:
        await say(call, stop_word(), voice(1), silence(4))
    (utterance,) = said
    assert np.count_nonzero(utterance == 8000) == RATE
