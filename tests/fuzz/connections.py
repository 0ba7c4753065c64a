"""Targets with real connections: an application, and the input of many clients one after the other.

Requests reach the application in the same task. Only HTTP heads and datagrams pass sockets, on the
loopback interface.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

import anyio
import httpx

from fastrtc_anyio._media.media_plan import Modality, Mode
from fastrtc_anyio.server.launch import open_server
from tests.kit.asgi import Reply, request
from tests.kit.choices import Choices
from tests.kit.mutators import http_head, mutate_json, mutate_sdp, odd_headers, websocket_frames

from .seeds import ALL_OFFERS, CANDIDATES, FRAGMENT, client_messages, trickled
from .targets import Target
from .worlds import MANY, World, open_world

OpenTarget = Callable[[], AbstractAsyncContextManager[Target]]

_SDP = (b"content-type", b"application/sdp")
_FRAGMENT = (b"content-type", b"application/trickle-ice-sdpfrag")
SERVER_ERROR = 1011
_NOT_IMPLEMENTED = (501, 505)
"""Statuses of HTTP for a transfer coding or a version that the server does not know."""


Worlds = Mapping[tuple[Modality, Mode], World]


@asynccontextmanager
async def open_worlds() -> AsyncGenerator[Worlds, None]:
    """Open a world for each kind of stream that an offer of the corpus is for."""
    async with AsyncExitStack() as stack:
        worlds: dict[tuple[Modality, Mode], World] = {}
        for offer in ALL_OFFERS:
            if (offer.modality, offer.mode) not in worlds:
                opened = open_world(modality=offer.modality, mode=offer.mode)
                worlds[offer.modality, offer.mode] = await stack.enter_async_context(opened)
        yield worlds


async def post_offer(world: World, sdp: str, webrtc_id: str = "me") -> Reply:
    """Post an offer as FastRTC's clients do."""
    body = json.dumps({"type": "offer", "sdp": sdp, "webrtc_id": webrtc_id})
    return await request(world.app, "POST", "/webrtc/offer", body.encode())


@asynccontextmanager
async def open_offers() -> AsyncGenerator[Target, None]:
    """Mutated offers, and JSON around them, each to a stream that accepts the original."""
    async with open_worlds() as worlds:

        async def feed(data: bytes) -> None:
            choices = Choices(data)
            offer = choices.pick(ALL_OFFERS)
            world = worlds[offer.modality, offer.mode]
            sdp = mutate_sdp(choices, offer.sdp)
            body: object = {"type": "offer", "sdp": sdp, "webrtc_id": "me"}
            text = mutate_json(choices, body) if choices.chance(8) else json.dumps(body)
            sent = text.encode("utf-8", "surrogatepass")
            reply = await request(world.app, "POST", "/webrtc/offer", sent)
            world.check_reply(reply)
            assert reply.status >= 400 or "type" in reply.json() or "status" in reply.json()
            await world.wait_over()

        yield feed


@asynccontextmanager
async def open_trickling() -> AsyncGenerator[Target, None]:
    """Mutated candidates and ICE restarts of a session that waits for its connection."""
    offer = next(one for one in ALL_OFFERS if one.modality == "audio-video")
    async with open_world(modality="audio-video") as world:

        async def feed(data: bytes) -> None:
            choices = Choices(data)
            assert (await post_offer(world, offer.sdp)).status == 200
            for _ in range(1 + choices.number(3)):
                if choices.chance(3):
                    renewed = offer.sdp.replace("abcd", "efgh").replace("x" * 22, "y" * 22)
                    reply = await post_offer(world, mutate_sdp(choices, renewed))
                else:
                    body = mutate_json(choices, trickled(choices.pick(CANDIDATES)))
                    sent = body.encode("utf-8", "surrogatepass")
                    reply = await request(world.app, "POST", "/webrtc/offer", sent)
                world.check_reply(reply)
            await world.wait_over()

        yield feed


@asynccontextmanager
async def open_whip() -> AsyncGenerator[Target, None]:
    """Mutated bodies of WHIP and WHEP, fragments for their sessions, and headers."""
    offer = next(one for one in ALL_OFFERS if one.modality == "audio")
    async with open_world() as world:

        async def feed(data: bytes) -> None:
            choices = Choices(data)
            protocol = choices.pick(("/whip", "/whep"))
            odd, valid = odd_headers(choices), choices.chance(2)
            body = (offer.sdp if valid else mutate_sdp(choices, offer.sdp)).encode(
                "utf-8", "surrogatepass"
            )
            reply = await request(world.app, "POST", protocol, body, [_SDP, *odd])
            world.check_reply(reply)
            assert reply.status == 201 or odd or not valid, reply.text
            if reply.status == 201:
                place = f"/{reply.headers['location']}"
                tag = reply.headers["etag"].encode()
                match = choices.pick((tag, tag, b"*", b'"', b"\xff", b'W/"x", ' + tag))
                renewed = FRAGMENT.replace("abcd", "efgh") if choices.chance(2) else FRAGMENT
                patch = mutate_sdp(choices, renewed).encode("utf-8", "surrogatepass")
                headers = [_FRAGMENT, (b"if-match", match), *odd_headers(choices)]
                world.check_reply(await request(world.app, "PATCH", place, patch, headers))
                method = choices.pick(("DELETE", "GET", "PUT", "OPTIONS"))
                world.check_reply(
                    await request(world.app, method, place, b"", odd_headers(choices))
                )
            await world.wait_over()

        yield feed


@asynccontextmanager
async def open_heads() -> AsyncGenerator[Target, None]:
    """HTTP heads, most of them invalid, over TCP."""
    quick = replace(MANY, early_seconds=0.1, head_seconds=0.5, body_seconds=0.2)
    server = partial(open_server, limits=quick)
    async with open_world(request_limits=quick) as world, server(world.app) as base:
        url = httpx.URL(base)
        assert url.port is not None
        exchange = partial(_exchange, url.host, url.port)

        async def feed(data: bytes) -> None:
            _check_statuses(await exchange(http_head(Choices(data))))
            # The server goes on.
            get = b"GET /webrtc/config HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
            answer = await exchange(get)
            assert answer.startswith(b"HTTP/1.1 200"), answer[:500]
            await world.wait_over()

        yield feed


@asynccontextmanager
async def open_frames() -> AsyncGenerator[Target, None]:
    """Frames of a WebSocket, many of them invalid, over TCP."""
    async with open_world() as world, open_server(world.app) as base:
        url = httpx.URL(base)
        assert url.port is not None
        exchange = partial(_exchange, url.host, url.port)

        async def feed(data: bytes) -> None:
            choices = Choices(data)
            answer = await exchange(websocket_frames(choices, client_messages()))
            _check_statuses(answer)
            code = re.search(rb"\x88[\x02-\x7d](..)", answer, re.DOTALL)
            assert code is None or int.from_bytes(code[1], "big") != SERVER_ERROR
            await world.wait_over()

        yield feed


def _check_statuses(answer: bytes) -> None:
    for line in answer.split(b"\r\n"):
        if line.startswith(b"HTTP/1.1 "):
            status = int(line.split()[1])
            assert status < 500 or status in _NOT_IMPLEMENTED, answer[:500]


async def _exchange(host: str, port: int, data: bytes) -> bytes:
    """Send bytes, end the sending side, and read to the end."""
    answer = b""
    async with await anyio.connect_tcp(host, port) as stream:
        try:
            await stream.send(data)
            await stream.send_eof()
            with anyio.fail_after(20):
                while True:
                    answer += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass
    return answer


TARGETS: Mapping[str, OpenTarget] = {
    "offers": open_offers,
    "trickling": open_trickling,
    "whip": open_whip,
    "heads": open_heads,
    "frames": open_frames,
}
