"""The WebRTC peer passes the conformance suite in each audio codec."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from anyio import to_thread

from fastrtc_anyio import RtcConfiguration
from fastrtc_anyio._peers.portal import open_portal
from fastrtc_anyio._peers.webrtc import WebRTCPeer
from fastrtc_anyio._signaling.requests import SessionDescription
from fastrtc_anyio.testing import check_peer
from tests.kit.aiortc_client import AiortcClient, open_client
from tests.kit.backends import on_trio

LOOPBACK = RtcConfiguration(addresses=("127.0.0.1",))


@asynccontextmanager
async def open_pair(codec: str) -> AsyncGenerator[tuple[WebRTCPeer, AiortcClient], None]:
    async with open_portal() as portal, open_client() as client:
        peer = WebRTCPeer(portal, sample_rate=24_000, configuration=LOOPBACK)
        offer = await to_thread.run_sync(client.run, client.make_offer, codec, True)
        answer = await peer.answer(SessionDescription("offer", offer))
        await to_thread.run_sync(client.run, client.accept, answer.sdp)
        try:
            yield peer, client
        finally:
            await peer.aclose()


async def test_webrtc_peer_conforms() -> None:
    await check_peer(partial(open_pair, "opus"))


@on_trio
@pytest.mark.parametrize("codec", ["G722", "PCMU", "PCMA"])
async def test_webrtc_peer_conforms_in_other_codecs(codec: str) -> None:
    await check_peer(partial(open_pair, codec))
