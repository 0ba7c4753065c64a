"""Transports derived from ``QueuedPeer``: the contract and each kind of end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import numpy as np
import pytest
from anyio import create_task_group

from fastrtc_anyio import AudioFrame, CloseReason, UnsupportedFormat, run_sync
from fastrtc_anyio.testing import check_peer
from fastrtc_anyio.transport import MediaPlan, QueuedPeer

Item = AudioFrame | str


class LinePeer(QueuedPeer):
    """Both directions are streams in memory."""

    def __init__(self, *, messages: bool = True, media: MediaPlan | None = None) -> None:
        super().__init__(messages=messages, media=media)
        self.error: Exception | None = None
        self.from_client, self.incoming = anyio.create_memory_object_stream[Item](1000)
        self.outgoing, self.to_client = anyio.create_memory_object_stream[Item](1000)

    async def carry(self) -> None:
        async with self.outgoing, create_task_group() as tasks:
            tasks.start_soon(self._send_audio)
            tasks.start_soon(self._send_messages)
            async for item in self.incoming:
                if isinstance(item, str):
                    self.push_message(item)
                else:
                    self.push_audio((item.sample_rate, item.samples))
            if self.error is not None:
                raise self.error
            tasks.cancel_scope.cancel()

    async def _send_audio(self) -> None:
        while True:
            samples = await self.next_audio()
            await self.outgoing.send(AudioFrame(self.audio_out.sample_rate, samples))

    async def _send_messages(self) -> None:
        while True:
            await self.outgoing.send(await self.next_message())


class LineClient:
    def __init__(self, peer: LinePeer) -> None:
        self.send_audio = self.send_message = peer.from_client.send_nowait
        self.hang_up = peer.from_client.close
        self._arriving = peer.to_client
        self.messages: list[str] = []

    async def receive_audio(self) -> AudioFrame:
        while isinstance(item := await self._arriving.receive(), str):
            self.messages.append(item)
        return item

    async def receive_message(self) -> str:
        while not self.messages:
            if isinstance(item := await self._arriving.receive(), str):
                self.messages.append(item)
        return self.messages.pop(0)


@asynccontextmanager
async def open_pair() -> AsyncGenerator[tuple[LinePeer, LineClient], None]:
    peer = LinePeer()
    with peer.from_client, peer.incoming, peer.outgoing, peer.to_client:
        async with create_task_group() as tasks:
            tasks.start_soon(peer.run)
            yield peer, LineClient(peer)
            tasks.cancel_scope.cancel()


async def test_queued_peer_conforms() -> None:
    await check_peer(open_pair)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, CloseReason.HUNG_UP),
        (anyio.EndOfStream(), CloseReason.HUNG_UP),
        (anyio.BrokenResourceError(), CloseReason.PEER_FAILED),
        (ConnectionResetError(), CloseReason.PEER_FAILED),
    ],
)
async def test_end_of_carry_gives_reason(error: Exception | None, reason: CloseReason) -> None:
    async with open_pair() as (peer, client):
        peer.error = error
        client.hang_up()
        assert (await peer.wait_closed()).reason is reason


async def test_any_thread_may_send_messages() -> None:
    async with open_pair() as (peer, client):
        await client.receive_audio()  # it waits for messages
        await run_sync(peer.messages.send_nowait, "from a thread")
        with anyio.fail_after(10):
            assert await client.receive_message() == "from a thread"


async def test_messages_leave_after_the_end() -> None:
    async with open_pair() as (peer, client):
        await client.receive_audio()  # it runs
        peer.messages.send_nowait("one")
        peer.messages.send_nowait("two")
        await peer.aclose()
        assert [await client.receive_message() for _ in range(2)] == ["one", "two"]
        assert (await peer.wait_closed()).reason is CloseReason.CANCELLED


async def test_close_before_run_ends_it_at_once() -> None:
    peer = LinePeer()
    with peer.from_client, peer.incoming, peer.outgoing, peer.to_client:
        await peer.aclose()
        await peer.run()
        assert (await peer.wait_closed()).reason is CloseReason.CANCELLED


async def test_invalid_audio_is_refused() -> None:
    async with open_pair() as (peer, _):
        with pytest.raises(UnsupportedFormat):
            peer.push_audio((16_000, np.zeros((3, 10), np.int16)))


async def test_audio_without_a_direction_is_ignored() -> None:
    peer = LinePeer(media=MediaPlan(audio_in=False), messages=False)
    with peer.from_client, peer.incoming, peer.outgoing, peer.to_client:
        peer.push_audio((16_000, np.zeros(10, np.int16)))
        assert peer.audio_in.statistics().received == 0
        assert not peer.messages.is_open
