"""Calls of a minute or so: a round trip of 2 s, a server with a third of a CPU, an outage."""

from __future__ import annotations

import os
import signal
import statistics
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aioice.stun
import anyio
import numpy as np
import pytest
from anyio.abc import Process

from tests.kit.aiortc_client import AiortcClient
from tests.kit.backends import on_trio
from tests.kit.calls import place_call
from tests.kit.network import open_network

from .conftest import RATE

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

PROGRAM = """
from tests.kit.calls import make_stream
from tests.kit.handlers import AsyncEcho
make_stream(AsyncEcho).launch(port=0)
"""


@asynccontextmanager
async def open_server_process() -> AsyncGenerator[tuple[Process, str], None]:
    async with await anyio.open_process([sys.executable, "-c", PROGRAM], stderr=None) as process:
        assert process.stdout is not None
        with anyio.fail_after(20):
            said = (await process.stdout.receive()).decode()
        try:
            yield process, next(word for word in said.split() if word.startswith("http"))
        finally:
            process.kill()


async def measure_latency(client: AiortcClient) -> float:
    """Return the median seconds from a tone in the microphone to its echo."""
    found = []
    for _ in range(5):
        while not client.heard.empty():
            client.heard.get()
        for part in np.split(12_000 * np.sin(np.arange(4800) * (2 * np.pi * 1000 / RATE)), 5):
            client.microphone.frames.put(part.astype(np.int16)[np.newaxis])
        began = anyio.current_time()
        with anyio.fail_after(10):
            while abs((await client.receive_audio()).samples).max() < 2000:
                pass
        found.append(anyio.current_time() - began)
        await anyio.sleep(0.5)
    return statistics.median(found)


@on_trio
async def test_call_survives_a_round_trip_of_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    # The client is aiortc, whose consent checks accept an answer within 0.5 s only.
    monkeypatch.setattr(aioice.stun, "RETRY_RTO", 5)
    with open_network(delay=1.0) as network:
        async with open_server_process() as (_, url), place_call(url, network=network) as client:
            before = await measure_latency(client)
            await anyio.sleep(45)
            after = await measure_latency(client)
            assert not client.closed.is_set()
    print(f"latency {before * 1000:.0f} ms, then {after * 1000:.0f} ms")
    assert abs(after - before) < 0.1


@on_trio
async def test_call_survives_a_starved_server() -> None:
    """The server runs for a third of each 0.6 s, for a minute, and then as before."""
    async with open_server_process() as (process, url), place_call(url) as client:
        before = await measure_latency(client)
        for _ in range(100):
            os.kill(process.pid, signal.SIGSTOP)
            await anyio.sleep(0.4)
            os.kill(process.pid, signal.SIGCONT)
            await anyio.sleep(0.2)
        await anyio.sleep(3)
        after = await measure_latency(client)
        assert not client.closed.is_set()
    print(f"latency {before * 1000:.0f} ms, then {after * 1000:.0f} ms")
    assert after < before + 0.1


@on_trio
async def test_call_survives_three_seconds_without_network() -> None:
    with open_network() as network:
        async with open_server_process() as (_, url), place_call(url, network=network) as client:
            before = await measure_latency(client)
            network.outage = True
            await anyio.sleep(3)
            network.outage = False
            await anyio.sleep(3)
            after = await measure_latency(client)
            assert not client.closed.is_set()
    print(f"latency {before * 1000:.0f} ms, then {after * 1000:.0f} ms")
    assert after < before + 0.1
