"""A conversation over UDP: speech, a reply, barge-in and the next reply."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import (
    AlgoOptions,
    AudioFrame,
    EnergyVad,
    ReplyInterrupted,
    ReplyOnPause,
    ReplyStarted,
    note_speech,
    run_sync,
)
from fastrtc_anyio.testing import tone
from tests.kit.aiortc_client import AiortcClient
from tests.kit.calls import make_stream, place_call, receive_json
from tests.kit.conversations import Log, LoudVad, words
from tests.kit.waiting import SECONDS, wait_until

VOICE = tone(300, 48_000, 0.4)


def talk(client: AiortcClient) -> None:
    for start in range(0, VOICE.shape[1], 960):
        client.send_audio(AudioFrame(48_000, VOICE[:, start : start + 960]))


async def hear(client: AiortcClient, sound: bool, frames: int) -> None:
    """Wait until the client has received ``frames`` consecutive frames of sound, or of silence."""
    found = 0
    with anyio.fail_after(SECONDS):
        while found < frames:
            frame = await client.receive_audio()
            found = found + 1 if (np.abs(frame.samples).max() > 500) == sound else 0


def listening_threads() -> int:
    return sum(thread.name == "fastrtc-listening" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("vad", "listeners"),
    [(LoudVad, 0), (EnergyVad, 1)],
    ids=["own-listening", "shared-listening"],
)
async def test_reply_and_barge_in_over_udp(vad: Any, listeners: int) -> None:
    log = Log()
    ended: list[str] = []
    said: list[Any] = []

    async def reply(audio: tuple[int, Any]) -> AsyncGenerator[Any, None]:
        said.append(audio)
        try:
            yield words(60)
            await anyio.sleep_forever()
        finally:
            ended.append("finally")

    handler = ReplyOnPause(
        reply, model=vad(), algo_options=AlgoOptions(0.4, 0.1, 0.05), on_event=log
    )
    stream = make_stream(handler)
    async with stream, place_call(stream) as client:
        # The first sound counts as noise for `EnergyVad`: it must be silence, which the client
        # sends before it talks. Packets from before the end of the handshake are lost.
        (session,) = stream.sessions.values()
        await wait_until(lambda: session.audio_in.statistics().received > 5, "silence")
        talk(client)
        await hear(client, True, 25)
        assert ended == []
        assert listening_threads() == listeners
        talk(client)
        # Silence while the client talks, then the reply to that.
        await hear(client, False, 10)
        await hear(client, True, 25)
        client.hang_up()
        await wait_until(lambda: len(ended) == 2)
    await wait_until(lambda: not listening_threads(), "the end of the thread that listens")
    assert [event.reply for event in log.of(ReplyStarted)] == [1, 2]
    (interrupted,) = log.of(ReplyInterrupted)
    assert 0.4 < interrupted.played.seconds < SECONDS
    assert [rate for rate, _ in said] == [48_000, 48_000]
    assert all(0.3 < samples.shape[1] / 48_000 < 1.5 for _, samples in said)


async def test_client_receives_captions_and_the_transcript() -> None:
    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        for text in ("One two.", "Three four."):
            note_speech(text, 0.5)
            yield words(0.5)

    handler = ReplyOnPause(reply, model=LoudVad(), algo_options=AlgoOptions(0.4, 0.1, 0.05))
    stream = make_stream(handler)
    async with stream, place_call(stream) as client:
        (session,) = stream.sessions.values()
        await wait_until(lambda: session.audio_in.statistics().received > 5, "silence")
        talk(client)
        received = [(await receive_json(client, "transcript"))["data"] for _ in range(3)]
        await run_sync(session.send_transcript, "user", "Go on.")
        received.append((await receive_json(client, "transcript"))["data"])
    assert [message["text"] for message in received] == [
        "One two.",
        "One two. Three four.",
        "One two. Three four.",
        "Go on.",
    ]
    assert [message["id"] for message in received] == ["reply-1"] * 3 + ["said-1"]
    assert [message["final"] for message in received] == [False, False, True, True]
    assert [(entry.role, entry.text) for entry in session.transcript] == [
        ("assistant", "One two. Three four."),
        ("user", "Go on."),
    ]
