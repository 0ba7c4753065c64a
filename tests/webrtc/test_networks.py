"""Calls over networks that are slow, lose datagrams, fail for a while, or change."""

from __future__ import annotations

import anyio

from tests.kit.calls import make_stream, place_call
from tests.kit.network import open_network
from tests.kit.waiting import wait_until


async def test_network_delays_and_loses_datagrams_as_configured() -> None:
    with open_network(delay=0.02, seed=3) as network:
        async with make_stream() as stream, place_call(stream, network=network) as client:
            client.send_message("hello")
            await wait_until(lambda: network.media["down"] > 20, "sound")
            network.loss, network.burst = 0.2, 3
            before = network.passed["up"], network.lost["up"]
            await wait_until(lambda: network.passed["up"] > before[0] + 50, "sound")
            assert network.lost["up"] > before[1]
            network.outage = True
            await anyio.sleep(0.05)
            passed = network.passed["down"]
            await anyio.sleep(0.1)
            assert network.passed["down"] == passed
