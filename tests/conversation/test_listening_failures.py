"""A failure while the shared thread listens ends the conversations that it concerns, no other."""

from __future__ import annotations

from typing import Any

import anyio
import numpy as np
import pytest
from anyio import create_task_group

from fastrtc_anyio import AudioFrame, CloseReason
from fastrtc_anyio._driver import listening
from fastrtc_anyio._driver.listening import SharedListener
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio.errors import UnsupportedFormat
from fastrtc_anyio.testing import open_call
from tests.kit.conversations import (
    agent,
    answering,
    say,
    silence,
    voice,
)
from tests.kit.listening import Rounds, SharedLoudVad, Source, listener, shared_listening


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
                await say(call, silence(0.5), voice(0.5), silence(1))
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
