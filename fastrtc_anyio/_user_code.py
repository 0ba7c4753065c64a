"""Call functions of the application, and contain their errors."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import NoReturn, TypeVar, cast

from anyio import (
    CapacityLimiter,
    current_effective_deadline,
    get_cancelled_exc_class,
    move_on_after,
)
from anyio.lowlevel import RunVar

from ._core.host import Host
from ._core.threads import Worker
from ._core.user_code import is_coroutine_function
from .errors import HandlerContractError, Overloaded

T = TypeVar("T")

MAX_CALLS = 40
"""Maximum concurrent calls of plain functions, each on a thread."""
_MAX_WAITING = 400
"""Maximum calls that wait for one of these threads."""
_MAX_WAIT = 10.0
"""Seconds that a call waits for a thread."""
_threads: RunVar[CapacityLimiter] = RunVar("threads for functions of the application")


class contain_exits:  # noqa: N801 - used like a function
    """Keep ``sys.exit()`` and the like, in code of the application, from ending the server.

    They become a `HandlerContractError`. Cancellations and KeyboardInterrupt pass.
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
        if error is not None:
            self.check(error)

    def check(self, error: BaseException) -> None:
        """Raise a `HandlerContractError` in place of an error that must not pass."""
        if isinstance(error, Exception) or _contains(error, KeyboardInterrupt):
            return
        if not _consists_of(error, (Exception, get_cancelled_exc_class())):
            self._refuse(error)

    def _refuse(self, error: BaseException) -> NoReturn:
        described = _describe(error) or f"{type(error).__qualname__}, whose repr() raises an error"
        raise HandlerContractError(f"{self._source} raised {described}") from error


class user_code(contain_exits):  # noqa: N801 - used like a function
    """Contain errors of a handler: wrap each call of its code in this context manager, or pass its
    exception to :meth:`check`.

    Exceptions get a note that names the source. A cancellation that no scope of the session
    requested becomes a `HandlerContractError`, too: the handler awaited a task of the application
    that was cancelled.
    """

    __slots__ = ()

    def check(self, error: BaseException) -> None:
        if isinstance(error, GeneratorExit) or _contains(error, KeyboardInterrupt):
            return
        if isinstance(error, Exception):
            if _describe(error) is None:  # trio, which shows it, would fail
                self._refuse(error)
            _add_note(error, f"raised in {self._source}")
            if _is_asyncio_under_trio(error.__traceback__):
                _add_note(
                    error,
                    "This runs under trio, where asyncio's own objects do not work: use anyio's, "
                    'or run_asyncio(), or serve under asyncio: launch(backend="asyncio").',
                )
        elif _contains(error, get_cancelled_exc_class()):
            if current_effective_deadline() != -math.inf:
                self._refuse(error)
        else:
            super().check(error)


def _contains(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether an exception, or one of a group, is of a kind."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(kind)[0] is not None
    return isinstance(error, kind)


def _consists_of(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Whether an exception, or each of a group, is of one of these kinds."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(kinds)[1] is None
    return isinstance(error, kinds)


def _describe(error: BaseException) -> str | None:
    """Return the ``repr`` of an exception of the application; None if that fails."""
    try:
        return repr(error)
    except BaseException:
        return None


def _add_note(error: Exception, note: str) -> None:
    # Exceptions may be immutable.
    with suppress(Exception):
        error.add_note(note)


def _is_asyncio_under_trio(traceback: TracebackType | None) -> bool:
    if not get_cancelled_exc_class().__module__.startswith("trio"):
        return False
    while traceback is not None:
        if str(traceback.tb_frame.f_globals.get("__name__")).startswith("asyncio"):
            return True
        traceback = traceback.tb_next
    return False


async def call_user_function(function: Callable[..., T | Awaitable[T]], *args: object) -> T:
    """Call a plain or async function of the application.

    A plain function runs on a thread, because it may block, for instance to fetch credentials.
    An awaitable that it returns is awaited. Exceptions from the function propagate; ``sys.exit()``
    becomes a `HandlerContractError`.

    Raises:
        Overloaded: all threads are busy, and too many calls wait for one, or this one too long.

    Cancellation:
        Abandons a plain function; its result is dropped. It occupies its thread until it returns.
    """
    coroutine = is_coroutine_function(function)
    with contain_exits(getattr(function, "__qualname__", repr(function))):
        result = function(*args) if coroutine else await _run_on_thread(function, *args)
        if inspect.isawaitable(result):
            return cast("T", await result)
    return result


async def _run_on_thread(function: Callable[..., T], *args: object) -> T:
    """Call a plain function on one of a bounded number of threads."""
    threads = _threads.get(None)
    if threads is None:
        threads = CapacityLimiter(MAX_CALLS)
        _threads.set(threads)
    call = object()
    await _reserve_thread(threads, call)
    release = partial(threads.release_on_behalf_of, call)
    worker, host = Worker(getattr(function, "__qualname__", repr(function))), Host()
    try:
        return await worker.run(function, *args)
    finally:
        if worker.busy:  # an abandoned call: the thread is free once it has returned
            worker.post(partial(host.post, release))
        else:
            release()
        worker.end()


async def _reserve_thread(threads: CapacityLimiter, call: object) -> None:
    waiting = threads.statistics().tasks_waiting
    if waiting >= _MAX_WAITING:
        raise Overloaded(
            f"{MAX_CALLS} functions of the application are running and {waiting} are waiting; "
            "try again later",
            retry_after=_MAX_WAIT,
        )
    with move_on_after(_MAX_WAIT) as scope:
        await threads.acquire_on_behalf_of(call)
    if scope.cancelled_caught:
        raise Overloaded(
            f"{MAX_CALLS} functions of the application are running, and none has returned within "
            f"{_MAX_WAIT:g} s; try again later",
            retry_after=_MAX_WAIT,
        )
