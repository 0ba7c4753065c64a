"""``session.utterances``: a session function takes turns as ``ReplyOnPause`` does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any, cast

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio import AdditionalOutputs, CloseReason, CloseStream, HandlerContractError, Session
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.conversation.events import ReplyFinished, ReplyInterrupted
from fastrtc_anyio.testing import open_call
from tests.kit.conversations import (
    OUT,
    RATE,
    LoudVad,
    agent,
    heard_samples,
    say,
    silence,
    voice,
    words,
)

OPTIONS: Any = {"model": LoudVad(), "input_sample_rate": RATE}


async def talk(seconds: float) -> AsyncGenerator[Any, None]:
    yield words(seconds)


def talk_plainly(seconds: float) -> Generator[Any, None, None]:
    yield words(seconds)


@pytest.mark.parametrize(
    "reply", [lambda: talk(1), lambda: talk_plainly(1), lambda: [words(1)], lambda: words(1)]
)
async def test_reply_is_played_and_its_end_is_returned(reply: Any) -> None:
    outcomes: list[Any] = []

    async def serve(session: Session) -> None:
        async for utterance in session.utterances(**OPTIONS):
            assert utterance.audio[0] == RATE
            assert utterance.audio[1].dtype == np.int16
            outcomes.append(await utterance.reply(reply()))

    async with open_call(serve) as call:
        await say(call, voice(1), silence(3), voice(1), silence(3))
    assert [type(outcome) for outcome in outcomes] == [ReplyFinished, ReplyFinished]
    assert [round(outcome.played.seconds, 2) for outcome in outcomes] == [1, 1]
    assert call.session.statistics().abandoned_threads == 0


async def test_barge_in_cancels_the_reply_and_returns_what_was_played() -> None:
    outcomes: list[Any] = []
    closed: list[str] = []

    async def endless() -> AsyncGenerator[Any, None]:
        try:
            yield words(60)
            await anyio.sleep_forever()
        finally:
            closed.append("closed")

    async def serve(session: Session) -> None:
        async for utterance in session.utterances(**OPTIONS):
            outcomes.append(await utterance.reply(endless()))

    async with open_call(serve) as call:
        await say(call, voice(1), silence(2), voice(1))
        (outcome,) = outcomes
        assert closed == ["closed"]
        assert isinstance(outcome, ReplyInterrupted)
        assert 1 < outcome.played.seconds < 2.5
        assert call.session.statistics().audio_out is not None


async def test_utterance_without_a_reply_ends_its_turn() -> None:
    heard: list[int] = []

    async def serve(session: Session) -> None:
        async for utterance in session.utterances(can_interrupt=False, **OPTIONS):
            heard.append(utterance.audio[1].shape[1])

    async with open_call(serve) as call:
        await say(call, voice(1), silence(1), voice(1), silence(1))
    assert len(heard) == 2


async def test_slow_body_gets_every_utterance_and_plays_nothing_for_a_stale_one() -> None:
    outcomes: list[Any] = []

    async def serve(session: Session) -> None:
        async for utterance in session.utterances(**OPTIONS):
            await anyio.sleep(4)
            outcomes.append((utterance.interrupted, await utterance.reply(talk(1))))

    async with open_call(serve) as call:
        await say(call, voice(1), silence(1), voice(1), silence(1), voice(1), silence(12))
    assert [stale for stale, _ in outcomes] == [True, True, False]
    assert [round(outcome.played.seconds) for _, outcome in outcomes] == [0, 0, 1]


async def test_cancelled_reply_is_stopped_and_the_conversation_goes_on() -> None:
    outcomes: list[Any] = []

    async def serve(session: Session) -> None:
        async for utterance in session.utterances(**OPTIONS):
            with anyio.move_on_after(0.5):
                await utterance.reply(talk(20))
            outcomes.append(utterance.interrupted)

    async with open_call(serve) as call:
        await say(call, voice(1), silence(2), voice(1), silence(2))
        assert heard_samples(call) < 1.5 * call.session.audio_out.sample_rate
    assert outcomes == [True, True]


@pytest.mark.parametrize("how", ["hang_up", "CloseStream"])
async def test_goodbye_is_played_before_the_call_ends(how: str) -> None:
    async def serve(session: Session) -> None:
        async def goodbye() -> AsyncGenerator[Any, None]:
            yield words(2)
            if how == "CloseStream":
                yield CloseStream("Goodbye.")
            session.hang_up("Goodbye.")

        async for utterance in session.utterances(**OPTIONS):
            await utterance.reply(goodbye())

    async with open_call(serve) as call:
        await say(call, voice(1), silence(1))
        await call.ended.wait()
        assert heard_samples(call) == pytest.approx(4 * OUT, rel=0.02)  # at 48 kHz
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_CLOSED
    assert call.session.closed.message == "Goodbye."


async def test_error_in_a_reply_ends_the_session() -> None:
    async def broken() -> AsyncGenerator[Any, None]:
        yield words(0.1)
        raise KeyError("x")

    async def serve(session: Session) -> None:
        async for utterance in session.utterances(**OPTIONS):
            await utterance.reply(broken())

    with pytest.raises(KeyError):
        async with open_call(serve) as call:
            await say(call, voice(1), silence(2))
            await call.ended.wait()


async def test_function_that_returns_ends_the_conversation() -> None:
    async def serve(session: Session) -> None:
        async for utterance in session.utterances(**OPTIONS):
            await utterance.reply(talk(1))
            break

    async with open_call(serve) as call:
        await say(call, voice(1), silence(2.5))
        await call.ended.wait()
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_CLOSED


async def test_misuse_is_refused() -> None:
    errors: list[str] = []

    async def serve(session: Session) -> None:
        async for utterance in session.utterances(**OPTIONS):
            wrong: Any
            for wrong in (5, "Hello.", words(1)[1], {"text": "Hello."}):
                with pytest.raises(
                    TypeError, match="chunks must be an iterator of audio or a chunk"
                ):
                    await utterance.reply(wrong)
            await utterance.reply(talk(0.1))
            with pytest.raises(RuntimeError, match="replied to already"):
                await utterance.reply(talk(0.1))
            with pytest.raises(RuntimeError, match="one iterator"):
                await anext(session.utterances(**OPTIONS))
            with pytest.raises(TypeError, match="on_event must be a function; got 5"):
                session.utterances(**OPTIONS, on_event=cast(Any, 5))
            errors.append("all")

    async with open_call(serve) as call:
        await say(call, voice(1), silence(2))
    assert errors == ["all"]


@pytest.mark.parametrize("chunk", [CloseStream("Goodbye."), (words(1), CloseStream("Goodbye."))])
async def test_reply_may_be_one_chunk_that_ends_the_call(chunk: Any) -> None:
    async def serve(session: Session) -> None:
        async for utterance in session.utterances(**OPTIONS):
            await utterance.reply(chunk)

    async with open_call(serve) as call:
        await say(call, voice(1), silence(3))
    assert call.session.closed is not None
    assert call.session.closed.message == "Goodbye."


async def test_one_chunk_may_be_outputs() -> None:
    async def serve(session: Session) -> None:
        async for utterance in session.utterances(**OPTIONS):
            await utterance.reply(AdditionalOutputs("heard"))

    async with open_call(serve) as call:
        await say(call, voice(1), silence(2))
        outputs = await call.session.outputs.latest()
    assert outputs.args == ("heard",)


async def test_wrong_audio_of_a_reply_is_an_error_that_names_reply() -> None:
    async def serve(session: Session) -> None:
        async for utterance in session.utterances(**OPTIONS):
            await utterance.reply([(RATE, "words")])

    with pytest.raises(HandlerContractError, match=r"^Utterance\.reply: samples must be"):
        async with open_call(serve) as call:
            await say(call, voice(1), silence(2))


async def test_sessions_of_handlers_have_no_utterances() -> None:
    async with open_call(agent(lambda audio: talk(1))) as call:
        with pytest.raises(RuntimeError, match="is for session functions"):
            call.session.utterances()


parts = st.lists(
    st.tuples(st.floats(0.1, 1.5), st.floats(0.05, 3), st.floats(0.1, 2)), min_size=1, max_size=4
)


@pytest.mark.parametrize("can_interrupt", [True, False])
@settings(max_examples=8)
@given(parts=parts)
async def test_utterances_equal_those_of_reply_on_pause(
    can_interrupt: bool, parts: list[tuple[float, float, float]]
) -> None:
    speech = [piece for said, quiet, _ in parts for piece in (voice(said), silence(quiet))]
    speech.append(silence(4))
    lengths = [seconds for _, _, seconds in parts]
    expected: list[Int16Array] = []
    found: list[Int16Array] = []

    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        expected.append(audio[1])
        yield words(lengths[(len(expected) - 1) % len(lengths)])

    async def serve(session: Session) -> None:
        async for utterance in session.utterances(can_interrupt=can_interrupt, **OPTIONS):
            found.append(utterance.audio[1])
            await utterance.reply(talk(lengths[(len(found) - 1) % len(lengths)]))

    for handler in (agent(reply, can_interrupt=can_interrupt), serve):
        async with open_call(handler) as call:
            await say(call, *speech)
    assert [audio.tolist() for audio in found] == [audio.tolist() for audio in expected]
