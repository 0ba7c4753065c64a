"""Sessions that continue others: tokens, saved values, and failures of the store and processes."""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import anyio
import pytest
from anyio import create_task_group
from anyio.abc import TaskGroup, TaskStatus
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtc_anyio import (
    AdmissionError,
    Closed,
    CloseReason,
    InvalidOffer,
    Limits,
    MemoryStore,
    RequestLimits,
    Resumed,
    SaveFailed,
    Session,
    SessionState,
    SessionStore,
    Stream,
    run_sync,
)
from fastrtc_anyio._signaling.requests import OfferRequest, parse_request
from fastrtc_anyio.testing import open_call
from tests.kit.handlers import Quiet

from .test_admission import Service, ended, open_service, settle
from .test_admission import request as make_request

LIFETIME = 60.0
T = TypeVar("T")
Fault = Literal["refused", "request lost", "answer lost"]


class Link(SessionStore):
    """A store behind a network.

    Attributes:
        store: replace it, and all values are lost.
        faults: what happens to the next requests.
    """

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.faults: deque[Fault] = deque()
        self.is_cut = False

    async def save(self, key: str, value: bytes, lifetime: float) -> bool:
        return await self._carry(self.store.save(key, value, lifetime))

    async def take(self, key: str) -> bytes | None:
        return await self._carry(self.store.take(key))

    async def delete(self, key: str) -> None:
        await self._carry(self.store.delete(key))

    async def _carry(self, request: Awaitable[T]) -> T:
        fault = self.faults.popleft() if self.faults else None
        if self.is_cut or fault in ("refused", "request lost"):
            request.close()  # type: ignore[attr-defined]
            if fault == "refused":
                raise ConnectionRefusedError("the store has gone")
            await anyio.sleep_forever()
        answer = await request
        if fault == "answer lost":
            await anyio.sleep_forever()
        return answer


@asynccontextmanager
async def open_server(
    store: SessionStore, limit: int | None = None, **limits: Any
) -> AsyncGenerator[Service, None]:
    """A process, whose sessions save in ``store``."""
    sessions = Limits(**{"resume": LIFETIME, **limits})
    async with open_service(limit, sessions=sessions) as service:
        service.resuming.store = store
        yield service


async def call(
    service: Service, token: str | None = None, identity: str | None = None
) -> tuple[Session, str]:
    """Call and connect. Return the session and its token."""
    name = secrets.token_hex(16)
    offer = make_request(name, name)
    request = OfferRequest(offer.description, name, can_resume=True, resume_token=token)
    answer = await service.offers.answer(request, identity=identity)
    session = service.registry.get(name)
    await service.connect(session)
    assert answer.resume_token is not None
    return session, answer.resume_token


async def lose(service: Service, session: Session) -> None:
    service.peer(session)._end(Closed(CloseReason.VANISHED, "nothing came"))
    await ended(session)


def check_empty(store: MemoryStore) -> None:
    assert (store._entries, store._bytes) == ({}, 0)


async def test_value_reaches_the_next_session() -> None:
    store = MemoryStore()
    async with open_server(store) as service:
        first, token = await call(service)
        assert first.resumed_from is None
        await first.save({"turn": 1})
        await first.save({"turn": [2, None, "ü"]})
        await lose(service, first)
        second, new = await call(service, token)
        assert second.resumed_from == Resumed(first.id, {"turn": [2, None, "ü"]})
        assert new != token
        third, _ = await call(service, token)
        assert third.resumed_from is None, "a token works once"


async def test_value_is_passed_on_by_a_session_that_saves_nothing() -> None:
    async with open_server(MemoryStore()) as service:
        first, token = await call(service)
        await first.save(1)
        for _ in range(2):
            await lose(service, service.registry.get(next(iter(service.registry.sessions))))
            session, token = await call(service, token)
            assert session.resumed_from == Resumed(first.id, 1)


async def test_token_without_a_saved_value_begins_anew() -> None:
    async with open_server(MemoryStore()) as service:
        first, token = await call(service)
        await lose(service, first)
        for given in (token, "unknown", "", "\ud800"):
            session, _ = await call(service, given)
            assert session.resumed_from is None


async def test_token_of_another_client_begins_anew() -> None:
    async with open_server(MemoryStore()) as service:
        first, token = await call(service, identity="ann")
        await first.save("secret")
        await lose(service, first)
        for other in ("bob", None):
            session, _ = await call(service, token, other)
            assert session.resumed_from is None
        session, _ = await call(service, token, "ann")
        assert session.resumed_from == Resumed(first.id, "secret")


@pytest.mark.parametrize(
    "reason",
    [
        CloseReason.HUNG_UP,
        CloseReason.HANDLER_CLOSED,
        CloseReason.HANDLER_ERROR,
        CloseReason.TIME_LIMIT,
        CloseReason.IDLE,
    ],
)
async def test_value_is_deleted_at_a_regular_end(reason: CloseReason) -> None:
    store = MemoryStore()
    async with open_server(store) as service:
        first, token = await call(service)
        await first.save(1)
        first.close(reason)
        await settle()
        check_empty(store)
        await ended(first)
        await first.save(2)
        first.save_nowait(3)
        second, _ = await call(service, token)
        assert second.resumed_from is None
        check_empty(store)


@pytest.mark.parametrize("reason", [CloseReason.VANISHED, CloseReason.PEER_FAILED, None])
async def test_value_stays_after_a_loss_for_the_lifetime(reason: CloseReason | None) -> None:
    """None: the server stops."""
    store = MemoryStore()
    async with open_server(store) as service:
        first, token = await call(service)
        first.save_nowait("kept")
        await anyio.sleep(5 * LIFETIME)
        if reason is not None:
            first.close(reason)
            await ended(first)
    await anyio.sleep(LIFETIME)
    async with open_server(store) as service:
        second, _ = await call(service, token)
        assert second.resumed_from == Resumed(first.id, "kept")
        second.close(CloseReason.HUNG_UP)
    await anyio.sleep(1.5 * LIFETIME)
    await store.take("")
    check_empty(store)


async def test_value_saved_while_the_server_stops_is_kept() -> None:
    store = MemoryStore()
    async with open_server(store) as service:
        first, token = await call(service)
        first.save_nowait("last")
    async with open_server(store) as service:
        second, _ = await call(service, token)
        assert second.resumed_from == Resumed(first.id, "last")


async def test_client_that_calls_again_ends_its_former_session() -> None:
    """It needs no second slot."""
    async with open_server(MemoryStore(), 1) as service:
        first, token = await call(service)
        await first.save(1)
        first.save_nowait(2)
        second, _ = await call(service, token)
        assert second.resumed_from == Resumed(first.id, 2)
        assert first.closed == Closed(
            CloseReason.HUNG_UP, "the client continues in another session"
        )
        with pytest.raises(AdmissionError):
            await call(service, token)
        assert second.closed is None


async def test_nothing_is_kept_of_sessions_that_others_continue() -> None:
    store = MemoryStore()
    async with open_server(store) as one, open_server(store) as two:
        first, token = await call(one)
        await first.save("a large value")
        second, token = await call(one, token)
        assert second.saved is not None
        assert list(one.resuming._states) == [second.saved.key]
        await call(two, token)
        with pytest.raises(SaveFailed, match="the client continues in another session"):
            await second.save("another one")
        assert not one.resuming._states


async def test_refused_client_can_use_its_token_later() -> None:
    async with open_server(MemoryStore(), 1) as service:
        first, token = await call(service)
        await first.save(1)
        await lose(service, first)
        other, _ = await call(service)
        with pytest.raises(AdmissionError):
            await call(service, token)
        other.close(CloseReason.HUNG_UP)
        await ended(other)
        second, _ = await call(service, token)
        assert second.resumed_from == Resumed(first.id, 1)


async def test_session_whose_client_continues_in_another_process_ends() -> None:
    """At its next save, or when it would have repeated the last one."""
    store = MemoryStore()
    async with open_server(store) as one, open_server(store) as two:
        for is_explicit in (True, False):
            first, token = await call(one)
            await first.save(1)
            second, _ = await call(two, token)
            assert second.resumed_from == Resumed(first.id, 1)
            assert first.state is SessionState.CONNECTED
            if is_explicit:
                with pytest.raises(SaveFailed, match="the client continues in another session"):
                    await first.save(2)
            else:
                await anyio.sleep(LIFETIME / 2)
            await ended(first)
            assert first.closed == Closed(
                CloseReason.HUNG_UP, "the client continues in another session"
            )


async def test_store_that_does_not_answer_disturbs_no_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    link = Link()
    async with open_server(link) as service:
        first, token = await call(service)
        link.faults.extend(["request lost", "refused"])
        began = anyio.current_time()
        with pytest.raises(SaveFailed, match="the store did not answer in time"):
            await first.save("a value")
        assert anyio.current_time() == pytest.approx(began + 2)
        with pytest.raises(SaveFailed, match="the store failed") as caught:
            await first.save("a value")
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        await anyio.sleep(5)
        assert len(link.store._entries) == 1, "it was tried again"
        with caplog.at_level(logging.INFO, "fastrtc_anyio"):
            link.faults.extend(["refused", "refused"])
            first.save_nowait("another value")
            await anyio.sleep(10)
        events = [getattr(record, "event", None) for record in caplog.records]
        assert events == ["store.lost", "store.found"]
        caplog.clear()
        await lose(service, first)
        link.faults.append("refused")
        second, _ = await call(service, token)
        assert second.resumed_from is None
        assert second.closed is None
        assert token not in caplog.text
        assert "value" not in caplog.text.replace("what sessions save", "")
        third, _ = await call(service, token)
        assert third.resumed_from == Resumed(first.id, "another value")


async def test_deletion_is_repeated_until_the_store_answers() -> None:
    link = Link()
    async with open_server(link) as service:
        first, token = await call(service)
        await first.save(1)
        link.faults.extend(["refused", "request lost", "refused"])
        first.close(CloseReason.HUNG_UP)
        await ended(first)
        second, _ = await call(service, token)
        assert second.resumed_from is None
        await anyio.sleep(20)
        check_empty(link.store)


async def test_values_return_to_a_store_that_has_lost_them() -> None:
    link = Link()
    async with open_server(link) as service:
        first, token = await call(service)
        await first.save(1)
        link.store = MemoryStore()
        await anyio.sleep(LIFETIME / 2)
        await lose(service, first)
        second, _ = await call(service, token)
        assert second.resumed_from == Resumed(first.id, 1)


class SlowStore(MemoryStore):
    async def save(self, key: str, value: bytes, lifetime: float) -> bool:
        await anyio.sleep(1)
        return await super().save(key, value, lifetime)


async def test_newest_value_is_stored_if_it_comes_while_another_is_written() -> None:
    async with open_server(SlowStore()) as service:
        first, token = await call(service)
        for value in range(3):
            first.save_nowait(value)
            await anyio.sleep(0.4)
        await anyio.sleep(3)
        await lose(service, first)
        second, _ = await call(service, token)
        assert second.resumed_from == Resumed(first.id, 2)


async def test_value_that_is_written_during_a_hang_up_is_deleted() -> None:
    store = SlowStore()
    async with open_server(store) as service:
        first, _ = await call(service)
        first.save_nowait(1)
        await anyio.sleep(0.5)
        first.close(CloseReason.HUNG_UP)
        await anyio.sleep(5)
        check_empty(store)


async def test_hang_up_while_the_client_calls_again_deletes_the_value() -> None:
    store = SlowStore()
    async with open_server(store) as service:
        others = [(await call(service))[0] for _ in range(3)]
        first, token = await call(service)
        for session in (*others, first):  # the service is busy with the others
            session.save_nowait("a value")

        async def call_again() -> None:
            second, _ = await call(service, token)
            assert second.resumed_from is None

        async with create_task_group() as tasks:
            tasks.start_soon(call_again)
            await anyio.sleep(0.5)
            first.close(CloseReason.HUNG_UP)
        for session in others:
            session.close(CloseReason.HUNG_UP)
        await anyio.sleep(10)
        check_empty(store)
        assert not service.resuming._states


class WrongStore(MemoryStore):
    async def save(self, key: str, value: bytes, lifetime: float) -> Any:
        await super().save(key, value, lifetime)

    async def take(self, key: str) -> bytes | None:
        await super().take(key)
        return b"not JSON"


async def test_store_that_breaks_its_contract_ends_no_call() -> None:
    async with open_server(WrongStore()) as service:
        first, token = await call(service)
        with pytest.raises(SaveFailed, match=r"save\(\) must return a bool; got None"):
            await first.save(1)
        assert first.closed is None
        second, _ = await call(service, token)
        assert second.resumed_from is None


async def test_cancelled_save_is_completed_later() -> None:
    link = Link()
    async with open_server(link) as service:
        first, token = await call(service)
        link.faults.append("request lost")
        with anyio.move_on_after(1):
            await first.save(1)
        await anyio.sleep(5)
        await lose(service, first)
        second, _ = await call(service, token)
        assert second.resumed_from == Resumed(first.id, 1)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    ids=["set", "NaN", "large"],
    argvalues=[
        ({1, 2}, TypeError, r"value must have a JSON form; got \{1, 2\}"),
        (float("nan"), ValueError, "value must have a JSON form; got nan"),
        ("x" * 131_071, ValueError, "value must have at most 131072 bytes as JSON; got 131073"),
    ],
)
async def test_unsuitable_value_is_refused(
    value: object, error: type[Exception], text: str
) -> None:
    async with open_server(MemoryStore()) as service:
        session, _ = await call(service)
        with pytest.raises(error, match=text):
            await session.save(value)
        with pytest.raises(error, match=text):
            session.save_nowait(value)
        await session.save("x" * 131_070)


async def test_threads_save_without_waiting() -> None:
    async with open_server(MemoryStore()) as service:
        first, token = await call(service)
        await run_sync(first.save_nowait, "from a thread")
        await settle()
        await lose(service, first)
        second, _ = await call(service, token)
        assert second.resumed_from == Resumed(first.id, "from a thread")


async def test_session_without_a_token_checks_the_value_only() -> None:
    async with open_call(Quiet()) as conversation:
        await conversation.session.save([1])
        conversation.session.save_nowait([1])
        with pytest.raises(TypeError):
            await conversation.session.save(object())


async def test_resuming_can_be_disabled() -> None:
    async with open_service(sessions=Limits(resume=None)) as service:
        name = secrets.token_hex(16)
        offer = make_request(name, name)
        request = OfferRequest(offer.description, name, can_resume=True, resume_token="x")
        answer = await service.offers.answer(request)
        assert answer.resume_token is None
        session = service.registry.get(name)
        await session.save(1)
        assert session.resumed_from is None


@pytest.mark.parametrize("token", [1, ["a"], "x" * 129, True, {}])
def test_wrong_token_is_a_bad_request(token: object) -> None:
    body = {"type": "offer", "sdp": "v=0", "resume_token": token}
    with pytest.raises(
        InvalidOffer, match='"resume_token" must be a string of at most 128'
    ) as info:
        parse_request(body, RequestLimits())
    assert info.value.status_hint == 400
    assert "xx" not in str(info.value)


def test_token_is_not_in_the_repr_of_a_request() -> None:
    body = {"type": "offer", "sdp": "v=0", "resume_token": "secret"}
    assert "secret" not in repr(parse_request(body, RequestLimits()))
    assert "secret" not in repr(Resumed("id", "secret"))


def test_store_of_a_stream_is_checked() -> None:
    stream = Stream(Quiet(), modality="audio")
    assert isinstance(stream.store, MemoryStore)
    stream.store = link = Link()
    assert stream.store is link
    with pytest.raises(TypeError, match="store must be a SessionStore; got 1"):
        stream.store = 1  # type: ignore[assignment]


FAULT = st.sampled_from([None] * 6 + ["refused", "request lost", "answer lost"])
SAVES = st.lists(st.tuples(st.sampled_from(["save", "save", "save_nowait"]), FAULT), max_size=3)
END = st.sampled_from(["nothing", "lose", "lose", "crash", "crash", "hang up"])
PAUSE = st.sampled_from([0.0, 0.0, 0.1, 3.0, LIFETIME / 2, 2 * LIFETIME])
BACK = st.sampled_from([0, 0, 0, 0, 1, 2])
"""Whose token is used: 0 for that of the last call."""
TURN = st.tuples(SAVES, END, FAULT, PAUSE, BACK, st.integers(0, 1), FAULT)
"""A call saves something and ends somehow, and after a pause there is another one."""


@dataclass(eq=False)
class Known:
    """What must hold for a session."""

    session: Session
    token: str
    process: int
    acknowledged: int = -1
    values: list[int] = field(default_factory=list)
    """Values that may have been stored, in order."""
    is_used: bool = False
    is_over: bool = False
    """Whether a client or a handler has hung up."""
    is_perfect: bool = True
    """Whether no request of it has failed."""
    left_at: float | None = None


class Process:
    """A process that can crash: nothing more comes from it."""

    def __init__(self, store: MemoryStore) -> None:
        self.link = Link()
        self.link.store = store
        self.service: Service
        self._scope = anyio.CancelScope()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        with self._scope:
            async with open_server(self.link) as self.service:
                task_status.started()
                await anyio.sleep_forever()

    async def crash(self) -> None:
        self.link.is_cut = True
        self._scope.cancel()
        await settle()


class Model:
    def __init__(self, tasks: TaskGroup) -> None:
        self.tasks = tasks
        self.store = MemoryStore()
        self.processes: list[Process] = []
        self.calls: list[Known] = []
        self.saved = 0
        self.has_faults = False
        """Whether a request has failed in this turn, and may have been repeated meanwhile."""

    async def start(self, number: int) -> None:
        process = Process(self.store)
        self.processes[number : number + 1] = [process]
        await self.tasks.start(process.run)

    async def crash(self, number: int) -> None:
        await self.processes[number].crash()
        for known in self.calls:
            if known.process == number and known.left_at is None:
                known.left_at = anyio.current_time()
        await self.start(number)

    async def call(self, number: int) -> None:
        session, token = await call(self.processes[number].service)
        self.calls.append(Known(session, token, number))

    async def call_again(self, number: int, index: int, fault: Fault | None) -> None:
        if index >= len(self.calls):
            return
        former, process = self.calls[-1 - index], self.processes[number]
        for one in self.processes:
            one.link.faults.clear()
        process.link.faults.extend([] if fault is None else [fault])
        is_lost, was_used = former.left_at, former.is_used
        session, token = await call(process.service, former.token)
        process.link.faults.clear()
        known = Known(session, token, number)
        self.calls.append(known)
        self.check(former, session.resumed_from, fault, was_used, is_lost)
        if former.left_at is None and (former.process == number or session.resumed_from):
            former.left_at = anyio.current_time()
        former.is_used = was_used or session.resumed_from is not None
        former.is_perfect = former.is_perfect and fault != "answer lost"
        if session.resumed_from is not None:
            assert isinstance(session.resumed_from.value, int)
            known.values = [session.resumed_from.value]
            known.acknowledged = known.values[0] if fault is None else -1
            known.is_perfect = fault is None

    def check(
        self,
        former: Known,
        found: Resumed | None,
        fault: Fault | None,
        was_used: bool,
        left_at: float | None,
    ) -> None:
        if found is None:
            age = 0.0 if left_at is None else anyio.current_time() - left_at
            must_resume = (
                former.acknowledged >= 0
                and former.is_perfect
                and fault is None
                and not (was_used or former.is_over)
                and age <= LIFETIME
            )
            assert not must_resume, "an acknowledged value is lost"
        else:
            assert not was_used, "a token was used twice"
            assert not (former.is_over and former.is_perfect), "it was resumed after a hang-up"
            assert found.value in former.values
            assert isinstance(found.value, int)
            assert found.value >= former.acknowledged, "a newer value was acknowledged"

    async def save(self, known: Known, fault: Fault | None) -> None:
        value, link = self._next(known), self.processes[known.process].link
        link.faults.extend([] if fault is None else [fault])
        try:
            await known.session.save(value)
        except SaveFailed:
            assert self.has_faults or known.is_used or not known.is_perfect
        else:
            assert not known.is_used, "written after the client has called again"
            known.acknowledged = value
        link.faults.clear()

    def save_nowait(self, known: Known, fault: Fault | None) -> None:
        link = self.processes[known.process].link
        link.faults.extend([] if fault is None else [fault])
        known.session.save_nowait(self._next(known))

    def _next(self, known: Known) -> int:
        self.saved += 1
        known.values.append(self.saved)
        return self.saved

    async def end(self, known: Known, how: str, fault: Fault | None) -> None:
        if how == "crash":
            await self.crash(known.process)
            return
        process = self.processes[known.process]
        process.link.faults.extend([] if fault is None else [fault])
        if how == "lose":
            await lose(process.service, known.session)
            known.left_at = anyio.current_time()
        elif how == "hang up":
            known.is_perfect = known.is_perfect and fault is None
            known.session.close(CloseReason.HUNG_UP)
            await ended(known.session)
            known.left_at, known.is_over = anyio.current_time(), True

    async def take_turn(self, turn: tuple[Any, ...]) -> None:
        saves, how, fault, pause, back, number, call_fault = turn
        known = self.calls[-1]
        self.has_faults = any(one is not None for one in (fault, *(one for _, one in saves)))
        for name, save_fault in saves:
            if known.session.closed is None:
                done = getattr(self, name)(known, save_fault)
                if done is not None:
                    await done
        if known.session.closed is None:
            await self.end(known, how, fault)
        await anyio.sleep(pause)
        await self.call_again(number, back, call_fault)
        if known.session.closed is None and known.is_used:
            self.has_faults = True
            await self.save(known, None)

    async def finish(self) -> None:
        for process in self.processes:
            process.link.faults.clear()
            await process.crash()
        await anyio.sleep(1.5 * LIFETIME)
        await self.store.take("")
        check_empty(self.store)


@given(turns=st.lists(TURN, min_size=1, max_size=6))
@settings(max_examples=200)
async def test_whatever_happens_the_newest_value_is_resumed_once(
    turns: list[tuple[Any, ...]],
) -> None:
    async with create_task_group() as tasks:
        model = Model(tasks)
        for number in range(2):
            await model.start(number)
        await model.call(0)
        for turn in turns:
            await model.take_turn(turn)
        await model.finish()
