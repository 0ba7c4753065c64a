"""Conformance suite for peers, for the transports of this package and of others.

It tests a connected pair: the :class:`~fastrtc_anyio.abc.Peer` for a session, and a client of the
same transport that is implemented independently.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

import anyio
import numpy as np
from anyio import create_task_group, fail_after

from fastrtc_anyio._media.frames import FRAMES_PER_SECOND, AudioFrame, Int16Array
from fastrtc_anyio.abc import Peer
from fastrtc_anyio.errors import CloseReason

from .signals import tone, tone_snr

__all__ = ["PeerClient", "check_peer"]

_SECONDS = 10  # timeout of each step
_MIN_SNR = 30.0  # dB, of a tone after a lossy codec


class PeerClient(Protocol):
    """Client of the transport under test."""

    def send_audio(self, frame: AudioFrame, /) -> None:
        """Send 20 ms."""

    async def receive_audio(self) -> AudioFrame:
        """Wait for the next 20 ms and return them."""
        ...

    def send_message(self, text: str, /) -> None:
        """Send a message."""

    async def receive_message(self) -> str:
        """Wait for the next message and return it."""
        ...

    def hang_up(self) -> None:
        """End the call and notify the peer."""


Pair = tuple[Peer, PeerClient]
OpenPair = Callable[[], AbstractAsyncContextManager[Pair]]


async def check_peer(open_pair: OpenPair, *, messages: bool = True, lead_s: float = 0.0) -> None:
    """Check that a transport fulfils the contract of :mod:`fastrtc_anyio.abc`.

    Args:
        open_pair: opens a connected pair with an open data channel; called for each check.
        messages: False for a transport without messages, such as a telephone.
        lead_s: seconds of audio that the client's side buffers and acknowledges, as a telephone
            carrier does. A pause takes effect after this time.

    Raises:
        AssertionError: the transport violates the contract.
        TimeoutError: a step did not finish in time.
    """
    checks: list[Callable[[Peer, PeerClient], Awaitable[None]]] = [
        _audio_in_is_complete,
        _audio_out_is_complete,
        _flush_drops_queued_audio,
        partial(_pause_loses_no_audio, lead_s),
        *([_messages_arrive_in_order] if messages else []),
        _hang_up_ends_every_stream,
        _aclose_is_idempotent,
    ]
    for check in checks:
        async with open_pair() as (peer, client):
            with fail_after(_SECONDS):
                await peer.wait_connected()
                if messages:
                    await peer.messages.wait_open()
            with fail_after(_SECONDS):
                await check(peer, client)


async def _audio_in_is_complete(peer: Peer, client: PeerClient) -> None:
    rate, seconds = 48_000, 1.5
    heard: list[AudioFrame] = []
    async with create_task_group() as tg:
        tg.start_soon(_speak, client, tone(440, rate, seconds), rate)
        async for frame in peer.audio_in:
            heard.append(frame)
            if sum(frame.duration for frame in heard) > seconds - 0.3:
                break
        tg.cancel_scope.cancel()
    assert heard[0].samples.dtype == np.int16
    samples = np.concatenate([frame.samples[0] for frame in heard])
    _assert_tone(_trim_silence(samples), 440, heard[0].sample_rate)
    statistics = peer.audio_in.statistics()
    assert statistics.received == len(heard) + statistics.dropped + statistics.buffered


async def _audio_out_is_complete(peer: Peer, client: PeerClient) -> None:
    out = peer.audio_out
    sent = tone(440, out.sample_rate, 1.0)
    await out.send((out.sample_rate, np.repeat(sent, out.channels, axis=0)))
    heard, rate = await _listen(client, until=out.wait_played)
    _assert_tone(_trim_silence(heard), 440, rate)
    statistics = out.statistics()
    assert statistics.played == statistics.sent == sent.shape[1]
    assert statistics.underruns <= 1, "an underrun happened while audio was queued"


async def _flush_drops_queued_audio(peer: Peer, client: PeerClient) -> None:
    out = peer.audio_out
    await out.send((out.sample_rate, tone(440, out.sample_rate, 5.0)))
    while out.statistics().played < out.sample_rate // 4:
        await client.receive_audio()
    played = out.flush()
    assert played.samples >= out.sample_rate // 4
    await out.wait_played()
    statistics = out.statistics()
    assert statistics.buffered == 0
    assert statistics.sent == statistics.played + statistics.flushed
    fade = statistics.played - played.samples
    assert fade <= out.sample_rate * 0.005 + out.sample_rate // FRAMES_PER_SECOND


async def _pause_loses_no_audio(lead_s: float, peer: Peer, client: PeerClient) -> None:
    out = peer.audio_out
    await out.send((out.sample_rate, tone(440, out.sample_rate, 1.0)))
    while out.statistics().played < out.sample_rate // 4:
        await client.receive_audio()
    out.pause()
    out.pause()
    for _ in range(3 + round(lead_s * FRAMES_PER_SECOND)):
        await client.receive_audio()
    for _ in range(FRAMES_PER_SECOND):  # a client on a busy machine may have a backlog
        if np.abs((await client.receive_audio()).samples).max() < 1000:
            break
    before = out.statistics().played
    assert before < out.statistics().sent, "a paused output continued to play"
    for _ in range(10):
        await client.receive_audio()
    assert out.statistics().played == before, "a paused output continued to play"
    out.resume()
    await _listen(client, until=out.wait_played)
    statistics = out.statistics()
    assert statistics.played == statistics.sent


async def _messages_arrive_in_order(peer: Peer, client: PeerClient) -> None:
    texts = [f"message {i} \N{SNOWMAN}" for i in range(40)]
    for text in texts:
        peer.messages.send_nowait(text)
        client.send_message(text)
    for text in texts:
        assert await client.receive_message() == text
        assert await peer.messages.receive() == text


async def _hang_up_ends_every_stream(peer: Peer, client: PeerClient) -> None:
    client.hang_up()
    closed = await peer.wait_closed()
    assert closed.reason is CloseReason.HUNG_UP
    await _assert_ended(peer)
    assert await peer.wait_closed() == closed


async def _aclose_is_idempotent(peer: Peer, _client: PeerClient) -> None:
    await peer.aclose()
    await peer.aclose()
    await peer.wait_closed()
    await _assert_ended(peer)


async def _assert_ended(peer: Peer) -> None:
    async for _ in peer.audio_in:
        pass
    peer.messages.send_nowait("too late")
    await peer.audio_out.wait_played()
    try:
        await peer.audio_out.send((peer.audio_out.sample_rate, np.zeros((1, 160), np.int16)))
    except anyio.BrokenResourceError:
        pass
    else:
        raise AssertionError("send() on an ended connection must raise BrokenResourceError")
    try:
        while True:
            await peer.messages.receive()
    except anyio.EndOfStream:
        pass


async def _speak(client: PeerClient, samples: Int16Array, rate: int) -> None:
    size = rate // FRAMES_PER_SECOND
    # Half a second ahead: a client with its own pacing must never run out of audio.
    due = anyio.current_time() - 0.5
    for start in range(0, samples.shape[1], size):
        client.send_audio(AudioFrame(rate, samples[:, start : start + size]))
        due += 1 / FRAMES_PER_SECOND
        await anyio.sleep_until(due)


async def _listen(
    client: PeerClient, until: Callable[[], Awaitable[None]]
) -> tuple[Int16Array, int]:
    """Record until ``until`` returns, and then the audio in flight."""
    heard: list[AudioFrame] = []
    async with create_task_group() as tg:

        async def record() -> None:
            while True:
                heard.append(await client.receive_audio())

        tg.start_soon(record)
        await until()
        wanted = len(heard) + 25
        while len(heard) < wanted:
            await anyio.sleep(1 / FRAMES_PER_SECOND)
        tg.cancel_scope.cancel()
    return np.concatenate([frame.samples[0] for frame in heard]), heard[0].sample_rate


def _trim_silence(samples: Int16Array) -> Int16Array:
    """Return the samples from the first to the last loud one."""
    loud = np.flatnonzero(np.abs(samples) > 500)
    assert loud.size, "no audio was received"
    return samples[loud[0] : loud[-1]]


def _assert_tone(samples: Int16Array, frequency: float, rate: int) -> None:
    margin = rate // 10
    assert samples.size > 4 * margin, f"only {samples.size / rate:.2f} s were received"
    snr = tone_snr(samples[margin:-margin], frequency, rate)
    assert snr > _MIN_SNR, f"the tone has an SNR of {snr:.1f} dB"
