"""Audio calls of plain aiortc clients over UDP, from offer to close."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import anyio
import numpy as np
import pytest
from aiortc.rtp import RtcpByePacket
from anyio import to_thread
from anyio.abc import TaskStatus

from fastrtc_anyio import (
    AudioFrame,
    CloseReason,
    CloseStream,
    EmitType,
    InvalidStateError,
    Session,
    StreamHandler,
)
from fastrtc_anyio._driver import HandlerDriver
from tests.kit.aiortc_client import open_client
from tests.kit.backends import on_trio
from tests.kit.calls import accept, make_stream, place_call
from tests.kit.handlers import AsyncEcho, Echo, Quiet
from tests.kit.measure import echo_of_tones
from tests.kit.packets import PacketLog, rtp_of
from tests.kit.waiting import wait_until

RATES = [8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]


def record_handler(handlers: list[AsyncEcho]) -> AsyncEcho:
    handlers.append(AsyncEcho())
    return handlers[-1]


async def noise(session: Session) -> None:
    samples = np.random.default_rng(1).integers(-8000, 8000, (1, 960), np.int16)
    while True:
        await session.audio_out.send(AudioFrame(48_000, samples))


@on_trio
@pytest.mark.parametrize("index", range(len(RATES)))
async def test_echo_at_each_sample_rate(index: int) -> None:
    """Each rate in mono and stereo, with sync and async handlers in turn."""
    rate = RATES[index]
    measured: list[float] = []

    async def call(kind: Any, layout: str, frequencies: list[int]) -> None:
        handler = kind(expected_layout=layout, input_sample_rate=rate, output_sample_rate=rate)
        stream = make_stream(handler)
        async with stream, place_call(stream, channels=len(frequencies)) as client:
            assert ("stereo=1" in client.answer["sdp"]) == (layout == "stereo")
            measured.extend(await echo_of_tones(client, frequencies))

    kinds = [Echo, AsyncEcho] if index % 2 else [AsyncEcho, Echo]
    async with anyio.create_task_group() as tg:
        tg.start_soon(call, kinds[0], "mono", [440])
        tg.start_soon(call, kinds[1], "stereo", [300, 700])
    assert len(measured) == 3
    assert min(measured) > 30, measured


@pytest.mark.parametrize("codec", ["opus", "G722", "PCMU", "PCMA"])
async def test_echo_in_each_codec(codec: str) -> None:
    stream = make_stream(AsyncEcho())
    async with stream, place_call(stream, codec=codec) as client:
        (snr,) = await echo_of_tones(client, [440])
    assert snr > 30


@on_trio
async def test_client_limits_the_bitrate_of_opus() -> None:
    async with make_stream(noise) as stream, open_client() as client:
        offer = await to_thread.run_sync(client.run, client.make_offer, "opus", False)
        (number,) = re.findall(r"a=rtpmap:(\d+) opus/48000/2\r\n", offer)
        line = f"a=fmtp:{number} maxaveragebitrate=16000\r\n"
        offer = re.sub(r"(a=rtpmap:.*opus.*\r\n)", rf"\1{line}", offer)
        log = PacketLog(client.pc.getTransceivers()[0].sender.transport)
        answer = await stream.offer({"type": "offer", "sdp": offer, "webrtc_id": "a" * 32})
        await accept(client, answer["sdp"])
        await wait_until(lambda: len(rtp_of(log.received)) > 50, "a second of audio")
    sizes = [len(packet.payload) for packet in rtp_of(log.received)[5:]]
    assert np.mean(sizes) * 8 * 50 == pytest.approx(16_000, rel=0.25)


async def test_hang_up_ends_session() -> None:
    handlers: list[AsyncEcho] = []
    stream = make_stream(lambda: record_handler(handlers))
    async with stream:
        async with place_call(stream) as client:
            (session,) = stream.sessions.values()
            await wait_until(lambda: handlers[0].calls == ["start_up"])
            client.hang_up()
            await wait_until(lambda: not stream.sessions)
        assert session.closed is not None
        assert session.closed.reason is CloseReason.HUNG_UP
        assert handlers[0].calls == ["start_up", "shutdown"]


async def test_missing_direction_means_sendrecv() -> None:
    stream = make_stream(AsyncEcho())
    async with stream, open_client() as client:
        offer = await to_thread.run_sync(client.run, client.make_offer, "opus", True)
        answer = await stream.offer({"type": "offer", "sdp": offer.replace("a=sendrecv\r\n", "")})
        assert "a=sendrecv" in answer["sdp"]


async def test_session_closed_during_offer_raises_invalid_state() -> None:
    stream = make_stream(AsyncEcho)
    async with stream, open_client() as client:
        offer = await to_thread.run_sync(client.run, client.make_offer, "opus", True)

        async def end_sessions() -> None:
            while not stream.sessions:  # the answer takes less time than a poll of wait_until
                await anyio.lowlevel.checkpoint()
            for session in stream.sessions.values():
                session.close(CloseReason.CANCELLED, "not now")

        async with anyio.create_task_group() as tg:
            tg.start_soon(end_sessions)
            with pytest.raises(InvalidStateError, match="not now"):
                await stream.offer({"type": "offer", "sdp": offer})
        assert not stream.sessions


async def test_audio_goes_on_after_rtcp_bye() -> None:
    """A browser sends BYE when its microphone is turned off, and resumes when it is turned on."""
    stream = make_stream(AsyncEcho())
    async with stream, place_call(stream) as client:
        (session,) = stream.sessions.values()

        async def send_bye() -> None:
            sender: Any = client.pc.getSenders()[0]
            await sender._send_rtcp([RtcpByePacket(sources=[sender._ssrc])])

        await to_thread.run_sync(client.run, send_bye)
        await anyio.sleep(0.2)
        (snr,) = await echo_of_tones(client, [440])
        assert snr > 30
        assert session.closed is None


async def test_audio_to_sendonly_client_counts_as_played() -> None:
    class Goodbye(Quiet):
        async def emit(self) -> EmitType:
            return (24_000, np.full(12_000, 1000, np.int16)), CloseStream("goodbye")

    stream = make_stream(Goodbye())
    async with stream, open_client() as client:
        offer = await to_thread.run_sync(client.run, client.make_offer, "opus", True)
        offer = offer.replace("a=sendrecv", "a=sendonly")
        answer = await stream.offer({"type": "offer", "sdp": offer})
        await to_thread.run_sync(client.run, client.accept, answer["sdp"])
        with anyio.fail_after(10):
            assert json.loads(await client.receive_message())["data"] == "goodbye"


async def test_second_data_channel_replaces_closed_channel() -> None:
    class Greeter(Quiet):
        async def on_message(self, message: str) -> None:
            await self.send_message(f"got {message}")

    stream = make_stream(Greeter())
    async with stream, place_call(stream) as client:
        (session,) = stream.sessions.values()
        await wait_until(lambda: session.messages.is_open)

        async def replace_channel() -> None:
            assert client.channel is not None
            client.channel.close()
            client.channel = client.pc.createDataChannel("second")
            client.channel.on("message", client.inbox.put)
            client.channel.on("open", client._flush)

        await to_thread.run_sync(client.run, replace_channel)
        client.send_message("hello")
        with anyio.fail_after(10):
            assert await client.receive_message() == "got hello"


async def test_handlers_share_one_asyncio_loop() -> None:
    loops: set[Any] = set()

    class Looped(Echo):
        def start_up(self) -> None:
            loops.add(self.loop)

    stream = make_stream(Looped())
    async with stream, anyio.create_task_group() as tg:

        async def call() -> None:
            async with place_call(stream):
                pass

        for _ in range(3):
            tg.start_soon(call)
    assert len(loops) == 1


class FailsInStartUp(Quiet):
    async def start_up(self) -> None:
        raise ValueError("at once")


class FailsInStartUpOnThread(StreamHandler):
    def start_up(self) -> None:
        raise ValueError("at once")

    def receive(self, frame: Any) -> None: ...

    def emit(self) -> None: ...

    def copy(self) -> FailsInStartUpOnThread:
        return FailsInStartUpOnThread()


@pytest.mark.parametrize("kind", [FailsInStartUp, FailsInStartUpOnThread])
async def test_immediate_start_up_error_reaches_client_and_no_other_call(
    kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = make_stream(AsyncEcho()), make_stream(kind())
    async with good, bad, place_call(good) as listener:
        async with place_call(bad) as client:
            message = json.loads(await client.receive_message())
            assert message["type"] == "error"
            assert await to_thread.run_sync(client.closed.wait, 10)
        (snr,) = await echo_of_tones(listener, [440])
        assert snr > 30
        assert not bad.sessions
    assert "ValueError: at once" in caplog.text
    assert f"raised in {kind.__name__}.start_up" in caplog.text


async def test_message_sent_in_start_up_arrives() -> None:
    class Greeter(Quiet):
        async def start_up(self) -> None:
            await self.send_message("hello")

    stream = make_stream(Greeter())
    async with stream, place_call(stream) as client:
        with anyio.fail_after(10):
            assert await client.receive_message() == "hello"


async def test_call_without_data_channel() -> None:
    stream = make_stream(AsyncEcho())
    async with stream, place_call(stream, channel=False) as client:
        (snr,) = await echo_of_tones(client, [440])
    assert snr > 30


async def test_closing_stream_ends_all_calls() -> None:
    stream = make_stream(AsyncEcho())
    closing = anyio.Event()

    async def own(*, task_status: TaskStatus[None]) -> None:
        async with stream:
            task_status.started()
            await closing.wait()

    async with anyio.create_task_group() as tg:
        await tg.start(own)
        async with place_call(stream) as one, place_call(stream) as other:
            sessions = list(stream.sessions.values())
            await wait_until(lambda: one.channel_is_open and other.channel_is_open)
            began = anyio.current_time()
            closing.set()
            await wait_until(lambda: not stream.is_open and not stream.sessions)
            assert anyio.current_time() - began < 5
            for client in (one, other):
                message = json.loads(await client.receive_message())
                assert message == {
                    "type": "end_stream",
                    "data": "the server is stopping",
                    "reason": "cancelled",
                }
                assert await to_thread.run_sync(client.closed.wait, 10)
    assert [s.closed.reason for s in sessions if s.closed] == [CloseReason.CANCELLED] * 2


@pytest.mark.parametrize("moment", [0.0, 0.005, 0.02, 0.06, 0.2, 0.5])
async def test_cancelled_host_closes_all_peers(moment: float) -> None:
    handlers: list[AsyncEcho] = []
    stream = make_stream(lambda: record_handler(handlers))
    with anyio.CancelScope() as scope:
        async with stream, anyio.create_task_group() as tg:

            async def call() -> None:
                async with place_call(stream):
                    await anyio.sleep_forever()

            tg.start_soon(call)
            tg.start_soon(call)
            await anyio.sleep(moment)
            began = anyio.current_time()
            scope.cancel()
    assert anyio.current_time() - began < 5
    assert not stream.sessions
    assert not stream.is_open
    for handler in handlers:
        assert handler.calls.count("shutdown") <= 1
        if "start_up" in handler.calls:
            assert handler.calls.count("shutdown") == 1


async def test_clear_queue_stops_audio_at_once() -> None:
    class Talker(Quiet):
        async def emit(self) -> EmitType:
            if not self.calls:
                self.calls.append("emit")
                return 24_000, np.full(240_000, 8000, np.int16)
            return None

        async def on_message(self, message: str) -> None:
            await self.send_message(str(self.clear_queue().seconds))

    stream = make_stream(Talker())
    async with stream, place_call(stream) as client:
        with anyio.fail_after(10):
            while not np.any(np.abs((await client.receive_audio()).samples) > 4000):
                pass
            client.send_message("stop")
            played = float(await client.receive_message())
            while np.any(np.abs((await client.receive_audio()).samples) > 500):
                pass
        assert 0 < played < 5


async def test_handler_runs_coroutine_on_its_asyncio_loop() -> None:
    class Looped(Echo):
        def start_up(self) -> None:

            async def work() -> str:
                await asyncio.sleep(0)
                return "from asyncio"

            future = asyncio.run_coroutine_threadsafe(work(), self.loop)
            self.send_message_sync(future.result(10))

    stream = make_stream(Looped())
    async with stream, place_call(stream) as client:
        with anyio.fail_after(10):
            assert await client.receive_message() == "from asyncio"


async def test_session_function_as_handler() -> None:
    async def echo(session: Session) -> None:
        async for frame in session.audio_in:
            await session.audio_out.send(frame)

    stream = make_stream(echo)
    async with stream, place_call(stream) as client:
        (snr,) = await echo_of_tones(client, [440])
    assert snr > 30


async def test_handler_class_as_handler() -> None:
    stream = make_stream(AsyncEcho)
    async with stream, place_call(stream) as client:
        (session,) = stream.sessions.values()
        assert isinstance(session.driver, HandlerDriver)
        assert isinstance(session.driver.handler, AsyncEcho)
        (snr,) = await echo_of_tones(client, [440])
    assert snr > 30
