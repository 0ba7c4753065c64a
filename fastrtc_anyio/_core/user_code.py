"""Call functions of the application, tell their kinds apart, and contain their errors."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar, cast

from anyio import current_effective_deadline, get_cancelled_exc_class

from fastrtc_anyio.errors import HandlerContractError

from .threads import run_sync

__all__ = [
    "call_user_function",
    "is_async",
    "is_coroutine_function",
    "is_generator_function",
    "user_code",
]

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


def is_async(function: object) -> bool:
    """Return whether calling it creates a coroutine or an async generator."""
    return _is_kind(function, inspect.iscoroutinefunction, inspect.isasyncgenfunction)


def _is_kind(function: object, *tests: Callable[[object], bool]) -> bool:
    # inspect looks through methods and partials, but not at the __call__ of an object.
    call = getattr(type(function), "__call__", None)  # noqa: B004
    return any(test(function) or test(call) for test in tests)


class user_code:  # noqa: N801 - used like a function; a class, because it is entered per frame
    """Contain errors of application code: wrap each call of it in this context manager.

    Exceptions get a note that names the source. ``sys.exit()`` in a handler ends its session, not
    the server: it becomes a `HandlerContractError`. A cancellation that no scope of the session
    requested becomes one too: the handler awaited a task of the application that was cancelled.
    KeyboardInterrupt passes.

    Args:
        source: name of the code, for the note.
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
    """Return whether an enclosing scope requested the cancellation, alone or in a group."""
    cancelled = get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        return error.split((Exception, cancelled))[1] is None
    return isinstance(error, cancelled) and current_effective_deadline() == -math.inf
