"""Vanished clients are detected; clients that send little are kept."""

from __future__ import annotations

from typing import Any

import anyio
import numpy as np
from anyio import to_thread

from fastrtc_anyio import CloseReason, Limits
from tests.kit.calls import make_stream, place_call
from tests.kit.handlers import AsyncEcho
from tests.kit.waiting import wait_until


async def endless_tone() -> Any:
    while True:
        yield (24_000, np.full((1, 480), 900, np.int16))


async def test_recvonly_client_stays_alive_and_is_closed_when_it_vanishes() -> None:
    stream = make_stream(endless_tone, mode="receive", limits=Limits(liveness=1.0))
    async with stream, place_call(stream, audio="recvonly") as client:
        assert "a=sendonly" in client.answer["sdp"]
        (session,) = stream.sessions.values()
        seconds = 0.0
        while seconds < 3:
            seconds += (await client.receive_audio()).duration
        assert stream.sessions
        await to_thread.run_sync(client.run, client.vanish)
        began = anyio.current_time()
        await wait_until(lambda: not stream.sessions)
        assert anyio.current_time() - began < 1.0 + 1
    assert session.closed is not None
    assert session.closed.reason is CloseReason.VANISHED


async def test_receive_only_stream_hears_client() -> None:
    heard: list[Any] = []

    async def listen(session: Any) -> None:
        async for frame in session.audio_in:
            heard.append(frame)
            session.messages.send_nowait("I heard you")

    stream = make_stream(listen, mode="send")
    async with stream, place_call(stream, audio="sendrecv") as client:
        assert "a=recvonly" in client.answer["sdp"]
        assert await client.receive_message() == "I heard you"
    assert heard


async def test_vanished_client_is_closed_within_liveness_limit() -> None:
    stream = make_stream(AsyncEcho(), limits=Limits(liveness=1.5))
    async with stream, place_call(stream) as client:
        (session,) = stream.sessions.values()
        await to_thread.run_sync(client.run, client.vanish)
        began = anyio.current_time()
        await wait_until(lambda: not stream.sessions)
        # aiortc alone would take 25 s or more.
        assert anyio.current_time() - began < 10
    assert session.closed is not None
    assert session.closed.reason is CloseReason.VANISHED


async def test_client_that_answers_only_stun_stays_alive() -> None:
    stream = make_stream(AsyncEcho(), limits=Limits(liveness=1.0))
    async with stream, place_call(stream) as client:
        for transceiver in client.pc.getTransceivers():
            # No RTP and no RTCP: like a muted, hidden page it answers STUN only.
            await to_thread.run_sync(client.run, transceiver.sender.stop)
            await to_thread.run_sync(client.run, transceiver.receiver.stop)
        await anyio.sleep(3)
        assert len(stream.sessions) == 1
