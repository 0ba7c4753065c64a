"""Calling an application as a page of FastRTC's does: over HTTP, UDP and the data channel."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
from anyio import to_thread

from tests.kit.aiortc_client import AiortcClient, open_client
from tests.kit.http_calls import wait_until

SECONDS = 20
"""A generous deadline for what takes a fraction of it."""


@asynccontextmanager
async def dial(
    url: str, webrtc_id: str, *, audio: bool | str = True, video: str | None = None
) -> AsyncGenerator[AiortcClient, None]:
    """A client that is connected to the stream at ``url``, with a data channel."""
    async with open_client() as client, httpx.AsyncClient(base_url=url) as http:
        offer = await to_thread.run_sync(
            client.run, client.make_offer, None, True, audio, video, None
        )
        body = {"type": "offer", "sdp": offer, "webrtc_id": webrtc_id}
        reply = await http.post("/webrtc/offer", json=body)
        assert reply.json()["type"] == "answer", reply.text
        await to_thread.run_sync(client.run, client.accept, reply.json()["sdp"])
        await wait_until(client.connected.is_set, SECONDS)
        yield client


async def message(client: AiortcClient, kind: str) -> Any:
    """The client's next message of a kind."""
    with anyio.fail_after(SECONDS):
        while True:
            received: Any = json.loads(await client.receive_message())
            if received["type"] == kind:
                return received
