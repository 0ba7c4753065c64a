"""Replies on virtual time: when they start, their inputs, greetings, triggers and failures."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncGenerator, Generator
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import AdditionalOutputs, CloseReason, HandlerContractError, run_sync
from fastrtc_anyio.conversation.events import (
    ReplyFinished,
    ReplyInterrupted,
    ReplyStarted,
)
from fastrtc_anyio.conversation.handlers import ReplyOnPause
from fastrtc_anyio.handlers import WebRTCData
from fastrtc_anyio.testing import Call, open_call
from tests.kit.conversations import (
    AGENTS,
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
async def test_pause_starts_a_reply(asynchronous: bool) -> None:
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
    # All of the speech, with silence before and after.
    assert np.count_nonzero(utterance) == RATE
    assert utterance[0, 0] == utterance[0, -1] == 0
    assert log.kinds == [
        "UserStartedSpeaking",
        "UserStoppedSpeaking",
        "ReplyStarted",
        "ReplyFinished",
    ]
    assert log.of(ReplyFinished)[0].played.seconds == 0.5


async def test_reply_starts_within_one_hop_of_the_pause_threshold() -> None:
    log = Log()
    async with open_call(agent(answering(0.1), on_event=log)) as call:
        await say(call, voice(1), silence(2))
    # The window of 0.6 s holds less than 0.1 s of speech 0.5 s after its end.
    started = log.of(ReplyStarted)[0].at
    assert 1.5 <= started <= 1.5 + HOP + 2 * FRAME


class TestGreetings:
    @AGENTS
    async def test_greeting_is_the_first_reply(self, asynchronous: bool) -> None:
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

    async def test_speech_interrupts_the_greeting(self) -> None:
        async def greet() -> AsyncGenerator[Any, None]:
            yield words(10)

        log = Log()
        async with open_call(agent(answering(0.5), startup_fn=greet, on_event=log)) as call:
            await say(call, silence(0.5), voice(1), silence(1.5))
        assert [event.reply for event in log.of(ReplyInterrupted)] == [1]
        assert [event.reply for event in log.of(ReplyFinished)] == [2]


class TestInputs:
    async def test_inputs_are_passed_after_the_audio(self) -> None:
        said: list[Any] = []

        async def reply(audio: Any, name: str, size: int = 3) -> AsyncGenerator[Any, None]:
            said.append((name, size))
            yield words(0.1)

        async with open_call(agent(reply), inputs=("Ada",)) as call:
            await say(call, voice(1), silence(1))
            call.session.driver.handler.set_args(["Bob", 4])  # type: ignore[union-attr]
            await say(call, voice(1), silence(1))
        assert said == [("Ada", 3), ("Bob", 4)]

    async def test_each_reply_requests_the_inputs(self) -> None:
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
                handler.trigger_response()  # as FastRTC's pages do; the reply is due already

        async with open_call(handler) as call, anyio.create_task_group() as tg:
            tg.start_soon(answer, call)
            for _ in range(3):
                await say(call, voice(1), silence(1))
        assert said == [0, 1, 2]

    async def test_reply_with_required_input_waits_for_it(self) -> None:
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

    async def test_silent_client_delays_only_the_first_reply(self) -> None:
        log = Log()
        said: list[Any] = []

        async def reply(audio: Any, name: str = "unknown") -> AsyncGenerator[Any, None]:
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
        assert {name for _, name in said} == {"unknown"}

    async def test_greeting_without_parameters_requests_no_inputs(self) -> None:
        async def greet() -> AsyncGenerator[Any, None]:
            yield words(0.5)

        async def reply(audio: Any, name: str) -> AsyncGenerator[Any, None]:
            yield words(0.1)

        async with open_call(agent(reply, startup_fn=greet)) as call:
            await say(call, silence(1))
            assert heard_samples(call) == 0.5 * OUT

    async def test_webrtc_data_contains_the_audio(self) -> None:
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

    async def test_telephone_reply_gets_its_last_additional_outputs(self) -> None:
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
    async def test_trigger_response_starts_a_reply(self) -> None:
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
            await run_sync(handler.trigger_response)
            await say(call, silence(0.5))
            assert np.count_nonzero(said[2][1]) > 0.9 * RATE
            assert heard_samples(call) == 0.4 * OUT
        with pytest.raises(RuntimeError):
            handler.trigger_response()

    async def test_error_in_on_event_ends_the_session(self) -> None:
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
    async def test_error_in_the_finally_block_of_an_interrupted_reply_is_logged(
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
    async def test_error_in_a_reply_ends_the_session(self, asynchronous: bool) -> None:
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
    async def test_function_that_returns_another_value_is_refused(self, wrong: Any) -> None:
        with pytest.raises(HandlerContractError, match="must be a generator function"):
            async with open_call(agent(wrong)) as call:
                await say(call, voice(1), silence(1))
                await call.ended.wait()

    async def test_plain_function_may_return_a_generator(self) -> None:
        make = answering(0.5)
        threads: list[int] = []

        def reply(audio: Any) -> Any:
            threads.append(threading.get_ident())  # it may transcribe first
            return make(audio)

        async with open_call(agent(reply)) as call:
            await say(call, voice(1), silence(2))
            assert heard_samples(call) == 0.5 * OUT
        assert threads != [threading.get_ident()]

    async def test_function_may_return_an_iterator(self) -> None:
        async with open_call(agent(lambda audio: iter([words(0.1), words(0.2)]))) as call:
            await say(call, voice(1), silence(2))
            assert heard_samples(call) == round(0.3 * OUT)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"fn": 3}, "fn must be a function; got 3"),
            ({"fn": None}, "fn must be a function; got None"),
            ({"interrupt_on": "never"}, "one of 'speech', 'pause'; got 'never'"),
            ({"algo_options": 0.6}, "algo_options must be an AlgoOptions or None; got 0.6"),
            ({"model": object()}, "model"),
            ({"startup_fn": "hello"}, "startup_fn must be a function"),
        ],
    )
    def test_invalid_arguments_are_refused(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises((TypeError, ValueError), match=message):
            ReplyOnPause(**({"fn": answering(1), "model": LoudVad()} | settings))

    def test_coroutine_function_is_refused(self) -> None:
        async def reply(audio: Any) -> None: ...

        with pytest.raises(TypeError, match="is a coroutine function"):
            agent(reply)


@pytest.mark.parametrize("mode", ["send-receive", "send"])
@AGENTS
async def test_empty_yield_waits_one_frame_and_can_be_interrupted(
    asynchronous: bool, mode: Any
) -> None:
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


async def test_client_receives_log_messages() -> None:
    async with open_call(agent(answering(0.2))) as call:
        await say(call, voice(1), silence(1))
        messages = [await call.client.receive_message() for _ in range(3)]
    assert messages == [
        f'{{"type": "log", "data": "{what}"}}'
        for what in ("started_talking", "pause_detected", "response_starting")
    ]


async def test_mode_send_delivers_additional_outputs() -> None:
    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        yield AdditionalOutputs(audio[1].shape[1])

    async with open_call(agent(reply), mode="send") as call:
        await say(call, voice(1), silence(1))
        outputs = await call.session.outputs.latest()
    assert outputs.args[0] > RATE


async def test_partial_as_reply_function() -> None:
    async def reply(greeting: float, audio: Any) -> AsyncGenerator[Any, None]:
        yield words(greeting)

    async with open_call(agent(functools.partial(reply, 0.2))) as call:
        await say(call, voice(1), silence(1))
        assert heard_samples(call) == 0.2 * OUT
