"""Call functions of the application, and tell their kinds apart."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from .threads import run_sync

T = TypeVar("T")


async def call_user_function(function: Callable[..., T | Awaitable[T]], *args: object) -> T:
    """Call a plain or async function of the application.

    A plain function runs on a new thread, because it may block, for instance to fetch credentials.
    An awaitable that it returns is awaited. Exceptions from the function propagate.

    Cancellation:
        Abandons a plain function; its result is dropped.
    """
    coroutine = is_coroutine_function(function)
    result = function(*args) if coroutine else await run_sync(function, *args)
    if inspect.isawaitable(result):
        return cast("T", await result)
    return result


def is_coroutine_function(function: object) -> bool:
    """Return whether calling it creates a coroutine; also for methods, partials and callables."""
    return _is_kind(function, inspect.iscoroutinefunction)


def is_generator_function(function: object) -> bool:
    """Return whether calling it creates a generator, plain or async."""
    return _is_kind(function, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


def _is_kind(function: object, *tests: Callable[[object], bool]) -> bool:
    # inspect looks through methods and partials, but not at the __call__ of an object.
    call = getattr(type(function), "__call__", None)  # noqa: B004
    return any(test(function) or test(call) for test in tests)
