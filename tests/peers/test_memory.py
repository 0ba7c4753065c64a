"""The memory peer passes the conformance suite, and conceals losses."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import numpy as np

from fastrtc_anyio import AudioFrame
from fastrtc_anyio._peers.memory import MemoryClient, MemoryPeer
from fastrtc_anyio.testing import check_peer, tone


@asynccontextmanager
async def open_pair() -> AsyncGenerator[tuple[MemoryPeer, MemoryClient], None]:
    async with MemoryPeer().open() as peer:
        peer.client.connect()
        yield peer, peer.client


async def test_memory_peer_conforms() -> None:
    await check_peer(open_pair)


class Line:
    """Loses the frames with these numbers."""

    def __init__(self, *lost: int) -> None:
        self.lost = lost
        self.count = 0

    def transmit(self, now: float) -> float | None:
        self.count += 1
        return None if self.count - 1 in self.lost else now + 0.01


async def test_lost_frames_are_concealed_and_long_losses_fade_to_silence() -> None:
    lost = (10, *range(20, 40))
    sound = tone(200, 16_000, 1.0)
    async with MemoryPeer(uplink=Line(*lost)).open() as peer:
        peer.client.connect()
        for start in range(0, 16_000, 320):
            peer.client.send_audio(AudioFrame(16_000, sound[:, start : start + 320]))
            await anyio.sleep(0.02)
        peer.client.hang_up()
        heard = np.concatenate([frame.samples[0] async for frame in peer.audio_in])
        statistics = peer.audio_in.statistics()
    assert heard.size == 16_000
    assert np.abs(np.diff(heard.astype(int))).max() < 1.3 * np.abs(np.diff(sound.astype(int))).max()
    levels = np.abs(heard.reshape(-1, 320)).max(axis=1)
    assert levels[10] > 6000
    assert not levels[23:40].any()
    assert levels[41] > 8000
    assert statistics.lost == 21
    assert round(statistics.concealed_seconds, 4) == 0.08


async def test_client_hears_concealed_audio() -> None:
    async with MemoryPeer(downlink=Line(3)).open() as peer:
        peer.client.connect()
        await peer.audio_out.send((24_000, tone(200, 24_000, 0.2)))
        await anyio.sleep(0.3)
        heard = np.concatenate(peer.client.heard, axis=1)[0]
    loud = np.flatnonzero(np.abs(heard) > 1000)
    assert np.diff(loud).max() < 100
