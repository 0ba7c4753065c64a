"""Properties of whole conversations, with any framing, thresholds, order of events and faults."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from itertools import pairwise
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio import Session, SessionState
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.conversation.events import (
    Interruption,
    ReplyFinished,
    ReplyInterrupted,
    ReplyStarted,
    UserStartedSpeaking,
    UserStoppedSpeaking,
)
from fastrtc_anyio.conversation.handlers import ReplyOnPause
from fastrtc_anyio.conversation.machine import TurnMachine
from fastrtc_anyio.conversation.pause_rules import AlgoOptions
from fastrtc_anyio.conversation.turn_table import ReplyDue
from fastrtc_anyio.speech.vad import Hops
from fastrtc_anyio.testing import inject_fault, open_call
from tests.kit.conversations import (
    OUT,
    RATE,
    Log,
    LoudVad,
    agent,
    nothing,
    say,
    say_in_pieces,
    silence,
    voice,
    words,
)

QUICK = AlgoOptions(0.2, 0.06, 0.04)
"""Thresholds that make a conversation short."""


@st.composite
def talks(draw: st.DrawFn) -> Int16Array:
    """Make alternating speech and silence. The sample values follow their places, modulo 900."""
    parts = draw(st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=12))
    loud = np.concatenate([np.full(n * RATE // 50, speech) for n, speech in parts])
    place = np.arange(loud.size) % 900
    return np.where(loud, 2000 + place, place).astype(np.int16)[np.newaxis]


# 40 samples or more on average, because a frame of one sample costs as much as one of 900.
SIZES = st.lists(st.integers(1, 900), min_size=1, max_size=20)


@settings(max_examples=12)
@given(talks(), SIZES.filter(lambda sizes: sum(sizes) >= 40 * len(sizes)))
async def test_framing_does_not_change_the_utterances(audio: Int16Array, sizes: list[int]) -> None:
    given_out: list[Int16Array] = []
    log = Log()

    def listen_only(heard: tuple[int, Int16Array]) -> AsyncGenerator[Any, None]:
        given_out.append(heard[1])
        return nothing()

    async with open_call(agent(listen_only, on_event=log)) as call:
        await say_in_pieces(call, audio, sizes)
        await anyio.sleep(0.1)

    machine, hops = TurnMachine(RATE), Hops(RATE, LoudVad())
    wanted: list[Int16Array] = []
    for hop, window in hops.push(audio):
        for event in machine.push(hop, LoudVad().probability(window)):
            if isinstance(event, ReplyDue):
                wanted.append(event.utterance)
                machine.reply_finished(event.reply)
    assert len(given_out) == len(wanted)
    assert all(np.array_equal(a, b) for a, b in zip(given_out, wanted, strict=True))
    edges = [e for e in log.events if isinstance(e, UserStartedSpeaking | UserStoppedSpeaking)]
    kinds = [type(edge) for edge in edges]
    assert (
        kinds
        == [UserStartedSpeaking, UserStoppedSpeaking] * (len(kinds) // 2) + kinds[len(kinds) & ~1 :]
    )


@settings(max_examples=12)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=2, max_size=10),
    st.sampled_from(["speech", "pause"]),
    st.booleans(),
    st.integers(1, 60),
    st.sampled_from([None, True, False, "slow"]),
)
async def test_each_reply_ends_once_and_reports_the_audio_played(
    parts: list[tuple[int, bool]],
    interrupt_on: Any,
    can_interrupt: bool,
    length: int,
    judgement: Any,
) -> None:
    """Play replies of any length, with any interruptions and decisions."""
    log = Log()
    running: set[object] = set()

    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        assert not running  # one at a time
        me = object()
        running.add(me)
        try:
            for _ in range(length):
                yield words(0.05)
                await anyio.sleep(0.01)
        finally:
            running.remove(me)

    async def judge(interruption: Interruption) -> bool:
        if judgement == "slow":
            await anyio.sleep(0.3)
        return bool(judgement)

    handler = agent(
        reply,
        on_event=log,
        algo_options=QUICK,
        interrupt_on=interrupt_on,
        can_interrupt=can_interrupt,
        confirm_interruption=None if judgement is None else judge,
    )
    async with open_call(handler) as call:
        await say(
            call, *(voice(n / 50) if speech else silence(n / 50) for n, speech in parts), silence(5)
        )
        assert not running
        # The client heard the audio reported as played, and fades of at most 5 ms.
        ends = [e for e in log.events if isinstance(e, ReplyFinished | ReplyInterrupted)]
        played = sum(end.played.samples for end in ends)
        out = call.session.statistics().audio_out
        assert out is not None
        assert 0 <= out.played - played <= 0.005 * OUT * len(ends)
        assert out.sent == out.played + out.flushed
    begun = [event.reply for event in log.of(ReplyStarted)]
    assert begun == list(range(1, len(begun) + 1)) == [end.reply for end in ends]
    assert all(
        isinstance(b, ReplyFinished | ReplyInterrupted | UserStoppedSpeaking | UserStartedSpeaking)
        or not isinstance(a, ReplyStarted)
        for a, b in pairwise(log.events)
        if isinstance(b, ReplyStarted | ReplyFinished | ReplyInterrupted)
    )
    if not can_interrupt or judgement is False:
        assert not log.of(ReplyInterrupted)


class Injected(Exception):
    pass


class Agent(ReplyOnPause):
    """A handler with a greeting and a judge, which counts its replies."""

    def __init__(self, plain: bool) -> None:
        super().__init__(
            self.reply_plain if plain else self.reply,
            self.greet,
            QUICK,
            model=LoudVad(),
            input_sample_rate=RATE,
            confirm_interruption=self.judge,
        )
        self.begun = self.closed = self.ends = 0

    async def greet(self) -> AsyncGenerator[Any, None]:
        yield words(0.02)

    async def reply(self, audio: Any) -> AsyncGenerator[Any, None]:
        self.begun += 1
        try:
            yield words(2)
            await anyio.sleep(1)
        finally:
            self.closed += 1

    def reply_plain(self, audio: Any) -> Generator[Any, None, None]:
        self.begun += 1
        try:
            yield words(2)
        finally:
            self.closed += 1

    async def judge(self, interruption: Interruption) -> bool | None:
        await anyio.lowlevel.checkpoint()
        return True if interruption.user_paused else None

    def shutdown(self) -> None:
        self.ends += 1


@pytest.mark.parametrize(
    ("plain", "fails"),
    [(False, True), (False, False), (True, True)],
    ids=["async-error", "async-cancel", "plain-error"],
)
async def test_fault_at_any_checkpoint_leaves_no_generator_or_thread(
    plain: bool, fails: bool, anyio_backend_name: str
) -> None:
    """Odd checkpoints under asyncio, even ones under trio; async replies share them out."""
    step = 2 if plain else 4
    at = (1 if anyio_backend_name == "asyncio" else 2) + 2 * (not fails) - step
    reached = True
    handler = Agent(plain)
    while reached:
        at += step
        handler = Agent(plain)
        session: Session | None = None
        # A new error for each run: its traceback and notes grow with every raise.
        with inject_fault(at, Injected("here") if fails else None) as fault:
            try:
                async with open_call(handler, raise_errors=False) as call:
                    session = call.session
                    await say(call, voice(0.1), silence(0.22), voice(0.1), silence(0.22))
            except* Injected:  # in a task of the call itself
                pass
        reached = fault.reached
        assert session is not None, fault.where
        assert session.state is SessionState.CLOSED, fault.where
        assert handler.begun == handler.closed, fault.where
        if "SessionLife._shut_down" not in str(fault.where):
            assert handler.ends == 1, fault.where
        assert session.abandoned_threads == 0, fault.where
    assert handler.begun == 2
    assert at > 50
