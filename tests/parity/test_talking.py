"""Defects of FastRTC 0.0.34 in turn taking; docstrings state FastRTC's behaviour."""

from __future__ import annotations

import collections
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import numpy as np
import pytest
import trio

from fastrtc_anyio import AdditionalOutputs, AlgoOptions, ReplyOnPause, Stream
from fastrtc_anyio.testing import open_call
from tests.kit.backends import on_trio
from tests.kit.conversations import (
    OUT,
    RATE,
    Log,
    LoudVad,
    agent,
    heard_samples,
    nothing,
    say,
    silence,
    voice,
    words,
)


def listen_only(audio: Any) -> AsyncGenerator[Any, None]:
    return nothing()


class Steps(trio.abc.Instrument):
    """Counts the steps of a conversation's tasks."""

    def __init__(self) -> None:
        self.count: collections.Counter[str] = collections.Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if "onversation" in task.name or "HandlerDriver" in task.name:
            self.count[task.name] += 1


@on_trio
async def test_d06_idle_conversation_runs_only_its_vad() -> None:
    """FastRTC: an idle connection costs 6,500-9,500 emit calls a second, 53-86 % of a core."""
    windows = 0

    class Counted(LoudVad):
        def probability(self, window: Any) -> float:
            nonlocal windows
            windows += 1
            return super().probability(window)

    steps = Steps()
    async with open_call(agent(listen_only, model=Counted())) as call:
        await say(call, silence(1))
        trio.lowlevel.add_instrument(steps)
        windows = 0
        await say(call, silence(60))
        assert windows == pytest.approx(60 * RATE / 512, abs=2)
        # Only the client's 3000 frames wake the tasks.
        assert sum(steps.count.values()) <= 2 * 3000 + 10, steps.count
        steps.count.clear()
        await anyio.sleep(60)
        trio.lowlevel.remove_instrument(steps)
        assert sum(steps.count.values()) <= 3, steps.count  # without frames and speech


async def test_d08_long_utterance_is_split_without_duplicate_samples() -> None:
    """FastRTC: an utterance of 16,960 samples reaches the reply function as 41,920."""
    pieces: list[Any] = []

    def reply(audio: tuple[int, Any]) -> AsyncGenerator[Any, None]:
        pieces.append(audio[1])
        return nothing()

    talk = np.arange(RATE * 5) % 20_000 + 2_000
    options = AlgoOptions(max_continuous_speech_s=0.7)
    async with open_call(agent(reply, algo_options=options)) as call:
        await say(call, talk.astype(np.int16)[np.newaxis], silence(2))
    joined = np.concatenate(pieces, axis=1)[0]
    spoken = joined[joined >= 2_000]
    assert np.array_equal(spoken, talk[: spoken.size])
    # The rest after the last cut is ignored if it is shorter than speech_threshold.
    assert spoken.size >= (5 - 0.1) * RATE - 512
    assert max(piece.shape[1] for piece in pieces) == round(0.7 * RATE)


async def test_d14_uninterruptible_reply_is_played_to_its_end() -> None:
    """FastRTC: ``can_interrupt=False`` protects the generation of a reply, not its playback."""
    log = Log()

    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        yield words(3)  # generated at once, played for three seconds

    async with open_call(agent(reply, can_interrupt=False, on_event=log)) as call:
        await say(call, voice(1), silence(1), voice(1), silence(3))
        assert heard_samples(call) == 3 * OUT
    assert log.kinds.count("ReplyStarted") == 1


async def test_d22_phone_reply_gets_previous_outputs() -> None:
    """FastRTC: a phone's AdditionalOutputs never reach the next call of the function."""
    remembered: list[Any] = []

    async def reply(audio: Any, turns: int = 0) -> AsyncGenerator[Any, None]:
        remembered.append(turns)
        yield AdditionalOutputs(turns + 1)

    handler = agent(reply)
    handler.phone_mode = True
    async with open_call(handler) as call:
        for _ in range(3):
            await say(call, voice(1), silence(1))
    assert remembered == [0, 1, 2]


def test_reply_on_pause_takes_fastrtc_positional_arguments() -> None:
    handler = ReplyOnPause(
        listen_only,
        None,
        AlgoOptions(audio_chunk_duration=0.6, started_talking_threshold=0.2, speech_threshold=0.1),
        None,
        True,
        "mono",
        24_000,
        None,
        48_000,
        LoudVad(),
    )
    Stream(handler=handler, modality="audio", mode="send-receive")
    with pytest.raises(TypeError, match='modality="audio" with mode "send-receive" or "send"'):
        Stream(handler=handler, modality="audio", mode="receive")
