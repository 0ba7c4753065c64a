"""The memory of an ended session is freed at once: no reference cycle keeps it.

Python searches for cycles when enough objects were made, which on a server with few calls can take
hours, and then stops all calls. Under asyncio, a cancelled task of anyio is itself such a cycle and
has the session in its context, so these tests are for trio.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import numpy as np
import pytest

from fastrtc_anyio import (
    AudioFrame,
    CloseReason,
    Limits,
    ReplyOnPause,
    Session,
    StreamHandlerBase,
    WebRTCError,
)
from fastrtc_anyio._driver.factory import make_driver_factory
from fastrtc_anyio.speech.energy import EnergyVad
from fastrtc_anyio.testing import tone
from tests.kit.backends import on_trio
from tests.kit.handlers import AsyncEcho, Echo, Quiet

from .test_admission import Service, open_service

pytestmark = [on_trio, pytest.mark.usefixtures("no_garbage_collection")]

CHUNK = AudioFrame(48_000, tone(440, 48_000, 0.02))


@pytest.fixture(autouse=True)
def no_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest keeps all records, and these the tracebacks of errors."""
    monkeypatch.setattr(logging.getLogger("fastrtc_anyio"), "disabled", True)


async def echo(session: Session) -> None:
    async for frame in session.audio_in:
        await session.audio_out.send(frame)


async def converse(session: Session) -> None:
    async for utterance in session.utterances(model=EnergyVad()):
        await utterance.reply([(24_000, np.zeros(480, np.int16))])


async def reply(audio: Any) -> AsyncGenerator[Any, None]:
    yield audio


class Failing(Quiet):
    async def receive(self, frame: Any) -> None:
        raise ValueError("no")


class Refusing(Quiet):
    async def start_up(self) -> None:
        raise WebRTCError("no")


@asynccontextmanager
async def serve(handler: Any, **options: Any) -> AsyncGenerator[Service, None]:
    async with open_service(**options) as service:
        supervisor = service.supervisor
        make_driver = make_driver_factory(handler, "audio", "send-receive")
        supervisor._options = replace(supervisor._options, make_driver=make_driver)
        yield service


def watch(session: Session) -> dict[str, weakref.ref[Any]]:
    """Return references to the parts of a session that do not keep them."""
    parts = {"session": session, "driver": session.driver, "transcript": session.transcript}
    if session.driver.handler is not None:
        parts["handler"] = session.driver.handler
    return {name: weakref.ref(part) for name, part in parts.items()}


async def wait_free(parts: dict[str, weakref.ref[Any]]) -> None:
    with anyio.move_on_after(20):
        while any(part() is not None for part in parts.values()):
            # The handler's threads end in real time, which this clock skips.
            time.sleep(0.005)  # noqa: ASYNC251
            await anyio.sleep(0.1)
    assert [name for name, part in parts.items() if part() is not None] == []


@pytest.mark.parametrize(
    "handler",
    [
        AsyncEcho(),
        Echo(),
        echo,
        converse,
        ReplyOnPause(reply, model=EnergyVad()),
        Failing(),
        Refusing(),
    ],
    ids=lambda handler: getattr(handler, "__name__", type(handler).__name__),
)
async def test_memory_of_an_ended_call_is_free(handler: Any) -> None:
    async with serve(handler) as service:

        async def call() -> dict[str, weakref.ref[Any]]:
            session = await service.begin()
            await service.connect(session)
            client = service.peer(session).client
            for _ in range(50):
                client.send_audio(CHUNK)
                await anyio.sleep(0.02)
            await anyio.sleep(2)
            client.hang_up()
            return watch(session)

        await wait_free(await call())
        service.check_empty()


async def test_memory_of_clients_that_never_connect_is_free() -> None:
    async with serve(AsyncEcho(), sessions=Limits(connect=1.0)) as service:

        async def offer() -> dict[str, weakref.ref[Any]]:
            return watch(await service.begin())

        await wait_free(await offer())
        service.check_empty()
        assert service.offers._attempts == {}


async def test_handler_outlives_its_session() -> None:
    """It then has no session, and calls that need one have no effect."""
    kept: list[StreamHandlerBase] = []

    class Kept(AsyncEcho):
        async def start_up(self) -> None:
            kept.append(self)

    async with serve(Kept()) as service:

        async def call() -> dict[str, weakref.ref[Any]]:
            session = await service.begin()
            await service.connect(session)
            parts = watch(session)
            session.close(CloseReason.CANCELLED)
            return parts

        parts = await call()
        del parts["handler"]
        await wait_free(parts)
        [handler] = kept
        handler.hang_up()
        handler.send_transcript("user", "too late")
        await handler.send_message("too late")
        assert handler.clear_queue().samples == 0
        with pytest.raises(RuntimeError, match="the session has ended"):
            _ = handler.portal
