"""Each line of each offer repeated, removed or emptied: an answer, or a refusal in our words."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack

import httpx
import pytest
from starlette.applications import Starlette

from fastrtc_anyio import CloseReason, RequestLimits, Session, Stream
from fastrtc_anyio._peers.portal import open_portal
from tests.kit.backends import on_trio
from tests.kit.calls import make_stream
from tests.kit.offer_corpus import OFFERS
from tests.kit.waiting import wait_until
from tests.webrtc.test_offers import count_tasks, idle

FOREIGN = re.compile(r"aiortc|None|object|Error|Exception|assert|Traceback|<class|has met an error")
"""Words of Python, of aiortc, and of an answer that hides an error."""


def vary(sdp: str) -> Iterator[tuple[str, str]]:
    """Yield the offers in which one line is repeated, repeated elsewhere, removed or emptied."""
    lines = sdp.splitlines()
    for i, line in enumerate(lines):
        name, colon, _ = line.partition(":")
        changes = {
            "twice": [line, line],
            "removed": [],
            "without a value": [name + colon if colon else line[:2]],
            "also empty": [line, name + colon if colon else line[:2]],
        }
        for change, replaced in changes.items():
            yield f"{line} {change}", "\r\n".join([*lines[:i], *replaced, *lines[i + 1 :], ""])
        yield f"{line} also at the end", "\r\n".join([*lines, line, ""])


class Servers:
    """A client of a stream for each modality and mode."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._open: dict[tuple[str, str], tuple[Stream, httpx.AsyncClient]] = {}

    async def post(self, modality: str, mode: str, sdp: str) -> httpx.Response:
        if (modality, mode) not in self._open:
            app = Starlette()
            limits = RequestLimits(client_requests=100_000, client_pending=64)
            stream = make_stream(
                idle, modality=modality, mode=mode, verbose=False, request_limits=limits
            )
            stream.mount(app)
            await self._stack.enter_async_context(stream)
            transport = httpx.ASGITransport(app)
            http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
            self._open[modality, mode] = stream, await self._stack.enter_async_context(http)
        _, http = self._open[modality, mode]
        return await http.post("/webrtc/offer", json={"type": "offer", "sdp": sdp})

    async def hang_up(self) -> None:
        sessions: list[Session] = []
        for stream, _ in self._open.values():
            sessions += stream.sessions.values()
        for session in sessions:
            session.close(CloseReason.HUNG_UP)
        await wait_until(lambda: not any(s.sessions for s, _ in self._open.values()), "the end")


@on_trio  # offers are read and answered by the same code on both
@pytest.mark.timeout(280)
async def test_each_line_of_each_offer_may_be_repeated_removed_or_emptied(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    failed: dict[str, str] = {}
    statuses: dict[int, int] = {}
    async with open_portal() as portal, AsyncExitStack() as stack:
        servers = Servers(stack)
        seen: set[str] = set()
        before = await portal.call(count_tasks)
        for offer in OFFERS.values():
            if not isinstance(offer.answer, tuple):
                continue
            for name, sdp in vary(offer.sdp):
                if sdp in seen:
                    continue
                seen.add(sdp)
                response = await servers.post(offer.modality, offer.mode, sdp)
                status = response.status_code
                statuses[status] = statuses.get(status, 0) + 1
                if status not in (200, 400, 413) or (
                    status != 200 and FOREIGN.search(response.text)
                ):
                    failed[name] = f"{status} {response.text[:200]}"
                if len(seen) % 50 == 0:
                    await servers.hang_up()
            await servers.hang_up()
        assert await portal.call(count_tasks) <= before
    assert failed == {}
    assert statuses[200] > 500
    assert statuses[400] > 100
    assert [r.getMessage() for r in caplog.records if r.levelno > logging.WARNING] == []
    assert [r.getMessage() for r in caplog.records if r.name == "asyncio"] == []
