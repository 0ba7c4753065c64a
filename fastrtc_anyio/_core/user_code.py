"""Call functions of the application, tell their kinds apart, and contain their errors."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar, cast

from anyio import current_effective_deadline, get_cancelled_exc_class

from fastrtc_anyio.errors import HandlerContractError

from .threads import run_sync

__all__ = ["call_user_function", "called", "is_coroutine_function", "is_generator", "user_code"]

T = TypeVar("T")


async def call_user_function(make: Callable[..., T | Awaitable[T]], *args: object) -> T:
    """Call a function of the application's, plain or async. A plain one runs on a thread of its
    own: it may ask a server for credentials.

    Raises:
        What the function raises.

    Cancellation:
        Leaves a plain function behind; its result is dropped.
    """
    call = make if hasattr(make, "__code__") else getattr(make, "__call__", make)  # noqa: B004
    made = make(*args) if inspect.iscoroutinefunction(call) else await run_sync(make, *args)
    if inspect.isawaitable(made):
        return cast("T", await made)
    return made


def is_coroutine_function(function: object) -> bool:
    """Whether calling it gives a coroutine: also for methods, partials and callable objects."""
    return called(function, inspect.iscoroutinefunction)


def is_generator(function: object) -> bool:
    """Whether calling it gives a generator, plain or async."""
    return called(function, inspect.isgeneratorfunction) or called(
        function, inspect.isasyncgenfunction
    )


def called(function: object, test: Callable[[Any], bool]) -> bool:
    return test(function) or test(getattr(type(function), "__call__", None))  # noqa: B004


class user_code:  # noqa: N801 - used like a function; a class, as it is entered for every frame
    """Put this round user code: ``sys.exit()`` in a handler ends its session, not the server.

    So does a cancellation that nobody here asked for: the handler awaited a task of its own that
    was cancelled. Both leave as an ordinary error. Ctrl-C passes. Every error carries a note that
    says where it was raised.

    Args:
        source: whose code it is, for the note.
    """

    __slots__ = ("_source",)

    def __init__(self, source: str) -> None:
        self._source = source

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            return
        if isinstance(error, Exception):
            error.add_note(f"raised in {self._source}")
            if _is_asyncio_under_trio(traceback):
                error.add_note(
                    "This runs under trio, where asyncio's own objects do not work: use anyio's, "
                    'or run_asyncio(), or serve under asyncio: launch(backend="asyncio").'
                )
        elif not isinstance(error, KeyboardInterrupt | GeneratorExit) and not _is_ours(error):
            raise HandlerContractError(f"{self._source} raised {error!r}") from error


def _is_asyncio_under_trio(traceback: TracebackType | None) -> bool:
    if not get_cancelled_exc_class().__module__.startswith("trio"):
        return False
    while traceback is not None:
        if str(traceback.tb_frame.f_globals.get("__name__")).startswith("asyncio"):
            return True
        traceback = traceback.tb_next
    return False


def _is_ours(error: BaseException) -> bool:
    """Whether it is a cancellation that somebody here asked for, also one of several errors."""
    cancelled = get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        return error.split((Exception, cancelled))[1] is None
    return isinstance(error, cancelled) and current_effective_deadline() == -math.inf
