"""Attributes of log records: the session, the event, and the number of suppressed records."""

from __future__ import annotations

import logging
import threading
from typing import Any

import anyio
import pytest

from fastrtc_anyio import Session, Stream
from fastrtc_anyio._core.gate import Gate
from fastrtc_anyio._core.log import LOGGER, logger
from fastrtc_anyio._core.records import flush_suppressed, forget_records
from fastrtc_anyio._core.session_log import SessionLog, current_log
from fastrtc_anyio._core.threads import Worker
from fastrtc_anyio._peers.memory import MemoryPeer
from fastrtc_anyio.testing import open_call, tone
from tests.kit.conversations import agent, answering, say, silence, voice
from tests.kit.handlers import Quiet, SyncQuiet


def find(caplog: pytest.LogCaptureFixture, event: str) -> list[Any]:
    return [record for record in caplog.records if record.__dict__.get("event") == event]


async def test_records_have_the_session_of_their_task_and_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Talkative(SyncQuiet):
        def receive(self, frame: Any) -> None:
            logger.warning("on a thread", event="test.thread")

    class Chatty(Quiet):
        async def receive(self, frame: Any) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.log)

        async def log(self) -> None:
            logging.getLogger(LOGGER).warning("in a child task, by the application")

    ids: list[str] = []
    for handler in (Talkative(), Chatty()):
        async with open_call(handler) as call:
            await call.speak(tone(440, 48_000, 0.02))
            await anyio.sleep(0.1)
            ids.append(call.session.log_id)
    logger.warning("outside", event="test.outside")
    threaded, application, outside = (
        find(caplog, event)[0] for event in ("test.thread", LOGGER, "test.outside")
    )
    assert [threaded.session_id, application.session_id, outside.session_id] == [*ids, None]
    assert [threaded.suppressed, outside.suppressed] == [0, 0]
    assert all(len(one) == 8 for one in ids)


async def test_each_record_has_the_id_of_its_session(caplog: pytest.LogCaptureFixture) -> None:
    async def serve(session: Session) -> None:
        await anyio.sleep(0.1)
        logger.warning("in a session", event="test.session")
        await anyio.sleep_forever()

    async with open_call(serve) as one, open_call(serve) as other:
        await anyio.sleep(0.2)
        ids = [call.session.log_id for call in (one, other)]
    assert sorted(record.session_id for record in find(caplog, "test.session")) == sorted(ids)
    assert current_log.get() is None


async def test_records_of_a_connection_have_its_session(caplog: pytest.LogCaptureFixture) -> None:
    class Talkative(MemoryPeer):
        async def run(self) -> None:
            logger.warning("in a task of the connection", event="test.connection")
            await super().run()

    peers: list[Talkative] = []

    def make_peer(_needs: object, _buffers: object) -> Talkative:
        peers.append(Talkative())
        peers[0].client.connect()
        return peers[0]

    async with Stream(Quiet, modality="audio") as stream, anyio.create_task_group() as tasks:
        tasks.start_soon(stream.serve_peer, make_peer)
        await anyio.sleep(0.1)
        (session,) = stream.sessions.values()
        peers[0].client.hang_up()
    (record,) = find(caplog, "test.connection")
    assert record.session_id == session.log_id
    assert "test.connection" in [noted.event for noted in session.log.recent]


async def test_error_of_an_abandoned_call_has_its_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release, entered = threading.Event(), Gate()

    def fail() -> None:
        entered.set()
        release.wait()
        raise ValueError("too late")

    token = current_log.set(SessionLog("01234567"))
    worker = Worker("test")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run, fail)
        await entered.wait()
        tasks.cancel_scope.cancel()
    current_log.reset(token)
    release.set()
    await worker.finish(lambda: None)
    await worker.aclose()
    (record,) = find(caplog, "handler.failed_late")
    assert record.session_id == "01234567"


async def test_events_of_turns_are_logged_and_remembered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    async with open_call(agent(answering(0.1))) as call:
        await say(call, voice(1), silence(2))
        remembered = [noted.event for noted in call.session.log.recent]
    turns = [name for name in remembered if name.startswith("turn.") and name != "turn.event"]
    assert turns[:3] == [
        "turn.UserStartedSpeaking",
        "turn.UserStoppedSpeaking",
        "turn.ReplyStarted",
    ]
    records = find(caplog, "turn.event")
    assert {record.session_id for record in records} == {call.session.log_id}
    assert len(records) == len(turns)


def test_report_of_suppressed_records_has_their_event(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(30):
        logger.warning("kind %d", number, event="test.flood")
    flush_suppressed()
    *_, report = caplog.records
    assert report.getMessage() == "20 records were suppressed: kind %d"
    assert (report.__dict__["event"], report.__dict__["session_id"]) == ("test.flood", None)
    assert sum(1 + record.__dict__["suppressed"] for record in find(caplog, "test.flood")) == 30


def test_only_logged_records_are_remembered() -> None:
    log = SessionLog("01234567")
    token = current_log.set(log)
    try:
        for number in range(30):
            logger.warning("kind %d", number, event="test.flood")
        logger.warning("another", event="test.other")
    finally:
        current_log.reset(token)
        forget_records()  # the process would report the others at its end
    events = [noted.event for noted in log.recent]
    assert events == ["test.flood"] * 10 + ["test.other"]
    for number in range(100):
        log.note(f"test.{number}")
    assert [noted.event for noted in log.recent] == [f"test.{n}" for n in range(50, 100)]
