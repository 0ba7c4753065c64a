"""``drain`` with clients of every transport in every phase, and events at the same instant."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from fastrtc_anyio import CloseReason, Draining, Limits, Session, Stream
from fastrtc_anyio._peers.memory import MemoryPeer
from fastrtc_anyio._signaling.requests import SessionDescription
from fastrtc_anyio._wire.events import Start
from fastrtc_anyio._wire.payload import MULAW_8K
from fastrtc_anyio._wire.twilio import TwilioFraming
from fastrtc_anyio.observability import Observer
from tests.kit.answering_peer import AnsweringPeer
from tests.kit.asgi import Headers, request, websocket
from tests.kit.handlers import Quiet
from tests.kit.offer_corpus import OFFERS

SDP: Headers = [(b"content-type", b"application/sdp")]
OFFER = OFFERS["Chromium, audio and data"].sdp.encode()
FRAGMENT: Headers = [(b"content-type", b"application/trickle-ice-sdpfrag")]
RESTART = b"a=ice-ufrag:again\r\na=ice-pwd:" + b"x" * 22 + b"\r\nm=audio 9 RTP 0\r\na=mid:0\r\n"
TRY_AGAIN_LATER = 1013
"""Close code of a WebSocket that is refused for a while."""
LIMITS = Limits(lag=None, connect=10, liveness=None)
START_UP, SHUTDOWN = 2.0, 0.25
"""Seconds that these methods of the handlers take."""
SLACK = 0.1
"""Seconds of work that the model ignores: less than between two of its events."""


class RestartingPeer(AnsweringPeer):
    """Restarts ICE, which takes a second, for an offer that asks for it."""

    delay = 2.0

    async def restart(  # type: ignore[override]
        self, offer: SessionDescription
    ) -> SessionDescription | None:
        if "restart" not in offer.sdp:
            await checkpoint()
            return None
        await anyio.sleep(1)
        return SessionDescription("answer", "restarted")

    async def restart_ice(self, _remote: object) -> str:
        await anyio.sleep(1)
        return "restarted"


class Slow(Quiet):
    """Takes its time to begin and to end."""

    async def start_up(self) -> None:
        await anyio.sleep(START_UP)

    async def shutdown(self) -> None:
        assert not self.calls
        self.calls.append("shutdown")
        await anyio.sleep(SHUTDOWN)

    def copy(self) -> Slow:
        return Slow()


async def listen(_session: Session) -> None:
    """A session function that takes its time to end."""
    try:
        await anyio.sleep_forever()
    finally:
        with CancelScope(shield=True):
            await anyio.sleep(SHUTDOWN)


@dataclass(frozen=True)
class Plan:
    """A client. All times are in seconds, and whole."""

    transport: str
    stream: int
    begins: float
    connects_after: float | None
    """Since the answer, or since the handshake. None: it never connects."""
    lasts: float
    restarts: bool
    """Whether it restarts ICE in its last second."""

    @property
    def answered(self) -> float:
        """Time at which its session begins, if it does."""
        match self.transport:
            case "webrtc" | "whip" | "whep":
                return self.begins + RestartingPeer.delay
            case "websocket" | "telephone":
                return self.begins + (self.connects_after or 0)
            case _:
                return self.begins

    @property
    def asked(self) -> float:
        """Time at which it asks for a session: with an offer, or with the start of a WebSocket."""
        return self.begins if self.transport in OFFERING else self.answered

    @property
    def end(self) -> float:
        """Time at which its session ends if nothing else ends it."""
        if self.transport not in OFFERING:
            return self.answered + self.lasts
        if self.connects_after is None:
            return self.answered + (LIMITS.connect or 0)
        return self.answered + self.connects_after + self.lasts


@dataclass(frozen=True)
class End:
    at: float
    reason: CloseReason | None


@dataclass
class World(Observer):
    """A stream, and what becomes of its clients. Times are in seconds since the beginning."""

    app: Starlette
    prefix: str
    stream: Stream = field(init=False)
    begin: float = field(default_factory=anyio.current_time)
    names: dict[Plan, str] = field(default_factory=dict)
    """Aliases of the clients' sessions, or the ids of those without one."""
    refusals: dict[Plan, float] = field(default_factory=dict)
    restarted: set[Plan] = field(default_factory=set)
    ends: dict[str, End] = field(default_factory=dict)
    drained: list[float] = field(default_factory=list)
    """Times at which drains have returned."""

    def now(self) -> float:
        return anyio.current_time() - self.begin

    def session_ended(self, session: Session, seconds: float | None) -> None:
        name = session.alias or session.id
        assert name not in self.ends
        reason = session.closed.reason if session.closed else None
        self.ends[name] = End(self.now(), reason)

    def refuse(self, plan: Plan) -> None:
        self.refusals[plan] = self.now()

    async def serve(self, plan: Plan) -> None:
        await anyio.sleep_until(self.begin + plan.begins)
        await TRANSPORTS[plan.transport](self, plan)

    async def drain(self, at: float) -> None:
        await anyio.sleep_until(self.begin + at)
        await self.stream.drain()
        assert self.stream.is_draining
        assert not self.stream.sessions
        self.drained.append(self.now())

    async def drain_for_a_moment(self, at: float) -> None:
        await anyio.sleep_until(self.begin + at)
        with anyio.move_on_after(0.5):
            await self.stream.drain()


async def call_webrtc(world: World, plan: Plan) -> None:
    name = world.names[plan] = secrets.token_hex(16)
    body = {"type": "offer", "sdp": f"v=0\r\na=ice-ufrag:{name}\r\n", "webrtc_id": name}
    try:
        await world.stream.offer(body)
    except Draining:
        world.refuse(plan)
        return

    async def restart() -> bool:
        answer = await world.stream.offer({**body, "sdp": "v=0\r\na=restart\r\n"})
        return answer["sdp"] == "restarted"

    await talk(world, world.stream.sessions[world.stream.session(name).id], plan, restart)


async def call_whip(world: World, plan: Plan) -> None:
    """Over WHIP or WHEP."""
    path = f"{world.prefix}/{plan.transport}"
    reply = await request(world.app, "POST", path, OFFER, SDP)
    if reply.status == 503:
        assert reply.headers["retry-after"] == "5"
        world.refuse(plan)
        return
    assert reply.status == 201, reply.text
    name = world.names[plan] = reply.headers["location"].rpartition("/")[2]

    async def restart() -> bool:
        headers = [*FRAGMENT, (b"if-match", reply.headers["etag"].encode())]
        answer = await request(world.app, "PATCH", f"{path}/{name}", RESTART, headers)
        return answer.status == 200

    await talk(world, world.stream.sessions[name], plan, restart)


async def talk(
    world: World, session: Session, plan: Plan, restart: Callable[[], Awaitable[bool]]
) -> None:
    """Connect, and hang up in time."""
    if plan.connects_after is None:
        return
    peer: Any = session.peer
    await anyio.sleep(plan.connects_after)
    peer.client.connect()
    await anyio.sleep(plan.lasts - plan.restarts)
    if plan.restarts and session.closed is None and await restart():
        world.restarted.add(plan)
    peer.client.hang_up()


async def call_websocket(world: World, plan: Plan) -> None:
    """Over FastRTC's WebSockets, or as a carrier of telephone calls."""
    name = world.names[plan] = secrets.token_hex(16)
    path, start = "websocket/offer", json.dumps({"event": "start", "websocket_id": name})
    if plan.transport == "telephone":
        path = "telephone/handler"
        start = TwilioFraming().encode(Start(name, MULAW_8K, f"CA{name}")) or ""
    messages: list[str | bytes | float] = []
    if plan.connects_after is not None:
        messages = [plan.connects_after, start, plan.lasts]
    log = await websocket(world.app, f"{world.prefix}/{path}", messages, pause=0)
    if log.status == 503 or log.code == TRY_AGAIN_LATER:
        world.refuse(plan)


async def call_peer(world: World, plan: Plan) -> None:
    """By a transport of the application."""

    async def hang_up(peer: MemoryPeer) -> None:
        await anyio.sleep(plan.lasts)
        peer.client.hang_up()

    async with create_task_group() as tasks:

        def make_peer(_needs: object, buffers: Any) -> MemoryPeer:
            peer = MemoryPeer(buffers=buffers)
            peer.client.connect()
            tasks.start_soon(hang_up, peer)
            return peer

        name = world.names[plan] = secrets.token_hex(16)
        try:
            await world.stream.serve_peer(make_peer, alias=name)
        except Draining:
            world.refuse(plan)


OFFERING = ("webrtc", "whip", "whep")
TRANSPORTS: dict[str, Callable[[World, Plan], Awaitable[None]]] = {
    "webrtc": call_webrtc,
    "whip": call_whip,
    "whep": call_whip,
    "websocket": call_websocket,
    "telephone": call_websocket,
    "peer": call_peer,
}


def whole(most: int, least: int = 0) -> st.SearchStrategy[float]:
    return st.integers(least, most).map(float)


plans = st.lists(
    st.builds(
        Plan,
        transport=st.sampled_from(list(TRANSPORTS)),
        stream=st.integers(0, 1),
        begins=whole(6),
        connects_after=st.none() | whole(3),
        lasts=whole(8, 1),
        restarts=st.booleans(),
    ),
    min_size=2,
    max_size=8,
    unique=True,
)


@asynccontextmanager
async def open_world(
    app: Starlette, prefix: str, handler: Any, timeout: float | None
) -> AsyncGenerator[World, None]:
    world = World(app, prefix)
    stream = world.stream = Stream(
        handler,
        modality="audio",
        concurrency_limit=None,
        limits=LIMITS,
        observers=[world],
        drain_timeout=timeout,
    )
    stream.mount(app, prefix)
    async with stream:
        supervisor: Any = stream._service._supervisor
        supervisor.resources = replace(supervisor.resources, peer_class=RestartingPeer)
        yield world


def check_client(world: World, plan: Plan, drain: float, cutoff: float) -> None:
    """Check what became of a client. Events at the same instant may happen in either order."""
    if plan in world.refusals:
        if plan.asked < drain:  # it was ended before the answer to its offer
            assert cutoff <= plan.answered, plan
            assert cutoff <= world.refusals[plan] <= cutoff + SHUTDOWN + SLACK, plan
        return
    if plan.connects_after is None and plan.transport in ("websocket", "telephone"):
        return  # it never asked for a session
    assert plan.asked <= drain, plan
    end = world.ends[world.names[plan]]
    assert min(plan.end, cutoff) <= end.at <= min(plan.end, cutoff) + SHUTDOWN + SLACK, plan
    reasons = {CloseReason.CANCELLED} if plan.end >= cutoff else set()
    if plan.end <= cutoff:
        lost = plan.transport in OFFERING and plan.connects_after is None
        reasons.add(CloseReason.CONNECT_TIMEOUT if lost else CloseReason.HUNG_UP)
        calls = plan.transport in OFFERING and not lost
        assert (plan in world.restarted) == (plan.restarts and calls) or plan.end == cutoff, plan
    assert end.reason in reasons, plan


@settings(max_examples=100)
@given(
    plans,
    whole(8),
    st.lists(whole(20), max_size=2),
    st.tuples(*[st.none() | whole(8)] * 2),
    st.sampled_from([Slow, listen]),
)
async def test_drain_ends_no_session_early_on_any_transport(
    clients: list[Plan],
    drain: float,
    later: list[float],
    timeouts: tuple[float | None, ...],
    handler: Any,
) -> None:
    """Further drains join the first, and one that is cancelled changes nothing."""
    app, drains = Starlette(), [drain, *(drain + n for n in later)]
    async with AsyncExitStack() as stack:
        worlds = [
            await stack.enter_async_context(open_world(app, prefix, handler, timeout))
            for prefix, timeout in zip(("", "/other"), timeouts, strict=True)
        ]
        async with create_task_group() as tasks:
            for plan in clients:
                tasks.start_soon(worlds[plan.stream].serve, plan)
            for world in worlds:
                tasks.start_soon(world.drain_for_a_moment, drain)
                for at in drains:
                    tasks.start_soon(world.drain, at)
    for world, timeout in zip(worlds, timeouts, strict=True):
        cutoff = math.inf if timeout is None else drain + timeout
        for plan in clients:
            if worlds[plan.stream] is world:
                check_client(world, plan, drain, cutoff)
        last = max([drain, *(end.at for end in world.ends.values())])
        assert world.drained == pytest.approx(sorted(max(last, at) for at in drains), abs=SLACK)
