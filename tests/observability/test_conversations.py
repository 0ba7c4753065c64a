"""Turns and replies: their counts, and exact latencies."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio import (
    Interruption,
    Limits,
    Played,
    ReplyFinished,
    ReplyInterrupted,
    ReplyStarted,
)
from fastrtc_anyio.conversation.machine import TurnMachine
from fastrtc_anyio.conversation.pause_rules import AlgoOptions
from fastrtc_anyio.conversation.turn_table import ReplyDue
from fastrtc_anyio.observability import Metrics, ReplyEnd
from fastrtc_anyio.speech.vad import Hops
from fastrtc_anyio.testing import open_call
from tests.kit.conversations import (
    HOP,
    RATE,
    Log,
    LoudVad,
    agent,
    answering,
    nothing,
    say,
    silence,
    voice,
    words,
)
from tests.kit.observing import Recorder, count_of, scrape

QUICK = AlgoOptions(0.2, 0.06, 0.04)
"""Thresholds that make a conversation short."""
PARTS = st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=2, max_size=10)
"""Speech and silence, in frames of 20 ms."""


def talk(parts: list[tuple[int, bool]]) -> list[Any]:
    return [voice(n / 50) if speech else silence(n / 50) for n, speech in parts]


class ReplyError(Exception):
    pass


@settings(max_examples=40)
@given(
    PARTS,
    st.sampled_from(["speech", "pause"]),
    st.booleans(),
    st.integers(0, 40),
    st.sampled_from([None, True, False]),
    st.booleans(),
    st.none() | st.integers(1, 4),
    st.none() | st.integers(1, 4),
    st.integers(0, 8),
)
async def test_counters_equal_the_events_of_a_conversation(
    parts: list[tuple[int, bool]],
    interrupt_on: Any,
    can_interrupt: bool,
    length: int,
    judgement: bool | None,
    greets: bool,
    fails_in: int | None,
    hangs_up_in: int | None,
    triggers: int,
) -> None:
    """Replies of any length, interrupted, failing, hanging up, cut off or requested."""
    log, recorder, metrics = Log(), Recorder(), Metrics()
    count = 0

    async def reply(audio: Any = None) -> AsyncGenerator[Any, None]:
        nonlocal count
        count += 1
        for i in range(length):
            yield words(0.05)
            if i == length // 2:
                if count == fails_in:
                    raise ReplyError
                if count == hangs_up_in:
                    call.session.hang_up()
            await anyio.sleep(0.01)

    async def greet() -> AsyncGenerator[Any, None]:
        yield words(0.3)

    async def judge(interruption: Interruption) -> bool:
        await anyio.sleep(0.05)
        return bool(judgement)

    handler = agent(
        reply,
        startup_fn=greet if greets else None,
        on_event=log,
        algo_options=QUICK,
        interrupt_on=interrupt_on,
        can_interrupt=can_interrupt,
        confirm_interruption=None if judgement is None else judge,
    )
    observers = [recorder, metrics]
    async with open_call(handler, observers=observers, raise_errors=False) as call:
        for i, part in enumerate(talk(parts)):
            await say(call, part)
            if i < triggers:
                with suppress(RuntimeError):  # the session has ended
                    handler.trigger_response()
        await anyio.sleep(0.3)
        values = scrape(metrics)
        statistics = call.session.statistics().audio_in
        assert statistics is not None
        assert values["frames_received_total", "audio"] == statistics.received

    started, finished = log.of(ReplyStarted), log.of(ReplyFinished)
    interrupted = log.of(ReplyInterrupted)
    ends = {
        "finished": len(finished),
        "interrupted": len(interrupted),
        "failed": int(isinstance(call.session.error, ReplyError)),
    }
    ends["cut_off"] = len(started) - sum(ends.values())
    assert ends["cut_off"] in (0, 1)
    values = scrape(metrics)
    assert count_of(values, "replies_started_total") == ({"": len(started)} if started else {})
    assert count_of(values, "replies_ended_total") == {k: n for k, n in ends.items() if n}
    assert values["turns_total", ""] == len(started) - greets
    assert [reply.number for (reply,) in recorder.of("started")] == [e.reply for e in started]
    told = {reply.number: (end, played) for reply, end, played in recorder.of("reply ended")}
    for event in finished:
        assert told[event.reply] == (ReplyEnd.FINISHED, event.played)
    for event in interrupted:
        assert told[event.reply] == (ReplyEnd.INTERRUPTED, event.played)
    audible = recorder.of("audible")
    assert values["reply_latency_seconds_count", ""] == len(audible)
    assert len({reply.number for reply, _ in audible}) == len(audible)
    measured = [turn.latency for (turn,) in recorder.of("turn") if turn.latency is not None]
    assert values["turn_latency_seconds_count", ""] == len(measured)
    assert values["turn_latency_seconds_sum", ""] == pytest.approx(sum(measured))
    reason = call.session.closed.reason.value if call.session.closed else ""
    assert count_of(values, "sessions_ended_total") == {reason: 1}
    assert count_of(values, "sessions") == {}
    assert values["connect_seconds_count", ""] == 1


@settings(max_examples=20)
@given(PARTS)
async def test_turn_latency_is_the_silence_after_the_last_hop_of_speech(
    parts: list[tuple[int, bool]],
) -> None:
    recorder = Recorder()
    audio = np.concatenate([*talk(parts), silence(1)], axis=1)

    def listen_only(heard: Any) -> AsyncGenerator[Any, None]:
        return nothing()

    handler = agent(listen_only, algo_options=QUICK)
    async with open_call(handler, observers=[recorder]) as call:
        await say(call, audio)
        await anyio.sleep(0.1)

    machine, loud, wanted = TurnMachine(RATE, QUICK), 0, []
    for place, (hop, window) in enumerate(Hops(RATE, LoudVad()).push(audio)):
        probability = LoudVad().probability(window)
        loud = place if probability else loud
        for step in machine.push(hop, probability):
            if isinstance(step, ReplyDue):
                wanted.append((place - loud) * HOP)
                machine.reply_finished(step.reply)
    latencies = [turn.latency for (turn,) in recorder.of("turn")]
    assert latencies == [pytest.approx(latency) for latency in wanted]


async def test_latencies_of_a_turn_and_its_reply() -> None:
    """Silence begins at 1.024 s, a multiple of a hop: the pause is found once the last 0.6 s hold
    less than 0.1 s of speech."""
    recorder, metrics, log = Recorder(), Metrics(), Log()

    async def think(audio: Any) -> AsyncGenerator[Any, None]:
        await anyio.sleep(0.25)
        yield words(0.2)

    handler = agent(think, on_event=log)
    async with open_call(handler, observers=[recorder, metrics]) as call:
        await say(call, voice(1.024), silence(1.5))
    ((turn,),) = recorder.of("turn")
    # 16 hops of silence: 0.6 s - 0.512 s = 0.088 s of speech are left in the window.
    assert turn.latency == pytest.approx(16 * HOP)
    assert turn.utterance_s == pytest.approx(1.024 + 16 * HOP)
    assert turn.age_s == pytest.approx(turn.utterance_s)
    ((reply, latency),) = recorder.of("audible")
    assert reply.turn is turn
    assert latency == pytest.approx(0.25)
    values = scrape(metrics)
    assert values["turn_latency_seconds_sum", ""] == pytest.approx(0.512)
    assert values["reply_latency_seconds_sum", ""] == pytest.approx(0.25)
    assert values["response_latency_seconds_sum", ""] == pytest.approx(0.762)


async def test_requested_reply_has_no_turn_latency() -> None:
    recorder = Recorder()
    handler = agent(answering(0.2))
    async with open_call(handler, observers=[recorder]) as call:
        await say(call, silence(0.2))
        handler.trigger_response()
        await say(call, silence(0.6))
    ((turn,),) = recorder.of("turn")
    assert turn.latency is None
    assert turn.utterance_s == 0
    ((_, end, played),) = recorder.of("reply ended")
    assert end is ReplyEnd.FINISHED
    assert played.seconds == pytest.approx(0.2, abs=0.02)


async def test_cut_turn_has_no_turn_latency() -> None:
    recorder = Recorder()
    handler = agent(answering(0.1), algo_options=AlgoOptions(max_continuous_speech_s=1))
    async with open_call(handler, observers=[recorder]) as call:
        await say(call, voice(1.5))
    (turn,), *_ = recorder.of("turn")
    assert turn.latency is None


async def test_reply_without_audio_has_no_latency() -> None:
    recorder = Recorder()
    async with open_call(agent(lambda audio: nothing()), observers=[recorder]) as call:
        await say(call, voice(1), silence(1.5))
    assert recorder.names.count("audible") == 0
    ((_, end, played),) = recorder.of("reply ended")
    assert (end, played) == (ReplyEnd.FINISHED, Played(0, 0.0))


async def test_reply_is_cut_off_by_the_end_of_the_session() -> None:
    recorder = Recorder()
    async with open_call(agent(answering(5)), observers=[recorder]) as call:
        await say(call, voice(1), silence(1.5))
    assert recorder.names == [
        *("admitted", "connected", "turn", "started", "audible", "reply ended", "ended")
    ]
    ((_, end, played),) = recorder.of("reply ended")
    assert end is ReplyEnd.CUT_OFF
    assert 0.5 < played.seconds < 1


async def test_reply_that_ignores_its_cancellation_ends_before_its_session() -> None:
    recorder, metrics = Recorder(), Metrics()
    released = anyio.Event()

    async def stubborn(audio: Any) -> AsyncGenerator[Any, None]:
        yield words(0.1)
        with anyio.CancelScope(shield=True):
            await released.wait()
        yield words(0.1)

    observers, limits = [recorder, metrics], Limits(shutdown=0.1)
    async with open_call(agent(stubborn), observers=observers, limits=limits) as call:
        await say(call, voice(1), silence(1.5))
        call.client.hang_up()
        await anyio.sleep(1)
        assert call.session.is_abandoned
        assert "ended" in recorder.names
        released.set()
    assert recorder.names == [
        *("admitted", "connected", "turn", "started", "audible", "reply ended", "ended")
    ]
    assert count_of(scrape(metrics), "abandoned_total") == {"tasks": 1}
