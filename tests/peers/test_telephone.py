"""Telephone calls on virtual time, with a carrier that plays, confirms and clears audio."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import numpy as np
import pytest
from anyio import create_task_group

from fastrtc_anyio import (
    AdditionalOutputs,
    CloseReason,
    CloseStream,
    ReplyFinished,
    ReplyInterrupted,
    Session,
)
from fastrtc_anyio._driver import HandlerDriver
from fastrtc_anyio._media.g711 import encode_mulaw
from fastrtc_anyio._media.reorder import HOLD_SECONDS
from fastrtc_anyio._peers.streams.audio import BufferOptions
from fastrtc_anyio._peers.streams.phone import MARK_SECONDS, OVERDUE_SECONDS, PHONE_LEAD
from fastrtc_anyio._peers.websocket import WebSocketPeer
from fastrtc_anyio._wire.events import Clear, KeyPressed, Mark, Media
from fastrtc_anyio._wire.plivo import PlivoFraming
from fastrtc_anyio._wire.telnyx import TelnyxFraming
from fastrtc_anyio._wire.twilio import TwilioFraming
from fastrtc_anyio.handlers import StreamHandlerBase
from tests.kit.conversations import Log, agent, nothing, silence, voice
from tests.kit.handlers import Quiet
from tests.kit.websocket_clients import Client, open_pair

RATE = 8_000
MARK = round(MARK_SECONDS * RATE)


def words(seconds: float) -> tuple[int, Any]:
    """Return audio at the telephone's rate, so that played samples can be counted exactly."""
    return RATE, np.full((1, round(seconds * RATE)), 3000, np.int16)


@dataclass
class PhoneCall:
    session: Session
    peer: WebSocketPeer
    carrier: Client
    ended: anyio.Event


@asynccontextmanager
async def call(handler: StreamHandlerBase, **settings: Any) -> AsyncGenerator[PhoneCall, None]:
    """Call a handler by telephone. The carrier plays the audio."""
    handler.phone_mode = True
    async with (
        open_pair(TwilioFraming, **settings) as (peer, carrier),
        create_task_group() as tasks,
    ):
        session = Session(peer, HandlerDriver(handler))
        phone = PhoneCall(session, peer, carrier, anyio.Event())

        async def run() -> None:
            await session.run()
            phone.ended.set()

        tasks.start_soon(run)
        tasks.start_soon(carrier.listen)
        yield phone
        carrier.hang_up()
        await phone.ended.wait()
        tasks.cancel_scope.cancel()


def clears(carrier: Client) -> int:
    return sum(isinstance(event, Clear) for event in carrier.events)


async def test_barge_in_clears_the_carrier_and_reports_audio_played() -> None:
    """The greeting plays to its end. The interrupted reply is cleared at the carrier, and the audio
    played is that confirmed by marks: too little by at most one mark."""

    async def greet() -> AsyncGenerator[Any, None]:
        yield words(0.5)

    async def reply(audio: Any) -> AsyncGenerator[Any, None]:
        yield words(10)

    log = Log()
    handler = agent(reply, startup_fn=greet, on_event=log)
    async with call(handler) as phone:
        await phone.carrier.speak(silence(1.5), 16_000)
        assert [event.played.samples for event in log.of(ReplyFinished)] == [RATE // 2]
        assert phone.carrier.sound.shape[1] == RATE // 2
        assert clears(phone.carrier) == 0
        speech = np.concatenate([voice(1), silence(2), voice(1), silence(0.1)], axis=1)
        await phone.carrier.speak(speech, 16_000)
        (interrupted,) = log.of(ReplyInterrupted)
        assert clears(phone.carrier) == 1
        heard = phone.carrier.sound.shape[1] - RATE // 2
        assert 0 <= heard - interrupted.played.samples <= MARK + RATE // 50
        assert interrupted.played.samples > RATE
        after = phone.carrier.sound.shape[1]
        await anyio.sleep(0.3)
        assert phone.carrier.sound.shape[1] == after, "something was heard after the clear"
    statistics = phone.peer.audio_out.statistics()
    assert statistics.sent == statistics.played + statistics.flushed


async def test_audio_ahead_of_playback_is_bounded() -> None:
    class Talker(Quiet):
        async def emit(self) -> Any:
            return words(1)

    async with call(Talker()) as phone:
        for _ in range(50):
            await anyio.sleep(0.033)
            queued = sum(
                item.shape[1] for item in phone.carrier.queue if not isinstance(item, Mark)
            )
            assert queued / RATE <= PHONE_LEAD + 0.02
        assert len(phone.carrier.arrivals) > 70


async def test_close_stream_waits_for_playback() -> None:
    class Goodbye(Quiet):
        async def emit(self) -> Any:
            return words(1.23), CloseStream()

    async with call(Goodbye()) as phone:
        with anyio.fail_after(5):
            await phone.ended.wait()
        assert phone.carrier.sound.shape[1] == 1.23 * RATE
        assert phone.session.closed is not None
        assert phone.session.closed.reason is CloseReason.HANDLER_CLOSED


async def test_key_presses_reach_the_handler() -> None:
    class Menu(Quiet):
        async def on_dtmf(self, digit: str) -> None:
            self.calls.append(digit)

    class Reader(Quiet):
        async def on_message(self, message: str) -> None:
            self.calls.append(message)

    menu, reader = Menu(), Reader()
    for handler in (menu, reader):
        async with call(handler) as phone:
            for digit in "1#":
                phone.carrier.send(KeyPressed(digit))
            await anyio.sleep(0.1)
    assert menu.calls == ["1", "#", "shutdown"]
    assert reader.calls[:2] == ['{"type": "dtmf", "data": "1"}', '{"type": "dtmf", "data": "#"}']


async def test_outputs_reach_the_next_reply() -> None:
    """A handler keeps the state of a telephone call in its outputs."""
    seen: list[Any] = []

    async def reply(audio: Any, history: Any = None) -> AsyncGenerator[Any, None]:
        seen.append(history)
        yield words(0.1)
        yield AdditionalOutputs((history or 0) + 1)

    async with call(agent(reply)) as phone:
        for _ in range(2):
            await phone.carrier.speak(np.concatenate([voice(1), silence(1.5)], axis=1), 16_000)
    assert seen == [None, 1]


async def test_messages_are_not_sent_to_carriers() -> None:
    class Chatty(Quiet):
        async def start_up(self) -> None:
            await self.send_message("hello")

    async with call(Chatty()) as phone:
        await anyio.sleep(0.1)
        assert phone.carrier.events == []
        assert phone.peer.messages.statistics().dropped_out == 1


async def test_carrier_that_returns_no_mark_vanishes() -> None:
    async with call(Quiet(), liveness_s=5.0) as phone:
        phone.carrier._return_marks = phone.carrier.queue.clear  # type: ignore[method-assign]
        await phone.carrier.speak(silence(1), 16_000)
        with anyio.fail_after(6.1):
            await phone.ended.wait()
    assert phone.session.closed is not None
    assert phone.session.closed.reason is CloseReason.VANISHED


async def test_carrier_that_suppresses_silence_stays_connected() -> None:
    async with call(Quiet(), liveness_s=5.0) as phone:
        await phone.carrier.speak(silence(1), 16_000)
        await anyio.sleep(60)
        assert phone.session.closed is None


async def test_missing_marks_end_wait_played_after_a_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_pair(TwilioFraming) as (peer, carrier):
        carrier._return_marks = lambda: None  # type: ignore[method-assign]
        await peer.audio_out.send(words(0.3))
        began = anyio.current_time()
        with anyio.fail_after(10):
            await peer.audio_out.wait_played()
        assert anyio.current_time() - began == pytest.approx(0.3 + OVERDUE_SECONDS, abs=0.1)
    assert "mark" in caplog.text


async def test_live_source_is_marked_every_100_ms() -> None:
    """The queue is empty after every frame, but a mark does not follow every frame."""
    buffers = BufferOptions(live=True)
    async with open_pair(TwilioFraming, buffers=buffers) as (peer, carrier):
        async with create_task_group() as tasks:
            tasks.start_soon(carrier.listen)
            for _ in range(100):
                await peer.audio_out.send(words(0.02))
                await anyio.sleep(0.02)
            with anyio.fail_after(1):
                await peer.audio_out.wait_played()
            tasks.cancel_scope.cancel()
        assert 15 <= sum(isinstance(event, Mark) for event in carrier.events) <= 25
        assert peer.audio_out.statistics().played == 100 * RATE // 50


async def test_missing_chunks_are_counted() -> None:
    async with open_pair(TwilioFraming) as (peer, carrier):
        for chunk in (1, 2, 5, 6, 9):
            carrier.send(Media(b"", chunk))
        await anyio.sleep(HOLD_SECONDS / 2)
        assert await peer.transport_statistics() == {
            "received": 5,
            "missing": 0,
        }  # late chunks may still arrive
        await anyio.sleep(HOLD_SECONDS)
        assert await peer.transport_statistics() == {"received": 5, "missing": 4}
        assert peer.audio_in.statistics().lost == 4
        carrier.hang_up()
        await peer.wait_closed()


def chunk(number: int, milliseconds: int | None = None, level: int = 8000) -> Media:
    """Return 20 ms of audio from a carrier."""
    samples = np.full(RATE // 50, level, np.int16)
    return Media(encode_mulaw(samples), number, milliseconds)


async def read_all(peer: WebSocketPeer) -> Any:
    """Return the audio of a call that has ended, with the silence in its gaps: shape ``(n,)``."""
    pieces = [frame.samples[0] async for frame in peer.audio_in]
    return np.concatenate(pieces)


async def test_missing_chunk_is_concealed() -> None:
    async with open_pair(TwilioFraming) as (peer, carrier):
        for number in (1, 2, 3, 5, 6, 7, 8, 9):
            carrier.send(chunk(number))
        carrier.hang_up()
        sound = await read_all(peer)
        assert sound.size == 9 * RATE // 50
        assert np.abs(np.diff(sound.astype(int))).max() < 500
        assert sound.min() > 6000
        statistics = peer.audio_in.statistics()
        assert (statistics.lost, statistics.concealed_seconds) == (1, 0.02)


async def test_many_missing_chunks_fade_to_silence() -> None:
    async with open_pair(TwilioFraming) as (peer, carrier):
        carrier.send(chunk(1))
        for number in range(27, 40):
            carrier.send(chunk(number))
        carrier.hang_up()
        sound = await read_all(peer)
        assert sound.size == 39 * RATE // 50
        silent = sound[RATE // 50 + RATE * 6 // 100 : 26 * RATE // 50]
        assert not silent.any()
        assert np.abs(np.diff(sound.astype(int))).max() < 500


@pytest.mark.parametrize("framing", [TwilioFraming, TelnyxFraming, PlivoFraming])
async def test_jump_of_media_timestamps_is_silence_of_that_length(framing: Any) -> None:
    """As of a telephone with silence suppression: the numbers go on."""
    async with open_pair(framing) as (peer, carrier):
        for number in range(1, 51):
            carrier.send(chunk(number, 500 + number * 20))
        for number in range(51, 101):
            carrier.send(chunk(number, 3500 + number * 20))
        carrier.hang_up()
        sound = await read_all(peer)
        assert sound.size == 5 * RATE
        assert not sound[RATE + 40 : 4 * RATE].any()
        assert sound[:RATE].all()
        assert sound[4 * RATE + 40 :].all()
        assert peer.audio_in.statistics().lost == 0


@pytest.mark.parametrize("jitter", [0, 40])
async def test_jitter_of_media_timestamps_adds_no_silence(jitter: int) -> None:
    """Plivo's timestamps are those of a clock, in milliseconds since 1970."""
    async with open_pair(PlivoFraming) as (peer, carrier):
        for number in range(1, 101):
            carrier.send(chunk(number, 1_700_000_000_000 + number * 20 + number * 7 % 3 * jitter))
        carrier.hang_up()
        assert (await read_all(peer)).size == 2 * RATE


@pytest.mark.parametrize("timestamp", ["-5", "soon", 1.5, None, {}, "9" * 40, True])
async def test_malformed_media_timestamp_is_ignored(timestamp: Any) -> None:
    async with open_pair(TwilioFraming) as (peer, carrier):
        for number in range(1, 11):
            body = json.loads(carrier.framing.encode(chunk(number)) or "")
            body["media"]["timestamp"] = timestamp
            carrier.say(json.dumps(body))
        carrier.hang_up()
        assert (await read_all(peer)).size == 10 * RATE // 50


async def test_held_chunk_is_released_without_a_following_chunk() -> None:
    async with open_pair(TwilioFraming) as (peer, carrier):
        carrier.send(chunk(1))
        carrier.send(chunk(3))
        for expected in (1, 2, 3):
            with anyio.fail_after(HOLD_SECONDS + 0.01):
                frame = await peer.audio_in.receive()
            assert frame.samples.shape == (1, RATE // 50), expected
        carrier.hang_up()


async def test_silent_handler_sends_nothing() -> None:
    async with call(agent(lambda audio: nothing())) as phone:
        await phone.carrier.speak(silence(2), 16_000)
        assert phone.carrier.arrivals == []
