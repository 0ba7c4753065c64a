"""Exceptions without the variables of the functions that raised them."""

from __future__ import annotations

import weakref
from collections.abc import Generator
from typing import Any

import anyio

from fastrtc_anyio._core.stacks import awaiting_frames, describe_subtasks, forget_frames


class Kept:
    """An object that a function has as a variable."""


def raise_error(kept: list[weakref.ref[Kept]]) -> None:
    one, other = Kept(), Kept()
    kept += [weakref.ref(one), weakref.ref(other)]
    try:
        raise KeyError("first")
    except KeyError as first:
        cause = ValueError("cause")
        cause.__context__ = cause  # no infinite search
        error = ExceptionGroup("several", [OSError("part"), first])
        raise error from cause


def test_frames_are_forgotten() -> None:
    kept: list[weakref.ref[Kept]] = []
    error: BaseException | None = None
    try:
        raise_error(kept)
    except ExceptionGroup as exc:
        error = exc
    assert error is not None
    assert all(one() is not None for one in kept)
    forget_frames(error)
    assert error.__traceback__ is None
    assert all(one() is None for one in kept)
    assert isinstance(error, ExceptionGroup)
    assert [str(one) for one in error.exceptions] == ["part", "'first'"]
    assert error.exceptions[1].__traceback__ is None


class Waiting:
    """An awaitable that refers to the coroutine which awaits it."""

    caller: Any = None

    def __await__(self) -> Waiting:
        return self

    def __iter__(self) -> Waiting:
        return self

    def __next__(self) -> None:
        """Wait for ever."""


def test_frames_of_awaitables_in_a_circle_end() -> None:
    awaited = Waiting()

    async def wait() -> None:
        await awaited  # type: ignore[misc]

    coro: Any = wait()
    awaited.caller = coro
    coro.send(None)
    frames = awaiting_frames(coro)
    assert [next(frames).f_code.co_name, *(one.f_code.co_name for one in take(frames))] == ["wait"]
    coro.close()


def take(frames: Generator[Any, None, None]) -> list[Any]:
    return [frame for frame, _ in zip(frames, range(5), strict=False)]


async def test_description_of_leaked_tasks_is_bounded() -> None:
    async with anyio.create_task_group() as tasks:
        own = anyio.get_current_task().id
        for _ in range(100):
            tasks.start_soon(anyio.sleep_forever, name="leak")
        tasks.start_soon(anyio.sleep_forever, name="last")
        await anyio.lowlevel.checkpoint()
        lines = describe_subtasks(own).split("\n")
        tasks.cancel_scope.cancel()
    assert lines.count("leak") == 19
    assert lines.count("last") == 1
    assert lines[-1] == "... (81 more tasks)"
