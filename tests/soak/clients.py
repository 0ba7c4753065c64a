"""Clients that come, talk and leave in every way, in one thread."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from fastrtc_anyio import AudioFrame
from fastrtc_anyio._wire.events import Connected, Event, Mark, Media, Start, Stop, Text
from fastrtc_anyio._wire.fastrtc import FastRTCFraming
from fastrtc_anyio._wire.payload import MULAW_8K, AudioEncoding, PayloadCodec
from fastrtc_anyio._wire.twilio import TwilioFraming
from fastrtc_anyio.testing import tone
from tests.kit.aiortc_client import AiortcClient

from .rubbish import Rubbish

TALK = 1.2
"""Seconds of a conversation."""
PATIENCE = 3.0
"""Seconds to wait for a faulty handler to end the call."""
_CONNECTS = 15.0
_CLOSES = 5.0
_LONGEST = 90.0
"""Seconds for one visit."""
_PHONE = AudioEncoding("mulaw", 8000)
_SPEECH = tone(440, 48_000, 0.8)


@dataclass(frozen=True)
class Visit:
    """The actions of one client.

    Attributes:
        transport: webrtc, websocket, telephone, or request: a request alone.
        path: the stream that it calls.
        phase: how far it gets: offer, connecting, start_up or talk.
        ends: who ends it, or how: never, client, vanish, server, handler, rubbish, fault.
    """

    transport: str
    path: str
    phase: str
    ends: str

    @property
    def label(self) -> str:
        return f"{self.transport}/{self.phase}/{self.ends}"


def all_visits() -> list[Visit]:
    """Return every visit once; those to faulty handlers several times, as each has many faults."""
    visits = [
        Visit("webrtc", "echo", "offer", "never"),
        Visit("webrtc", "talk", "offer", "never"),
        Visit("webrtc", "talk", "connecting", "client"),
        Visit("webrtc", "talk", "connecting", "vanish"),
        *[Visit("webrtc", "talk", "start_up", how) for how in ("client", "vanish", "server")],
        *[
            Visit("webrtc", "talk", "talk", how)
            for how in ("client", "vanish", "server", "handler", "rubbish", "rubbish")
        ],
        *[
            Visit("webrtc", path, "talk", how)
            for path in ("echo", "talk", "reply", "video")
            for how in ("client", "vanish", "server")
        ],
        Visit("websocket", "talk", "offer", "never"),
        *[
            Visit("websocket", "talk", phase, how)
            for phase in ("start_up", "talk")
            for how in ("client", "vanish", "server", "rubbish")
        ],
        Visit("websocket", "talk", "talk", "handler"),
        Visit("websocket", "reply", "talk", "client"),
        *[
            Visit("telephone", "phone", "talk", how)
            for how in ("client", "vanish", "server", "rubbish")
        ],
        *[Visit("request", "talk", "offer", "rubbish")] * 2,
    ]
    faulty = {"async": 14, "plain": 8, "reply": 4, "function": 3, "copy": 1}
    for name, times in faulty.items():
        visits += [Visit("webrtc", f"faulty-{name}", "talk", "fault")] * times
    visits += [Visit("websocket", "faulty-plain", "talk", "fault")] * 2
    return visits


@dataclass
class Crowd:
    """Clients of one server.

    Attributes:
        url: the server.
        visits: numbers of visits, by label.
        errors: unexpected failures of clients.
    """

    url: str
    seed: str
    visits: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._rubbish = Rubbish(self.seed)
        self._deck: list[Visit] = []
        self._http: httpx.AsyncClient

    def churn(self, seconds: float, callers: int) -> None:
        """Visit the server for some time, with ``callers`` clients at a time."""
        self._run(self._churn(seconds, callers))

    def visit(self, visit: Visit) -> None:
        """Make one visit."""
        self._run(self._visit(visit))

    def _run(self, visits: Coroutine[Any, Any, None]) -> None:
        """Run clients in this thread, which must not take the processor from the server."""
        # aiortc leaves exceptions of closed connections behind.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)

        async def run() -> None:
            async with httpx.AsyncClient(timeout=20) as self._http:
                await visits

        asyncio.run(run())

    async def _churn(self, seconds: float, callers: int) -> None:
        end = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as tasks:
            for _ in range(callers):
                tasks.create_task(self._visit_until(end))

    async def _visit_until(self, end: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < end:
            if not self._deck:
                self._deck = all_visits()
                self._random.shuffle(self._deck)
            await self._visit(self._deck.pop())

    async def _visit(self, visit: Visit) -> None:
        self.visits[visit.label] += 1
        try:
            async with asyncio.timeout(_LONGEST):
                if visit.transport == "webrtc":
                    await self._visit_by_webrtc(visit)
                elif visit.transport == "request":
                    await self._post_rubbish(visit)
                else:
                    await self._visit_by_websocket(visit)
        except (OSError, AssertionError, ConnectionClosed, httpx.HTTPError, TimeoutError) as exc:
            self.errors.append(f"{visit}: {exc!r}")

    def _id(self, visit: Visit) -> str:
        return f"{visit.label} {secrets.token_hex(16)}"

    async def _post_rubbish(self, visit: Visit) -> None:
        url, body = f"{self.url}/{visit.path}/webrtc/offer", self._rubbish.body()
        reply = await self._http.post(url, content=body)
        assert 400 <= reply.status_code < 500, f"{reply.status_code} for {body[:100]!r}"

    async def _visit_by_webrtc(self, visit: Visit) -> None:
        client = AiortcClient(asyncio.get_running_loop(), None)
        has_video = visit.path in ("video", "faulty-async")
        offer = await client.make_offer(
            None, True, visit.path != "video", "sendrecv" if has_video else None
        )
        try:
            name = self._id(visit)
            body = {"type": "offer", "sdp": offer, "webrtc_id": name}
            reply = await self._http.post(f"{self.url}/{visit.path}/webrtc/offer", json=body)
            if visit.path == "faulty-copy":
                # 503 for a MemoryError: the client may try again.
                assert reply.status_code in (500, 503), reply.text
                return
            assert reply.status_code == 200, f"{reply.status_code}: {reply.text}"
            if visit.phase == "offer":
                return
            await client.accept(reply.json()["sdp"])
            if visit.phase == "connecting":
                await asyncio.sleep(self._random.random() * 0.1)
            else:
                await self._talk(client, visit, name)
            if visit.ends == "vanish":
                await client.vanish()
        finally:
            with suppress(TimeoutError):  # aiortc waits without a limit
                async with asyncio.timeout(_CLOSES):
                    await client.close()

    async def _talk(self, client: AiortcClient, visit: Visit, name: str) -> None:
        await _wait(lambda: client.connected.is_set() or client.closed.is_set(), _CONNECTS)
        assert client.connected.is_set() or visit.ends == "fault", "not connected"
        if visit.phase == "start_up":
            await asyncio.sleep(self._random.random() * 0.4)
        elif visit.path == "reply":
            await self._converse(client)
        else:
            _speak(client)
            client.send_message("hello")
            await asyncio.sleep(TALK * (0.5 + self._random.random()))
        if visit.ends == "server":
            await self._close(name)
        elif visit.ends == "handler":
            client.send_message("leave")
        elif visit.ends == "rubbish":
            await self._rubbish.send(client)
        if visit.ends in ("server", "handler"):
            # aiortc knows no "disconnected" state, and a DTLS alert may be lost.
            await _wait(client.closed.is_set, _CONNECTS)
        elif visit.ends == "fault":
            with suppress(TimeoutError):
                await _wait(client.closed.is_set, PATIENCE)

    async def _converse(self, client: AiortcClient) -> None:
        """Say something, and interrupt the answer."""
        for _ in range(2):
            _speak(client)
            await asyncio.sleep(2.0)

    async def _close(self, name: str) -> None:
        reply = await self._http.post(f"{self.url}/close/{name}")
        assert reply.status_code == 200, "the session is unknown"

    async def _visit_by_websocket(self, visit: Visit) -> None:
        phone = visit.transport == "telephone"
        kind = "telephone/handler" if phone else "websocket/offer"
        url = f"{self.url.replace('http', 'ws', 1)}/{visit.path}/{kind}"
        async with _connect(url) as socket:
            if visit.phase == "offer":
                return
            name = self._id(visit)
            talker = _Talker(socket, TwilioFraming() if phone else FastRTCFraming())
            if phone:
                await talker.send(Connected())
            await talker.send(Start(name, _PHONE if not phone else MULAW_8K, "CA1"))
            if visit.phase == "start_up":
                await talker.talk(self._random.random() * 0.4)
            else:
                await talker.talk(TALK)
            await self._leave(visit, talker, name)
            if visit.ends == "vanish":
                socket.transport.abort()

    async def _leave(self, visit: Visit, talker: _Talker, name: str) -> None:
        match visit.ends:
            case "client":
                await talker.send(Stop())
            case "server":
                await self._close(name)
            case "handler":
                await talker.send(Text("leave"))
            case "rubbish":
                await talker.socket.send(self._rubbish.frame())
                # Some is ignored: the client leaves after it.
                await talker.talk(0.2)
        if visit.ends in ("server", "handler", "fault"):
            with suppress(TimeoutError):
                await asyncio.wait_for(talker.read_to_end(), PATIENCE)


class _Talker:
    """Sends a tone, and plays what it receives."""

    def __init__(self, socket: ClientConnection, framing: Any) -> None:
        self.socket = socket
        self._framing = framing
        frame = AudioFrame(8000, tone(440, 8000, 0.02))
        self._media = Media(PayloadCodec(MULAW_8K, MULAW_8K).encode(frame.samples))

    async def send(self, event: Event) -> None:
        text = self._framing.encode(event)
        assert text is not None
        await self.socket.send(text)

    async def talk(self, seconds: float) -> None:
        """Talk until the server ends the call, at most for some time."""
        loop = asyncio.get_running_loop()
        reader = loop.create_task(self.read_to_end())
        due = loop.time()
        end = due + seconds
        try:
            while due < end and not reader.done():
                await self.send(self._media)
                due += 0.02
                await asyncio.sleep(max(due - loop.time(), 0))
        except ConnectionClosed:
            pass
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader

    async def read_to_end(self) -> None:
        """Return marks at once, and drop the rest."""
        with suppress(ConnectionClosed):
            async for text in self.socket:
                assert isinstance(text, str)
                found = self._framing.decode(text)
                if isinstance(found, Mark):
                    await self.send(found)


@asynccontextmanager
async def _connect(url: str) -> AsyncGenerator[ClientConnection, None]:
    async with connect(url, close_timeout=1, open_timeout=10) as socket:
        yield socket


def _speak(client: AiortcClient) -> None:
    for start in range(0, _SPEECH.shape[1], 960):
        client.microphone.frames.put(np.ascontiguousarray(_SPEECH[:, start : start + 960]))


async def _wait(condition: Any, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
