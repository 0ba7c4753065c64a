"""A setting that is a value, or a function that makes one for each call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutinefunction
from typing import TypeVar, cast

from .threads import run_sync

__all__ = ["read_setting"]

T = TypeVar("T")


async def read_setting(make: Callable[..., T | Awaitable[T]], *args: object) -> T:
    """Call a function of the application's, plain or async. A plain one runs on a thread of its
    own: it may ask a server for credentials.

    Raises:
        What the function raises.

    Cancellation:
        Leaves a plain function behind; its result is dropped.
    """
    call = make if hasattr(make, "__code__") else getattr(make, "__call__", make)  # noqa: B004
    made = make(*args) if iscoroutinefunction(call) else await run_sync(make, *args)
    if isawaitable(made):
        return cast("T", await made)
    return made
