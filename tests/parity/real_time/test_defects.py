"""Those of the defects of PARITY section 5 that need threads that block, or a network."""

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
    StreamHandler,
    UserStartedSpeaking,
)
from fastrtc_anyio.testing import open_call
from tests.kit.calls import make_stream, place_call
from tests.kit.conversations import OUT, Log, agent, heard_samples, say, silence, voice, words
from tests.kit.handlers import AsyncEcho, Echo
from tests.kit.waiting import wait_until

from .echoes import check_every_frame_comes_back, threads_of


async def test_d03_the_limit_counts_every_call() -> None:
    """Second phone call accepted at limit 1."""
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
            assert stream.active == 1


async def test_d09_a_slow_video_handler_stalls_nobody_and_sees_the_latest_picture() -> None:
    """A 200 ms sync video handler stalls every session 203 ms a frame and its queue grows."""
    seen: list[int] = []
    entered, go_on = threading.Event(), threading.Event()

    def slow(image: Any) -> Any:
        seen.append(int(image[0, 0, 0]))
        entered.set()
        go_on.wait(30)
        return image

    echo = AsyncEcho(output_sample_rate=48_000)
    async with open_call(slow, modality="video") as call, open_call(echo) as neighbour:
        try:
            call.client.send_video(np.full((16, 16, 3), 1, np.uint8))
            await wait_until(entered.is_set)
            # As long as the function works, the neighbour talks and further pictures come.
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


async def test_d13_a_generator_is_closed_by_the_thread_that_runs_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Interrupting closes a generator that another thread is running: swallowed error, stale
    chunk heard."""
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


@pytest.mark.parametrize("comes_back", [True, False], ids=["comes back", "is left"])
async def test_d13_a_reply_that_computes_in_a_thread_is_not_heard_after_its_interruption(
    comes_back: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The same in a conversation: what it gives when it comes back is stale."""
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
    limits = Limits(shutdown=1)  # enough for every other thread, on a busy machine too
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
            # The next reply does not wait for ever for the one that does not come back.
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


class Idle(StreamHandler):
    """Has nothing to say, and waits for it in ``emit``."""

    release: threading.Event
    emitting: threading.Event

    def receive(self, frame: Any) -> None: ...

    def emit(self) -> None:
        self.emitting.set()
        self.release.wait()

    def shutdown(self) -> None:
        self.release.set()

    def copy(self) -> Idle:
        handler = Idle()
        handler.release, handler.emitting = threading.Event(), threading.Event()
        return handler


@pytest.mark.parametrize("kind", [Echo, AsyncEcho])
async def test_d15_idle_plain_handlers_starve_nobody(kind: Any) -> None:
    """Six idle sync handlers starve an unrelated client to 0 frames a second."""
    template = Idle()
    async with anyio.create_task_group() as tg:
        done = anyio.Event()
        ended = []

        async def idle(handler: Idle) -> None:
            async with open_call(handler):
                await done.wait()
            ended.append(handler)

        handlers = [template.copy() for _ in range(6)]
        for handler in handlers:
            tg.start_soon(idle, handler)
        for handler in handlers:
            await wait_until(handler.emitting.is_set)
        async with open_call(kind(output_sample_rate=48_000)) as call:
            await check_every_frame_comes_back(call)
        assert not ended
        assert not any(handler.release.is_set() for handler in handlers)
        done.set()
    await wait_until(lambda: not threads_of("Idle"))


async def test_d16_a_malformed_offer_takes_no_slot() -> None:
    """A malformed offer takes a concurrency slot for ever."""
    stream = make_stream(AsyncEcho, concurrency_limit=1)
    async with stream:
        for sdp in ("rubbish", "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", "v=0"):
            with pytest.raises(InvalidOffer):
                await stream.offer({"type": "offer", "sdp": sdp, "webrtc_id": "caller"})
            assert stream.active == 0
        async with place_call(stream, webrtc_id="caller"):
            assert stream.active == 1


async def test_a_judge_that_blocks_has_two_seconds() -> None:
    """The reply is silent meanwhile, so not for longer."""
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
            assert 1.9 < interrupted.at - speaking < 2.9  # with a second more it was 3
    finally:
        release.set()
