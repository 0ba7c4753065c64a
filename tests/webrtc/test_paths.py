"""Calls whose network is slow, fails for a while, or gives the client another address."""

from __future__ import annotations

import json
import logging

import anyio
import pytest
from anyio import to_thread

from fastrtc_anyio import CloseReason, Limits
from tests.kit.calls import make_stream, only_session, place_call
from tests.kit.network import Network, open_network
from tests.kit.waiting import wait_until


async def wait_media(network: Network) -> None:
    """Wait for sound at the client."""
    before = network.media["down"]
    await wait_until(lambda: network.media["down"] > before + 10, "sound")


async def test_media_and_messages_follow_a_client_to_another_address() -> None:
    with open_network() as network:
        stream = make_stream()
        async with stream, place_call(stream, network=network) as client:
            session = only_session(stream)
            await wait_media(network)
            for text in ("one", "two"):
                network.rebind()
                began = anyio.current_time()
                await wait_media(network)
                assert anyio.current_time() - began < 4  # a client's own checks take up to 6 s
                session.messages.send_nowait(text)
                assert await client.receive_message() == text
            assert network.stale > 0
        assert session.closed is not None
        assert session.closed.reason is not CloseReason.VANISHED


async def test_client_whose_packets_are_lost_learns_why_its_call_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with open_network() as network:
        stream = make_stream(limits=Limits(liveness=1.0))
        async with stream, place_call(stream, network=network) as client:
            session = only_session(stream)
            await wait_media(network)
            network.outage_up = True
            ended = json.loads(await client.receive_message())
            assert ended["type"] == "end_stream"
            assert ended["reason"] == "vanished"
            assert ended["data"] == "no packet from the client for 1 s"
            await to_thread.run_sync(client.closed.wait, 10)  # the DTLS alert
    assert session.closed is not None
    assert session.closed.reason is CloseReason.VANISHED
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert any("no packet from the client for 1 s" in text for text in warnings)


async def test_call_connects_and_survives_over_a_slow_network() -> None:
    with open_network(delay=0.3) as network:
        async with make_stream() as stream, place_call(stream, network=network) as client:
            await wait_media(network)
            network.outage = True
            await anyio.sleep(3)
            network.outage = False
            await wait_media(network)
            client.send_message("still here")
            assert await only_session(stream).messages.receive() == "still here"
