"""Streams, their servers, and calls to them: real sockets on the loopback interface."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import anyio
import httpx
from anyio import create_task_group, to_thread
from starlette.applications import Starlette

from fastrtc_anyio import CloseReason, Limits, RtcConfiguration, Session, Stream, UnknownSession
from fastrtc_anyio._core.host import Host
from fastrtc_anyio.server.launch import open_server
from fastrtc_anyio.server.routes import page_route

from .aiortc_client import AiortcClient, Camera, Microphone, open_client
from .network import Network
from .waiting import SECONDS, wait_until

LOOPBACK = RtcConfiguration(addresses=("127.0.0.1",))


async def echo(session: Session) -> None:
    """Send every frame back."""
    async for frame in session.audio_in:
        await session.audio_out.send(frame)


def make_stream(handler: Any = echo, **options: Any) -> Stream:
    """A stream for audio on the loopback interface, without a limit of calls, unless overridden.

    It refuses no call on a machine that is busy with other tests.
    """
    defaults = {
        "modality": "audio",
        "concurrency_limit": None,
        "server_rtc_configuration": LOOPBACK,
    }
    options["limits"] = replace(options.get("limits") or Limits(), lag=None)
    return Stream(handler, **(defaults | options))


@asynccontextmanager
async def serve(
    stream: Stream, port: int = 0, *, framed_by: Iterable[str] = ()
) -> AsyncGenerator[str, None]:
    """Serve a stream and its page as ``Stream.launch`` does."""
    app = Starlette(routes=[page_route(framed_by=framed_by)])
    stream.mount(app)
    async with open_server(app, port=port) as url:
        yield url


@asynccontextmanager
async def open_uvicorn(
    app: Any,
    ws: Literal["none", "websockets", "websockets-sansio", "wsproto"] = "none",
    root_path: str = "",
) -> AsyncGenerator[str, None]:
    """Serve an application with Uvicorn on the running asyncio loop."""
    import uvicorn

    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_config=None, ws=ws, root_path=root_path
    )
    server = uvicorn.Server(config)
    async with create_task_group() as tg:
        tg.start_soon(server.serve)
        await wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True


@asynccontextmanager
async def open_hypercorn(app: Any, root_path: str = "") -> AsyncGenerator[str, None]:
    """Serve an application with Hypercorn on the running backend, as its command does."""
    from hypercorn import Config

    if Host().asyncio_loop is None:
        from hypercorn.trio import serve
    else:
        from hypercorn.asyncio import serve  # type: ignore[assignment]

    config, stop = Config(), anyio.Event()
    config.root_path, config.graceful_timeout = root_path, 0.5
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config.bind = [f"fd://{listener.detach()}"]  # which Hypercorn closes
    async with create_task_group() as tg:
        tg.start_soon(partial(serve, app, config, shutdown_trigger=stop.wait))
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            stop.set()


@asynccontextmanager
async def place_call(
    target: Stream | str,
    webrtc_id: str | None = None,
    *,
    codec: str | None = None,
    channel: bool = True,
    channels: int = 1,
    audio: bool | str = True,
    video: str | None = None,
    video_codec: str | None = None,
    network: Network | None = None,
    microphone: Microphone | None = None,
    camera: Camera | None = None,
    token: str | None = None,
) -> AsyncGenerator[AiortcClient, None]:
    """Call a stream, directly or by the URL of its server, and wait until the call is connected.

    ``token`` is a bearer token for the server. ``audio`` and ``video`` may be directions, one for
    each section: sendrecv, sendonly+recvonly.
    Everything between the client and the stream passes ``network``.
    """
    async with open_client(microphone or Microphone(channels=channels), camera) as client:
        offer = await to_thread.run_sync(
            client.run, client.make_offer, codec, channel, audio, video, video_codec
        )
        if network is not None:
            offer = network.hide_client(offer)
        webrtc_id = webrtc_id or secrets.token_hex(16)
        body = {"type": "offer", "sdp": offer, "webrtc_id": webrtc_id}
        if isinstance(target, Stream):
            client.answer = await target.offer(body)
        else:
            reply = await post(target, body, token)
            assert reply.status_code == 200, reply.text
            client.answer = reply.json()
        assert client.answer["type"] == "answer", client.answer
        sdp = client.answer["sdp"]
        await accept(client, sdp if network is None else network.hide_server(sdp))
        await wait_until(client.connected.is_set, "the connection")
        if isinstance(target, Stream):  # the server notices the connection a little later
            await wait_until(lambda: _is_settled(target, webrtc_id), "the session")
        yield client


def _is_settled(stream: Stream, webrtc_id: str) -> bool:
    """Whether a session is connected or has ended."""
    try:
        return stream.session(webrtc_id).state.value not in ("negotiating", "connecting")
    except UnknownSession:
        return True


async def make_offer(client: AiortcClient, *, channel: bool = False) -> str:
    return await to_thread.run_sync(client.run, client.make_offer, None, channel)


async def post(url: str, body: Any, token: str | None = None) -> httpx.Response:
    """Send an offer or a candidate to the server at ``url``."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers) as http:
        return await http.post(f"{url}/webrtc/offer", json=body)


async def accept(client: AiortcClient, answer: str) -> None:
    await to_thread.run_sync(client.run, client.accept, answer)


async def receive_json(client: AiortcClient, kind: str) -> Any:
    """Return the client's next message of type ``kind``; skip other types."""
    with anyio.fail_after(SECONDS):
        while True:
            message: Any = json.loads(await client.receive_message())
            if message["type"] == kind:
                return message


def only_session(stream: Stream) -> Session:
    (session,) = stream.sessions.values()
    return session


async def wait_ended(stream: Stream, session: Session) -> CloseReason:
    """Wait until the stream has released a session, and return its close reason."""
    await wait_until(lambda: session.id not in stream.sessions, "the end of the session")
    assert session.closed is not None
    return session.closed.reason


def without_candidates(sdp: str) -> tuple[str, list[str]]:
    """Split a description into the one a trickling client sends, and its candidates."""
    kept, candidates = [], []
    for line in sdp.splitlines():
        if line.startswith("a=candidate:"):
            candidates.append(line.removeprefix("a="))
        elif line != "a=end-of-candidates":
            kept.append(line)
    return "\r\n".join(kept) + "\r\n", candidates
