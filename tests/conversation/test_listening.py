"""Listening by the thread of all conversations: the same as a conversation's own listening."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import anyio
import numpy as np
import pytest
from anyio import create_task_group
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio import AlgoOptions, AudioFrame, Session
from fastrtc_anyio._driver import listening
from fastrtc_anyio._driver.listening import Listener, open_shared_listener
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.conversation.events import ReplyStarted, UserStartedSpeaking
from fastrtc_anyio.speech.energy import EnergyVad
from fastrtc_anyio.speech.silero import get_silero_model
from fastrtc_anyio.testing import open_call, speech_like
from tests.kit.conversations import (
    RATE,
    Log,
    LoudVad,
    agent,
    answering,
    nothing,
    say,
    say_in_pieces,
    silence,
    voice,
)
from tests.kit.listening import Rounds, SharedLoudVad, Source, listener, shared_listening

from .test_conversation_properties import SIZES, talks
from .test_muted_clients import slow_search

QUICK = AlgoOptions(0.2, 0.06, 0.04, interrupt_threshold=0.06)


async def utterances(
    audio: Int16Array, sizes: Sequence[int], rounds: Rounds | None
) -> tuple[list[str], list[Any]]:
    """Return the events of a conversation in which the user says ``audio``, and the utterances."""
    heard: list[Any] = []
    log = Log()

    def listen_only(utterance: tuple[int, Int16Array]) -> AsyncGenerator[Any, None]:
        heard.append(utterance[1].tolist())
        return nothing()

    model = LoudVad() if rounds is None else SharedLoudVad()
    handler = agent(listen_only, on_event=log, algo_options=QUICK, model=model)
    async with create_task_group() as tasks, open_call(handler) as call:
        if rounds is not None:
            tasks.start_soon(rounds.run)
        await say_in_pieces(call, audio, sizes)
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()
    return log.kinds, heard


@settings(max_examples=20)
@given(
    talks(),
    SIZES.filter(lambda sizes: sum(sizes) >= 40 * len(sizes)),
    st.lists(st.floats(0.004, 0.03), min_size=1, max_size=10),
)
async def test_rounds_at_any_time_find_the_same_turns(
    audio: Int16Array, sizes: list[int], delays: list[float]
) -> None:
    expected = await utterances(audio, sizes, None)
    rounds = Rounds(delays)
    with shared_listening(rounds):
        assert await utterances(audio, sizes, rounds) == expected
    assert rounds.members == []


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2000), st.booleans(), st.booleans(), st.booleans()), max_size=60
    )
)
async def test_every_hop_arrives_once_with_its_probability(
    steps: list[tuple[int, bool, bool, bool]],
) -> None:
    """In each step: samples that arrive, whether loud, whether idle, whether a round follows."""
    source, vad = Source(), EnergyVad()
    shared = listener(source, vad)
    heard: list[tuple[Int16Array, float]] = []

    async def receive() -> None:
        while True:
            heard.extend(await shared.receive())

    noise = np.random.default_rng(0)
    parts = [np.zeros((1, 0), np.int16)]
    async with create_task_group() as tasks:
        tasks.start_soon(receive)
        for count, loud, idle, works in steps:
            samples = noise.integers(-9000, 9000, (1, count)) // (1 if loud else 300)
            parts.append(samples.astype(np.int16))
            source.frames.append(AudioFrame(24_000, parts[-1]))
            shared.idle = idle
            if works:
                listening.serve([shared])
            await anyio.sleep(0.01)
        shared.idle = False
        # One more hop brings those that were held back.
        source.frames.append(AudioFrame(24_000, np.zeros((1, 600), np.int16)))
        listening.serve([shared])
        await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    alone = Listener(24_000, vad)
    expected = [
        (hop.tolist(), alone.stream.probability(window))
        for samples in [*parts, np.zeros((1, 600), np.int16)]
        for hop, window in alone.feed(AudioFrame(24_000, samples))
    ]
    assert [(hop.tolist(), probability) for hop, probability in heard] == expected


async def test_idle_conversation_wakes_for_speech_and_once_a_second() -> None:
    source = Source()
    shared = listener(source, SharedLoudVad())
    shared.idle = True
    wakes: list[int] = []

    async def receive() -> None:
        while True:
            wakes.append(len(await shared.receive()))

    async def hear(samples: Int16Array) -> None:
        for place in range(0, samples.shape[1], 512):
            source.frames.append(AudioFrame(RATE, samples[:, place : place + 512]))
            listening.serve([shared])
            await anyio.sleep(0.001)

    shared.listener = Listener(RATE, SharedLoudVad())
    async with create_task_group() as tasks:
        tasks.start_soon(receive)
        await hear(silence(2.5))
        assert wakes == [32, 32]
        await hear(voice(512 / RATE))
        assert wakes == [32, 32, 78 - 64 + 1]
        shared.idle = False
        await hear(silence(2 * 512 / RATE))
        assert wakes[3:] == [1, 1]
        tasks.cancel_scope.cancel()


async def test_conversation_that_is_late_gets_all_hops() -> None:
    """Speech, silence and the end arrive before the event loop gets round to them."""
    source = Source()
    shared = listener(source, SharedLoudVad())
    shared.idle = True
    for value in (0, 8000, 0):
        source.frames.append(AudioFrame(24_000, np.full((1, 1000), value, np.int16)))
        listening.serve([shared])
    assert [probability for _, probability in await shared.receive()] == [0, 1, 1]
    source.frames.append(AudioFrame(24_000, np.zeros((1, 1000), np.int16)))
    listening.serve([shared])
    source.error = anyio.EndOfStream()
    listening.serve([shared])
    assert len(await shared.receive()) == 2
    for _ in range(2):
        with pytest.raises(anyio.EndOfStream):
            await shared.receive()


async def test_audio_waits_in_the_bounded_input_while_the_event_loop_is_blocked() -> None:
    source, vad = Source(), SharedLoudVad()
    shared = listener(source, vad)
    second = AudioFrame(24_000, np.zeros((1, 24_000), np.int16))
    for _ in range(10):  # seconds in which nothing is received
        source.frames.append(second)
        listening.serve([shared])
    assert 2 <= len(source.frames) <= 8
    assert not shared.waiting
    first = await shared.receive()
    listening.serve([shared])
    rest = await shared.receive()
    assert source.frames == []
    # Each hop once: those of ten seconds, less what is not yet a window.
    assert (len(first) + len(rest)) == 10 * vad.sample_rate // vad.window


async def test_audio_waits_for_the_next_round_only_while_idle() -> None:
    rounds = Rounds()
    shared = listener(Source(), SharedLoudVad(), rounds)
    seen = []
    for idle in (True, False):
        shared.idle = idle
        shared.notify()
        seen.append((shared.waiting, rounds.awake))
    assert seen == [(False, False), (True, True)]
    listening.serve([shared])
    assert not shared.waiting


async def test_rounds_are_longer_while_all_conversations_are_idle() -> None:
    periods: list[float] = []
    rounds: Any = Rounds()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listening, "_ROUND_S", 1.0)
        patch.setattr(listening, "_IDLE_ROUND_S", 4.0)
        members = [listener(Source(), SharedLoudVad(), rounds) for _ in range(2)]
        for idle in ((True, True), (True, False), (False, False)):
            for member, value in zip(members, idle, strict=True):
                member.idle = value
            periods.append(listening.round_period(members))
    assert periods == [4.0, 1.0, 1.0]


async def test_long_backlog_is_processed_in_parts_without_waiting() -> None:
    class Endless(Source):
        def drain(self, limit: float, silence: bool) -> list[AudioFrame]:
            return [AudioFrame(24_000, np.zeros((1, round(limit * 24_000)), np.int16))]

    rounds = Rounds()
    shared = listener(Endless(), SharedLoudVad(), rounds)
    shared.idle = True
    listening.serve([shared])
    assert shared.waiting
    assert rounds.awake


async def test_windows_of_all_conversations_are_one_call_of_the_detector() -> None:
    vad, rounds = SharedLoudVad(), Rounds()
    sources = [Source() for _ in range(20)]
    members = [listener(source, vad) for source in sources]
    for member in members:
        member.idle = True
    for count, source in enumerate(sources):
        source.frames.append(AudioFrame(24_000, np.zeros((1, 1000 * (count % 3)), np.int16)))
    listening.serve(members)
    # 5 of the first 16 conversations have one window, and 5 have two.
    assert vad.batches == [10, 5, 3, 1]
    assert rounds.members == []


async def test_shared_listening_detects_a_muted_user_and_barge_in() -> None:
    """Silence that is not sent ends speech, and speech interrupts a reply."""
    log = Log()
    rounds = Rounds()
    with shared_listening(rounds):
        handler = agent(answering(2), on_event=log, model=SharedLoudVad())
        async with create_task_group() as tasks, open_call(handler) as call:
            tasks.start_soon(rounds.run)
            await say(call, silence(0.5), voice(1))
            await anyio.sleep(2)
            await say(call, voice(1), silence(2))
            tasks.cancel_scope.cancel()
    assert log.kinds == [
        *("UserStartedSpeaking", "UserStoppedSpeaking", "ReplyStarted"),
        *("UserStartedSpeaking", "ReplyInterrupted", "UserStoppedSpeaking", "ReplyStarted"),
    ]
    first, second = log.of(UserStartedSpeaking)
    assert first.at == pytest.approx(0.5 + 0.2, abs=0.07)
    assert log.of(ReplyStarted)[0].at == pytest.approx(1.5 + 0.5, abs=0.2)
    assert second.at == pytest.approx(3.5 + 0.1, abs=0.07)


async def test_shared_listening_hears_the_end_of_speech_while_a_stop_word_is_searched() -> None:
    """The search takes longer than the pause, and the client sends no silence."""
    log, rounds = Log(), Rounds()
    with shared_listening(rounds):
        handler = slow_search(SharedLoudVad(), log)
        async with create_task_group() as tasks, open_call(handler) as call:
            tasks.start_soon(rounds.run)
            await say(call, voice(1.5))
            await anyio.sleep(4)
            tasks.cancel_scope.cancel()
    assert log.of(ReplyStarted)


def test_conversations_of_several_event_loops_come_and_go() -> None:
    """In real time, with the real thread, which has ended at the end."""
    vad = get_silero_model()
    failures: list[BaseException] = []

    async def converse(seed: int) -> None:
        samples = speech_like(RATE, 0.4 + seed % 3 / 10, seed=seed)
        alone = vad.new_stream()
        expected = [
            alone.probability(samples[:, place : place + 512])
            for place in range(0, samples.shape[1] - 511, 512)
        ]
        source = Source()
        heard: list[float] = []
        with open_shared_listener(source, RATE, vad, 0.5) as shared:
            for place in range(0, samples.shape[1], 320):
                shared.idle = (seed + place // 320) % 5 > 1
                source.frames.append(AudioFrame(RATE, samples[:, place : place + 320]))
                assert source.notify is not None
                source.notify()
                await anyio.sleep(0.002)
            if seed % 4 == 0:
                return  # in the middle of its audio
            shared.idle = False
            with anyio.fail_after(20):
                while len(heard) < len(expected):
                    heard += [probability for _, probability in await shared.receive()]
        assert heard == pytest.approx(expected, abs=1e-5)

    async def serve(first: int) -> None:
        async with create_task_group() as tasks:
            for seed in range(first, first + 6):
                tasks.start_soon(converse, seed)
                await anyio.sleep(0.02)

    def run(backend: str, first: int) -> None:
        try:
            anyio.run(serve, first, backend=backend)
        except BaseException as exc:
            failures.append(exc)

    threads = [
        threading.Thread(target=run, args=(backend, first))
        for first, backend in enumerate(["trio", "asyncio", "trio"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    deadline = time.monotonic() + 10
    while any(thread.name == "fastrtc-listening" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def test_session_function_reads_drainable_audio() -> None:
    heard = 0

    async def listen(session: Session) -> None:
        nonlocal heard
        async for frame in session.audio_in:
            heard += frame.samples.shape[1]

    with shared_listening(Rounds()):
        async with open_call(listen) as call:
            await say(call, voice(1))
    assert heard == RATE
