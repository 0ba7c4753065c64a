"""Many mutated offers, and datagrams of strangers and clients: nothing is left, no call is cut."""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import suppress
from functools import partial

import anyio
import httpx
import pytest

from fastrtc_anyio import CloseReason
from tests.fuzz.connections import open_worlds, post_offer
from tests.fuzz.packets import TARGETS
from tests.fuzz.seeds import ALL_OFFERS, client_messages
from tests.fuzz.short import run_short
from tests.kit.choices import Choices
from tests.kit.gaps import LIMIT, open_target
from tests.kit.mutators import http_head, mutate_sdp, websocket_frames
from tests.kit.resources import count_resources, wait_no_more

OFFERS = 10_000
_AT_ONCE = 8
"""Clients that post offers at the same time: some answers wait for a while."""


@pytest.mark.timeout(600)
async def test_ten_thousand_mutated_offers_are_answered_or_refused() -> None:
    statuses: Counter[int] = Counter()
    async with open_worlds() as worlds:

        async def post(seed: int) -> None:
            choices = Choices.of_seed(seed)
            offer = choices.pick(ALL_OFFERS)
            world = worlds[offer.modality, offer.mode]
            reply = await post_offer(world, mutate_sdp(choices, offer.sdp), f"client {seed}")
            world.check_reply(reply)
            statuses[reply.status] += 1
            if reply.status == 200:
                session = world.stream.session(f"client {seed}")
                session.close(CloseReason.HUNG_UP)

        async def work(first: int, last: int) -> None:
            for seed in range(first, last, _AT_ONCE):
                await post(seed)

        await post(0)  # starts threads, and fills caches
        before = await count_resources()
        async with anyio.create_task_group() as tasks:
            for first in range(1, _AT_ONCE + 1):
                tasks.start_soon(work, first, OFFERS)
        for world in worlds.values():
            await world.wait_over()
        await wait_no_more(before)
    assert statuses.total() == OFFERS
    # The mutations keep enough offers valid to get past the parser.
    assert 0.2 < statuses[200] / OFFERS < 0.8, statuses


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", TARGETS)
def test_datagram_affects_its_own_call_at_most(name: str, backend: str) -> None:
    run_short(TARGETS[name], backend, 200)


def post_offers(url: str) -> None:
    with httpx.Client() as http:
        for seed in range(60):
            choices = Choices.of_seed(seed)
            sdp = mutate_sdp(choices, choices.pick(ALL_OFFERS).sdp)
            body = {"type": "offer", "sdp": sdp.encode("utf-8", "replace").decode()}
            assert http.post(f"{url}/webrtc/offer", json=body, timeout=20).status_code < 500


def send_requests(url: str) -> None:
    """Send HTTP heads and frames of WebSockets as bytes."""
    address = httpx.URL(url)
    for seed in range(100):
        choices = Choices.of_seed(seed)
        data = websocket_frames(choices, client_messages()) if seed % 2 else http_head(choices)
        place = address.host, address.port or 80
        with socket.create_connection(place, 20) as connection, suppress(ConnectionError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(65_536)


@pytest.mark.alone
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_mutated_input_leaves_no_gap_in_another_call(backend: str) -> None:
    with open_target(backend) as target:
        for attack in (post_offers, send_requests):
            assert target.find_gap(partial(attack, target.url)) <= LIMIT, attack.__name__
