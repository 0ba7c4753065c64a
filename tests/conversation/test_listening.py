"""Listening by the thread of all conversations: the same as a conversation's own listening.

In virtual time, `Rounds` takes the place of the thread: it works on the event loop, at given times.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import anyio
import numpy as np
import pytest
from anyio import create_task_group
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio import AlgoOptions, AudioFrame, CloseReason, Session
from fastrtc_anyio._driver import conversation, listening
from fastrtc_anyio._driver.listening import Listener, SharedListener, open_shared_listener
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._peers import memory
from fastrtc_anyio._peers.streams.drain import DrainableAudioInput
from fastrtc_anyio.conversation.events import ReplyStarted, UserStartedSpeaking
from fastrtc_anyio.errors import UnsupportedFormat
from fastrtc_anyio.speech.energy import EnergyVad
from fastrtc_anyio.speech.silero import get_silero_model
from fastrtc_anyio.testing import Call, open_call, speech_like
from tests.kit.conversations import RATE, Log, LoudVad, agent, answering, nothing, silence, voice

from .test_conversation_properties import SIZES, talks

QUICK = AlgoOptions(0.2, 0.06, 0.04, interrupt_threshold=0.06)


class SharedLoudVad(LoudVad):
    """A `LoudVad` for the shared thread."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def probabilities(
        self, streams: Sequence[LoudVad], windows: Sequence[Int16Array]
    ) -> list[float]:
        self.batches.append(len(streams))
        return [self.probability(window) for window in windows]


class Rounds:
    """The shared thread's work, done on the event loop in virtual time."""

    def __init__(self, delays: Sequence[float] = (0.032,)) -> None:
        self.members: list[SharedListener] = []
        self._delays = cycle(delays)
        self.awake = False

    def add(self, member: SharedListener) -> None:
        self.members.append(member)

    def remove(self, member: SharedListener) -> None:
        if member in self.members:
            self.members.remove(member)

    def wake(self) -> None:
        self.awake = True

    async def run(self) -> None:
        """Serve all members after each delay, and after a quarter of it those that wait."""
        for delay in self._delays:
            for _ in range(4):
                await anyio.sleep(delay / 4)
                if self.awake:
                    self.awake = False
                    listening.serve([member for member in self.members if member.waiting])
            listening.serve(list(self.members))


@contextmanager
def shared_listening(rounds: Rounds) -> Generator[None, None, None]:
    """Have the conversations of calls in memory listened to by `rounds`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listening, "_SHARED", (SharedLoudVad, EnergyVad))
        patch.setattr(listening, "_thread", rounds)
        patch.setattr(memory, "AudioInput", DrainableAudioInput)
        patch.setattr(conversation, "_AFTER_SPEECH_S", 0.1)  # idle soon
        yield


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
        place = 0
        for count in cycle(sizes):
            if place >= audio.shape[1]:
                break
            call.client.send_audio(AudioFrame(RATE, audio[:, place : place + count]))
            place += count
            await anyio.sleep(count / RATE)
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


class Source:
    """Audio that a test hands out."""

    def __init__(self) -> None:
        self.frames: list[AudioFrame] = []
        self.error: Exception | None = None
        self.notify: Callable[[], object] | None = None

    def set_notify(self, notify: Callable[[], object] | None) -> None:
        self.notify = notify

    def drain(self, limit: float, silence: bool) -> list[AudioFrame]:
        if self.error is not None:
            raise self.error
        frames, self.frames = self.frames, []
        return frames


def listener(source: Source, vad: Any, rounds: Rounds | None = None) -> SharedListener:
    thread: Any = rounds or Rounds()
    made = SharedListener(thread, source, Listener(24_000, vad), 0.5)
    thread.add(made)
    return made


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


async def test_error_in_one_conversation_ends_that_conversation() -> None:
    rounds, vad = Rounds(), SharedLoudVad()
    broken, intact = Source(), Source()
    members = [listener(source, vad, rounds) for source in (broken, intact)]
    broken.error = UnsupportedFormat("strange audio")
    intact.frames.append(AudioFrame(24_000, np.zeros((1, 1000), np.int16)))
    listening.serve(members)
    with pytest.raises(UnsupportedFormat, match="strange audio"):
        await members[0].receive()
    assert len(await members[1].receive()) == 1
    assert rounds.members == [members[1]]


async def test_error_of_the_detector_ends_its_conversations() -> None:
    class Broken(SharedLoudVad):
        def probabilities(self, streams: Any, windows: Any) -> list[float]:
            raise MemoryError

    rounds = Rounds()
    sources = [Source(), Source(), Source()]
    broken = Broken()
    members = [
        listener(source, vad, rounds)
        for source, vad in zip(sources, (broken, broken, SharedLoudVad()), strict=True)
    ]
    for source in sources:
        source.frames.append(AudioFrame(24_000, np.zeros((1, 1000), np.int16)))
    listening.serve(members)
    for member in members[:2]:
        with pytest.raises(MemoryError):
            await member.receive()
    assert len(await members[2].receive()) == 1


class PickyVad(SharedLoudVad):
    """A `SharedLoudVad` that fails for loud windows."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self._error = error

    def probability(self, window: Int16Array) -> float:
        if super().probability(window):
            raise self._error
        return 0.0


@pytest.mark.parametrize("error", [MemoryError, SystemExit])
async def test_error_of_the_detector_for_one_speaker_ends_that_conversation(
    error: type[BaseException],
) -> None:
    rounds, vad = Rounds(), PickyVad(error)
    sources = [Source() for _ in range(3)]
    members = [listener(source, vad, rounds) for source in sources]
    for source, value in zip(sources, (0, 8000, 0), strict=True):
        source.frames.append(AudioFrame(24_000, np.full((1, 2000), value, np.int16)))
    listening.serve(members)
    with pytest.raises(Exception, match=r"^$|SystemExit was raised while listening") as caught:
        await members[1].receive()
    assert error in (type(caught.value), type(caught.value.__cause__))
    for member in (members[0], members[2]):
        assert [probability for _, probability in await member.receive()] == [0, 0]
    assert rounds.members == [members[0], members[2]]


async def test_session_ends_with_the_error_of_the_detector() -> None:
    rounds = Rounds()
    with shared_listening(rounds), pytest.MonkeyPatch.context() as patch:
        patch.setattr(listening, "_SHARED", (PickyVad,))
        handler = agent(answering(1), model=PickyVad(SystemExit))
        async with create_task_group() as tasks:
            tasks.start_soon(rounds.run)
            async with open_call(handler, raise_errors=False) as call:
                await speak(call, silence(0.5), voice(0.5), silence(1))
            tasks.cancel_scope.cancel()
    assert str(call.session.error) == "SystemExit was raised while listening"
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_ERROR


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_conversation_of_an_ended_event_loop_disturbs_no_other(backend: str) -> None:
    rounds, vad = Rounds(), SharedLoudVad()
    sources = [Source(), Source()]

    async def begin() -> SharedListener:
        return listener(sources[0], vad, rounds)

    async def go_on() -> None:
        members = [ended, listener(sources[1], vad, rounds)]
        for source in sources:
            source.frames.append(AudioFrame(24_000, np.zeros((1, 1000), np.int16)))
        ended._change = anyio.Event()  # its session was waiting
        listening.serve(members)
        assert len(await members[1].receive()) == 1

    ended = anyio.run(begin, backend=backend)
    anyio.run(go_on, backend=backend)


async def test_shared_listening_detects_a_muted_user_and_barge_in() -> None:
    """Silence that is not sent ends speech, and speech interrupts a reply."""
    log = Log()
    rounds = Rounds()
    with shared_listening(rounds):
        handler = agent(answering(2), on_event=log, model=SharedLoudVad())
        async with create_task_group() as tasks, open_call(handler) as call:
            tasks.start_soon(rounds.run)
            await speak(call, silence(0.5), voice(1))
            await anyio.sleep(2)
            await speak(call, voice(1), silence(2))
            tasks.cancel_scope.cancel()
    assert log.kinds == [
        *("UserStartedSpeaking", "UserStoppedSpeaking", "ReplyStarted"),
        *("UserStartedSpeaking", "ReplyInterrupted", "UserStoppedSpeaking", "ReplyStarted"),
    ]
    first, second = log.of(UserStartedSpeaking)
    assert first.at == pytest.approx(0.5 + 0.2, abs=0.07)
    assert log.of(ReplyStarted)[0].at == pytest.approx(1.5 + 0.5, abs=0.2)
    assert second.at == pytest.approx(3.5 + 0.1, abs=0.07)


async def speak(call: Call, *parts: Int16Array) -> None:
    await call.speak(np.concatenate(parts, axis=1), RATE)


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
            await speak(call, voice(1))
    assert heard == RATE
