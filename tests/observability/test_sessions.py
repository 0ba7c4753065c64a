"""Sessions, refusals and observers: what is counted, and what a faulty observer affects."""

from __future__ import annotations

import gc
import logging
import secrets
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import numpy as np
import pytest
from anyio import create_task_group
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from fastrtc_anyio import (
    AdmissionError,
    CloseReason,
    InvalidOffer,
    LimitExceeded,
    NotAllowed,
    Overloaded,
    RequestLimits,
    Session,
    SessionState,
    Stream,
    WebRTCError,
)
from fastrtc_anyio._peers.memory import MemoryPeer
from fastrtc_anyio._sessions.service import SessionService
from fastrtc_anyio._sessions.supervision import Resources
from fastrtc_anyio.abc import DiscardStatistics
from fastrtc_anyio.observability import Metrics, Observer
from fastrtc_anyio.observability.observer import refusal_reason
from fastrtc_anyio.testing import open_call
from tests.kit.answering_peer import AnsweringPeer as Peer
from tests.kit.conversations import agent, answering, say, silence, voice
from tests.kit.handlers import AsyncEcho, Quiet
from tests.kit.observing import Recorder, count_of, scrape
from tests.session.test_admission import request, settle


@asynccontextmanager
async def open_service(
    *observers: Observer, limit: int | None = None, limits: RequestLimits | None = None
) -> AsyncGenerator[SessionService, None]:
    """A service with peers in memory, without a portal."""
    service = SessionService(
        Quiet,
        modality="audio",
        concurrency_limit=limit,
        request_limits=limits,
        observers=observers,
    )
    unused: Any = None
    async with service.observers.observe(service), create_task_group() as tasks:
        service._supervisor.resources = Resources(tasks, unused, unused, Peer)  # type: ignore[arg-type]
        yield service
        tasks.cancel_scope.cancel()


def peer_of(session: Session) -> MemoryPeer:
    assert isinstance(session.peer, MemoryPeer)
    return session.peer


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "offer",
                "offer",
                "bad offer",
                "repeat",
                "connect",
                "connect",
                "hang up",
                "close",
                "fail",
                "wait",
                "serve",
            ]
        ),
        st.integers(0, 5),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(ACTIONS, st.sampled_from([None, 1, 3]))
async def test_counters_equal_the_sessions_and_refusals_of_a_service(
    actions: list[tuple[str, int]], limit: int | None
) -> None:
    recorder, metrics = Recorder(), Metrics()
    refused: list[Exception] = []
    sessions: list[Session] = []
    limits = RequestLimits(pending_sessions=4, client_pending=3, client_sessions=2)

    async def offer(service: SessionService, name: str, sdp: str, client: str | None) -> None:
        body = {"type": "offer", "sdp": sdp, "webrtc_id": name}
        try:
            await service.handle_request(body, client=client)
        except Exception as exc:
            refused.append(exc)

    async def serve(service: SessionService, name: str) -> None:
        def make_peer(*_: Any) -> MemoryPeer:
            peer = MemoryPeer()
            peer.client.connect()
            return peer

        try:
            await service.serve(make_peer, alias=name, client="phone")
        except Exception as exc:
            refused.append(exc)

    def check(service: SessionService) -> None:
        values = scrape(metrics)
        states = Counter(session.state.value for session in service.registry.sessions.values())
        assert count_of(values, "sessions") == states
        known = [session for (session,) in recorder.of("admitted")]
        assert values["sessions_admitted_total", ""] == len(known)
        ended = Counter(
            session.closed.reason.value if session.closed else "cancelled"
            for session in known
            if session.id not in service.registry.sessions
        )
        assert count_of(values, "sessions_ended_total") == ended
        assert count_of(values, "refusals_total") == Counter(map(refusal_reason, refused))
        assert values["connect_seconds_count", ""] == len(recorder.of("connected"))

    async with (
        open_service(recorder, metrics, limit=limit, limits=limits) as service,
        create_task_group() as tasks,
    ):
        for action, number in actions:
            sessions = list(service.registry.sessions.values())
            chosen = sessions[number % len(sessions)] if sessions else None
            name = secrets.token_hex(16)
            match action:
                case "offer":
                    client = f"client {number}" if number % 2 else None
                    sdp = request(name, name).description.sdp
                    tasks.start_soon(offer, service, name, sdp, client)
                    await anyio.sleep(0.2 * number)
                case "bad offer":
                    await offer(service, "x" * 1000, "v=0", None)
                case "serve":
                    tasks.start_soon(serve, service, name)
                case "repeat" if chosen is not None and chosen.alias:
                    sdp = request(chosen.alias, "other").description.sdp
                    tasks.start_soon(offer, service, chosen.alias, sdp, None)
                case "connect" if chosen is not None:
                    peer_of(chosen).client.connect()
                case "hang up" if chosen is not None:
                    peer_of(chosen).client.hang_up()
                case "close" if chosen is not None:
                    chosen.close(CloseReason.TIME_LIMIT, "enough")
                case "fail" if chosen is not None:
                    chosen.fail(WebRTCError("an error of the handler"))
                case _:
                    await anyio.sleep(number)
            await settle()
            check(service)
        for session in service.registry.sessions.values():
            session.close(CloseReason.HANDLER_CLOSED)
    check(service)
    assert count_of(scrape(metrics), "sessions") == {}
    connected = {session.id for session, _ in recorder.of("connected")}
    for session, seconds in recorder.of("ended"):
        assert session.state is SessionState.CLOSED or not session.closed
        assert (seconds is not None) == (session.id in connected)
    assert recorder.names[0] == "opened"
    assert recorder.names[-1] == "closed"


async def test_connect_time_is_from_admission_to_connection() -> None:
    recorder, metrics = Recorder(), Metrics()
    async with open_service(recorder, metrics) as service:
        await service.offer(request("name"))  # takes a second
        await anyio.sleep(0.5)
        session = service.registry.get("name")
        peer_of(session).client.connect()
        await anyio.sleep(2)
        peer_of(session).client.hang_up()
        await settle()
    ((_, seconds),) = recorder.of("connected")
    assert seconds == pytest.approx(1.5, abs=0.01)
    ((_, seconds),) = recorder.of("ended")
    assert seconds == pytest.approx(2, abs=0.01)
    values = scrape(metrics)
    assert values["connect_seconds_sum", ""] == pytest.approx(1.5, abs=0.01)
    assert values["session_duration_seconds_sum", ""] == pytest.approx(2, abs=0.01)


async def test_session_that_is_cancelled_before_it_runs_is_counted_and_forgotten() -> None:
    recorder, metrics = Recorder(), Metrics()
    async with open_service(recorder, metrics, limit=1) as service:
        with anyio.CancelScope() as scope:

            def make_peer(*_: Any) -> MemoryPeer:
                scope.cancel()
                return MemoryPeer()

            await service.serve(make_peer)
        assert scope.cancelled_caught
        assert service.registry.active == 0
        assert not service.registry.sessions
    assert count_of(scrape(metrics), "sessions_ended_total") == {"cancelled": 1}
    assert count_of(scrape(metrics), "refusals_total") == {}


class Faulty(Recorder):
    """Raises an error in every method."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name.startswith(("stream_", "session_", "turn_", "reply_", "in_", "refused")):
            error = self.error

            def fail(*_: object) -> None:
                raise error

            return fail
        return value

    def in_session(self, session: Session) -> Any: ...

    def in_reply(self, session: Session, reply: object) -> Any: ...


@pytest.mark.parametrize(
    "error", [ValueError("observed"), SystemExit(3), GeneratorExit()], ids=repr
)
async def test_errors_of_an_observer_are_logged_and_affect_nothing_else(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    before, after = Recorder(), Recorder()
    observers = [before, Faulty(error), after]
    async with open_call(agent(answering(0.2)), observers=observers) as call:
        await say(call, voice(1), silence(1.5))
    names = ["admitted", "connected", "turn", "started", "audible", "reply ended", "ended"]
    assert before.names == after.names == names
    failed = {r.getMessage() for r in caplog.records if "the observer" in r.getMessage()}
    methods = (
        *("session_admitted", "in_session", "session_connected", "turn_ended", "reply_started"),
        *("in_reply", "reply_audible", "reply_ended", "session_ended"),
    )
    assert failed == {f"the observer Faulty.{name} failed" for name in methods}
    assert all(r.levelno == logging.ERROR for r in caplog.records if "observer" in r.getMessage())


async def test_frames_and_messages_call_no_observer() -> None:
    recorder = Recorder()
    async with open_call(AsyncEcho(), observers=[recorder]) as call:
        for _ in range(10):
            call.client.send_message("hello")
            await say(call, voice(1))
    assert np.count_nonzero(call.heard) > 9 * 24_000
    assert recorder.names == ["admitted", "connected", "ended"]


async def test_session_without_observers_has_no_observation() -> None:
    async with open_call(agent(answering(0.2))) as call:
        assert call.session.observation is None


def test_observers_are_checked() -> None:
    class Waits(Observer):
        async def session_ended(  # type: ignore[override]
            self, session: Session, seconds: float | None
        ) -> None: ...

    with pytest.raises(TypeError, match=r"Waits.session_ended must be a plain function"):
        Stream(Quiet, modality="audio", observers=[Waits()])
    with pytest.raises(TypeError, match=r"must be instances of .*Observer; got <class"):
        Stream(Quiet, modality="audio", observers=[Metrics])  # type: ignore[list-item]
    unsuitable: Any
    for unsuitable in (Observer(), Metrics, None, 3):
        with pytest.raises(TypeError, match=r"observers must be a list of observers; got"):
            Stream(Quiet, modality="audio", observers=unsuitable)
    one = Metrics()
    with pytest.raises(ValueError, match=r"observers must not list one twice; got <"):
        Stream(Quiet, modality="audio", observers=[one, Observer(), one])


def test_arguments_of_metrics_are_checked() -> None:
    unsuitable: Any = "default"
    with pytest.raises(TypeError, match=r"registry must be a CollectorRegistry or None; got 'def"):
        Metrics(unsuitable)
    with pytest.raises(TypeError, match=r"endpoint must be a bool; got 'default'"):
        Metrics(endpoint=unsuitable)


def test_methods_that_are_not_overridden_are_not_called() -> None:
    class Ends(Observer):
        def session_ended(self, session: Session, seconds: float | None) -> None: ...

    ends, nothing = Ends(), Observer()
    observers = Stream(Quiet, modality="audio", observers=[ends, nothing])._service.observers
    assert observers.overridden("session_ended") == [ends]
    assert observers.overridden("session_admitted") == []
    nothing.session_admitted = ends.stream_opened  # type: ignore[method-assign, assignment]
    assert observers.overridden("session_admitted") == [nothing]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AdmissionError(1, 1), "admission_error"),
        (Overloaded("busy"), "overloaded"),
        (LimitExceeded("too many"), "limit_exceeded"),
        (InvalidOffer("malformed"), "invalid_offer"),
        (type("Mine", (NotAllowed,), {})("no"), "not_allowed"),
        (WebRTCError("no"), "web_rtc_error"),
        (ValueError("no"), "error"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_reason_of_a_refusal_is_the_class_of_its_error(error: Exception, reason: str) -> None:
    assert refusal_reason(error) == reason


async def test_metrics_of_two_streams_are_sums() -> None:
    metrics = Metrics()
    async with open_service(metrics) as one, open_service(metrics) as two:
        for service in (one, two):
            await service.offer(request("name"))
        assert count_of(scrape(metrics), "sessions") == {"connecting": 2}
    assert count_of(scrape(metrics), "sessions_ended_total") == {"cancelled": 2}


def test_given_registry_is_used() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    assert metrics.registry is registry
    assert registry.get_sample_value("fastrtc_sessions_admitted_total") == 0
    assert registry.get_sample_value("fastrtc_sessions", {"state": "connected"}) == 0
    for reason in ("draining", "limit_exceeded", "stream_not_open", "error"):
        labels = {"reason": reason}
        assert registry.get_sample_value("fastrtc_refusals_total", labels) == 0, reason
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Metrics(registry)


async def test_metrics_keep_no_ended_session() -> None:
    metrics = Metrics()
    async with open_call(agent(answering(0.2)), observers=[metrics]) as call:
        await say(call, voice(1), silence(1.5))
        received = scrape(metrics)["frames_received_total", "audio"]
        assert received == 125
    del call
    gc.collect()
    assert metrics._collector._live == {}
    assert scrape(metrics)["frames_received_total", "audio"] == 125


class Unreadable(MemoryPeer):
    """A transport of an application whose statistics raise an error from some time on."""

    is_broken = False

    def discarded(self) -> DiscardStatistics:
        if self.is_broken:
            raise OSError("not connected")
        return replace(super().discarded(), video=3)


async def test_transport_with_broken_statistics_affects_no_other_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()
    async with open_service(metrics) as service, create_task_group() as tasks:
        peers = [Unreadable(), MemoryPeer()]
        for peer in peers:
            peer.client.connect()
            tasks.start_soon(service.serve, lambda *_, peer=peer: peer)
            await settle()
        assert count_of(scrape(metrics), "frames_missed_total") == {"video": 3}
        peers[0].is_broken = True  # type: ignore[attr-defined]
        assert count_of(scrape(metrics), "sessions") == {"connected": 2}
        assert count_of(scrape(metrics), "frames_missed_total") == {"video": 3}
        for peer in peers:
            peer.client.hang_up()
    values = scrape(metrics)
    assert count_of(values, "sessions") == {}
    assert count_of(values, "sessions_ended_total") == {"hung_up": 2}
    events = {one.__dict__["event"] for one in caplog.records if one.levelname == "ERROR"}
    assert events == {"observer.failed"}


async def test_counter_does_not_go_back_when_a_session_ends_while_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread of its handler that was abandoned goes on sending messages."""
    metrics, key = Metrics(), ("queue_dropped", "messages_out")
    values = iter([10, 7])
    monkeypatch.setattr(
        "fastrtc_anyio.observability._collector.read_totals", lambda _: {key: next(values)}
    )
    async with open_call(Quiet(), observers=[metrics]):
        assert scrape(metrics)["queue_dropped_total", "messages_out"] == 10
    assert scrape(metrics)["queue_dropped_total", "messages_out"] == 10
