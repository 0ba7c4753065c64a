"""Handlers for conversations: custom pause rules, refused subclasses, and copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrtc_anyio import HandlerContractError
from fastrtc_anyio.conversation.custom_rule import AppState, CustomPauseRule
from fastrtc_anyio.conversation.handlers import ReplyOnPause
from fastrtc_anyio.conversation.pause_rules import AlgoOptions, Verdict
from fastrtc_anyio.speech.energy import EnergyVad
from fastrtc_anyio.testing import open_call
from tests.kit.conversations import (
    FRAME,
    RATE,
    LoudBatchModel,
    LoudVad,
    agent,
    answering,
    say,
    silence,
    voice,
)


class TestCustomPauseRules:
    async def test_subclass_with_determine_pause_decides_about_pauses(self) -> None:
        class EverySecond(ReplyOnPause):
            def determine_pause(self, audio: Any, sampling_rate: int, state: AppState) -> bool:
                assert audio.ndim == 1
                state.started_talking = True
                return bool(len(audio) >= sampling_rate)

        said: list[Any] = []
        handler = EverySecond(answering(0.1, log=said), model=LoudVad(), input_sample_rate=RATE)
        copy = handler.copy()
        assert type(copy) is EverySecond
        assert copy.fn is handler.fn
        async with open_call(copy) as call:
            await say(call, silence(3.5))
        assert [one[1].shape for one in said if one != "closed"] == [(1, RATE)] * 3

    async def test_determine_pause_of_the_base_class_is_fastrtcs(self) -> None:
        class Mine(ReplyOnPause):
            def determine_pause(self, audio: Any, sampling_rate: int, state: AppState) -> bool:
                return super().determine_pause(audio, sampling_rate, state)

        said: list[Any] = []
        model = LoudBatchModel()
        handler = Mine(answering(0.1, log=said), model=model, input_sample_rate=RATE)
        async with open_call(handler) as call:
            await say(call, silence(0.3), voice(1), silence(3))
        # Consecutive chunks of 0.6 s.
        assert set(model.heard) == {(RATE, round(0.6 * RATE))}
        assert np.count_nonzero(said[0][1]) == RATE

    async def test_determine_pause_must_return_a_bool(self) -> None:
        class Wrong(ReplyOnPause):
            def determine_pause(self, audio: Any, sampling_rate: int, state: AppState) -> Any:
                return None

        with pytest.raises(HandlerContractError, match="must return a bool; got None"):
            async with open_call(Wrong(answering(1), model=LoudVad())) as call:
                await say(call, silence(1))
                await call.ended.wait()

    async def test_determine_pause_requires_no_model(self) -> None:
        class Never(ReplyOnPause):
            def determine_pause(self, audio: Any, sampling_rate: int, state: AppState) -> bool:
                return False

        assert Never(answering(1)).model is None

    async def test_fastrtcs_algorithm_requires_a_model_with_vad(self) -> None:
        class Mine(ReplyOnPause):
            def determine_pause(self, audio: Any, sampling_rate: int, state: AppState) -> bool:
                return super().determine_pause(audio, sampling_rate, state)

        with pytest.raises(HandlerContractError, match=r"model must have vad\(audio, options\)"):
            async with open_call(Mine(answering(1), model=EnergyVad())) as call:
                await say(call, silence(2))
                await call.ended.wait()

    async def test_verdict_of_an_earlier_turn_is_discarded(self) -> None:
        class Once(ReplyOnPause):
            def determine_pause(self, audio: Any, sampling_rate: int, state: AppState) -> bool:
                return True

        rule = CustomPauseRule(Once(answering(1), input_sample_rate=RATE))
        rule.judge(silence(FRAME))
        rule.reset()
        assert rule.push(silence(FRAME), 0.0) is Verdict.SILENCE
        rule.judge(silence(FRAME))
        assert rule.push(silence(FRAME), 0.0) is Verdict.PAUSE


@pytest.mark.parametrize("name", ["receive", "emit", "process_audio"])
def test_method_that_would_never_be_called_is_refused(name: str) -> None:
    kind = type("Filtered", (ReplyOnPause,), {name: lambda self, frame: None})
    with pytest.raises(TypeError, match=f"Filtered.{name} would never be called"):
        kind(answering(1), model=LoudVad())


def test_copy_has_changed_settings() -> None:
    handler = agent(answering(1))
    handler.can_interrupt = False
    handler.algo_options = AlgoOptions(1.0)
    copy = handler.copy().copy()
    assert (copy.can_interrupt, copy.algo_options.audio_chunk_duration) == (False, 1.0)
    assert copy.input_sample_rate == RATE


def test_copy_of_a_subclass_has_the_same_arguments() -> None:
    class Named(ReplyOnPause):
        def __init__(self, name: str, **settings: Any) -> None:
            super().__init__(answering(1), **settings)
            self.name = name
            self.history: list[str] = []

    model = LoudVad()
    handler = Named("Ada", model=model, can_interrupt=False)
    handler.history.append("a secret")
    copy = handler.copy()
    assert (type(copy), copy.name, copy.can_interrupt, copy.model) == (Named, "Ada", False, model)
    assert copy.history == []
    assert copy.args_set is not handler.args_set
