"""The server under test: ``python -m tests.soak.server asyncio|trio`` prints its URL and its pid.

It answers ``count`` on its standard input with a line of JSON: the resources of the process, and
the counts of events so far.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from benchmarks.servers.memory import count_memory
from fastrtc_anyio import (
    AsyncStreamHandler,
    CloseReason,
    EnergyVad,
    Limits,
    ReplyOnPause,
    RequestLimits,
    Session,
    Stream,
    TelephoneOptions,
    UnknownSession,
)
from fastrtc_anyio.server.launch import open_server
from fastrtc_anyio.session import current_session
from fastrtc_anyio.testing import tone
from tests.kit.calls import LOOPBACK
from tests.kit.resources import count_resources

from .faulty import (
    SHUTDOWN,
    FaultyAsync,
    FaultyCopy,
    FaultySync,
    faulty_function,
    make_faulty_reply,
)
from .ledger import LEDGER, Counted, Records

CUSHION = 0.1
"""Seconds of audio that the control session keeps queued."""
LIMITS = Limits(connect=3.0, shutdown=SHUTDOWN, close=2.0, liveness=3.0, stall=3.0, lag=None)
_RATE = 48_000


async def control(session: Session) -> None:
    """Echo, with some audio in store: a call that hears a gap has missed a frame."""
    await session.audio_out.send((_RATE, tone(440, _RATE, CUSHION)))
    async for frame in session.audio_in:
        await session.audio_out.send(frame)


async def echo(session: Session) -> None:
    """Echo, and note the session."""
    LEDGER.note("", session)
    async for frame in session.audio_in:
        await session.audio_out.send(frame)


class Talk(Counted, AsyncStreamHandler):
    """An echo that takes a while to start, answers messages, and leaves or fails on demand."""

    def __init__(self) -> None:
        super().__init__(output_sample_rate=24_000)
        self.to_emit, self.queued = anyio.create_memory_object_stream[Any](50)

    def copy(self) -> Talk:
        return Talk().open()

    async def start_up(self) -> None:
        await anyio.sleep(0.5)

    async def receive(self, frame: Any) -> None:
        await self.to_emit.send(frame)

    async def emit(self) -> Any:
        return await self.queued.receive()

    async def on_message(self, message: str) -> None:
        if message == "leave":
            current_session.get().hang_up("bye")
        await self.send_message(message)

    async def shutdown(self) -> None:
        self.close()
        self.to_emit.close()
        self.queued.close()


async def answer(audio: Any) -> Any:
    """Reply with a tone, for as long as the user talked."""
    rate, samples = audio
    for _ in range(0, samples.shape[1], rate // 10):
        yield (24_000, tone(330, 24_000, 0.1))
        await anyio.sleep(0.05)


class Conversation(Counted, ReplyOnPause):
    """A conversation without faults."""

    def copy(self) -> Conversation:
        return make_conversation().open()

    def shutdown(self) -> None:
        self.close()
        super().shutdown()


def make_conversation() -> Conversation:
    return Conversation(answer, model=EnergyVad())


async def pictures(frame: Any) -> Any:
    """Mirror a picture."""
    await checkpoint()
    return np.ascontiguousarray(frame[:, ::-1])


async def blocking(session: Session) -> None:
    """Block the event loop of all sessions, for longer than ``Limits.block``."""
    async for _ in session.audio_in:
        time.sleep(2 * (LIMITS.block or 0.0))  # noqa: ASYNC251
        LEDGER.count("session function blocks")
        return


HANDLERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "control": (control, {"live": False}),
    "echo": (echo, {}),
    "talk": (Talk(), {}),
    "reply": (make_conversation(), {}),
    "video": (pictures, {"modality": "video"}),
    "phone": (Talk(), {"telephone": TelephoneOptions()}),
    "faulty-async": (FaultyAsync(), {"modality": "audio-video"}),
    "faulty-plain": (FaultySync(), {}),
    "faulty-reply": (make_faulty_reply(), {}),
    "faulty-function": (faulty_function, {}),
    "faulty-copy": (FaultyCopy(), {}),
    "blocking": (blocking, {}),
}
"""Handlers and options of streams by path."""


def make_streams() -> dict[str, Stream]:
    """Make the streams."""
    shared: dict[str, Any] = {
        "modality": "audio",
        "concurrency_limit": None,
        "server_rtc_configuration": LOOPBACK,
        "limits": LIMITS,
        # All clients have the same address.
        "request_limits": RequestLimits(client_requests=1_000_000, client_sessions=1000),
        "verbose": False,
    }
    return {path: Stream(one, **(shared | options)) for path, (one, options) in HANDLERS.items()}


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


async def count(streams: dict[str, Stream], records: Records) -> dict[str, Any]:
    """Return the resources of the process, and the counts of events so far."""
    LEDGER.count_ends()
    held, memory = asdict(await count_resources()), count_memory()
    sessions = {path: len(stream.sessions) for path, stream in streams.items()}
    return {
        "held": held,
        "sessions": {path: number for path, number in sessions.items() if number},
        "resident": resident_bytes(),
        "malloc": memory["malloc"],
        "blocks": memory["blocks"],
        "trials": dict(LEDGER.trials),
        "reasons": [[*key, number] for key, number in LEDGER.reasons.items()],
        "open": list(LEDGER.open.values()),
        "twice": LEDGER.twice,
        "records": [[*key, number] for key, number in records.counts.items()],
        "examples": records.examples,
        "control": [asdict(one.statistics()) for one in streams["control"].sessions.values()],
    }


def close_session(streams: dict[str, Stream], request: Request) -> Response:
    """End a session, as an operator would."""
    for stream in streams.values():
        try:
            session = stream.session(request.path_params["id"])
        except UnknownSession:
            continue
        session.close(CloseReason.CANCELLED, "an operator ends the call")
        return PlainTextResponse("closed")
    return PlainTextResponse("unknown", 404)


def loop_threads() -> list[int]:
    """Return the ids of the threads with the event loops, as the kernel knows them."""
    threads = threading.enumerate()
    names = ("MainThread", "fastrtc-portal")
    return [one.native_id or 0 for one in threads if one.name in names]


async def serve() -> None:
    """Serve until the standard input ends."""
    records = Records()
    logging.getLogger().addHandler(records)
    logging.getLogger("fastrtc_anyio").setLevel(logging.INFO)
    streams = make_streams()

    async def close(request: Request) -> Response:
        return close_session(streams, request)

    app = Starlette(routes=[Route("/close/{id:path}", close, methods=["POST"])])
    for path, stream in streams.items():
        stream.mount(app, path=f"/{path}")
    async with open_server(app) as url:
        print(url, *loop_threads(), flush=True)
        async for line in anyio.wrap_file(sys.stdin):
            assert line == "count\n"
            print(json.dumps(await count(streams, records), default=str), flush=True)


if __name__ == "__main__":
    anyio.run(serve, backend=sys.argv[1])
