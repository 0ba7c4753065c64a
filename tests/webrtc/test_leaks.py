"""Ended calls leave no thread, task or file, and a process can always end."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest

from fastrtc_anyio import AudioFrame, Limits, Stream, VideoFrame
from fastrtc_anyio._media.media_plan import MediaPlan
from fastrtc_anyio._peers.portal import Portal, open_portal
from fastrtc_anyio._peers.webrtc import WebRTCPeer
from fastrtc_anyio._signaling.requests import SessionDescription
from fastrtc_anyio.testing import tone
from tests.kit.calls import LOOPBACK, make_stream
from tests.kit.handlers import AsyncEcho, Echo
from tests.kit.waiting import wait_until

from .test_video import flat, swap


async def call_with_audio(stream: Stream, portal: Portal) -> None:
    """Call with our peer: plain aiortc leaves native threads to the garbage collector."""
    peer = WebRTCPeer(portal, sample_rate=16_000, configuration=LOOPBACK)
    offer = await peer.offer()
    answer = await stream.offer({"type": "offer", "sdp": offer.sdp})
    await peer.accept(SessionDescription("answer", answer["sdp"]))
    with anyio.fail_after(10):
        await peer.wait_connected()
        rate = peer.audio_out.sample_rate
        await peer.audio_out.send((rate, tone(440, rate, 0.2)))
        heard: list[AudioFrame] = []
        while not any(abs(frame.samples).max() > 1000 for frame in heard):
            heard.append(await peer.audio_in.receive())
        # The threads of aiortc's decoders, which audio does not use.
        await wait_until(lambda: "audio-decoder" not in thread_names())
    await peer.aclose()
    await wait_until(lambda: not stream.sessions)


def native_threads() -> int:
    """Number of threads without the portal's workers, which start when they are first needed."""
    workers = sum(name.startswith("fastrtc-portal_") for name in thread_names())
    return len(os.listdir("/proc/self/task")) - workers


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def thread_names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.parametrize("kind", [Echo, AsyncEcho])
async def test_calls_leak_no_thread_task_or_file(kind: Any) -> None:
    async with open_portal() as portal, make_stream(kind(output_sample_rate=22_050)) as stream:
        await call_with_audio(stream, portal)

        async def tasks() -> int:
            return len(asyncio.all_tasks())

        threads, files, running = native_threads(), open_files(), await portal.call(tasks)
        for _ in range(3):
            await call_with_audio(stream, portal)
        # A thread needs a moment to end after its last action. One of an earlier test may have
        # ended meanwhile, so there may be fewer.
        await wait_until(lambda: native_threads() <= threads, "no more threads than before")
        await wait_until(lambda: open_files() <= files, "no more files than before")
        assert await portal.call(tasks) == running


PARTS = {
    "OpenSSL.SSL.Connection",
    "OpenSSL.SSL.Context",
    "OpenSSL.SSL._VerifyHelper",
    "aioice.ice.CandidatePair",
    "aioice.ice.Connection",
    "aioice.ice.StunProtocol",
    "aiortc.rtcdatachannel.RTCDataChannel",
    "aiortc.rtcdtlstransport.RTCDtlsTransport",
    "aiortc.rtcicetransport.RTCIceTransport",
    "aiortc.rtcpeerconnection.RTCPeerConnection",
    "aiortc.rtcrtpreceiver.RTCRtpReceiver",
    "aiortc.rtcrtpsender.RTCRtpSender",
    "aiortc.rtcsctptransport.RTCSctpTransport",
    "fastrtc_anyio._peers.webrtc.audio.AudioTap",
    "fastrtc_anyio._peers.webrtc.ice_path.IcePath",
    "fastrtc_anyio._peers.webrtc.sending.AudioSender",
    "fastrtc_anyio._peers.webrtc.ticks.Registration",
    "pylibsrtp.Session",
}
"""Names of classes whose objects belong to one connection."""


def parts_in_memory() -> dict[str, int]:
    """Number of objects of each class in :data:`PARTS`, including those that are garbage."""
    kinds = (type(one) for one in gc.get_objects())
    return Counter(
        name for kind in kinds if (name := f"{kind.__module__}.{kind.__qualname__}") in PARTS
    )


@pytest.mark.usefixtures("no_garbage_collection")
async def test_closed_calls_leave_no_garbage() -> None:
    async with open_portal() as portal, make_stream(AsyncEcho()) as stream:
        before = parts_in_memory()
        for _ in range(2):
            await call_with_audio(stream, portal)
        await wait_until(lambda: parts_in_memory() == before, "the memory of the calls is free")


@pytest.mark.usefixtures("no_garbage_collection")
async def test_peer_that_never_connected_leaves_no_garbage() -> None:
    async with open_portal() as portal:
        before = parts_in_memory()
        peer = WebRTCPeer(portal, configuration=LOOPBACK)
        await peer.offer()
        await peer.aclose()
        await wait_until(lambda: parts_in_memory() == before, "the memory of the peer is free")


@pytest.mark.usefixtures("no_garbage_collection")
async def test_clients_that_never_connect_leave_no_garbage() -> None:
    limits = Limits(connect=0.3)
    async with open_portal() as portal, make_stream(AsyncEcho(), limits=limits) as stream:
        client = WebRTCPeer(portal, configuration=LOOPBACK)
        offer = await client.offer()
        await client.aclose()
        before = parts_in_memory()
        for _ in range(2):
            await stream.offer({"type": "offer", "sdp": offer.sdp})
        await wait_until(lambda: not stream.sessions)
        await wait_until(lambda: parts_in_memory() == before, "the memory of the calls is free")


async def test_text_of_an_answered_offer_is_free() -> None:
    def count_texts() -> int:
        objects = gc.get_objects()
        return sum(isinstance(one, SessionDescription) and one.sdp == text for one in objects)

    async with open_portal() as portal, make_stream(AsyncEcho()) as stream:
        client = WebRTCPeer(portal, configuration=LOOPBACK)
        text = (await client.offer()).sdp + "a=unknown:1\r\n"
        await stream.offer({"type": "offer", "sdp": text})
        await wait_until(lambda: count_texts() == 0, "the text of the offer is free")
        assert stream.sessions
        await client.aclose()


@pytest.mark.usefixtures("no_garbage_collection")
async def test_closed_stream_leaves_no_portal_thread() -> None:
    async with make_stream(AsyncEcho):
        pass
    before = open_files()
    async with make_stream(AsyncEcho):
        assert "fastrtc-portal" in thread_names()
    assert "fastrtc-portal" not in thread_names()
    # The thread that joined it needs a moment to end.
    await wait_until(lambda: "fastrtc-portal-join" not in thread_names())
    await wait_until(lambda: open_files() <= before, "no more files than before")


BLOCKED = """
    import queue, sys
    import anyio
    from fastrtc_anyio import Limits, StreamHandler
    from fastrtc_anyio._peers.portal import open_portal
    from tests.kit.calls import make_stream, place_call

    class Blocked(StreamHandler):
        def receive(self, frame): pass
        def emit(self): return queue.Queue().get()
        def copy(self): return Blocked()

    async def main():
        stream = make_stream(Blocked(), limits=Limits(shutdown=0.3))
        async with stream:
            async with place_call(stream):
                pass
            with anyio.fail_after(10):
                while stream.sessions:
                    await anyio.sleep(0.01)
        print("over")

    anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_process_ends_despite_blocked_handler(backend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BLOCKED), backend],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "over\n"
    assert "1 threads did not return" in done.stderr


async def call_with_video(stream: Stream, portal: Portal) -> None:
    """Call with our peer: plain aiortc leaves native threads to the garbage collector."""
    plan = MediaPlan(False, False, True, True)
    peer = WebRTCPeer(portal, media=plan, configuration=LOOPBACK)
    offer = await peer.offer()
    answer = await stream.offer({"type": "offer", "sdp": offer.sdp})
    await peer.accept(SessionDescription("answer", answer["sdp"]))
    with anyio.fail_after(10):
        await peer.wait_connected()
        async with anyio.create_task_group() as tg:

            async def film() -> None:
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
async def test_video_calls_leak_no_thread_or_file() -> None:
    async with open_portal() as portal, make_stream(swap, modality="video") as stream:
        await call_with_video(stream, portal)
        threads, files = native_threads(), open_files()
        for _ in range(3):
            await call_with_video(stream, portal)
        await wait_until(lambda: native_threads() <= threads, "no more threads than before")
        await wait_until(lambda: open_files() <= files, "no more files than before")
