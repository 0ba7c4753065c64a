"""Defects of FastRTC 0.0.34 that need blocked threads or a network; D15 is in test_bad_handlers."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import (
    AdmissionError,
    AlgoOptions,
    InvalidOffer,
    Limits,
    ReplyFinished,
    ReplyInterrupted,
    UserStartedSpeaking,
)
from fastrtc_anyio.testing import open_call
from tests.kit.calls import make_stream, place_call
from tests.kit.conversations import OUT, Log, agent, heard_samples, say, silence, voice, words
from tests.kit.handlers import AsyncEcho
from tests.kit.waiting import wait_until

from .echoes import check_every_frame_comes_back


async def test_d03_limit_counts_every_call() -> None:
    """FastRTC: a second phone call is accepted at limit 1."""
    stream = make_stream(AsyncEcho, concurrency_limit=1)
    async with stream:
        async with place_call(stream) as first:
            for _ in range(2):
                with pytest.raises(AdmissionError) as caught:
                    async with place_call(stream):
                        pass
                assert (caught.value.limit, caught.value.active) == (1, 1)
            first.hang_up()
            await wait_until(lambda: stream.active == 0)
        async with place_call(stream):
            await wait_until(lambda: stream.active == 1)


async def test_d09_slow_video_handler_gets_latest_picture_and_stalls_no_other_call() -> None:
    """FastRTC: a synchronous video handler of 200 ms stalls every session, and its queue grows."""
    seen: list[int] = []
    entered, go_on = threading.Event(), threading.Event()

    def slow(image: Any) -> Any:
        seen.append(int(image[0, 0, 0]))
        entered.set()
        go_on.wait(30)
        return image

    echo = AsyncEcho(output_sample_rate=48_000)
    async with (
        open_call(slow, modality="video") as call,
        open_call(echo, live=False) as neighbour,
    ):
        try:
            call.client.send_video(np.full((16, 16, 3), 1, np.uint8))
            await wait_until(entered.is_set)
            # While the function works, the neighbour speaks and more pictures arrive.
            await check_every_frame_comes_back(neighbour)
            for level in range(2, 32):
                call.client.send_video(np.full((16, 16, 3), level, np.uint8))
            counted = call.session.statistics().video_in
            assert counted is not None
            assert (counted.received, counted.dropped, counted.buffered) == (31, 29, 1)
        finally:
            go_on.set()
        with anyio.fail_after(10):
            while (await call.client.receive_video()).to_ndarray()[0, 0, 0] != 31:
                pass
    assert seen == [1, 31]


async def test_d13_generator_is_closed_by_its_own_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """FastRTC: an interruption closes a generator that another thread runs; a stale chunk plays."""
    entered, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    threads: list[int] = []

    def talk() -> Any:
        try:
            yield 24_000, np.full(480, 1000, np.int16)
            threads.append(threading.get_ident())
            entered.set()
            go_on.wait(30)
            yield 24_000, np.full(480, 2000, np.int16)
        finally:
            threads.append(threading.get_ident())
            closed.set()

    try:
        async with open_call(talk, mode="receive", limits=Limits(shutdown=0.2)) as call:
            await wait_until(entered.is_set)
            call.client.hang_up()
            await call.ended.wait()
            assert not closed.is_set()
    finally:
        go_on.set()
    await wait_until(closed.is_set)
    assert threads[0] == threads[1]
    assert call.session.error is None
    assert not np.any(call.heard == 2000)
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("comes_back", [True, False], ids=["returns", "abandoned"])
async def test_d13_interrupted_reply_on_a_thread_is_not_played_later(
    comes_back: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """FastRTC: chunks that an interrupted reply yields later are played."""
    entered, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    log = Log()

    def reply(audio: Any) -> Any:
        if entered.is_set():
            yield words(0.1)
            return
        try:
            yield words(10)
            entered.set()
            go_on.wait(30)
            yield words(10)
        finally:
            closed.set()

    handler = agent(reply, algo_options=AlgoOptions(0.2, 0.06, 0.04), on_event=log)
    limits = Limits(shutdown=1)  # long enough for all other threads on a busy machine
    try:
        async with open_call(handler, limits=limits) as call:
            await say(call, voice(0.2), silence(0.3))
            await wait_until(entered.is_set)
            with anyio.fail_after(10):
                while not call.heard.any():
                    await anyio.sleep(0.01)
            await say(call, voice(0.2))
            (interrupted,) = log.of(ReplyInterrupted)
            heard = heard_samples(call)
            assert interrupted.played.samples <= heard <= interrupted.played.samples + 0.005 * OUT
            if comes_back:
                go_on.set()
                await wait_until(closed.is_set)
            await say(call, silence(0.5))
            # The next reply does not wait for the abandoned thread.
            with anyio.fail_after(10):
                while not log.of(ReplyFinished):
                    await anyio.sleep(0.01)
            assert heard_samples(call) == heard + 0.1 * OUT
            assert closed.is_set() == comes_back
    finally:
        go_on.set()
    await wait_until(closed.is_set)
    assert call.session.error is None
    assert call.session.abandoned_threads == (0 if comes_back else 1)
    assert [record for record in caplog.records if record.exc_info] == []


async def test_d16_malformed_offer_takes_no_slot() -> None:
    """FastRTC: a malformed offer takes a concurrency slot forever."""
    stream = make_stream(AsyncEcho, concurrency_limit=1)
    async with stream:
        for sdp in ("not SDP", "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", "v=0"):
            with pytest.raises(InvalidOffer):
                await stream.offer({"type": "offer", "sdp": sdp, "webrtc_id": "caller"})
            assert not stream.sessions
        async with place_call(stream, webrtc_id="caller"):
            await wait_until(lambda: stream.active == 1)


async def test_blocked_judge_is_abandoned_after_two_seconds() -> None:
    release = threading.Event()
    log = Log()

    async def reply(audio: Any) -> Any:
        yield words(10)
        await anyio.sleep_forever()

    handler = agent(
        reply,
        algo_options=AlgoOptions(0.2, 0.06, 0.04),
        on_event=log,
        confirm_interruption=lambda interruption: release.wait(30),
    )
    try:
        async with open_call(handler, limits=Limits(shutdown=0.2)) as call:
            await say(call, voice(0.2), silence(0.4), voice(0.2), silence(2.3))
            (interrupted,) = log.of(ReplyInterrupted)
            speaking = log.of(UserStartedSpeaking)[1].at
            assert 1.9 < interrupted.at - speaking < 2.9  # a limit of three seconds would exceed it
    finally:
        release.set()
