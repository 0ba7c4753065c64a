"""Exceptions that are awkward to handle end the session that raised them, and nothing else."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from fastrtc_anyio import CloseReason, HandlerContractError
from fastrtc_anyio.testing import open_call, tone
from tests.kit.handlers import Quiet, SyncQuiet


class Unprintable(Exception):
    def __repr__(self) -> str:
        raise ValueError("no text")

    __str__ = __repr__


class UnprintableExit(BaseException):
    __repr__ = __str__ = Unprintable.__repr__


@dataclass(frozen=True)
class Frozen(Exception):
    code: int = 1


WithoutNotes: type[Exception] = type("WithoutNotes", (Exception,), {"__notes__": None})


METHODS = pytest.mark.parametrize("method", ["start_up", "receive", "emit", "on_message"])
KINDS = pytest.mark.parametrize("kind", [Quiet, SyncQuiet])


async def raise_in(kind: type[Any], method: str, error: BaseException) -> BaseException | None:
    """Let a method of a handler raise an error, and return the session's error."""

    async def fail_later(self: Any, *_: Any) -> None:
        raise error

    def fail(self: Any, *_: Any) -> None:
        raise error

    handler = type("Failing", (kind,), {method: fail if kind is SyncQuiet else fail_later})()
    async with open_call(Quiet()) as neighbour:
        async with open_call(handler, raise_errors=False) as call:
            call.client.send_message("hello")
            with anyio.move_on_after(1):
                await call.speak(tone(440, 48_000, 0.1))
                await call.ended.wait()
        assert neighbour.session.closed is None
    assert call.session.closed is not None
    assert call.session.closed.reason is CloseReason.HANDLER_ERROR
    session_error: BaseException | None = call.session.error
    return session_error


@KINDS
@METHODS
@pytest.mark.parametrize("error", [Unprintable, UnprintableExit])
async def test_error_without_a_text_is_named(
    kind: type[Any], method: str, error: type[BaseException]
) -> None:
    found = await raise_in(kind, method, error())
    assert isinstance(found, HandlerContractError)
    assert f"Failing.{method} raised {error.__name__}, whose repr() raises an error" in str(found)


@KINDS
@pytest.mark.parametrize("error", [Frozen(), WithoutNotes("no")], ids=["frozen", "without notes"])
async def test_error_that_takes_no_note_is_the_error_of_the_session(
    kind: type[Any], error: Exception
) -> None:
    assert await raise_in(kind, "on_message", error) is error


@METHODS
async def test_keyboard_interrupt_on_a_thread_is_an_error(method: str) -> None:
    found = await raise_in(SyncQuiet, method, KeyboardInterrupt())
    assert isinstance(found, RuntimeError)
    assert isinstance(found.__cause__, KeyboardInterrupt)


@METHODS
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_group_of_cancellations_that_nothing_requested_is_an_error(method: str) -> None:
    """As ``except* asyncio.CancelledError: raise`` raises it."""
    error = BaseExceptionGroup("", [asyncio.CancelledError()])
    assert isinstance(await raise_in(Quiet, method, error), HandlerContractError)


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_exit_on_the_loop_of_run_asyncio_ends_only_its_session() -> None:
    async def leave() -> None:
        sys.exit(3)

    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    class Leaving(Quiet):
        async def on_message(self, message: str) -> None:
            try:
                await self.run_asyncio(leave)
            finally:
                sums.append(await self.run_asyncio(add, 1, 2))
                self.loop.call_soon_threadsafe(sys.exit)
                sums.append(await self.run_asyncio(add, 3, 4))

    sums: list[int] = []
    async with open_call(Leaving(), raise_errors=False) as call:
        call.client.send_message("hello")
        await call.ended.wait()
    assert isinstance(call.session.error, HandlerContractError)
    assert sums == [3, 7]
