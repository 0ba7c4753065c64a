"""Log records of a WebRTC call have its session, on the thread of aiortc too."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from anyio import to_thread

from tests.kit.calls import make_stream, only_session, place_call, wait_ended
from tests.kit.handlers import Quiet
from tests.kit.waiting import wait_until

_TEXT = 51  # RFC 8831 8: PPID of a text message


async def test_records_of_a_call_have_its_session(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastrtc_anyio")
    stream = make_stream(Quiet)
    async with stream, place_call(stream) as client, place_call(stream):
        session = next(s for s in stream.sessions.values() if s.alias == client.answer["webrtc_id"])

        async def send_malformed_text() -> None:
            sctp: Any = client.pc.sctp
            assert client.channel is not None
            await sctp._send(client.channel.id, _TEXT, b"\xff")

        await wait_until(lambda: client.channel_is_open)
        await to_thread.run_sync(client.run, send_malformed_text)
        await wait_until(lambda: session.statistics().discarded.messages_in)
        client.hang_up()
        await wait_ended(stream, session)
        assert only_session(stream) is not session
    by_event = {
        record.__dict__["event"]: record
        for record in caplog.records
        if record.__dict__["session_id"] == session.log_id
    }
    assert {"session.answered", "client.item_discarded", "session.ended"} <= by_event.keys()
    assert by_event["client.item_discarded"].threadName == "fastrtc-portal"
    described = [noted.event for noted in session.log.recent]
    assert described[:3] == ["session.negotiating", "session.answered", "session.connecting"]
