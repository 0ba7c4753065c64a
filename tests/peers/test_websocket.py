"""WebSocket peers over sockets in memory, on virtual time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest
from anyio import create_task_group

from fastrtc_anyio import AudioFrame, CloseReason, run_sync
from fastrtc_anyio._media.g711 import encode_mulaw
from fastrtc_anyio._peers.streams.audio import BufferOptions
from fastrtc_anyio._peers.streams.paced import PacedOutput
from fastrtc_anyio._peers.websocket import WebSocketPeer
from fastrtc_anyio._wire.events import Framing, Mark, Media, Ping, Start
from fastrtc_anyio._wire.fastrtc import FastRTCFraming
from fastrtc_anyio._wire.payload import MULAW_8K, AudioEncoding
from fastrtc_anyio._wire.plivo import PlivoFraming
from fastrtc_anyio._wire.telnyx import TelnyxFraming
from fastrtc_anyio._wire.twilio import TwilioFraming
from fastrtc_anyio.testing import check_peer
from tests.kit.websocket_clients import Client, memory_sockets, open_pair

PCM = AudioEncoding("pcm16", 16_000)

CARRIERS: dict[str, tuple[Callable[[], Framing], AudioEncoding]] = {
    "twilio": (TwilioFraming, MULAW_8K),
    "telnyx": (partial(TelnyxFraming, "PCMA"), AudioEncoding("alaw", 8_000)),
    "telnyx L16": (partial(TelnyxFraming, "L16"), AudioEncoding("l16", 16_000)),
    "plivo": (PlivoFraming, AudioEncoding("pcm16", 16_000)),
}


@pytest.mark.parametrize(
    "encoding",
    [None, MULAW_8K, AudioEncoding("pcm16", 16_000), AudioEncoding("pcm16", 44_100)],
    ids=str,
)
async def test_websocket_peer_conforms(encoding: AudioEncoding | None) -> None:
    await check_peer(partial(open_pair, FastRTCFraming, encoding, rates=(24_000, 24_000)))


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_telephone_peer_conforms(carrier: str) -> None:
    framing, encoding = CARRIERS[carrier]
    await check_peer(partial(open_pair, framing, encoding), messages=False, lead_s=0.2)


async def test_any_thread_may_send_messages() -> None:
    async with open_pair() as (peer, client):
        await anyio.sleep(0.1)  # the peer waits for messages
        await run_sync(peer.messages.send_nowait, "from a thread")
        with anyio.fail_after(10):
            assert await client.receive_message() == "from a thread"


async def test_client_receives_audio_100_ms_ahead() -> None:
    async with open_pair(encoding=PCM) as (peer, client):
        await peer.audio_out.send((16_000, np.full((1, 16_000), 1000, np.int16)))
        began = anyio.current_time()
        await peer.audio_out.wait_played()
        assert anyio.current_time() - began == pytest.approx(1.0)
        ahead = [0.02 * (i + 1) - (at - began) for i, at in enumerate(client.arrivals)]
        assert max(ahead) == pytest.approx(0.1)
        assert ahead[0] == pytest.approx(0.02)
        assert len(client.arrivals) == 50


async def test_stalled_live_source_leaves_no_delay_at_the_client() -> None:
    """The backlog waits in the peer, where it is trimmed, and not at the client."""
    async with (
        open_pair(encoding=PCM, buffers=BufferOptions(live=True)) as (peer, client),
        create_task_group() as tasks,
    ):
        tasks.start_soon(client.listen)
        began = anyio.current_time()
        for i in range(200):
            await anyio.sleep_until(began + 0.02 * (55 if 50 <= i < 55 else i))
            await peer.audio_out.send((16_000, np.full((1, 320), 1000, np.int16)))
            if i == 55:
                assert len(client.queue) + peer.audio_out.statistics().buffered / 320 >= 4
        assert len(client.queue) <= 2
        assert peer.audio_out.statistics().buffered <= 2 * 320
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("framing", [FastRTCFraming, TwilioFraming])
@pytest.mark.parametrize("stall", [15, 50])
async def test_burst_of_input_leaves_no_delay_in_an_echo(
    framing: Callable[[], Framing], stall: int
) -> None:
    """Neither in the peer nor at the client, which plays all that it is sent."""
    rate, size = MULAW_8K.sample_rate, MULAW_8K.sample_rate // 50
    waiting: list[float] = []
    async with open_pair(framing) as (peer, client), create_task_group() as tasks:

        async def echo() -> None:
            async for frame in peer.audio_in:
                await peer.audio_out.send(frame)

        tasks.start_soon(client.listen)
        tasks.start_soon(echo)
        began = anyio.current_time()
        for i in range(300 + stall):
            due = 150 + stall if 150 <= i < 150 + stall else i
            await anyio.sleep_until(began + 0.02 * due)
            client.send_audio(AudioFrame(rate, np.full((1, size), 1000, np.int16)))
            queued = sum(not isinstance(item, Mark) for item in client.queue)
            waiting.append(queued + peer.audio_out.statistics().buffered / size)
        tasks.cancel_scope.cancel()
        assert peer.audio_out.statistics().trimmed >= (stall - 3) * size
    assert np.mean(waiting[-50:]) <= np.mean(waiting[100:150]) + 3


async def test_chunks_of_a_carrier_are_reordered() -> None:
    async with open_pair(TwilioFraming) as (peer, client):
        sounds = {chunk: np.full((1, 160), 1000 * chunk, np.int16) for chunk in (1, 3, 2, 5, 4)}
        for chunk, samples in sounds.items():
            client.send(Media(encode_mulaw(samples[0]), chunk))
        heard = [await peer.audio_in.receive() for _ in range(5)]
        assert [round(frame.samples[0, 0] / 1000) for frame in heard] == [1, 2, 3, 4, 5]
        assert (await peer.transport_statistics())["missing"] == 0
        client.send(Media(encode_mulaw(sounds[1][0]), 7))
        # A chunk without a number counts as the next one, here as chunk 6.
        client.send(Media(encode_mulaw(sounds[2][0])))
        heard = [await peer.audio_in.receive() for _ in range(2)]
        assert [round(frame.samples[0, 0] / 1000) for frame in heard] == [2, 1]
        client.send(Media(encode_mulaw(sounds[1][0]), 9))
        client.hang_up()
        # The chunk behind the gap is delivered at the end.
        assert [frame.samples.shape async for frame in peer.audio_in][-1] == (1, 160)
        assert (await peer.transport_statistics())["missing"] == 1


async def test_outgoing_codec_may_differ_from_the_incoming_codec() -> None:
    """The caller's audio is PCMA, but the carrier accepts PCMU."""
    ours, theirs = memory_sockets()
    framing = TelnyxFraming()
    start = framing.decode(TelnyxFraming().encode(Start("me", AudioEncoding("alaw", 8_000))) or "")
    assert isinstance(start, Start)
    peer = WebSocketPeer(ours, framing, start)
    client = Client(theirs, TelnyxFraming(), MULAW_8K)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run)
        tasks.start_soon(client.run)
        tasks.start_soon(client.listen)
        await peer.audio_out.send((8_000, np.full((1, 320), 4000, np.int16)))
        await peer.audio_out.wait_played()
        tasks.cancel_scope.cancel()
    assert client.sound.shape == (1, 320)
    assert np.abs(client.sound - 4000).max() < 150
    client.close()
    await ours.aclose()
    await theirs.aclose()


async def test_partial_frame_is_sent_without_padding() -> None:
    async with open_pair(encoding=PCM) as (peer, client):
        await peer.audio_out.send((16_000, np.full((1, 1234), 1000, np.int16)))
        await peer.audio_out.wait_played()
        assert sum(item.shape[1] for item in client.queue if not isinstance(item, Mark)) == 1234


async def test_idle_connection_runs_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle connection asks the paced output for audio once."""
    asked = 0
    real = PacedOutput.pull_due

    def count(self: PacedOutput, now: float) -> Any:
        nonlocal asked
        asked += 1
        return real(self, now)

    monkeypatch.setattr(PacedOutput, "pull_due", count)
    async with open_pair():
        await anyio.sleep(60)
    assert asked == 1


async def test_client_that_stops_reading_vanishes() -> None:
    """Until then, audio waits in its bounded queue."""
    ours, theirs = memory_sockets(room=3)
    peer = WebSocketPeer(ours, FastRTCFraming(), Start("me", PCM))
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run)
        await peer.audio_out.send((16_000, np.full((1, 160_000), 1000, np.int16)))
        began = anyio.current_time()
        closed = await peer.wait_closed()
        assert closed.reason is CloseReason.VANISHED
        assert anyio.current_time() - began == pytest.approx(5.06, abs=0.1)
        assert peer.audio_out.statistics().played <= 5 * 320
    await theirs.aclose()


async def test_client_that_reads_late_loses_nothing() -> None:
    ours, theirs = memory_sockets(room=3)
    peer = WebSocketPeer(ours, FastRTCFraming(), Start("me", PCM))
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run)
        await peer.audio_out.send((16_000, np.full((1, 16_000), 1000, np.int16)))
        await anyio.sleep(3)
        client = Client(theirs, FastRTCFraming(), PCM)
        tasks.start_soon(client.run)
        await peer.audio_out.wait_played()
        assert len(client.arrivals) == 50
        await peer.aclose()
    client.close()
    await theirs.aclose()


async def test_flood_of_audio_stays_within_the_limit() -> None:
    async with open_pair(encoding=PCM) as (peer, client):
        for _ in range(500):
            client.send_audio(AudioFrame(16_000, np.zeros((1, 1600), np.int16)))
        await anyio.sleep(1)
        statistics = peer.audio_in.statistics()
        assert statistics.buffered_seconds <= 1
        assert statistics.received == statistics.dropped + statistics.buffered == 500


async def test_text_that_is_not_an_event_is_a_message() -> None:
    texts = ["hello", "[1]", '{"event": "mine"}', '{"type": "update", "data": 1}', ""]
    async with open_pair() as (peer, client):
        for text in texts:
            client.say(text)
        assert [await peer.messages.receive() for _ in texts] == texts


async def test_messages_before_aclose_arrive() -> None:
    async with open_pair() as (peer, client):
        for i in range(20):
            peer.messages.send_nowait(f"word {i}")
        await anyio.sleep(0.01)  # lets the peer start
        await peer.aclose()
        assert [await client.receive_message() for _ in range(20)] == [
            f"word {i}" for i in range(20)
        ]


async def test_close_behind_unanswerable_pings_hangs_up() -> None:
    """The pongs cannot be sent any more, yet the close behind the pings is read."""
    ours, theirs = memory_sockets()
    for _ in range(3):
        await theirs.send(FastRTCFraming().encode(Ping()))
    await theirs.aclose()
    peer = WebSocketPeer(ours, FastRTCFraming(), Start("me", PCM))
    await peer.run()
    await ours.aclose()
    assert (await peer.wait_closed()).reason is CloseReason.HUNG_UP
