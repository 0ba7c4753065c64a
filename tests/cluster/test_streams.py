"""Streams in a cluster: their sessions have ids that name their process, and claims."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest
from anyio import create_task_group, move_on_after

from fastrtc_anyio import CloseReason, InvalidStateError, Limits, Stream
from fastrtc_anyio._peers.memory import MemoryPeer
from fastrtc_anyio._signaling.session_ids import owner_of
from fastrtc_anyio.cluster import Member
from tests.kit.answering_peer import AnsweringPeer
from tests.kit.clusters import Link
from tests.kit.handlers import Quiet

ID = secrets.token_hex(16)


@asynccontextmanager
async def open_processes(link: Link, *names: str) -> AsyncGenerator[list[Stream], None]:
    """Streams of several processes of a cluster, whose offers are answered in memory."""
    async with create_task_group() as tasks:
        streams = [await tasks.start(_run_process, link, name) for name in names]
        yield streams
        tasks.cancel_scope.cancel()


async def _run_process(link: Link, name: str, *, task_status: anyio.abc.TaskStatus[Stream]) -> None:
    stream = Stream(Quiet, modality="audio", concurrency_limit=None, limits=Limits(lag=None))
    stream.claims = member = Member(link, f"http://{name}", name=name)
    async with create_task_group() as tasks:
        await tasks.start(member.run)
        async with stream:
            supervisor: Any = stream._service._supervisor
            supervisor.resources = replace(supervisor.resources, peer_class=AnsweringPeer)
            task_status.started(stream)
            await anyio.sleep_forever()


async def offer(stream: Stream, webrtc_id: str | None = ID) -> str:
    """Send an offer, and return the id in the answer."""
    body = {"type": "offer", "sdp": f"v=0\r\na=ice-ufrag:{secrets.token_hex(8)}\r\n"}
    answer = await stream.offer(body if webrtc_id is None else {**body, "webrtc_id": webrtc_id})
    return answer["webrtc_id"]


async def test_ids_name_their_process() -> None:
    async with open_processes(Link(), "one", "two") as streams:
        for stream, name in zip(streams, ("one", "two"), strict=True):
            session = stream.session(await offer(stream, None))
            assert owner_of(session.id) == name
            assert session.log_id == session.id[: len(name) + 9]
            assert stream.describe(session.log_id)["session_id"] == session.log_id


async def test_another_process_refuses_an_id_that_is_taken() -> None:
    link = Link()
    async with open_processes(link, "one", "two") as (first, second):
        await offer(first)
        with pytest.raises(InvalidStateError, match=f"the webrtc_id '{ID}' is in use"):
            await offer(second)
        assert not second.sessions
        assert second.active == 0
        first.session(ID).close(CloseReason.CANCELLED)
        await anyio.sleep(1)
        assert await link.find(ID) is None
        assert await offer(second) == ID
        location = await link.find(ID)
        assert location is not None
        assert location.owner == "two"


async def test_other_transports_claim_their_ids() -> None:
    link = Link()
    async with open_processes(link, "one", "two") as (first, second):
        async with create_task_group() as tasks:
            tasks.start_soon(_serve, first)
            await anyio.sleep(0.1)
            with pytest.raises(InvalidStateError, match="in use"):
                await _serve(second)
            first.session(ID).hang_up()
        await anyio.sleep(1)
        assert await link.find(ID) is None


async def _serve(stream: Stream) -> None:
    await stream.serve_peer(
        lambda needs, buffers: MemoryPeer(media=stream.media, sample_rate=needs.sample_rate),
        alias=ID,
    )


@pytest.mark.parametrize("fault", ["slow", "answer lost"])
async def test_a_cancelled_offer_leaves_no_claim(fault: Any) -> None:
    link = Link()
    async with open_processes(link, "one", "two") as (first, second):
        link.faults.append(fault)
        with move_on_after(0.1) as scope:
            await offer(first)
        assert scope.cancelled_caught
        await anyio.sleep(1)
        assert not first.sessions
        assert await offer(second) == ID
