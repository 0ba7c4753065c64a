"""Admission of clients: slots, pending clients, limits of one client, repeated offers."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import create_task_group
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio import (
    AdmissionError,
    CloseReason,
    InvalidOffer,
    InvalidStateError,
    LimitExceeded,
    Limits,
    Overloaded,
    RequestLimits,
    RtcConfiguration,
    Session,
    SessionState,
)
from fastrtc_anyio._driver.factory import make_driver_factory
from fastrtc_anyio._media.encode import OpusOptions
from fastrtc_anyio._media.media_plan import MediaPlan
from fastrtc_anyio._media.video_encode import VideoOptions
from fastrtc_anyio._peers.memory import MemoryPeer
from fastrtc_anyio._peers.streams.audio import BufferOptions
from fastrtc_anyio._sessions.admission import CROWDED, Admission
from fastrtc_anyio._sessions.early import EarlyReaders
from fastrtc_anyio._sessions.load import LoadGauge
from fastrtc_anyio._sessions.offers import Offers, WebRTCOptions
from fastrtc_anyio._sessions.registry import SessionRegistry
from fastrtc_anyio._sessions.resuming import Resuming
from fastrtc_anyio._sessions.supervision import Resources, SessionOptions, Supervisor
from fastrtc_anyio._signaling.requests import Answer, OfferRequest, SessionDescription
from tests.kit.answering_peer import AnsweringPeer as Peer
from tests.kit.handlers import Quiet

CREDENTIALS = "a=ice-ufrag:{0}\r\na=ice-pwd:password of {0}\r\na=fingerprint:sha-256 {0}\r\n"


def request(name: str | None, secret: str = "x", rest: str = "") -> OfferRequest:
    sdp = "v=0\r\n" + CREDENTIALS.format(secret) + rest
    return OfferRequest(SessionDescription("offer", sdp), name)


class Service:
    """The sessions of a service, without a portal."""

    def __init__(
        self,
        limit: int | None,
        limits: RequestLimits,
        sessions: Limits,
        rtc: RtcConfiguration | Callable[[], object],
    ) -> None:
        self.registry = SessionRegistry()
        self.load = LoadGauge(None)
        self.admission = Admission(self.registry, limit, limits, self.load)
        self.supervisor = Supervisor(
            SessionOptions(
                make_driver_factory(Quiet, "audio", "send-receive"),
                partial(BufferOptions.choose, output_s=None, input_s=1.0),
                sessions,
                None,
                logging.INFO,
            ),
            self.admission,
            EarlyReaders(limits),
        )
        options = WebRTCOptions(MediaPlan(), rtc, OpusOptions(), VideoOptions(), None, logging.INFO)
        self.resuming = Resuming(sessions.resume, logging.INFO)
        self.offers = Offers(options, limits, self.admission, self.supervisor, self.resuming)

    def peer(self, session: Session) -> MemoryPeer:
        assert isinstance(session.peer, MemoryPeer)
        return session.peer

    async def begin(self, name: str | None = None, client: str | None = None) -> Session:
        """Begin a session, and return it once it is answered."""
        name = name or secrets.token_hex(16)
        await self.offers.answer(request(name, name), client=client)
        return self.registry.get(name)

    async def connect(self, session: Session) -> None:
        self.peer(session).client.connect()
        await settle()

    def check_empty(self) -> None:
        """Check that nothing is left of any session."""
        assert not self.registry.sessions
        assert not self.registry._slots
        assert not self.admission._entries
        assert len(self.admission.pending) == 0


@asynccontextmanager
async def open_service(
    limit: int | None = None,
    limits: RequestLimits | None = None,
    sessions: Limits | None = None,
    rtc: RtcConfiguration | Callable[[], object] | None = None,
) -> AsyncGenerator[Service, None]:
    service = Service(
        limit, limits or RequestLimits(), sessions or Limits(), rtc or RtcConfiguration()
    )
    unused: Any = None
    async with service.resuming.open(), create_task_group() as tasks:
        service.supervisor.resources = Resources(tasks, unused, unused, Peer)  # type: ignore[arg-type]
        yield service
        tasks.cancel_scope.cancel()
    service.check_empty()


async def settle() -> None:
    """Let every task run until it waits."""
    await anyio.sleep(0.001)


async def ended(session: Session) -> None:
    with anyio.fail_after(1):
        while session.state is not SessionState.CLOSED:
            await anyio.sleep(0.01)
    await settle()


async def test_pending_sessions_hold_no_slot() -> None:
    async with open_service(1) as service:
        pending = [await service.begin() for _ in range(5)]
        assert service.registry.active == 0
        await service.connect(pending[3])
        assert service.registry.active == 1
        with pytest.raises(AdmissionError, match="limit of 1 concurrent sessions"):
            await service.begin()


async def test_client_that_connects_without_a_free_slot_gets_a_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_service(1) as service:
        first, second = await service.begin(), await service.begin()
        await service.connect(first)
        await service.connect(second)
        await ended(second)
        assert second.closed is not None
        assert second.closed.reason is CloseReason.REJECTED
        text = await service.peer(second).client.receive_message()
        assert '"reason": "rejected"' in text
        assert "limit of 1 concurrent sessions" in text
        assert first.state is SessionState.CONNECTED
        service.peer(first).client.hang_up()
        await ended(first)
        await service.connect(third := await service.begin())
        assert third.state is SessionState.CONNECTED
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def test_another_thread_counts_sessions_while_one_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_service() as service:
        first, second = await service.begin(), await service.begin()

        def count(session: Session) -> bool:
            service.registry._sessions.pop(second.id, None)  # the other thread runs meanwhile
            return session is first

        with monkeypatch.context() as patch:
            patch.setattr(service.registry, "_holds_slot", count)
            assert service.registry.active == 1
        service.registry._sessions[second.id] = second


async def test_pending_session_ends_after_ten_seconds() -> None:
    async with open_service() as service:
        session = await service.begin()
        await anyio.sleep(9.9)
        assert session.state is SessionState.CONNECTING
        await anyio.sleep(0.2)
        assert session.closed is not None
        assert session.closed.reason is CloseReason.CONNECT_TIMEOUT
        service.check_empty()


async def test_oldest_pending_client_is_replaced() -> None:
    dropped: list[str] = []

    async def wait(service: Service, number: int) -> None:
        try:
            with service.admission.pending.hold(f"10.0.0.{number}", 10):
                await anyio.sleep_forever()
        except Overloaded as exc:
            dropped.append(str(exc))

    async with open_service(limits=RequestLimits(pending_sessions=3)) as service:
        first = await service.begin()
        async with create_task_group() as tasks:
            tasks.start_soon(wait, service, 1)
            await settle()
            second, third = await service.begin(), await service.begin()
            await ended(first)
            assert first.closed is not None
            assert first.closed.reason is CloseReason.REJECTED
            assert first.closed.message == CROWDED
            assert not dropped
            await service.begin()
            await settle()
            assert dropped == [CROWDED]
            await service.connect(second)
            for _ in range(3):
                await service.begin()
            await ended(third)
            assert second.state is SessionState.CONNECTED


async def test_client_that_sends_nothing_leaves_at_its_deadline() -> None:
    async with open_service() as service:
        with service.admission.pending.hold("a", 2) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        service.check_empty()


async def test_pending_limit_of_one_client() -> None:
    limits = RequestLimits(client_pending=2)
    async with open_service(limits=limits) as service:
        first = await service.begin(client="a")
        with service.admission.pending.hold("a", 10):
            with pytest.raises(LimitExceeded, match=r"RequestLimits\.client_pending") as caught:
                await service.begin(client="a")
            assert caught.value.status_hint == 429
            assert caught.value.retry_after
            with (
                pytest.raises(LimitExceeded, match=r"RequestLimits\.client_pending"),
                service.admission.pending.hold("a", 10),
            ):
                pass
            await service.begin(client="b")
            for _ in range(3):
                await service.begin(client=None)  # the application is not limited
            await service.connect(first)
            await service.begin(client="a")


async def test_session_limit_of_one_client() -> None:
    limits = RequestLimits(client_sessions=2)
    async with open_service(limits=limits) as service:
        sessions = [await service.begin(client="a") for _ in range(3)]
        for session in sessions[:2]:
            await service.connect(session)
        with pytest.raises(LimitExceeded, match=r"RequestLimits\.client_sessions"):
            await service.begin(client="a")
        await service.connect(sessions[2])
        await ended(sessions[2])
        assert sessions[2].closed is not None
        assert sessions[2].closed.reason is CloseReason.REJECTED
        await service.connect(other := await service.begin(client="b"))
        assert other.state is SessionState.CONNECTED
        service.peer(sessions[0]).client.hang_up()
        await ended(sessions[0])
        await service.connect(again := await service.begin(client="a"))
        assert again.state is SessionState.CONNECTED


async def test_overloaded_server_rejects_offers_and_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def check(active: int) -> None:
        if active:
            raise Overloaded("too much load")

    async with open_service() as service:
        first, second = await service.begin(), await service.begin()
        monkeypatch.setattr(service.load, "check", check)
        await service.connect(first)
        assert first.state is SessionState.CONNECTED
        await service.connect(second)
        await anyio.sleep(4)
        await ended(second)
        assert second.closed is not None
        assert second.closed.message == "too much load"
        with pytest.raises(Overloaded):
            await service.begin()


async def test_too_many_unfinished_ends_refuse_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(_self: Any) -> None:
        await anyio.sleep(2)

    monkeypatch.setattr(Peer, "aclose", slow)
    monkeypatch.setattr(Peer, "delay", 0.1)
    async with open_service(limits=RequestLimits(pending_sessions=2)) as service:
        for _ in range(4):
            await service.begin()
            await settle()
        with pytest.raises(Overloaded):
            await service.begin()
        await anyio.sleep(5)
        await service.begin()


async def test_repeated_offer_gets_the_first_answer() -> None:
    async with open_service(1) as service:
        answers: list[Answer] = []

        async def ask(rest: str = "") -> None:
            answers.append(await service.offers.answer(request("me", "s", rest)))

        async with create_task_group() as tasks:
            for rest in ("", "", "a=candidate:1\r\n"):
                tasks.start_soon(ask, rest)
        await ask()
        assert len(answers) == 4
        assert answers == [answers[0]] * 4
        (session,) = service.registry.sessions.values()
        for _ in range(2):
            with pytest.raises(InvalidStateError, match="the webrtc_id 'me' is in use"):
                await service.offers.answer(request("me", "another"))
        await service.connect(session)
        assert session.state is SessionState.CONNECTED
        with pytest.raises(InvalidStateError, match="in use"):
            await ask()


async def test_offers_without_credentials_or_id_are_not_repetitions() -> None:
    async with open_service() as service:
        bare = OfferRequest(SessionDescription("offer", "v=0\r\n"), "me")
        await service.offers.answer(bare)
        with pytest.raises(InvalidStateError):
            await service.offers.answer(bare)
        first = await service.offers.answer(request(None))
        assert await service.offers.answer(request(None)) != first


async def test_repetitions_of_a_refused_offer_are_refused_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused: list[Exception] = []

    async def ask(service: Service) -> None:
        try:
            await service.offers.answer(request("me"))
        except InvalidOffer as exc:
            refused.append(exc)

    async with open_service() as service:
        with monkeypatch.context() as patch:
            patch.setattr(Peer, "error", InvalidOffer("no"))
            async with create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(ask, service)
        assert len(refused) == 3
        await ask(service)
        assert len(service.registry.sessions) == 1


async def test_id_is_reserved_while_the_configuration_is_made() -> None:
    calls, go_on = 0, anyio.Event()

    async def make() -> Any:
        nonlocal calls
        calls += 1
        await go_on.wait()
        return {}

    async with open_service(rtc=make) as service:
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await service.offers.answer(request("me")))

        async with create_task_group() as tasks:
            tasks.start_soon(ask)
            tasks.start_soon(ask)
            await settle()
            with pytest.raises(InvalidStateError, match="in use"):
                await service.offers.answer(request("me", "another"))
            go_on.set()
        assert answers == [answers[0]] * 2
        assert calls == 1


async def test_cancelled_offer_leaves_its_id_to_a_repetition() -> None:
    async with open_service() as service:
        with anyio.move_on_after(0.5):
            await service.offers.answer(request("me"))
        await settle()
        service.check_empty()
        answer = await service.offers.answer(request("me"))
        assert answer.webrtc_id == "me"


actions = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.sampled_from(["a", "b", "c"])),
        st.tuples(st.just("repeat"), st.integers(0, 9)),
        st.tuples(st.just("steal"), st.integers(0, 9)),
        st.tuples(st.just("connect"), st.integers(0, 9)),
        st.tuples(st.just("hang up"), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.floats(0, 12)),
    ),
    max_size=30,
)


@settings(max_examples=80)
@given(actions, st.integers(1, 3) | st.none())
async def test_no_actions_of_clients_break_the_limits(
    steps: list[tuple[str, Any]], limit: int | None
) -> None:
    limits = RequestLimits(pending_sessions=4, client_pending=3, client_sessions=3)
    begun: list[tuple[str, Session, float, Answer]] = []

    def pending() -> list[Session]:
        return [one for _, one, _, _ in begun if one.state is SessionState.CONNECTING]

    async with open_service(limit, limits) as service:
        for action, value in steps:
            before = pending()
            if action == "offer":
                name = f"caller {len(begun)}"
                held = service.registry.active
                try:
                    answer = await service.offers.answer(request(name, name), client=value)
                except AdmissionError:
                    assert held == limit
                    continue
                except LimitExceeded:
                    continue
                session = service.registry.get(name)
                begun.append((value, session, anyio.current_time(), answer))
            elif action == "wait":
                await anyio.sleep(value)
            elif begun:
                number = value % len(begun)
                name = f"caller {number}"
                _, session, _, answer = begun[number]
                if action == "connect":
                    service.peer(session).client.connect()
                elif action == "hang up":
                    service.peer(session).client.hang_up()
                else:
                    secret = name if action == "repeat" else "another"
                    is_repeat = action == "repeat" and session in before
                    if session.state is not SessionState.CLOSED:
                        try:
                            again = await service.offers.answer(request(name, secret))
                            assert is_repeat
                            assert again == answer
                        except InvalidStateError:
                            assert not is_repeat
            await settle()
            now = anyio.current_time()
            connected = [s for _, s, _, _ in begun if s.state is SessionState.CONNECTED]
            assert service.registry.active == len(connected)
            assert limit is None or len(connected) <= limit
            assert len(pending()) <= limits.pending_sessions
            assert all(now - at <= 10.1 for _, s, at, _ in begun if s in pending())
            for name in "abc":
                mine = {s.id for client, s, _, _ in begun if client == name}
                assert len(mine & {s.id for s in pending()}) <= limits.client_pending
                assert len(mine & {s.id for s in connected}) <= limits.client_sessions
            replaced = [s for s in before if s.closed and s.closed.message == CROWDED]
            assert replaced == before[: len(replaced)], "the oldest are replaced"
        await anyio.sleep(11)
        assert len(service.admission.pending) == 0
        for _, session, _, _ in begun:
            service.peer(session).client.hang_up()
        await anyio.sleep(1)
        service.check_empty()
