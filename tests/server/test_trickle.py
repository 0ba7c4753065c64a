"""Trickled candidates after their offer, before it, and out of order."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette

from fastrtc_anyio import Limits
from fastrtc_anyio.server.launch import open_server
from tests.kit.aiortc_client import open_client
from tests.kit.calls import accept, make_offer, make_stream, post, without_candidates
from tests.kit.measure import check_echo
from tests.kit.waiting import wait_until


async def _call(
    *, early: bool = False, late: bool = False, overtaken: bool = False, connect: float = 10.0
) -> bool:
    """Place a call without candidates in offer and answer; return whether it connects.

    The client learns no address of the server, so only candidates trickled by the client connect.
    """
    stream = make_stream(limits=Limits(connect=connect))
    app = Starlette()
    stream.mount(app)
    async with open_server(app) as url, open_client() as client:
        offer, candidates = without_candidates(await make_offer(client))
        assert candidates
        trickled: list[Any] = [
            {"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0} for line in candidates
        ]

        async def send_candidates() -> None:
            # Firefox sends this end of candidates once per section.
            end = {"candidate": "", "sdpMid": "0", "sdpMLineIndex": 0}
            sent = [end, *trickled] if overtaken else [*trickled, None]
            for candidate in sent:
                body = {"type": "ice-candidate", "candidate": candidate, "webrtc_id": "trickler"}
                reply = await post(url, body)
                assert (reply.status_code, reply.json()) == (200, {"status": "success"})

        if early:
            await send_candidates()
        reply = await post(url, {"type": "offer", "sdp": offer, "webrtc_id": "trickler"})
        assert reply.status_code == 200, reply.text
        await accept(client, without_candidates(reply.json()["sdp"])[0])
        assert len(stream.sessions) == 1
        assert not client.connected.is_set() or early
        if late:
            await send_candidates()
        await wait_until(lambda: client.connected.is_set() or not stream.sessions)
        if client.connected.is_set():
            await check_echo(client)
        return client.connected.is_set()


async def test_candidates_after_the_offer_connect() -> None:
    assert await _call(late=True)


async def test_candidates_before_the_offer_connect() -> None:
    assert await _call(early=True)


@pytest.mark.parametrize("when", ["early", "late"])
async def test_candidates_after_their_end_mark_connect(when: str) -> None:
    """Each candidate is a separate request, so the end may overtake the others."""
    assert await _call(early=when == "early", late=when == "late", overtaken=True)


async def test_call_without_candidates_does_not_connect() -> None:
    assert not await _call(connect=0.5)
