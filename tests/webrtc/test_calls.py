"""Real calls: plain aiortc over UDP into a stream."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from contextlib import suppress
from typing import Any

import anyio
import numpy as np
import pytest
from aiortc.rtcsctptransport import SCTP_DATA_FIRST_FRAG, DataChunk, tsn_plus_one
from aiortc.rtp import RtcpByePacket
from anyio import to_thread
from anyio.abc import TaskStatus

from fastrtc_anyio import (
    CloseReason,
    CloseStream,
    EmitType,
    InvalidCandidate,
    InvalidOffer,
    InvalidStateError,
    LimitExceeded,
    Limits,
    Session,
    StreamHandler,
)
from fastrtc_anyio._driver import HandlerDriver
from fastrtc_anyio._peers.webrtc import WebRTCPeer
from fastrtc_anyio._signaling.requests import IceCandidate
from tests.kit.aiortc_client import open_client
from tests.kit.calls import make_stream, place_call
from tests.kit.handlers import AsyncEcho, Echo, Quiet
from tests.kit.measure import echo_of_tones
from tests.kit.waiting import wait_until

RATES = [8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]


def _note(handlers: list[AsyncEcho]) -> AsyncEcho:
    handlers.append(AsyncEcho())
    return handlers[-1]


@pytest.mark.parametrize("index", range(len(RATES)))
async def test_a_tone_comes_back_at_every_rate(index: int) -> None:
    """Every rate in mono and stereo, with plain and async handlers by turns."""
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
async def test_a_tone_comes_back_in_every_codec(codec: str) -> None:
    stream = make_stream(AsyncEcho())
    async with stream, place_call(stream, codec=codec) as client:
        (snr,) = await echo_of_tones(client, [440])
    assert snr > 30


async def test_hanging_up_ends_the_session() -> None:
    handlers: list[AsyncEcho] = []
    stream = make_stream(lambda: _note(handlers))
    async with stream:
        async with place_call(stream) as client:
            (session,) = stream.sessions.values()
            await wait_until(lambda: handlers[0].calls == ["start_up"])
            client.hang_up()
            await wait_until(lambda: not stream.sessions)
        assert session.closed is not None
        assert session.closed.reason is CloseReason.HUNG_UP
        assert handlers[0].calls == ["start_up", "shutdown"]


async def test_vanishing_is_noticed_within_the_liveness_time() -> None:
    stream = make_stream(AsyncEcho(), limits=Limits(liveness=1.5))
    async with stream, place_call(stream) as client:
        (session,) = stream.sessions.values()
        await to_thread.run_sync(client.run, client.vanish)
        began = anyio.current_time()
        await wait_until(lambda: not stream.sessions)
        assert anyio.current_time() - began < 1.5 + 1
    assert session.closed is not None
    assert session.closed.reason is CloseReason.VANISHED


async def test_a_client_that_sends_no_media_stays_alive() -> None:
    stream = make_stream(AsyncEcho(), limits=Limits(liveness=1.0))
    async with stream, place_call(stream) as client:
        for transceiver in client.pc.getTransceivers():
            # Neither RTP nor RTCP any more: only STUN is answered, as by a muted, hidden page.
            await to_thread.run_sync(client.run, transceiver.sender.stop)
            await to_thread.run_sync(client.run, transceiver.receiver.stop)
        await anyio.sleep(3)
        assert len(stream.sessions) == 1


@pytest.mark.parametrize(
    "sdp",
    [
        "rubbish",
        "v=0",
        "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
        "v=0\r\nm=audio x y z\r\na=rtpmap:zz\r\n",
        "\0\xff",
    ],
)
async def test_a_rubbish_offer_is_refused_and_takes_no_slot(sdp: str) -> None:
    stream = make_stream(AsyncEcho(), concurrency_limit=1)
    async with stream:
        for _ in range(3):
            with pytest.raises(InvalidOffer):
                await stream.offer({"type": "offer", "sdp": sdp, "webrtc_id": "me"})
        assert stream.active == 0
        async with place_call(stream, webrtc_id="me"):
            assert stream.active == 1


async def test_an_offer_without_a_direction_means_both() -> None:
    stream = make_stream(AsyncEcho())
    async with stream, open_client() as client:
        offer = await to_thread.run_sync(client.run, client.make_offer, "opus", True)
        answer = await stream.offer({"type": "offer", "sdp": offer.replace("a=sendrecv\r\n", "")})
        assert "a=sendrecv" in answer["sdp"]


async def test_a_session_ended_while_its_offer_is_answered() -> None:
    stream = make_stream(AsyncEcho)
    async with stream, open_client() as client:
        offer = await to_thread.run_sync(client.run, client.make_offer, "opus", True)

        async def end_sessions() -> None:
            await wait_until(lambda: stream.sessions)
            for session in stream.sessions.values():
                session.close(CloseReason.CANCELLED, "not now")

        async with anyio.create_task_group() as tg:
            tg.start_soon(end_sessions)
            with pytest.raises(InvalidStateError, match="not now"):
                await stream.offer({"type": "offer", "sdp": offer})
        assert not stream.sessions


async def test_a_microphone_that_is_turned_off_and_on_is_heard_again() -> None:
    """A browser then sends an RTCP BYE, which ends the track for aiortc, and later goes on."""
    stream = make_stream(AsyncEcho())
    async with stream, place_call(stream) as client:
        (session,) = stream.sessions.values()

        async def say_bye() -> None:
            sender: Any = client.pc.getSenders()[0]
            await sender._send_rtcp([RtcpByePacket(sources=[sender._ssrc])])

        await to_thread.run_sync(client.run, say_bye)
        await anyio.sleep(0.2)
        (snr,) = await echo_of_tones(client, [440])
        assert snr > 30
        assert session.closed is None


async def test_what_nobody_listens_to_is_played_all_the_same() -> None:
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


async def test_a_second_data_channel_takes_over_from_a_closed_one() -> None:
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


async def test_more_candidates_than_anybody_has_are_refused(caplog: Any) -> None:
    stream = make_stream(AsyncEcho())
    lines = "".join(
        f"a=candidate:{i} 1 udp {i + 1} 127.0.0.1 {20_000 + i} typ host\r\n" for i in range(4000)
    )
    async with stream, open_client() as client:
        offer = await to_thread.run_sync(client.run, client.make_offer, "opus", False)
        await stream.offer({"type": "offer", "sdp": offer + lines})
        (session,) = stream.sessions.values()
        assert isinstance(session.peer, WebRTCPeer)
        connection = session.peer._connection
        await wait_until(lambda: "an offer has 400" in caplog.text)
        assert "RequestLimits.candidates" in caplog.text
        with pytest.raises(LimitExceeded, match="100 candidates of a client are taken"):
            await stream.add_ice_candidate(
                session.id, IceCandidate("candidate:1 1 udp 1 127.0.0.1 9 typ host", "0")
            )
        assert connection._pc is not None
        (transceiver,) = connection._pc.getTransceivers()
        remote = transceiver.sender.transport.transport.getRemoteCandidates()
        assert 0 < len(remote) <= 100


async def test_the_loop_of_many_handlers_is_one() -> None:
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


class FailsAtOnce(Quiet):
    async def start_up(self) -> None:
        raise ValueError("at once")


class FailsAtOnceOnAThread(StreamHandler):
    def start_up(self) -> None:
        raise ValueError("at once")

    def receive(self, frame: Any) -> None: ...

    def emit(self) -> None: ...

    def copy(self) -> FailsAtOnceOnAThread:
        return FailsAtOnceOnAThread()


@pytest.mark.parametrize("kind", [FailsAtOnce, FailsAtOnceOnAThread])
async def test_a_start_up_that_raises_at_once_is_told_and_disturbs_nobody(
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


async def test_a_greeting_in_start_up_arrives() -> None:
    class Greeter(Quiet):
        async def start_up(self) -> None:
            await self.send_message("hello")

    stream = make_stream(Greeter())
    async with stream, place_call(stream) as client:
        with anyio.fail_after(10):
            assert await client.receive_message() == "hello"


async def test_a_client_without_a_data_channel_is_served_all_the_same() -> None:
    stream = make_stream(AsyncEcho())
    async with stream, place_call(stream, channel=False) as client:
        (snr,) = await echo_of_tones(client, [440])
    assert snr > 30


async def test_the_end_of_the_stream_ends_every_call() -> None:
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
                assert message == {"type": "end_stream", "data": "the server is stopping"}
                assert await to_thread.run_sync(client.closed.wait, 10)
    assert [s.closed.reason for s in sessions if s.closed] == [CloseReason.CANCELLED] * 2


@pytest.mark.parametrize("moment", [0.0, 0.005, 0.02, 0.06, 0.2, 0.5])
async def test_cancelling_the_host_at_any_moment_closes_every_peer(moment: float) -> None:
    handlers: list[AsyncEcho] = []
    stream = make_stream(lambda: _note(handlers))
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


async def test_flushing_stops_the_sound_at_once() -> None:
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


async def test_the_loop_of_a_handler() -> None:
    class Looped(Echo):
        def start_up(self) -> None:
            import asyncio

            async def work() -> str:
                await asyncio.sleep(0)
                return "from asyncio"

            future = asyncio.run_coroutine_threadsafe(work(), self.loop)
            self.send_message_sync(future.result(10))

    stream = make_stream(Looped())
    async with stream, place_call(stream) as client:
        with anyio.fail_after(10):
            assert await client.receive_message() == "from asyncio"


async def test_a_session_function_can_be_streamed() -> None:
    async def echo(session: Session) -> None:
        async for frame in session.audio_in:
            await session.audio_out.send(frame)

    stream = make_stream(echo)
    async with stream, place_call(stream) as client:
        (snr,) = await echo_of_tones(client, [440])
    assert snr > 30


async def test_a_class_is_a_handler_too() -> None:
    stream = make_stream(AsyncEcho)
    async with stream, place_call(stream) as client:
        (session,) = stream.sessions.values()
        assert isinstance(session.driver, HandlerDriver)
        assert isinstance(session.driver.handler, AsyncEcho)
        (snr,) = await echo_of_tones(client, [440])
    assert snr > 30


@pytest.mark.parametrize(
    ("streams", "size"), [(1, 1), (1, 1100), (1000, 1)], ids=["many", "large", "streams"]
)
async def test_unfinished_messages_end_the_call_of_who_sends_them(streams: int, size: int) -> None:
    stream = make_stream(AsyncEcho, concurrency_limit=2)
    async with stream, place_call(stream) as good, place_call(stream) as bad:

        async def flood() -> None:
            sctp: Any = bad.pc.sctp
            for i in itertools.count():
                if len(stream.sessions) == 1:  # it was cut off, and may not know it yet
                    return
                chunk = DataChunk()
                chunk.flags = SCTP_DATA_FIRST_FRAG if i < streams else 0
                chunk.stream_id = i % streams
                chunk.tsn = sctp._local_tsn
                sctp._local_tsn = tsn_plus_one(sctp._local_tsn)
                chunk.user_data = bytes(size)
                await sctp._send_chunk(chunk)
                if i % 50 == 0:
                    await asyncio.sleep(0.002)  # loopback loses what comes at once

        sessions = list(stream.sessions.values())
        with suppress(ConnectionError):
            await to_thread.run_sync(bad.run, flood)
        await wait_until(lambda: len(stream.sessions) == 1)
        (ended,) = [session for session in sessions if session.closed is not None]
        assert ended.closed is not None
        assert ended.closed.reason is CloseReason.PEER_FAILED
        assert "unfinished messages" in ended.closed.message
        (snr,) = await echo_of_tones(good, [440])
        assert snr > 30


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\x00",
        # STUN: a mapped address of no bytes at all.
        b"\x00\x01\x00\x04\x21\x12\xa4\x42" + bytes(12) + b"\x00\x01\x00\x00",
        b"\x16\xfe\xfd" + bytes(40),
        b"\x80\x6f" + bytes(40),
    ],
)
async def test_a_strangers_datagrams_do_not_end_a_call(
    datagram: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_stream(AsyncEcho()) as stream, place_call(stream) as client:
        lines = client.answer["sdp"].splitlines()
        ports = {int(line.split()[5]) for line in lines if line.startswith("a=candidate:")}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for port in ports:
                stranger.sendto(datagram, ("127.0.0.1", port))
        assert min(await echo_of_tones(client, [440])) > 15
        assert len(stream.sessions) == 1
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("kind", "data"), [(51, b"\xff"), (50, b"\x03" + bytes(7) + b"\0\1\0\0\xff")]
)
async def test_garbage_over_a_data_channel_ends_the_call_of_who_sends_it(
    kind: int, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_stream(AsyncEcho()) as stream, place_call(stream, webrtc_id="bad") as bad:
        ended = stream.session("bad")
        await wait_until(lambda: bad.channel_is_open)

        async def send() -> None:
            sctp: Any = bad.pc.sctp
            assert bad.channel is not None
            await sctp._send(bad.channel.id if kind == 51 else 9, kind, data)

        async with place_call(stream) as good:
            await to_thread.run_sync(bad.run, send)
            await wait_until(lambda: "bad" not in stream.handlers)
            assert min(await echo_of_tones(good, [440])) > 15
        assert ended.closed is not None
        assert ended.closed.reason is CloseReason.PEER_FAILED
        assert "over a data channel" in ended.closed.message
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("port", [-1, 65_536])
async def test_a_candidate_without_a_possible_port(port: int) -> None:
    async with make_stream(AsyncEcho()) as stream, place_call(stream, webrtc_id="me"):
        line = f"candidate:1 1 udp 1 127.0.0.1 {port} typ host"
        candidate = {"candidate": line, "sdpMid": "0"}
        with pytest.raises(InvalidCandidate, match=f"0 to 65535; got {port}"):
            await stream.offer({"type": "ice-candidate", "candidate": candidate, "webrtc_id": "me"})
