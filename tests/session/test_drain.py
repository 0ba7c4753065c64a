"""``drain``: new sessions are refused, and the others end by themselves or at the timeout."""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group

from fastrtc_anyio import (
    CloseReason,
    Draining,
    Limits,
    Session,
    SessionState,
    SignalingError,
    Stream,
)
from fastrtc_anyio._peers.memory import MemoryPeer
from tests.kit.answering_peer import AnsweringPeer
from tests.kit.handlers import Quiet


class SlowEnd(Quiet):
    """Takes 0.1 s to shut down."""

    async def shutdown(self) -> None:
        await anyio.sleep(0.1)

    def copy(self) -> SlowEnd:
        return SlowEnd()


@asynccontextmanager
async def open_stream(handler: Any = SlowEnd, **options: Any) -> AsyncGenerator[Stream, None]:
    """A stream whose offers are answered in memory. No session is left at the end."""
    limits = options.pop("limits", Limits(lag=None))
    stream = Stream(handler, modality="audio", concurrency_limit=None, limits=limits, **options)
    async with stream:
        supervisor: Any = stream._service._supervisor
        supervisor.resources = replace(supervisor.resources, peer_class=AnsweringPeer)
        yield stream
    assert not stream.sessions


async def begin(stream: Stream) -> Session:
    """Begin a session, which is answered, and not yet connected."""
    name = secrets.token_hex(16)
    sdp = f"v=0\r\na=ice-ufrag:{name}\r\n"
    await stream.offer({"type": "offer", "sdp": sdp, "webrtc_id": name})
    return stream.session(name)


def client_of(session: Session) -> Any:
    assert isinstance(session.peer, MemoryPeer)
    return session.peer.client


async def connect(session: Session) -> None:
    client_of(session).connect()
    await anyio.sleep(0.01)
    assert session.state is SessionState.CONNECTED


def reason(session: Session) -> CloseReason | None:
    return session.closed.reason if session.closed else None


async def timed_drain(stream: Stream) -> float:
    """Drain, and return the seconds that it took."""
    began = anyio.current_time()
    await stream.drain()
    return anyio.current_time() - began


async def test_drain_without_sessions_returns_at_once() -> None:
    async with open_stream() as stream:
        assert await timed_drain(stream) == 0
        assert (stream.is_draining, stream.is_open) == (True, True)


async def test_drain_of_a_closed_stream_returns_at_once() -> None:
    stream = Stream(Quiet(), modality="audio")
    await stream.drain()
    assert not stream.is_draining
    async with stream:
        await stream.drain()
    assert not stream.is_draining
    await stream.drain()
    async with stream:  # starts afresh
        assert not stream.is_draining


async def test_closing_the_stream_ends_a_drain() -> None:
    returned = anyio.Event()

    async def drain() -> None:
        await stream.drain()
        returned.set()

    async with create_task_group() as tasks:
        async with open_stream(drain_timeout=None) as stream:
            session = await begin(stream)
            await connect(session)
            tasks.start_soon(drain)
            await anyio.sleep(60)
            assert session.state is SessionState.CONNECTED
        await returned.wait()
    assert reason(session) is CloseReason.CANCELLED


async def test_cancelled_drain_continues_without_its_caller() -> None:
    async with open_stream(drain_timeout=20) as stream:
        session = await begin(stream)
        await connect(session)
        with anyio.move_on_after(5):
            await stream.drain()
        assert stream.is_draining
        assert session.state is SessionState.CONNECTED
        with pytest.raises(Draining):
            await begin(stream)
        assert await timed_drain(stream) == pytest.approx(15.1)
        assert reason(session) is CloseReason.CANCELLED


@pytest.mark.parametrize(("timeout", "notice"), [(25, 5), (4, 2), (0.5, 0.25)])
async def test_clients_are_warned_before_the_timeout_ends_them(
    timeout: float, notice: float, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_stream(drain_timeout=timeout) as stream:
        session = await begin(stream)
        await connect(session)
        began = anyio.current_time()
        async with create_task_group() as tasks:
            tasks.start_soon(stream.drain)
            warning = json.loads(await client_of(session).receive_message())
            assert anyio.current_time() - began == pytest.approx(timeout - notice)
            text = f"The server is restarting. This call ends in {notice:g} s."
            assert (warning["type"], warning["data"]) == ("warning", text)
            assert warning["reason"] == "draining"
            end = json.loads(await client_of(session).receive_message())
            assert anyio.current_time() - began == pytest.approx(timeout)
            assert (end["type"], end["reason"]) == ("end_stream", "cancelled")
            assert end["data"] == "the server is restarting"
    (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert record.getMessage() == "drain_timeout has passed: sessions ended now: 1"


def messages(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """The records that are about the server."""
    records = [(r.__dict__["event"], r.getMessage()) for r in caplog.records]
    return [one for one in records if one[0].startswith("server.")]


@pytest.mark.parametrize("timeout", [20, None])
async def test_log_shows_a_drain_from_its_beginning_to_its_end(
    timeout: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_stream(drain_timeout=timeout) as stream:
        session = await begin(stream)
        await connect(session)
        async with create_task_group() as tasks:
            tasks.start_soon(stream.drain)
            await anyio.sleep(5)
            client_of(session).hang_up()
    limit = "none" if timeout is None else "20 s"
    assert messages(caplog) == [
        ("server.draining", f"draining: sessions left: 1; drain_timeout: {limit}"),
        ("server.drained", "drained after 5.1 s: no session is left"),
    ]


@pytest.mark.parametrize("is_closed", [True, False])
async def test_log_shows_that_sessions_are_ended_at_once(
    is_closed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_stream() as stream:
        await connect(await begin(stream))
        if not is_closed:
            stream._service.end_sessions()
            await stream.drain()
    assert messages(caplog)[0] == ("server.stopping", "stopping: sessions ended now: 1")
    assert [event for event, _ in messages(caplog)[1:]] == ["server.drained"] * (not is_closed)


async def test_transport_that_cannot_be_warned_affects_no_other_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_stream(drain_timeout=10) as stream:
        broken, other = await begin(stream), await begin(stream)
        await connect(broken)
        await connect(other)
        peer: Any = broken.peer
        peer.messages = BrokenMessages()
        async with create_task_group() as tasks:
            tasks.start_soon(stream.drain)
            warning = json.loads(await client_of(other).receive_message())
            assert warning["reason"] == "draining"
            assert broken.state is other.state is SessionState.CONNECTED
            for session in (broken, other):
                client_of(session).hang_up()
    (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert record.getMessage() == (
        f"session {broken.log_id}: the client could not be told about the end"
    )


class BrokenMessages:
    def send_nowait(self, _text: str) -> None:
        raise ZeroDivisionError


async def test_session_that_has_hung_up_is_not_counted_as_ended_by_the_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_stream(drain_timeout=2) as stream:
        session = await begin(stream)
        await connect(session)
        async with create_task_group() as tasks:
            tasks.start_soon(stream.drain)
            await anyio.sleep(1.95)
            client_of(session).hang_up()  # it shuts down for 0.1 s
    assert reason(session) is CloseReason.HUNG_UP
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def test_timeout_of_zero_ends_sessions_at_once() -> None:
    async with open_stream(drain_timeout=0) as stream:
        session = await begin(stream)
        await connect(session)
        assert await timed_drain(stream) == pytest.approx(0.1)
        message = json.loads(await client_of(session).receive_message())
        assert message["type"] == "end_stream"


async def test_every_way_to_begin_a_session_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with open_stream() as stream:
        await connect(await begin(stream))
        with anyio.move_on_after(1):
            await stream.drain()
        with pytest.raises(Draining) as caught:
            await begin(stream)
        assert (caught.value.status_hint, caught.value.retry_after) == (503, 5)
        assert caught.value.rule == str(caught.value)
        with pytest.raises(Draining):
            await stream.serve_peer(lambda _needs, _buffers: MemoryPeer())
        assert stream.active == 1
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def test_offer_that_is_being_prepared_is_refused() -> None:
    refused: list[SignalingError] = []

    async def configure() -> dict[str, Any]:
        await anyio.sleep(1)
        return {}

    async def offer() -> None:
        try:
            await begin(stream)
        except SignalingError as exc:
            refused.append(exc)

    async with open_stream(server_rtc_configuration=configure) as stream:
        async with create_task_group() as tasks:
            tasks.start_soon(offer)
            await anyio.sleep(0.5)
            await stream.drain()
        assert isinstance(refused[0], Draining)


async def test_offer_that_the_timeout_ends_is_refused() -> None:
    """Its client calls again, as after any other refusal of a drain."""
    async with open_stream(drain_timeout=0) as stream, create_task_group() as tasks:
        tasks.start_soon(drain_later, stream, AnsweringPeer.delay / 2)
        with pytest.raises(Draining):
            await begin(stream)


async def drain_later(stream: Stream, seconds: float) -> None:
    await anyio.sleep(seconds)
    await stream.drain()


async def test_readers_of_outputs_do_not_wait_for_sessions_that_cannot_begin() -> None:
    """They would delay the end of a server that waits for its requests."""
    async with open_stream() as stream, create_task_group() as tasks:
        session = await begin(stream)
        assert session.alias is not None
        tasks.start_soon(drain_later, stream, 1)
        async with stream.open_outputs(session.alias) as own:
            assert [values async for values in stream.output_stream("nobody")] == []
            assert stream.is_draining
            with pytest.raises(Draining):
                stream.output_stream("nobody")
            stream.output_stream(session.alias)
            assert own.is_open
            client_of(session).connect()
            client_of(session).hang_up()


async def test_requests_about_a_session_work_while_draining() -> None:
    async with open_stream() as stream:
        session = await begin(stream)
        assert session.alias is not None
        async with create_task_group() as tasks:
            tasks.start_soon(stream.drain)
            await anyio.sleep(1)
            await connect(session)
            stream.set_input(session.alias, 5)
            assert stream.sessions == {session.id: session}
            stream.update_connection(session.alias, "closed")
        assert reason(session) is CloseReason.HANDLER_CLOSED


async def test_stubborn_session_does_not_hold_up_a_drain(caplog: pytest.LogCaptureFixture) -> None:
    release = anyio.Event()

    async def persist(_session: Session) -> None:
        while not release.is_set():
            with suppress(BaseException):
                await release.wait()
            with CancelScope(shield=True), anyio.move_on_after(0.1):
                await release.wait()

    limits = Limits(lag=None, shutdown=1)
    async with open_stream(persist, limits=limits, drain_timeout=3) as stream:
        await connect(await begin(stream))
        assert await timed_drain(stream) == pytest.approx(4, abs=0.1)
        assert "swallows its cancellation" in caplog.text
        release.set()


@pytest.mark.parametrize("timeout", [-1, "5", True, float("nan"), float("inf"), 10**400])
def test_unsuitable_timeout_raises(timeout: Any) -> None:
    expected = "drain_timeout must be a number at least 0 s, or None; got"
    with pytest.raises((TypeError, ValueError), match=expected):
        Stream(Quiet(), modality="audio", drain_timeout=timeout)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_drain_on_another_event_loop_raises(backend: str) -> None:
    """It would begin, and never end."""
    raised: list[Exception] = []

    def drain() -> None:
        try:
            anyio.run(stream.drain, backend=backend)
        except RuntimeError as exc:
            raised.append(exc)

    def drain_on_a_thread() -> None:
        thread = threading.Thread(target=drain)
        thread.start()
        thread.join()

    async with open_stream() as stream:
        drain_on_a_thread()
        (error,) = raised
        assert "must run on the event loop on which the stream was opened" in str(error)
        assert not stream.is_draining
        await stream.drain()
    drain_on_a_thread()
    assert raised == [error]
