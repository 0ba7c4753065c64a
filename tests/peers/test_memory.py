"""The memory peer passes the conformance suite."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastrtc_anyio._peers.memory import MemoryClient, MemoryPeer
from fastrtc_anyio.testing import check_peer


@asynccontextmanager
async def open_pair() -> AsyncGenerator[tuple[MemoryPeer, MemoryClient], None]:
    async with MemoryPeer().open() as peer:
        peer.client.connect()
        yield peer, peer.client


async def test_memory_peer_conforms() -> None:
    await check_peer(open_pair)
