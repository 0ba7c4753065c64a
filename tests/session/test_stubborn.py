"""Handlers that swallow their cancellation are reported, counted, and hold no slot."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from anyio import CancelScope

from fastrtc_anyio import (
    CloseReason,
    EnergyVad,
    Limits,
    ReplyOnPause,
    Session,
    SessionState,
)
from fastrtc_anyio.testing import open_call
from fastrtc_anyio.testing.signals import tone
from tests.kit.handlers import Quiet

LIMIT = 5.0


class Stubborn:
    """Swallows its cancellation until it is released."""

    def __init__(self) -> None:
        self.released = anyio.Event()

    async def persist(self) -> None:
        while not self.released.is_set():
            with contextlib.suppress(BaseException):
                await self.released.wait()
            with CancelScope(shield=True), anyio.move_on_after(0.1):
                await self.released.wait()


def make_handler(method: str, stubborn: Stubborn) -> Any:
    async def persist(self: Any, *_: Any) -> None:
        await stubborn.persist()

    return type("Persisting", (Quiet,), {method: persist})()


async def serve_stubbornly(handler: Any, stubborn: Stubborn, caplog: Any) -> Session:
    async with open_call(handler, raise_errors=False, limits=Limits(shutdown=LIMIT)) as call:
        session: Session = call.session
        await anyio.sleep(0.1)
        call.client.send_message("hello")
        await call.speak(tone(440, 48_000, 0.1))
        call.client.hang_up()
        began = anyio.current_time()
        while session.state is not SessionState.CLOSED:
            await anyio.sleep(0.1)
        assert LIMIT <= anyio.current_time() - began <= 2 * LIMIT
        assert session.statistics().abandoned_tasks == 1
        (record,) = [r for r in caplog.records if "did not end within" in r.getMessage()]
        assert session.log_id in record.getMessage()
        assert "in persist" in record.getMessage()
        await anyio.sleep(60)
        stubborn.released.set()
    return session


@pytest.mark.parametrize("method", ["start_up", "receive", "emit", "on_message", "shutdown"])
async def test_method_that_swallows_its_cancellation_is_abandoned(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    stubborn = Stubborn()
    handler = make_handler(method, stubborn)
    session = await serve_stubbornly(handler, stubborn, caplog)
    assert session.closed is not None
    assert session.closed.reason is CloseReason.HUNG_UP
    assert session.statistics().abandoned_tasks == 1
    if method != "shutdown":
        assert handler.calls.count("shutdown") == 1


async def test_session_function_that_swallows_its_cancellation_is_abandoned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stubborn = Stubborn()

    async def serve(session: Session) -> None:
        await stubborn.persist()

    await serve_stubbornly(serve, stubborn, caplog)


@pytest.mark.filterwarnings("ignore::fastrtc_anyio.testing.NoSpeechWarning")
async def test_reply_that_swallows_its_cancellation_is_abandoned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stubborn = Stubborn()

    async def greet() -> AsyncGenerator[Any, None]:
        await stubborn.persist()
        yield None

    handler = ReplyOnPause(lambda audio: iter(()), greet, model=EnergyVad())
    await serve_stubbornly(handler, stubborn, caplog)


async def test_handler_that_shields_itself_for_a_while_is_not_abandoned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Tidy(Quiet):
        async def emit(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with CancelScope(shield=True):
                    await anyio.sleep(LIMIT - 1)

    async with open_call(Tidy(), limits=Limits(shutdown=LIMIT)) as call:
        await anyio.sleep(0.1)
        call.client.hang_up()
        await call.ended.wait()
    assert call.session.statistics().abandoned_tasks == 0
    assert "did not end" not in caplog.text
