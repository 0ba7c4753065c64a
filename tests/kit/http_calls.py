"""Streams, servers and callers: everything real, on the loopback interface."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import httpx
import numpy as np
from anyio import create_task_group, to_thread

from fastrtc_anyio import AudioFrame, Limits, RtcConfiguration, Session, Stream
from fastrtc_anyio.testing.signals import tone, tone_snr

from .aiortc_client import AiortcClient, open_client

LOOPBACK = RtcConfiguration(addresses=("127.0.0.1",))
POLL = 0.01
FREQUENCY = 440.0


async def echo(session: Session) -> None:
    async for frame in session.audio_in:
        await session.audio_out.send(frame)


def make_stream(
    handler: Any = echo, *, concurrency_limit: int | None = 4, limits: Limits | None = None
) -> Stream:
    return Stream(
        handler,
        modality="audio",
        concurrency_limit=concurrency_limit,
        server_rtc_configuration=LOOPBACK,
        limits=limits,
    )


@asynccontextmanager
async def open_uvicorn(
    app: Any, ws: Literal["none", "websockets-sansio"] = "none"
) -> AsyncGenerator[str, None]:
    """Uvicorn, inside this process's asyncio."""
    import uvicorn

    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, ws=ws)
    server = uvicorn.Server(config)
    async with create_task_group() as tg:
        tg.start_soon(server.serve)
        await wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True


async def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that announces itself to nobody."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(POLL)


async def make_offer(client: AiortcClient, *, channel: bool = False) -> str:
    return await to_thread.run_sync(client.run, client.make_offer, None, channel)


async def post(url: str, body: Any) -> httpx.Response:
    async with httpx.AsyncClient() as http:
        return await http.post(f"{url}/webrtc/offer", json=body)


async def accept(client: AiortcClient, answer: str) -> None:
    await to_thread.run_sync(client.run, client.accept, answer)


@asynccontextmanager
async def open_call(url: str, webrtc_id: str = "caller") -> AsyncGenerator[AiortcClient, None]:
    """A client that is connected to the stream at ``url``."""
    async with open_client() as client:
        offer = await make_offer(client)
        reply = await post(url, {"type": "offer", "sdp": offer, "webrtc_id": webrtc_id})
        assert reply.status_code == 200, reply.text
        assert reply.json()["type"] == "answer"
        await accept(client, reply.json()["sdp"])
        await wait_until(client.connected.is_set)
        yield client


async def check_echo(client: AiortcClient) -> None:
    """Speak until it comes back."""
    sound = tone(FREQUENCY, 48_000, 5.0)
    for start in range(0, sound.shape[1], 960):
        client.send_audio(AudioFrame(48_000, sound[:, start : start + 960]))
    window: list[Any] = []
    with anyio.fail_after(10):
        while True:
            frame = await client.receive_audio()
            window = [*window[-4:], frame.samples[0]]
            heard = np.concatenate(window)
            loud = np.abs(heard.astype(np.int32)).max() > 2000
            if len(window) == 5 and loud and tone_snr(heard, FREQUENCY, frame.sample_rate) > 15:
                return


def without_candidates(sdp: str) -> tuple[str, list[str]]:
    """A description as a client that trickles sends it, and what it sends later."""
    kept, candidates = [], []
    for line in sdp.splitlines():
        if line.startswith("a=candidate:"):
            candidates.append(line.removeprefix("a="))
        elif line != "a=end-of-candidates":
            kept.append(line)
    return "\r\n".join(kept) + "\r\n", candidates
