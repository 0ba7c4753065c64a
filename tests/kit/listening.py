"""Shared listening on virtual time: `Rounds` does the work of the thread on the event loop."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import anyio
import pytest

from fastrtc_anyio import AudioFrame
from fastrtc_anyio._driver import conversation, listening
from fastrtc_anyio._driver.listening import Listener, SharedListener
from fastrtc_anyio._media.frames import Int16Array
from fastrtc_anyio._peers import memory
from fastrtc_anyio._peers.streams.drain import DrainableAudioInput
from fastrtc_anyio.speech.energy import EnergyVad
from tests.kit.conversations import LoudVad


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
