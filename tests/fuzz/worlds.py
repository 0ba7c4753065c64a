"""Applications that the targets feed, and checks that nothing is left afterwards."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import numpy as np
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from fastrtc_anyio import (
    Chatbot,
    Checkbox,
    Choice,
    CloseReason,
    Limits,
    RequestLimits,
    Session,
    Slider,
    Stream,
    Textbox,
)
from fastrtc_anyio.testing import Call, open_call
from tests.kit.asgi import Reply, SocketLog
from tests.kit.calls import make_stream
from tests.kit.handlers import TalkativeEcho
from tests.kit.own_words import check_own_words
from tests.kit.resources import Records, record_errors
from tests.kit.waiting import wait_until

INPUTS = [
    Slider("Temperature", 0, 2),
    Slider("Count", 0, 10),
    Choice("Voice", ["Ada", "Bo"]),
    Checkbox("Loud"),
    Textbox("Name"),
    Chatbot("Chat"),
]
VALUES: dict[str, object] = {
    "webrtc_id": "page",
    "temperature": 1.5,
    "count": 3,
    "voice": "Bo",
    "loud": True,
    "name": "Ada",
    "chat": [{"role": "user", "content": "hello"}],
}
MANY = RequestLimits(
    candidates=10**9,
    restarts=10**6,
    early_clients=100,
    pending_sessions=10**4,
    client_pending=10**4,
    client_sessions=10**4,
    client_requests=10**9,
)
"""Limits that mutated requests of one client do not reach."""
_CODES = (None, 1000, 1003, 1007, 1008, 1009, 1013)
"""Codes that end a WebSocket whose client broke the protocol, or closed it."""
_STATUSES = (*range(200, 300), *range(400, 500))


@dataclass(frozen=True)
class World:
    """A stream, its application, and the records above WARNING."""

    stream: Stream
    app: Starlette
    records: Records

    def check_reply(self, reply: Reply) -> None:
        """Check that a request was answered, or refused in this package's own words."""
        self.records.check()
        assert reply.status in _STATUSES, (reply.status, reply.text[:300])
        if reply.status < 400:
            return
        kind = reply.headers.get("content-type", "")
        if kind.startswith("application/problem+json"):
            text = reply.json()["detail"]
        elif kind.startswith("application/json"):
            body = reply.json()
            assert body["status"] == "failed", body
            text = f"{body['meta']['error']} {body['meta'].get('message', '')}"
        else:
            text = reply.text
        check_own_words(text)

    def check_socket(self, log: SocketLog) -> None:
        """Check that a WebSocket was refused, served or closed as documented."""
        self.records.check()
        if not log.accepted:
            assert log.status in _STATUSES, (log.status, log.refusal)
            check_own_words(log.refusal.decode())
            return
        assert log.code in _CODES, (log.code, log.texts[-1:])
        for text in log.texts:
            check_own_words(text)

    async def wait_over(self) -> None:
        """End all sessions, and check that nothing was logged above WARNING."""
        for session in list(self.stream.sessions.values()):
            session.close(CloseReason.HUNG_UP)
        await wait_until(lambda: not self.stream.sessions, "the end of the sessions")
        self.records.check()


async def identify(connection: HTTPConnection) -> str | bool:
    """An ``authenticate`` whose identity is what the client says."""
    await checkpoint()
    return connection.headers.get("authorization") or False


async def _wait(_session: Session) -> None:
    """Serve a session without its media."""
    await anyio.sleep_forever()


@asynccontextmanager
async def open_world(**options: Any) -> AsyncGenerator[World, None]:
    """Open a stream that echoes audio and messages, and an application with all its routes."""
    options.setdefault("additional_inputs", INPUTS)
    options.setdefault("additional_outputs", [Textbox("Shown")])
    options.setdefault("trusted_proxies", ["127.0.0.1"])
    options.setdefault("limits", Limits(connect=None, shutdown=1.0))
    options.setdefault("request_limits", MANY)
    audio = options.get("modality", "audio") == "audio"
    stream = make_stream(TalkativeEcho if audio else _wait, **options)
    app = Starlette()
    stream.mount(app)
    with record_errors() as records:
        async with stream:
            yield World(stream, app, records)
        records.check()


@asynccontextmanager
async def watch_neighbour(seconds: float = 0.2) -> AsyncGenerator[Call, None]:
    """Hold a call on virtual time, and check at the end that no frame of it was missed."""
    size, frames = 960, round(seconds * 50)
    async with open_call(TalkativeEcho(output_sample_rate=48_000)) as call:
        async with anyio.create_task_group() as tasks:
            sound = np.full((1, size * frames), 9000, np.int16)
            tasks.start_soon(call.speak, sound, 48_000)
            yield call
        await anyio.sleep(0.5)
        heard = call.heard[0]
    loud = np.flatnonzero(heard > 4000)
    # The echo is one sound without a gap.
    assert loud.size >= sound.size - size, f"{sound.size - loud.size} samples are missing"
    assert loud[-1] - loud[0] + 1 == loud.size, "the echo of a concurrent call has a gap"
