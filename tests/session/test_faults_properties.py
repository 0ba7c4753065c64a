"""A fault at any checkpoint, or any faulty link, ends the session and leaves no resources."""

from __future__ import annotations

import threading
import time
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio import (
    AdditionalOutputs,
    AsyncAudioVideoStreamHandler,
    AudioFrame,
    EmitType,
    Session,
    SessionState,
    StreamHandler,
    VideoEmitType,
)
from fastrtc_anyio.testing import LinkFaults, inject_fault, open_call
from fastrtc_anyio.testing.strategies import HangUp, hang_ups, link_faults

PICTURE = np.full((8, 8, 3), 90, np.uint8)


class Injected(Exception):
    pass


class FullHandler(AsyncAudioVideoStreamHandler):
    """An async handler that uses media both ways, messages, outputs and the shutdown method."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = 0
        self.audio: list[Any] = []
        self.pictures: list[Any] = []

    async def start_up(self) -> None:
        await self.send_message("hello")
        await self.wait_for_args()

    async def receive(self, frame: Any) -> None:
        self.audio.append(frame)

    async def emit(self) -> EmitType:
        return (self.audio.pop(), AdditionalOutputs(1)) if self.audio else None

    async def video_receive(self, frame: Any) -> None:
        self.pictures.append(frame)
        await anyio.sleep(0.01)

    async def video_emit(self) -> VideoEmitType:
        return self.pictures.pop() if self.pictures else None

    async def on_message(self, message: str) -> None:
        await self.send_message(message)
        self.clear_queue()

    async def shutdown(self) -> None:
        self.ends += 1
        await anyio.sleep(0.01)

    def copy(self) -> FullHandler:
        return FullHandler()


class SyncHandler(StreamHandler):
    def __init__(self) -> None:
        super().__init__()
        self.ends = 0
        self.audio: list[Any] = []

    def receive(self, frame: Any) -> None:
        self.audio.append(frame)

    def emit(self) -> EmitType:
        return self.audio.pop() if self.audio else None

    def shutdown(self) -> None:
        self.ends += 1

    def copy(self) -> SyncHandler:
        return SyncHandler()


async def session_function(session: Session) -> None:
    async with anyio.create_task_group() as tg:

        async def echo() -> None:
            async for frame in session.audio_in:
                await session.audio_out.send(frame)

        async def answer() -> None:
            while True:
                session.messages.send_nowait(await session.messages.receive())

        tg.start_soon(echo)
        tg.start_soon(answer)


async def pictures(frame: Any) -> Any:
    await anyio.sleep(0.001)
    return frame


async def generate() -> Any:
    for _ in range(5):
        yield (24_000, np.ones(480, np.int16))


def options(kind: Any) -> dict[str, Any]:
    return {pictures: {"modality": "video"}, generate: {"mode": "receive"}}.get(kind, {})


def handler_threads(kind: Any) -> set[str]:
    """Names of the running threads of handlers of this kind."""
    names = (kind.__name__, "VideoStreamHandler.", "GeneratorHandler.")
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(names)}


def wait_for_threads_of(kind: Any) -> None:
    """Wait up to 10 s of real time until the handler's threads have ended."""
    deadline = time.monotonic() + 10
    while handler_threads(kind) and time.monotonic() < deadline:
        time.sleep(0.001)


async def talk(call: Any, media: Any) -> None:
    for i in range(4):
        if media.audio_in:
            call.client.send_audio(AudioFrame(48_000, np.full((1, 960), i, np.int16)))
        if media.video_in:
            call.client.send_video(PICTURE)
        call.client.send_message("word")
        await anyio.sleep(0.02)


def check_accounts(session: Session, heard: int) -> None:
    now = session.statistics()
    if now.audio_in is not None:
        received = now.audio_in
        read = heard + received.dropped + received.buffered
        assert received.received + received.silent == read
    if now.audio_out is not None:
        out = now.audio_out
        assert out.sent == out.played + out.flushed + out.trimmed + out.buffered
    if now.video_out is not None:
        shown = now.video_out
        assert shown.sent == shown.played + shown.flushed + shown.buffered


def count_received(call: Any) -> list[AudioFrame]:
    """Return a list that grows by each audio frame the handler receives."""
    frames: list[AudioFrame] = []
    receive = call.peer.audio_in.receive

    async def noted() -> AudioFrame:
        frame: AudioFrame = await receive()
        frames.append(frame)
        return frame

    call.peer.audio_in.receive = noted
    return frames


@pytest.mark.parametrize("kind", [FullHandler, SyncHandler, session_function, pictures, generate])
@pytest.mark.parametrize("fails", [True, False], ids=["error", "cancel"])
async def test_fault_at_any_checkpoint_closes_session_and_threads(
    kind: Any, fails: bool, anyio_backend_name: str
) -> None:
    """Errors at odd checkpoints under asyncio, even ones under trio; cancellation at the others."""
    reached, at = True, -1 if (anyio_backend_name == "asyncio") is fails else 0
    while reached:
        at += 2
        handler = kind() if isinstance(kind, type) else kind
        session: Session | None = None
        frames: list[AudioFrame] = []
        # A new error for each run: its traceback and notes grow with every raise.
        with inject_fault(at, Injected("here") if fails else None) as fault:
            try:
                async with open_call(handler, raise_errors=False, **options(kind)) as call:
                    session, frames = call.session, count_received(call)
                    await talk(call, session.media)
            except* Injected:  # raised in a task of the call, not of the session
                pass
        reached = fault.reached
        assert session is not None, fault.where
        assert session.state is SessionState.CLOSED, fault.where
        assert session.closed is not None, fault.where
        if isinstance(kind, type) and "SessionLife._shut_down" not in str(fault.where):
            assert handler.ends == 1, fault.where
        check_accounts(session, len(frames))
        assert session.abandoned_threads == 0
    assert at > 10
    wait_for_threads_of(kind)
    assert handler_threads(kind) == set()


@settings(max_examples=60)
@given(
    link_faults(),
    link_faults(),
    hang_ups(2.0),
    st.sampled_from([FullHandler, SyncHandler, session_function]),
)
async def test_call_over_faulty_link_ends_and_accounts_for_all_media(
    up: LinkFaults, down: LinkFaults, leaving: HangUp, kind: Any
) -> None:
    handler = kind() if isinstance(kind, type) else kind
    async with open_call(handler, uplink=up, downlink=down, raise_errors=False) as call:
        frames = count_received(call)
        async with anyio.create_task_group() as tg:
            for _ in range(3):
                tg.start_soon(talk, call, call.session.media)
            await anyio.sleep(leaving.after)
            call.client.hang_up(leaving.reason)
            await call.ended.wait()
    assert call.session.state is SessionState.CLOSED
    assert call.session.error is None
    if isinstance(kind, type):
        assert handler.ends == 1
    check_accounts(call.session, len(frames))
