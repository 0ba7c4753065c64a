"""Interruptions on virtual time: how fast a reply falls silent, judges, and order of unwinding."""

from __future__ import annotations

import wave
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import CloseReason, CloseStream, HandlerContractError, _cli
from fastrtc_anyio.conversation.events import (
    Interruption,
    InterruptionRejected,
    ReplyFinished,
    ReplyInterrupted,
    ReplyStarted,
    UserStartedSpeaking,
)
from fastrtc_anyio.conversation.pause_rules import AlgoOptions
from fastrtc_anyio.testing import open_call
from tests.kit.conversations import (
    AGENTS,
    FADE,
    FRAME,
    HOP,
    OUT,
    RATE,
    Log,
    LoudVad,
    agent,
    answering,
    heard_samples,
    say,
    silence,
    voice,
    words,
)


@AGENTS
async def test_interrupted_reply_falls_silent(asynchronous: bool) -> None:
    said: list[Any] = []
    log = Log()
    fn = answering(10, asynchronous, said)
    async with open_call(agent(fn, on_event=log, algo_options=AlgoOptions())) as call:
        await say(call, voice(1), silence(2))
        assert call.heard[0, -1]  # the reply sounds
        await say(call, voice(0.4))
        interrupted = log.of(ReplyInterrupted)[0]
        assert said[1:] == ["closed"]
        heard = heard_samples(call)
        await say(call, silence(0.3))
        assert heard_samples(call) == heard
    assert interrupted.played.samples <= heard <= interrupted.played.samples + FADE
    assert interrupted.reply == 1


class Clocked(LoudVad):
    """A model that logs the times at which it reported speech."""

    def __init__(self) -> None:
        self.said: list[float] = []

    def new_stream(self) -> Clocked:
        return self

    def probability(self, window: Any) -> float:
        probability = super().probability(window)
        if probability:
            self.said.append(anyio.current_time())
        return probability


@pytest.mark.parametrize("offset", range(0, 512, 64))
async def test_interruption_latency(offset: int) -> None:
    """From the first frame of speech to the last sample of the reply, on virtual time."""
    vad = Clocked()
    async with open_call(agent(answering(10), model=vad)) as call:
        # Speech begins at any place within a hop.
        await say(call, voice(1), silence(2 + offset / RATE))
        vad.said.clear()
        begun = anyio.current_time()
        frames = len(call.client.heard)
        await say(call, voice(1))
        last = max(i for i, frame in enumerate(call.client.heard) if frame.any())
    ended = begun + (last + 1 - frames) * FRAME
    enough = vad.said[3]  # four hops are more than 0.1 s
    assert ended - enough <= 0.05
    assert ended - begun <= 0.1 + 2 * HOP + 0.05


SPEECH = Path(_cli.__file__).with_name("speech.wav")


@pytest.mark.parametrize("offset", range(0, 512, 128))
async def test_interruption_latency_with_silero(offset: int) -> None:
    with wave.open(str(SPEECH)) as file:
        said = np.frombuffer(file.readframes(file.getnframes()), np.int16)[np.newaxis]
    said = said[:, np.flatnonzero(np.abs(said[0]) > 300)[0] :]
    log = Log()
    async with open_call(agent(answering(10), model=None, on_event=log), thread_limit=10) as call:
        await say(call, said[:, :24_000], silence(1 + offset / RATE))
        frames = len(call.client.heard)
        await say(call, said[:, :16_000])
        last = max(i for i, frame in enumerate(call.client.heard) if frame.any())
    assert len(log.of(ReplyInterrupted)) == 1
    assert (last + 1 - frames) * FRAME < 0.3


WORK = ["await", "sleep", "send"]


@pytest.mark.parametrize("work", WORK)
async def test_interruption_cancels_a_reply_at_any_await(work: str) -> None:
    done: list[str] = []
    log = Log()

    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        try:
            yield words(0.2)
            if work == "await":
                await anyio.Event().wait()
            elif work == "sleep":
                await anyio.sleep(1000)
            else:
                while True:
                    yield words(5)
        except anyio.get_cancelled_exc_class():
            done.append("cancelled")
            raise
        finally:
            done.append("finally")

    async with open_call(agent(reply, on_event=log)) as call:
        await say(call, voice(1), silence(2), voice(0.4))
        assert log.of(ReplyInterrupted)
        assert done[-1] == "finally"
        assert len(log.of(ReplyStarted)) == 1
        await say(call, silence(1))
        assert len(log.of(ReplyStarted)) == 2


async def test_next_reply_waits_for_the_finally_block_of_the_previous() -> None:
    order: list[str] = []

    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        order.append("begin")
        try:
            yield words(5)
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.9)
            order.append("end")

    async with open_call(agent(reply, on_event=(log := Log()))) as call:
        await say(call, voice(1), silence(1), voice(0.4), silence(1.5))
        assert order == ["begin", "end", "begin"]
        assert log.kinds.count("ReplyStarted") == 2


async def test_can_interrupt_false_plays_the_reply_to_its_end() -> None:
    log = Log()
    async with open_call(agent(answering(2), on_event=log, can_interrupt=False)) as call:
        await say(call, voice(1), silence(1), voice(1), silence(3))
        assert heard_samples(call) == 2 * OUT
    assert log.kinds.count("ReplyStarted") == 1
    assert not log.of(ReplyInterrupted)


async def test_interrupt_on_pause_waits_for_the_pause() -> None:
    log = Log()
    async with open_call(agent(answering(10), on_event=log, interrupt_on="pause")) as call:
        await say(call, voice(1), silence(1), voice(1))
        assert not log.of(ReplyInterrupted)
        assert call.heard[0, -1]
        await say(call, silence(1))
        assert log.of(ReplyInterrupted)
        assert log.kinds[-1] == "ReplyStarted"


class TestJudges:
    @AGENTS
    async def test_rejected_interruption_loses_no_audio(self, asynchronous: bool) -> None:
        seen: list[Interruption] = []

        def reject(interruption: Interruption) -> bool:
            seen.append(interruption)
            return False

        async def reject_async(interruption: Interruption) -> bool:
            return reject(interruption)

        log = Log()
        judge = reject_async if asynchronous else reject
        handler = agent(answering(3), on_event=log, confirm_interruption=judge)
        async with open_call(handler) as call:
            await say(call, voice(1), silence(1), voice(0.2), silence(4))
            sounds = np.flatnonzero(call.heard[0])
        assert not log.of(ReplyInterrupted)
        assert log.of(InterruptionRejected)[0].reply == 1
        assert log.of(ReplyFinished)[0].played.seconds == 3
        assert len(seen) == 1
        rate, samples = seen[0].audio
        assert rate == RATE
        assert samples[0, -1] == 8000
        assert not seen[0].user_paused
        # The judge decides at once, so no frame is late.
        assert sounds[-1] - sounds[0] == 3 * OUT - 1

    async def test_playout_is_paused_until_the_decision(self) -> None:
        async def after_a_while(interruption: Interruption) -> bool:
            await anyio.sleep(0.5)
            return False

        handler = agent(answering(3), confirm_interruption=after_a_while)
        async with open_call(handler) as call:
            await say(call, voice(1), silence(1), voice(0.2), silence(4))
            sounds = np.flatnonzero(call.heard[0])
        # The reply fades out within 5 ms and resumes where it paused. Fades may round to zero.
        assert sounds.size == pytest.approx(3 * OUT, abs=10)
        gap = int(np.diff(sounds).max())
        assert gap == pytest.approx(0.5 * OUT, abs=2 * FRAME * OUT)
        assert sounds[-1] - sounds[0] - gap == pytest.approx(3 * OUT, abs=20)

    async def test_undecided_judge_is_called_again_and_interrupts_at_the_pause(self) -> None:
        seen: list[Interruption] = []

        async def undecided(interruption: Interruption) -> None:
            seen.append(interruption)

        log = Log()
        handler = agent(answering(5), on_event=log, confirm_interruption=undecided)
        async with open_call(handler) as call:
            await say(call, voice(1), silence(1), voice(0.5), silence(1))
        lengths = [len(one.audio[1][0]) for one in seen]
        assert lengths == sorted(set(lengths))
        assert [one.user_paused for one in seen] == [False] * (len(seen) - 1) + [True]
        assert log.kinds[-1] == "ReplyStarted"
        assert log.kinds.count("ReplyInterrupted") == 1

    async def test_judge_that_does_not_decide_within_two_seconds_interrupts(self) -> None:
        log = Log()

        async def never(interruption: Interruption) -> None:
            await anyio.sleep_forever()

        handler = agent(answering(5), on_event=log, confirm_interruption=never)
        async with open_call(handler) as call:
            await say(call, voice(1), silence(1), voice(3))
        found = log.of(UserStartedSpeaking)[1].at
        assert log.of(ReplyInterrupted)[0].at == pytest.approx(found + 2)

    async def test_decision_of_the_wrong_type_ends_the_session(self) -> None:
        handler = agent(answering(5), confirm_interruption=lambda _: "yes")
        with pytest.raises(HandlerContractError, match="True, False or None; got 'yes'"):
            async with open_call(handler) as call:
                await say(call, voice(1), silence(1), voice(1))

    async def test_plain_judge_may_return_a_coroutine(self) -> None:
        async def reject(interruption: Interruption) -> bool:
            return False

        log = Log()
        handler = agent(answering(2), on_event=log, confirm_interruption=lambda i: reject(i))
        async with open_call(handler) as call:
            await say(call, voice(1), silence(1), voice(0.2), silence(3))
        assert len(log.of(InterruptionRejected)) == 1
        assert len(log.of(ReplyFinished)) == 1


async def test_speech_does_not_interrupt_a_goodbye() -> None:
    log = Log()

    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        yield words(2), CloseStream("Goodbye.")

    async with open_call(agent(reply, on_event=log)) as call:
        with anyio.move_on_after(6):
            await say(call, voice(1), silence(1), voice(1), silence(3))
        await call.ended.wait()
        assert heard_samples(call) == 2 * OUT
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_CLOSED
    assert log.of(ReplyFinished)[0].played.seconds == 2


async def test_replies_interrupted_while_waiting_never_start() -> None:
    order: list[str] = []
    count = 0

    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        nonlocal count
        count += 1
        name = str(count)
        order.append(f"begin {name}")
        try:
            yield words(60)
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.9)
            order.append(f"end {name}")

    handler = agent(reply, algo_options=AlgoOptions(0.2, 0.06, 0.04))
    async with open_call(handler) as call:
        await say(call, voice(0.2), silence(0.5))
        for _ in range(2):
            await say(call, voice(0.1), silence(0.3))
        await say(call, silence(1))
        assert order == ["begin 1", "end 1", "begin 2"]


async def test_clear_queue_does_not_change_the_count_of_played_audio() -> None:
    log = Log()

    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        yield words(5)
        await anyio.sleep(0.5)
        handler.clear_queue()
        yield words(0.2)

    handler = agent(reply, on_event=log)
    async with open_call(handler) as call:
        await say(call, voice(1), silence(2))
        (finished,) = log.of(ReplyFinished)
        assert finished.played.samples == pytest.approx(heard_samples(call), abs=FADE)
        assert 0.6 < finished.played.seconds < 0.8
