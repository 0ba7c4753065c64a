"""Descriptions of sessions for operators, in every state, with the stacks of their code."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group

from fastrtc_anyio import Limits, Session, SessionState, UnknownSession
from fastrtc_anyio._core.log import logger
from fastrtc_anyio._driver import HandlerDriver
from fastrtc_anyio._peers.memory import MemoryPeer
from fastrtc_anyio._sessions.description import describe_session
from fastrtc_anyio._sessions.registry import SessionRegistry
from fastrtc_anyio.testing import open_call, tone
from tests.kit.conversations import agent, answering, say, silence, voice
from tests.kit.handlers import Quiet, SyncQuiet
from tests.kit.waiting import wait_until


def describe(session: Session) -> Any:
    """Return a description as a client of the endpoint reads it."""
    return json.loads(json.dumps(describe_session(session), allow_nan=False))


def stacks(described: Any, name: str) -> str:
    """Return the stacks of the tasks and threads with a name."""
    found = [*described["tasks"], *described["threads"]]
    return "\n".join("\n".join(one["stack"]) for one in found if one["name"].endswith(name))


def events(described: Any) -> list[str]:
    return [one["event"] for one in described["events"]]


class Waiting(Quiet):
    """A handler that starts a task."""

    async def emit(self) -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(self.fetch_weather, name="weather")

    async def fetch_weather(self) -> None:
        await anyio.sleep_forever()


async def test_connected_session() -> None:
    async with open_call(Waiting()) as call:
        await call.speak(tone(440, 48_000, 0.1))
        described = describe(call.session)
    assert described["session_id"] == call.session.log_id
    assert (described["handler"], described["transport"]) == ("Waiting", "MemoryPeer")
    assert (described["state"], described["closed"], described["error"]) == (
        "connected",
        None,
        None,
    )
    assert described["age"] >= 0
    assert described["queues"] == {
        "audio_in_seconds": 0,
        "audio_out_seconds": 0,
        "messages_in": 0,
        "messages_out": 0,
    }
    assert described["statistics"]["audio_in"]["received"] == 5
    assert described["statistics"]["video_in"] is None
    assert events(described) == ["session.connected"]
    assert "in emit:" in stacks(described, "emit_audio")
    assert "in fetch_weather: await anyio.sleep_forever()" in stacks(described, "weather")
    assert described["tasks"][0]["stack"], "the session's own task is the first"
    assert described["threads"] == []


async def test_stack_of_blocked_thread() -> None:
    release, entered = threading.Event(), threading.Event()

    class Blocking(SyncQuiet):
        def receive(self, frame: Any) -> None:
            entered.set()
            release.wait()

    with CancelScope() as scope:
        async with open_call(Blocking(), thread_limit=20) as call, create_task_group() as tasks:

            async def look() -> None:
                # The clock stands still while the handler's thread works: no sleep would end.
                while not entered.is_set():
                    await anyio.lowlevel.checkpoint()
                described.append(describe(call.session))
                release.set()

            described: list[Any] = []
            tasks.start_soon(look)
            await call.speak(tone(440, 48_000, 0.02))
    assert not scope.cancelled_caught
    stack = stacks(described[0], "Blocking.receive")
    assert "in receive: release.wait()" in stack
    assert "HandlerDriver.receive_audio" in {task["name"] for task in described[0]["tasks"]}
    names = {thread["name"] for thread in described[0]["threads"]}
    assert names <= {"Blocking.receive", "Blocking.emit"}, "idle threads are left out"


async def test_description_of_many_and_deep_tasks_is_bounded() -> None:
    async def descend(depth: int) -> None:
        await (descend(depth - 1) if depth else anyio.sleep_forever())

    async def serve(session: Session) -> None:
        async with create_task_group() as tasks:
            for _ in range(1000):
                tasks.start_soon(anyio.sleep_forever, name="leak")
            tasks.start_soon(descend, 200, name="z" * 1000)

    async with open_call(serve) as call:
        await anyio.sleep(0.1)
        described = describe(call.session)
    assert described["task_count"] > 1000
    assert len(described["tasks"]) == 50
    assert described["tasks"][0]["stack"], "the session's own task is the first"
    (deep,) = [task for task in described["tasks"] if task["name"].startswith("zzz")]
    assert len(deep["name"]) < 310
    assert len(deep["stack"]) == 51
    assert any("frames)" in line for line in deep["stack"])
    assert len(json.dumps(described)) < 100_000


async def test_session_that_negotiates_and_then_connects() -> None:
    session, described = Session(MemoryPeer(), HandlerDriver(Quiet())), []

    async def negotiate_slowly() -> None:
        await anyio.sleep(1)

    async with create_task_group() as tasks:
        tasks.start_soon(session.run, negotiate_slowly)
        for _ in range(2):
            await anyio.sleep(0.6)
            described.append(describe(session))
        tasks.cancel_scope.cancel()
    assert [one["state"] for one in described] == ["negotiating", "connecting"]
    assert events(described[1]) == ["session.negotiating", "session.connecting"]
    (task, *_) = described[0]["tasks"]
    assert "in negotiate_slowly: await anyio.sleep(1)" in "\n".join(task["stack"])


async def test_session_whose_client_does_not_connect() -> None:
    async with open_call(Quiet(), connect=False) as call:
        await anyio.sleep(0.1)
        described = describe(call.session)
        assert described["state"] == "new"
        assert any("in wait_connected" in line for t in described["tasks"] for line in t["stack"])
    ended = describe(call.session)
    assert (ended["state"], ended["tasks"]) == ("closed", [])
    assert events(ended) == ["session.closing", "session.closed"]


async def test_session_that_never_ran() -> None:
    session = Session(MemoryPeer(), HandlerDriver(Quiet()))
    described = describe(session)
    assert (described["state"], described["tasks"], described["events"]) == ("new", [], [])


@pytest.mark.parametrize("method", ["receive", "emit", "start_up", "shutdown"])
async def test_session_whose_handler_swallows_its_cancellation(method: str) -> None:
    released = anyio.Event()

    async def persist(self: Any, *_: Any) -> None:
        while not released.is_set():
            with contextlib.suppress(BaseException):
                await released.wait()
            with CancelScope(shield=True), anyio.move_on_after(0.1):
                await released.wait()

    handler = type("Persisting", (Quiet,), {method: persist})()
    registry = SessionRegistry()
    async with open_call(handler, raise_errors=False, limits=Limits(shutdown=5)) as call:
        session = call.session
        registry.add(session)
        await call.speak(tone(440, 48_000, 0.1))
        call.client.hang_up()
        await anyio.sleep(1)
        closing = describe(session)
        await wait_until(lambda: session.state is SessionState.CLOSED)
        with pytest.raises(UnknownSession):
            registry.get(session.id)
        closed = describe(registry.get_any(session.log_id))
        released.set()
    assert closing["state"] == "closing"
    assert closing["closed"] == {"reason": "hung_up", "message": closing["closed"]["message"]}
    for described in (closing, closed):
        assert any("in persist" in line for task in described["tasks"] for line in task["stack"])
    assert closed["state"] == "closed"
    assert closed["statistics"]["abandoned_tasks"] == 1
    assert {"session.abandoned", "session.closed"} <= set(events(closed))


async def test_failed_session_shows_the_kind_of_its_error_only() -> None:
    async def serve(session: Session) -> None:
        session.send_transcript("user", "my secret")
        raise ValueError("the password is hunter2")

    async with open_call(serve, raise_errors=False) as call:
        await call.ended.wait()
    described = describe(call.session)
    assert (described["error"], described["state"]) == ("ValueError", "closed")
    assert described["closed"]["reason"] == "handler_error"
    assert described["handler"].endswith("serve")
    text = json.dumps(described)
    assert "hunter2" not in text
    assert "my secret" not in text
    assert call.session.id not in text


async def test_queues_of_a_slow_handler() -> None:
    class Slow(Quiet):
        async def receive(self, frame: Any) -> None:
            await anyio.sleep_forever()

        async def emit(self) -> Any:
            await anyio.sleep(1)
            return 24_000, tone(440, 24_000, 10)

    async with open_call(Slow()) as call:
        call.client.send_message("hello")
        await anyio.sleep(0.9)
        await call.speak(tone(440, 48_000, 0.5))
        queues = describe(call.session)["queues"]
    assert queues["audio_in_seconds"] == pytest.approx(0.5, abs=0.05)
    assert queues["audio_out_seconds"] == pytest.approx(9.6, abs=0.1)


async def test_events_of_records_have_their_levels() -> None:
    async def serve(session: Session) -> None:
        logger.warning("careful", event="test.warned")
        await anyio.sleep_forever()

    async with open_call(serve) as call:
        await anyio.sleep(0.1)
        described = describe(call.session)
    assert described["events"][-1]["event"] == "test.warned"
    assert described["events"][-1]["level"] == "WARNING"
    assert described["events"][0]["level"] is None


async def test_conversation_shows_its_turns_without_their_text() -> None:
    async with open_call(agent(answering(0.1))) as call:
        await say(call, voice(1), silence(2))
        described = describe(call.session)
    assert "turn.ReplyFinished" in events(described)
    assert "HandlerDriver.converse" in {task["name"] for task in described["tasks"]}


async def test_application_finds_a_session_by_each_of_its_ids() -> None:
    registry = SessionRegistry()
    async with open_call(Quiet(), identity="ada") as call:
        session = call.session
        session.alias = "hers"
        registry.add(session)
        for name in (session.id, session.log_id, "hers"):
            assert registry.get_any(name) is session
            assert registry.get_any(name, "ada") is session
            with pytest.raises(UnknownSession):
                registry.get_any(name, "bo")
        with pytest.raises(UnknownSession):
            registry.get_any("")
    registry.forget(session)
    with pytest.raises(UnknownSession):
        registry.get_any(session.log_id)


async def test_client_cannot_hide_the_session_of_another() -> None:
    """It names its own as the log names the other."""
    registry = SessionRegistry()
    async with open_call(Quiet(), identity="ada") as hers, open_call(Quiet(), identity="bo") as his:
        registry.add(hers.session)
        for name in (hers.session.log_id, hers.session.id):
            his.session.alias = name
            registry.add(his.session)
            assert registry.get_any(name) is hers.session
            assert registry.get_any(name, "ada") is hers.session
            assert registry.get_any(name, "bo") is his.session
