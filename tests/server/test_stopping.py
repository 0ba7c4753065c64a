"""Lifespans of applications drain their streams, and signals reach the server's handlers."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import pytest
from anyio import create_task_group, to_thread
from starlette.applications import Starlette

from fastrtc_anyio import CloseReason, Session, Stream
from fastrtc_anyio._peers.memory import MemoryPeer
from fastrtc_anyio.server import open_server, stopping, wait_for_interrupt
from tests.kit.calls import make_stream, only_session
from tests.kit.handlers import Quiet
from tests.kit.waiting import wait_until


def quiet_stream(**options: Any) -> Stream:
    return make_stream(Quiet, **options)


def mounted(*streams: Stream) -> Starlette:
    app = Starlette()
    for number, stream in enumerate(streams):
        stream.mount(app, f"/{number}")
    return app


@asynccontextmanager
async def open_session(stream: Stream) -> AsyncGenerator[Session, None]:
    """A session that lasts until its client hangs up. It is served until it ends."""
    peers: list[MemoryPeer] = []

    def make_peer(_needs: Any, buffers: Any) -> MemoryPeer:
        peers.append(MemoryPeer(buffers=buffers))
        return peers[0]

    async with create_task_group() as tasks:
        tasks.start_soon(lambda: stream.serve_peer(make_peer))
        await wait_until(lambda: peers)
        peers[0].client.connect()
        await wait_until(lambda: stream.active == 1)
        yield only_session(stream)


def hang_up(session: Session) -> None:
    assert isinstance(session.peer, MemoryPeer)
    session.peer.client.hang_up()


@contextmanager
def handled(*numbers: signal.Signals) -> Generator[list[int], None, None]:
    """Handle signals as a server does: note them. The handlers must be back at the end."""
    seen: list[int] = []

    def note(number: int, _frame: object) -> None:
        seen.append(number)

    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield seen
        assert [signal.getsignal(number) for number in numbers] == [note] * len(numbers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


BOTH = (signal.SIGINT, signal.SIGTERM)


async def test_sigterm_is_passed_on_when_the_last_session_has_ended() -> None:
    one, other = quiet_stream(), quiet_stream()
    app = mounted(one, other)
    with handled(*BOTH) as seen:
        async with app.router.lifespan_context(app), open_session(one) as first:
            async with open_session(other) as second:
                signal.raise_signal(signal.SIGTERM)
                await wait_until(lambda: one.is_draining and other.is_draining)
                hang_up(second)
            assert seen == []
            hang_up(first)
            await wait_until(lambda: seen)
        assert seen == [signal.SIGTERM]


@pytest.mark.parametrize("second", BOTH)
async def test_second_signal_ends_sessions_and_is_passed_on_at_once(second: signal.Signals) -> None:
    stream = quiet_stream()
    app = mounted(stream)
    with handled(*BOTH) as seen:
        async with app.router.lifespan_context(app), open_session(stream) as session:
            signal.raise_signal(signal.SIGTERM)
            await wait_until(lambda: stream.is_draining)
            signal.raise_signal(second)
            assert seen == [second]
        assert session.closed is not None
        assert session.closed.message == "the server is stopping"
        assert seen == [second]


async def test_sigint_ends_sessions_and_is_passed_on_at_once() -> None:
    stream = quiet_stream()
    app = mounted(stream)
    with handled(*BOTH) as seen:
        async with app.router.lifespan_context(app), open_session(stream) as session:
            signal.raise_signal(signal.SIGINT)
            assert seen == [signal.SIGINT]
        assert session.closed is not None


async def test_end_of_the_lifespan_drains_all_streams() -> None:
    one, other = quiet_stream(), quiet_stream()
    app = mounted(other, one)  # the last one is closed first
    stop = anyio.Event()

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            await stop.wait()

    with handled(*BOTH):
        async with create_task_group() as tasks:
            tasks.start_soon(serve)
            await wait_until(lambda: one.is_open and other.is_open)
            async with open_session(one) as session:
                stop.set()
                await wait_until(lambda: one.is_draining and other.is_draining)
                hang_up(session)
        assert session.closed is not None
        assert session.closed.reason is CloseReason.HUNG_UP


async def test_second_sigterm_kills_a_server_without_handlers_when_the_sessions_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, killed = quiet_stream(), list[bool]()
    app = mounted(stream)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        monkeypatch.setattr(signal, "raise_signal", lambda _: killed.append(bool(stream.sessions)))
        async with app.router.lifespan_context(app), open_session(stream) as session:
            os.kill(os.getpid(), signal.SIGTERM)
            await wait_until(lambda: stream.is_draining)
            os.kill(os.getpid(), signal.SIGTERM)
            assert killed == []
            await wait_until(lambda: killed)
        assert killed == [False]
        assert session.closed is not None
        assert session.closed.message == "the server is stopping"
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_sigterm_after_sigint_reaches_the_server() -> None:
    app = mounted(quiet_stream())
    with handled(*BOTH) as seen:
        async with app.router.lifespan_context(app):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            assert seen == [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", BOTH)
async def test_signal_at_the_end_of_the_lifespan_ends_the_drain(number: signal.Signals) -> None:
    """It does not reach the server, which is stopping already."""
    stream = quiet_stream()
    app = mounted(stream)
    stop = anyio.Event()

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            await stop.wait()

    with handled(*BOTH) as seen:
        async with create_task_group() as tasks:
            tasks.start_soon(serve)
            await wait_until(lambda: stream.is_open)
            async with open_session(stream) as session:
                stop.set()
                await wait_until(lambda: stream.is_draining)
                signal.raise_signal(number)
        assert session.closed is not None
        assert session.closed.reason is CloseReason.CANCELLED
        assert seen == []


async def test_failed_application_does_not_drain() -> None:
    stream = quiet_stream()
    app = mounted(stream)
    with handled(*BOTH), pytest.raises(ZeroDivisionError):
        async with app.router.lifespan_context(app):
            raise ZeroDivisionError


async def test_stream_that_the_application_has_opened_drains_too() -> None:
    stream = quiet_stream()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None, None]:
        async with stream:
            yield
            assert stream.is_draining

    app = Starlette(lifespan=lifespan)
    stream.mount(app)
    with handled(*BOTH):
        async with app.router.lifespan_context(app):
            assert not stream.is_draining


async def test_built_in_server_does_not_drain_by_itself() -> None:
    stream = quiet_stream()
    with handled(*BOTH) as seen:
        async with open_server(mounted(stream)), open_session(stream) as session:
            signal.raise_signal(signal.SIGTERM)
            assert seen == [signal.SIGTERM]
            assert not stream.is_draining
            with anyio.move_on_after(0):
                await stream.drain()
            session.close(CloseReason.HANDLER_CLOSED)


async def test_interrupt_that_the_program_waits_for_ends_sessions() -> None:
    stream = quiet_stream()
    app = mounted(stream)
    ended: list[Session] = []

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            await wait_for_interrupt(drain=stream.drain)

    async with create_task_group() as tasks:
        tasks.start_soon(serve)
        await wait_until(lambda: stream.is_open)
        async with open_session(stream) as session:
            ended.append(session)
            signal.raise_signal(signal.SIGINT)
    assert session.closed is not None


async def test_lifespan_on_another_thread_drains() -> None:
    seen: list[bool] = []

    def serve() -> None:
        async def main() -> None:
            stream = quiet_stream()
            app = mounted(stream)
            async with app.router.lifespan_context(app):
                before = stream.is_draining
                stream._service.admission.drainer.end = lambda: seen.append(  # type: ignore[method-assign]
                    stream.is_draining
                )
            seen.append(before)

        anyio.run(main)

    with handled(*BOTH):
        await to_thread.run_sync(serve)
    assert seen == [True, False]


async def test_signal_in_a_forked_process_acts_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers are inherited; the event loop is not."""
    stream = quiet_stream()
    with handled(*BOTH) as seen:
        async with stream, stopping.drain_at_end(stream._service, None):
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: 1)
                signal.raise_signal(signal.SIGTERM)
            assert seen == [signal.SIGTERM]
            assert not stream.is_draining


async def test_end_of_one_server_does_not_affect_another() -> None:
    """A process may run several servers, and end them one by one."""
    stays, goes = quiet_stream(), quiet_stream()
    stop, gone = anyio.Event(), anyio.Event()
    app, other = mounted(stays), mounted(goes)

    async def serve_other() -> None:
        async with other.router.lifespan_context(other):
            await stop.wait()
        gone.set()

    with handled(*BOTH) as seen:
        async with create_task_group() as tasks:
            tasks.start_soon(serve_other)
            await wait_until(lambda: goes.is_open)
            async with app.router.lifespan_context(app), open_session(stays) as session:
                async with open_session(goes) as last:
                    stop.set()
                    await wait_until(lambda: goes.is_draining)
                    assert not stays.is_draining
                    signal.raise_signal(signal.SIGTERM)
                    await wait_until(lambda: stays.is_draining)
                    hang_up(last)
                await gone.wait()
                assert session.closed is None
                assert seen == []
                hang_up(session)
                await wait_until(lambda: seen)
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(signal.SIGINT)
        assert seen == [signal.SIGTERM, signal.SIGTERM, signal.SIGINT]


async def test_signal_is_passed_on_when_a_server_that_was_drained_last_has_ended() -> None:
    one, other = quiet_stream(), quiet_stream()
    stop = anyio.Event()
    app, last = mounted(one), mounted(other)

    async def serve_last() -> None:
        async with last.router.lifespan_context(last):
            await stop.wait()

    with handled(*BOTH) as seen:
        async with create_task_group() as tasks:
            tasks.start_soon(serve_last)
            await wait_until(lambda: other.is_open)
            async with app.router.lifespan_context(app), open_session(other) as session:
                signal.raise_signal(signal.SIGTERM)
                await wait_until(lambda: one.is_draining)
                assert seen == []
                stop.set()
                await wait_until(lambda: seen)
                hang_up(session)
        assert seen == [signal.SIGTERM]


@pytest.mark.parametrize("number", BOTH)
async def test_handlers_that_pass_signals_back_receive_each_once(number: signal.Signals) -> None:
    """A library installs a handler in front of the one that it finds, and calls that one."""
    one, other = quiet_stream(), quiet_stream()
    app, later = mounted(one), mounted(other)
    chained: list[int] = []

    with handled(*BOTH) as seen:
        server = signal.getsignal(number)
        async with app.router.lifespan_context(app):
            found: Any = signal.getsignal(number)

            def chain(number: int, frame: object) -> None:
                chained.append(number)
                found(number, frame)

            signal.signal(number, chain)
            async with later.router.lifespan_context(later):
                signal.raise_signal(number)
                await wait_until(lambda: seen)
                assert (seen, chained) == ([number], [number])
            signal.raise_signal(number)
            assert (len(seen), len(chained)) == (2, 2)
        signal.signal(number, server)


async def test_handler_that_is_installed_again_after_the_end_passes_signals_on() -> None:
    """As by a library that restores the handler that it has replaced."""
    stream = quiet_stream()
    app = mounted(stream)
    with handled(*BOTH) as seen:
        server = [signal.getsignal(number) for number in BOTH]
        async with app.router.lifespan_context(app):
            found = [signal.getsignal(number) for number in BOTH]
            for number in BOTH:
                signal.signal(number, lambda *_: None)
        for number, handler in zip(BOTH, found, strict=True):
            signal.signal(number, handler)
            signal.raise_signal(number)
        assert seen == [*BOTH]
        async with app.router.lifespan_context(app):
            signal.raise_signal(signal.SIGTERM)
            await wait_until(lambda: len(seen) == 3)
        assert [signal.getsignal(number) for number in BOTH] == server


async def test_lifespan_in_a_forked_process_forgets_those_of_its_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, other = quiet_stream(), quiet_stream()
    app = mounted(other)
    with handled(*BOTH) as seen:
        async with stream, stopping.drain_at_end(stream._service, None):
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: 1)
                async with app.router.lifespan_context(app):
                    signal.raise_signal(signal.SIGTERM)
                    await wait_until(lambda: seen)
                    assert other.is_draining
                    assert not stream.is_draining
        assert seen == [signal.SIGTERM]
