"""Clients that have little to say are kept, and leave nothing behind either."""

from __future__ import annotations

from typing import Any

import anyio
import numpy as np
import pytest
from anyio import to_thread

from fastrtc_anyio import CloseReason, Limits, Stream
from fastrtc_anyio._media.media_plan import MediaPlan
from fastrtc_anyio._peers.portal import Portal, open_portal
from fastrtc_anyio._peers.webrtc import WebRTCPeer
from fastrtc_anyio._signaling.requests import SessionDescription
from tests.kit.calls import LOOPBACK, make_stream, place_call
from tests.kit.waiting import wait_until

from .test_nothing_left import native_threads, no_garbage_collection, open_files
from .test_video import flat, swap

__all__ = ["no_garbage_collection"]


async def tone_for_ever() -> Any:
    while True:
        yield (24_000, np.full((1, 480), 900, np.int16))


async def test_a_client_that_only_listens_stays_alive_and_is_missed() -> None:
    stream = make_stream(tone_for_ever, mode="receive", limits=Limits(liveness=1.0))
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


async def test_a_client_that_only_speaks() -> None:
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


async def one_video_call(stream: Stream, portal: Portal) -> None:
    """By our own peer: plain aiortc leaves native threads to the garbage collector."""
    plan = MediaPlan(False, False, True, True)
    peer = WebRTCPeer(portal, media=plan, configuration=LOOPBACK)
    offer = await peer.offer()
    answer = await stream.offer({"type": "offer", "sdp": offer.sdp})
    await peer.accept(SessionDescription("answer", answer["sdp"]))
    with anyio.fail_after(10):
        await peer.wait_connected()
        async with anyio.create_task_group() as tg:

            async def film() -> None:
                from fastrtc_anyio import VideoFrame

                while True:
                    await peer.video_out.send(VideoFrame(flat((255, 0, 0))))

            tg.start_soon(film)
            async for frame in peer.video_in:
                if frame.to_ndarray()[100, 100, 2] > 200:  # blue made red
                    tg.cancel_scope.cancel()
                    break
    await peer.aclose()
    await wait_until(lambda: not stream.sessions)


@pytest.mark.usefixtures("no_garbage_collection")
async def test_video_calls_leave_no_thread_or_file() -> None:
    async with open_portal() as portal, make_stream(swap, modality="video") as stream:
        await one_video_call(stream, portal)
        before = native_threads(), open_files()
        for _ in range(3):
            await one_video_call(stream, portal)
        await wait_until(lambda: (native_threads(), open_files()) <= before)
