"""Conversations on virtual time: who speaks when, and what is heard of it."""

from __future__ import annotations

import functools
import threading
import wave
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import AdditionalOutputs, CloseReason, CloseStream, HandlerContractError, _cli
from fastrtc_anyio.conversation.custom_rule import AppState, CustomPauseRule
from fastrtc_anyio.conversation.events import (
    Interruption,
    InterruptionRejected,
    ReplyFinished,
    ReplyInterrupted,
    ReplyStarted,
    UserStartedSpeaking,
)
from fastrtc_anyio.conversation.handlers import ReplyOnPause
from fastrtc_anyio.conversation.pause_rules import AlgoOptions, Verdict
from fastrtc_anyio.handlers import WebRTCData
from fastrtc_anyio.speech.energy import EnergyVad
from fastrtc_anyio.testing import Call, open_call
from tests.kit.conversations import (
    FRAME,
    OUT,
    RATE,
    Log,
    LoudBatchModel,
    LoudVad,
    agent,
    heard_samples,
    say,
    silence,
    voice,
    words,
)

HOP = 512 / RATE
FADE = round(0.005 * OUT)
AGENTS = pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "plain"])


def answering(seconds: float, asynchronous: bool = True, log: list[Any] | None = None) -> Any:
    """A reply function that gives ``seconds`` of sound, and logs what it is given and its end."""
    said = [] if log is None else log

    async def reply_async(audio: Any) -> AsyncGenerator[Any, None]:
        said.append(audio)
        try:
            yield words(seconds)
        finally:
            said.append("closed")

    def reply(audio: Any) -> Generator[Any, None, None]:
        said.append(audio)
        try:
            yield words(seconds)
        finally:
            said.append("closed")

    return reply_async if asynchronous else reply


@AGENTS
async def test_a_pause_is_answered(asynchronous: bool) -> None:
    said: list[Any] = []
    log = Log()
    async with open_call(agent(answering(0.5, asynchronous, said), on_event=log)) as call:
        await say(call, silence(0.5), voice(1), silence(2))
        assert heard_samples(call) == 0.5 * OUT
    (rate, utterance), closed = said
    assert closed == "closed"
    assert rate == RATE
    assert utterance.dtype == np.int16
    assert utterance.shape[0] == 1
    # All that was loud, and silence before and after.
    assert np.count_nonzero(utterance) == RATE
    assert utterance[0, 0] == utterance[0, -1] == 0
    assert log.kinds == [
        "UserStartedSpeaking",
        "UserStoppedSpeaking",
        "ReplyStarted",
        "ReplyFinished",
    ]
    assert log.of(ReplyFinished)[0].played.seconds == 0.5


async def test_the_pause_is_found_within_a_hop_of_its_threshold() -> None:
    log = Log()
    async with open_call(agent(answering(0.1), on_event=log)) as call:
        await say(call, voice(1), silence(2))
    # Less than 0.1 s of speech inside 0.6 s: 0.5 s after its end.
    started = log.of(ReplyStarted)[0].at
    assert 1.5 <= started <= 1.5 + HOP + 2 * FRAME


@AGENTS
async def test_nothing_is_heard_after_an_interruption(asynchronous: bool) -> None:
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
    """Notes when it said speech."""

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
async def test_how_long_an_interruption_takes(offset: int) -> None:
    """From the first frame of speech to the last sample of the reply: computed, not measured."""
    vad = Clocked()
    async with open_call(agent(answering(10), model=vad)) as call:
        # Speech begins at any place of a hop.
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
async def test_how_long_an_interruption_takes_with_silero(offset: int) -> None:
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
async def test_whatever_a_reply_does_is_cancelled(work: str) -> None:
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


async def test_what_a_reply_does_at_its_end_is_done_before_the_next_begins() -> None:
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


async def test_one_that_cannot_be_interrupted_is_heard_to_its_end() -> None:
    log = Log()
    async with open_call(agent(answering(2), on_event=log, can_interrupt=False)) as call:
        await say(call, voice(1), silence(1), voice(1), silence(3))
        assert heard_samples(call) == 2 * OUT
    assert log.kinds.count("ReplyStarted") == 1
    assert not log.of(ReplyInterrupted)


async def test_an_interruption_on_pause() -> None:
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
    async def test_a_rejected_interruption_loses_nothing(self, asynchronous: bool) -> None:
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
        # Decided at once, so that nobody hears that it was asked: not a frame is late.
        assert sounds[-1] - sounds[0] == 3 * OUT - 1

    async def test_playout_is_paused_while_nobody_has_decided(self) -> None:
        async def after_a_while(interruption: Interruption) -> bool:
            await anyio.sleep(0.5)
            return False

        handler = agent(answering(3), confirm_interruption=after_a_while)
        async with open_call(handler) as call:
            await say(call, voice(1), silence(1), voice(0.2), silence(4))
            sounds = np.flatnonzero(call.heard[0])
        # Faded over 5 ms, silent, and on from where it was; the fades may round samples to zero.
        assert sounds.size == pytest.approx(3 * OUT, abs=10)
        gap = int(np.diff(sounds).max())
        assert gap == pytest.approx(0.5 * OUT, abs=2 * FRAME * OUT)
        assert sounds[-1] - sounds[0] - gap == pytest.approx(3 * OUT, abs=20)

    async def test_who_is_undecided_is_asked_again_and_at_the_pause_it_counts(self) -> None:
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

    async def test_two_seconds_are_enough_to_decide(self) -> None:
        log = Log()

        async def never(interruption: Interruption) -> None:
            await anyio.sleep_forever()

        handler = agent(answering(5), on_event=log, confirm_interruption=never)
        async with open_call(handler) as call:
            await say(call, voice(1), silence(1), voice(3))
        found = log.of(UserStartedSpeaking)[1].at
        assert log.of(ReplyInterrupted)[0].at == pytest.approx(found + 2)

    async def test_a_decision_that_is_none(self) -> None:
        handler = agent(answering(5), confirm_interruption=lambda _: "yes")
        with pytest.raises(HandlerContractError, match="True, False or None; got 'yes'"):
            async with open_call(handler) as call:
                await say(call, voice(1), silence(1), voice(1))

    async def test_a_plain_judge_may_hand_over_to_a_coroutine(self) -> None:
        async def reject(interruption: Interruption) -> bool:
            return False

        log = Log()
        handler = agent(answering(2), on_event=log, confirm_interruption=lambda i: reject(i))
        async with open_call(handler) as call:
            await say(call, voice(1), silence(1), voice(0.2), silence(3))
        assert len(log.of(InterruptionRejected)) == 1
        assert len(log.of(ReplyFinished)) == 1


class TestGreetings:
    @AGENTS
    async def test_a_greeting_comes_first(self, asynchronous: bool) -> None:
        async def greet_async() -> AsyncGenerator[Any, None]:
            yield words(1)

        def greet() -> Generator[Any, None, None]:
            yield words(1)

        log = Log()
        greeting = greet_async if asynchronous else greet
        handler = agent(answering(0.5), startup_fn=greeting, on_event=log)
        async with open_call(handler) as call:
            await say(call, silence(1.5))
            assert heard_samples(call) == OUT
            assert log.kinds == ["ReplyStarted", "ReplyFinished"]
            await say(call, voice(1), silence(2))
        assert log.of(ReplyFinished)[1].reply == 2

    async def test_a_greeting_can_be_interrupted(self) -> None:
        async def greet() -> AsyncGenerator[Any, None]:
            yield words(10)

        log = Log()
        async with open_call(agent(answering(0.5), startup_fn=greet, on_event=log)) as call:
            await say(call, silence(0.5), voice(1), silence(1.5))
        assert [event.reply for event in log.of(ReplyInterrupted)] == [1]
        assert [event.reply for event in log.of(ReplyFinished)] == [2]


class TestInputs:
    async def test_inputs_follow_the_audio(self) -> None:
        said: list[Any] = []

        async def reply(audio: Any, name: str, size: int = 3) -> AsyncGenerator[Any, None]:
            said.append((name, size))
            yield words(0.1)

        async with open_call(agent(reply), inputs=("Ada",)) as call:
            await say(call, voice(1), silence(1))
            call.session.driver.handler.set_args(["Bob", 4])  # type: ignore[union-attr]
            await say(call, voice(1), silence(1))
        assert said == [("Ada", 3), ("Bob", 4)]

    async def test_the_client_is_asked_before_each_reply(self) -> None:
        said: list[Any] = []

        async def reply(audio: Any, name: str) -> AsyncGenerator[Any, None]:
            said.append(name)
            yield words(0.1)

        handler = agent(reply)

        async def answer(call: Call) -> None:
            for number in range(3):
                while "send_input" not in await call.client.receive_message():
                    pass
                handler.set_args([number])
                handler.trigger_response()  # as a page of FastRTC's does; the reply is due already

        async with open_call(handler) as call, anyio.create_task_group() as tg:
            tg.start_soon(answer, call)
            for _ in range(3):
                await say(call, voice(1), silence(1))
        assert said == [0, 1, 2]

    async def test_a_reply_that_needs_input_waits_for_it(self) -> None:
        said: list[Any] = []

        async def reply(audio: Any, name: str) -> AsyncGenerator[Any, None]:
            said.append(name)
            yield words(0.1)

        handler = agent(reply)
        async with open_call(handler) as call:
            await say(call, voice(1), silence(10))
            assert said == []
            handler.set_args(["Ada"])
            await say(call, silence(0.5))
            assert said == ["Ada"]

    async def test_who_never_answers_is_waited_for_once(self) -> None:
        log = Log()
        said: list[Any] = []

        async def reply(audio: Any, name: str = "nobody") -> AsyncGenerator[Any, None]:
            said.append((anyio.current_time(), name))
            yield words(0.1)

        async with open_call(agent(reply, on_event=log)) as call:
            began = anyio.current_time()
            for _ in range(2):
                await say(call, voice(1), silence(4))
        waited = [
            at - began - event.at for (at, _), event in zip(said, log.of(ReplyStarted), strict=True)
        ]
        assert waited == pytest.approx([2, 0], abs=0.001)
        assert {name for _, name in said} == {"nobody"}

    async def test_a_greeting_does_not_wait_for_what_it_does_not_take(self) -> None:
        async def greet() -> AsyncGenerator[Any, None]:
            yield words(0.5)

        async def reply(audio: Any, name: str) -> AsyncGenerator[Any, None]:
            yield words(0.1)

        async with open_call(agent(reply, startup_fn=greet)) as call:
            await say(call, silence(1))
            assert heard_samples(call) == 0.5 * OUT

    async def test_webrtc_data_is_given_the_audio(self) -> None:
        said: list[Any] = []

        async def reply(data: WebRTCData) -> AsyncGenerator[Any, None]:
            assert data.audio is not None or data.textbox
            said.append((data.textbox, data.audio and data.audio[1].size > 0))
            yield words(0.1)

        handler = agent(reply, needs_args=True)
        async with open_call(handler) as call:
            handler.set_args([WebRTCData("me", textbox="hello")])
            await say(call, silence(0.1))
            handler.trigger_response()
            await say(call, silence(0.5))
            await say(call, voice(1), silence(3))
        assert said == [("hello", None), ("", True)]

    async def test_a_telephone_remembers_what_the_function_gave(self) -> None:
        given: list[Any] = []

        async def reply(audio: Any, history: Any) -> AsyncGenerator[Any, None]:
            given.append(history)
            yield words(0.1)
            yield AdditionalOutputs([*(history or []), len(given)])

        handler = agent(reply)
        handler.phone_mode = True
        async with open_call(handler) as call:
            for _ in range(3):
                await say(call, voice(1), silence(1))
        assert given == [None, [1], [1, 2]]


class TestTriggers:
    async def test_a_response_can_be_asked_for(self) -> None:
        said: list[Any] = []
        handler = agent(answering(0.2, log=said))
        with pytest.raises(RuntimeError, match="requires an active session"):
            handler.trigger_response()
        async with open_call(handler) as call:
            await say(call, silence(0.5))
            handler.trigger_response()
            await say(call, silence(0.5))
            assert said[0][1].shape == (1, 0)
            await say(call, voice(1))
            await anyio.to_thread.run_sync(handler.trigger_response)
            await say(call, silence(0.5))
            assert np.count_nonzero(said[2][1]) > 0.9 * RATE
            assert heard_samples(call) == 0.4 * OUT
        with pytest.raises(RuntimeError):
            handler.trigger_response()

    async def test_what_a_listener_raises_then_ends_the_session(self) -> None:
        def fail(event: object) -> None:
            raise ValueError("a bad listener")

        handler = agent(answering(0.2), on_event=fail)
        with pytest.raises(ValueError, match="a bad listener") as caught:
            async with open_call(handler) as call:
                await say(call, silence(0.1))
                handler.trigger_response()
                await call.ended.wait()
        assert caught.value.__notes__ == ["raised in on_event"]


class TestFailures:
    @AGENTS
    async def test_an_error_at_the_end_of_an_interrupted_reply_is_logged(
        self, asynchronous: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def reply_async(audio: Any) -> AsyncGenerator[Any, None]:
            try:
                while True:
                    yield words(5)
            finally:
                raise ValueError("bad end")

        def reply(audio: Any) -> Generator[Any, None, None]:
            try:
                while True:
                    yield words(5)
            finally:
                raise ValueError("bad end")

        log = Log()
        handler = agent(reply_async if asynchronous else reply, on_event=log)
        async with open_call(handler, raise_errors=False) as call:
            await say(call, voice(1), silence(1), voice(1), silence(1))
            assert log.kinds.count("ReplyStarted") == 2
            assert call.session.error is None
            errors = [record.exc_info[1] for record in caplog.records if record.exc_info]
            assert [str(error) for error in errors] == ["bad end"]

    @AGENTS
    async def test_an_error_in_a_reply_ends_the_session(self, asynchronous: bool) -> None:
        async def reply_async(audio: Any) -> AsyncGenerator[Any, None]:
            yield words(0.1)
            raise ValueError("bad reply")

        def reply(audio: Any) -> Generator[Any, None, None]:
            yield words(0.1)
            raise ValueError("bad reply")

        fn = reply_async if asynchronous else reply
        async with open_call(agent(fn), raise_errors=False) as call:
            await say(call, voice(1), silence(1))
            await call.ended.wait()
        assert isinstance(call.session.error, ValueError)
        assert call.session.closed is not None
        assert call.session.closed.reason is CloseReason.HANDLER_ERROR

    @pytest.mark.parametrize("wrong", [lambda audio: audio, lambda audio: None])
    async def test_a_function_that_makes_no_generator(self, wrong: Any) -> None:
        with pytest.raises(HandlerContractError, match="must be a generator function"):
            async with open_call(agent(wrong)) as call:
                await say(call, voice(1), silence(1))
                await call.ended.wait()

    async def test_a_plain_function_may_return_a_generator(self) -> None:
        make = answering(0.5)
        threads: list[int] = []

        def reply(audio: Any) -> Any:
            threads.append(threading.get_ident())  # it may transcribe first
            return make(audio)

        async with open_call(agent(reply)) as call:
            await say(call, voice(1), silence(2))
            assert heard_samples(call) == 0.5 * OUT
        assert threads != [threading.get_ident()]

    async def test_an_iterator_will_do(self) -> None:
        async with open_call(agent(lambda audio: iter([words(0.1), words(0.2)]))) as call:
            await say(call, voice(1), silence(2))
            assert heard_samples(call) == round(0.3 * OUT)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"fn": 3}, "fn must be a function; got 3"),
            ({"interrupt_on": "never"}, "one of 'speech', 'pause'; got 'never'"),
            ({"algo_options": 0.6}, "algo_options must be an AlgoOptions or None; got 0.6"),
            ({"model": object()}, "model"),
            ({"startup_fn": "hello"}, "startup_fn must be a function"),
        ],
    )
    def test_arguments_that_cannot_be(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises((TypeError, ValueError), match=message):
            ReplyOnPause(**({"fn": answering(1), "model": LoudVad()} | settings))

    def test_a_coroutine_function_is_no_generator_function(self) -> None:
        async def reply(audio: Any) -> None: ...

        with pytest.raises(TypeError, match="is a coroutine function"):
            agent(reply)


async def test_a_goodbye_is_heard_to_its_end() -> None:
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


@pytest.mark.parametrize("mode", ["send-receive", "send"])
@AGENTS
async def test_who_yields_nothing_holds_up_nobody(asynchronous: bool, mode: Any) -> None:
    """And can be interrupted."""
    yielded = 0

    async def reply_async(audio: Any) -> AsyncGenerator[Any, None]:
        nonlocal yielded
        while True:
            yielded += 1
            yield None if yielded % 2 else AdditionalOutputs()

    def reply(audio: Any) -> Generator[Any, None, None]:
        nonlocal yielded
        while True:
            yielded += 1
            yield None if yielded % 2 else AdditionalOutputs()

    log = Log()
    fn = reply_async if asynchronous else reply
    async with open_call(agent(fn, on_event=log), mode=mode) as call:
        await say(call, voice(1), silence(1), voice(1))
    assert log.of(ReplyInterrupted)
    assert yielded <= 4 / FRAME


async def test_interruptions_in_a_row_wait_for_the_first_to_unwind() -> None:
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


async def test_what_the_handler_clears_itself_counts_as_played() -> None:
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


async def test_the_client_is_told_what_happens() -> None:
    async with open_call(agent(answering(0.2))) as call:
        await say(call, voice(1), silence(1))
        messages = [await call.client.receive_message() for _ in range(3)]
    assert messages == [
        f'{{"type": "log", "data": "{what}"}}'
        for what in ("started_talking", "pause_detected", "response_starting")
    ]


async def test_a_client_that_only_sends_is_answered_with_outputs() -> None:
    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        yield AdditionalOutputs(audio[1].shape[1])

    async with open_call(agent(reply), mode="send") as call:
        await say(call, voice(1), silence(1))
        outputs = await call.session.outputs.latest()
    assert outputs.args[0] > RATE


class TestOwnAlgorithms:
    async def test_a_subclass_decides_and_survives_its_copy(self) -> None:
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

    async def test_fastrtcs_algorithm_can_be_built_on(self) -> None:
        class Mine(ReplyOnPause):
            def determine_pause(self, audio: Any, sampling_rate: int, state: AppState) -> bool:
                return super().determine_pause(audio, sampling_rate, state)

        said: list[Any] = []
        model = LoudBatchModel()
        handler = Mine(answering(0.1, log=said), model=model, input_sample_rate=RATE)
        async with open_call(handler) as call:
            await say(call, silence(0.3), voice(1), silence(3))
        # One chunk of 0.6 s after the other.
        assert set(model.heard) == {(RATE, round(0.6 * RATE))}
        assert np.count_nonzero(said[0][1]) == RATE

    async def test_an_answer_that_is_no_bool(self) -> None:
        class Wrong(ReplyOnPause):
            def determine_pause(self, audio: Any, sampling_rate: int, state: AppState) -> Any:
                return None

        with pytest.raises(HandlerContractError, match="must return a bool; got None"):
            async with open_call(Wrong(answering(1), model=LoudVad())) as call:
                await say(call, silence(1))
                await call.ended.wait()

    async def test_one_without_a_model_needs_none(self) -> None:
        class Never(ReplyOnPause):
            def determine_pause(self, audio: Any, sampling_rate: int, state: AppState) -> bool:
                return False

        assert Never(answering(1)).model is None

    async def test_fastrtcs_algorithm_wants_its_kind_of_model(self) -> None:
        class Mine(ReplyOnPause):
            def determine_pause(self, audio: Any, sampling_rate: int, state: AppState) -> bool:
                return super().determine_pause(audio, sampling_rate, state)

        with pytest.raises(HandlerContractError, match=r"model must have vad\(audio, options\)"):
            async with open_call(Mine(answering(1), model=EnergyVad())) as call:
                await say(call, silence(2))
                await call.ended.wait()

    async def test_what_a_thread_says_of_a_turn_that_is_over_is_void(self) -> None:
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
def test_what_would_never_be_called_is_refused(name: str) -> None:
    kind = type("Filtered", (ReplyOnPause,), {name: lambda self, frame: None})
    with pytest.raises(TypeError, match=f"Filtered.{name} would never be called"):
        kind(answering(1), model=LoudVad())


def test_a_copy_has_the_settings_of_now() -> None:
    handler = agent(answering(1))
    handler.can_interrupt = False
    handler.algo_options = AlgoOptions(1.0)
    copy = handler.copy().copy()
    assert (copy.can_interrupt, copy.algo_options.audio_chunk_duration) == (False, 1.0)
    assert copy.input_sample_rate == RATE


def test_a_copy_is_made_as_the_original_was() -> None:
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


async def test_a_partial_may_reply() -> None:
    async def reply(greeting: float, audio: Any) -> AsyncGenerator[Any, None]:
        yield words(greeting)

    async with open_call(agent(functools.partial(reply, 0.2))) as call:
        await say(call, voice(1), silence(1))
        assert heard_samples(call) == 0.2 * OUT
