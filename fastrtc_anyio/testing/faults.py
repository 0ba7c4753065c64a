"""Faults at the k-th checkpoint: does everything end well, wherever something fails?

Every ``await`` that really waits may fail, and may be where a task is cancelled. A program has
hundreds of such places and tests reach few of them. Here a test says "the k-th, whichever it is",
and counts k up until there is no such checkpoint::

    for k in itertools.count(1):
        with inject_fault(k, OSError("injected")) as fault:
            async with open_call(MyHandler(), raise_errors=False) as call:
                await anyio.sleep(1)
        if not fault.reached:
            break
        assert everything_is_released(), fault.where

How it works: the coroutines of the tasks started in the block are replaced by proxies, which are
asked each time the event loop resumes the task. On trio an instrument does that, on asyncio a task
factory. Tasks are told apart by a context variable, which a task passes on to those it starts.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import wraps
from types import FrameType
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import anyio
from anyio.lowlevel import current_token

__all__ = ["FaultPlan", "FaultyFunction", "faulty", "inject_fault"]

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

_plans: ContextVar[tuple[FaultPlan, ...]] = ContextVar("fastrtc_anyio_fault_plans", default=())
"""The blocks that the current task was started in."""

_LIBRARIES = frozenset({"anyio", "asyncio", "trio"})

# Where nothing can fail by itself. A lock has changed hands by the time its waiter is woken, a
# shielded checkpoint comes after what was awaited was done, and a task group has to wait for its
# tasks: an error there would be one of the library's own, and would lose what was received, leave
# locks held for ever and tasks without an owner.
_CANNOT_FAIL = frozenset(
    {
        "__aexit__",
        "_nested_child_finished",
        "acquire",
        "acquire_on_behalf_of",
        "cancel_shielded_checkpoint",
        "start",
        "wait_for",
    }
)
_CANNOT_FAIL_METHODS = frozenset({"Condition.wait"})


class FaultPlan:
    """When to fail, and whether it came to that. Made by :func:`inject_fault` and :func:`faulty`.

    Args:
        at: the number of the checkpoint, from 1.
        error: what to raise there; None to cancel.
        skip: of a task's name: whether to leave the task alone. Its checkpoints do not count.

    Raises:
        ValueError: ``at`` is less than 1.
    """

    def __init__(
        self,
        at: int,
        error: BaseException | None = None,
        *,
        skip: Callable[[str], bool] | None = None,
    ) -> None:
        if at < 1:
            raise ValueError(f"checkpoints are counted from 1; got {at}")
        self.at = at
        self.error = error
        self.skip = skip
        self.checkpoints = 0
        """Checkpoints that were passed so far, the one of the fault included."""
        self.where: str | None = None
        """The task, and the line of code in it, where the fault was injected; None before."""
        self._open = True
        self._cancel: Callable[[], object] | None = None

    @property
    def reached(self) -> bool:
        """Whether there were that many checkpoints, so that the fault was injected."""
        return self.where is not None

    def __repr__(self) -> str:
        return (
            f"<FaultPlan at={self.at} error={self.error!r} "
            f"checkpoints={self.checkpoints} where={self.where!r}>"
        )

    def _pass(self, coro: Any, sent: object) -> BaseException | None:
        """Called each time a coroutine is about to be resumed, with what it is to be sent.

        Returns:
            What is to be thrown into it instead.
        """
        if not self._open or self.reached:
            return None
        frames = list(_awaiting(coro))
        if not _can_fail(frames, sent):
            return None
        name = anyio.get_current_task().name or ""
        if self.skip is not None and self.skip(name):
            return None
        self.checkpoints += 1
        if self.checkpoints < self.at:
            return None
        self.where = _describe(name, frames)
        if self._cancel is not None:
            self._cancel()
        return self.error


@contextmanager
def inject_fault(
    at: int,
    error: BaseException | None = None,
    *,
    skip: Callable[[str], bool] | None = None,
) -> Generator[FaultPlan, None, None]:
    """Have the ``at``-th checkpoint in the block fail.

    Enter it in a task, around what is to be tested. What counts is each time a task that was
    started inside, or a descendant of such a task, goes on after it had to wait. The task that
    enters the block is never hit, nor are system tasks. Threads have no checkpoints.

    An error appears in the task at the place where it waited, as if what it awaited had raised it:
    the result, or the cancellation, that it was about to be given is lost. Clean-up is not spared,
    shielded or not. Spared is what cannot fail by itself: waiting for a lock, a semaphore, a
    condition, a limiter, or for the tasks of a task group.

    With ``error=None`` nothing is raised: the whole block is cancelled at that moment, as by a time
    limit of its caller. The ``with`` statement then ends quietly, like ``anyio.CancelScope``.

    The same program reaches the same checkpoint again, as far as the event loop allows: trio's
    scheduler is made deterministic inside the block, asyncio's is, but anyio on asyncio cancels the
    tasks of a scope in any order. With threads the order is up to the system.

    Args:
        at: the number of the checkpoint, from 1.
        error: what to raise there; None to cancel the block.
        skip: of a task's name: whether to leave that task alone. Its checkpoints do not count.

    Yields:
        The plan. ``fault.reached`` says whether there were that many checkpoints.

    Raises:
        ValueError: ``at`` is less than 1.
        TypeError: ``error`` is a cancellation.
        RuntimeError: tasks ran in the block, but this version of the event loop does not let
            itself be watched.
    """
    fault = FaultPlan(at, error, skip=skip)
    if isinstance(error, anyio.get_cancelled_exc_class()):
        raise TypeError("a cancellation that nobody asked for is no fault: error=None cancels")
    watch = _watch_asyncio if _is_asyncio() else _watch_trio
    with ExitStack() as stack:
        if error is None:
            scope = stack.enter_context(anyio.CancelScope())
            fault._cancel = scope.cancel
        stack.enter_context(watch(fault))
        token = _plans.set((*_plans.get(), fault))
        try:
            yield fault
        finally:
            _plans.reset(token)
            fault._open = False


class FaultyFunction(Protocol[P, T_co]):
    """What :func:`faulty` returns: the function, and its plan."""

    fault: FaultPlan

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T_co]: ...


def faulty(
    function: Callable[P, Awaitable[T]], at: int, error: BaseException
) -> FaultyFunction[P, T]:
    """Have one coroutine function fail at its ``at``-th checkpoint.

    Counted over all calls of the function, in everything it awaits, but not in tasks it starts. The
    error appears where it waited, as with :func:`inject_fault`.

    Example::

        class Broken(MyHandler):
            receive = faulty(MyHandler.receive, 5, OSError("the network is down"))

    Args:
        function: a coroutine function, a method too.
        at: the number of the checkpoint, from 1.
        error: what to raise there.

    Returns:
        A coroutine function in its place. Its ``fault`` says whether the checkpoint was reached.

    Raises:
        TypeError: ``function`` is no coroutine function: a plain one has no checkpoints.
        ValueError: ``at`` is less than 1.
    """
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{function!r} is no coroutine function, so it has no checkpoints")
    plan = FaultPlan(at, error)

    @wraps(function)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        result: T = await _Watched(function(*args, **kwargs), plan)
        return result

    wrapper.fault = plan  # type: ignore[attr-defined]
    return cast(FaultyFunction[P, T], wrapper)


class _Watched(Coroutine[Any, Any, Any]):
    """A coroutine that asks the plan before it is resumed. In all else it is the one it wraps.

    An ``async def`` round it would do for most purposes, but one that is cancelled before its first
    step would never await what it wraps, and hide it from whoever inspects the task.
    """

    def __init__(self, coro: Any, plan: FaultPlan) -> None:
        self._coro = coro
        self._plan = plan
        self.started = False
        """Whether it has made its first step, through here."""

    def send(self, value: Any) -> Any:
        if self.started:
            error = self._plan._pass(self._coro, value)
            if error is not None:
                return self._coro.throw(error)
        self.started = True
        return self._coro.send(value)

    def throw(self, *error: Any) -> Any:
        if self.started:
            injected = self._plan._pass(self._coro, None)
            if injected is not None:
                return self._coro.throw(injected)
        self.started = True
        return self._coro.throw(*error)

    def close(self) -> None:
        self.started = True
        self._coro.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return cast(Generator[Any, Any, Any], self)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def __getattr__(self, name: str) -> Any:  # cr_frame, cr_await, __qualname__ and their like
        return getattr(self._coro, name)


@contextmanager
def _watch_trio(fault: FaultPlan) -> Generator[None, None, None]:
    import trio

    proxies: dict[trio.lowlevel.Task, _Watched] = {}
    missed: list[str] = []

    class Watch(trio.abc.Instrument):
        def task_spawned(self, task: trio.lowlevel.Task) -> None:
            # Called before the task is scheduled for the first time, which binds task.coro.send.
            if fault in task.context.get(_plans, ()):
                proxies[task] = _Watched(task.coro, fault)
                task.coro = cast(Any, proxies[task])

        def task_exited(self, task: trio.lowlevel.Task) -> None:
            proxy = proxies.pop(task, None)
            if proxy is not None and not proxy.started:
                missed.append(task.name)

    instrument = Watch()
    trio.lowlevel.add_instrument(instrument)
    try:
        with _deterministic_trio():
            yield
    finally:
        trio.lowlevel.remove_instrument(instrument)
    # Without this, a test that counts up to the first checkpoint that is not reached would pass
    # without having tested anything.
    if missed:
        raise RuntimeError(
            f"this version of trio does not let its tasks be watched: {missed[0]} ran unseen; "
            "please report it to fastrtc_anyio"
        )


@contextmanager
def _deterministic_trio() -> Generator[None, None, None]:
    """Trio shuffles the tasks that are ready, on purpose. pytest-trio does the same about it."""
    from trio._core import _run

    # No public way to it. Without these names the order is not reproducible, but all else works.
    scheduler: Any = _run
    if not hasattr(scheduler, "_r") or not hasattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING"):
        yield
        return
    state, allowed = scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler._r.seed(0)
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    try:
        yield
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = allowed
        scheduler._r.setstate(state)


@contextmanager
def _watch_asyncio(fault: FaultPlan) -> Generator[None, None, None]:
    import asyncio

    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    # An eager task makes its first step before anyio knows of it. anyio goes round that factory,
    # but cannot recognise it behind this one.
    eager = getattr(asyncio, "eager_task_factory", None)
    is_eager = eager is not None and getattr(before, "__code__", None) is eager.__code__

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        context = options.get("context")
        plans = _plans.get() if context is None else context.get(_plans, ())
        if fault in plans:
            coro = _Watched(coro, fault)
        if before is None or is_eager:
            return asyncio.Task(coro, loop=loop, **options)
        return before(loop, coro, **options)

    loop.set_task_factory(factory)
    try:
        yield
    finally:
        if loop.get_task_factory() is factory:
            loop.set_task_factory(before)


def _is_asyncio() -> bool:
    return hasattr(current_token().native_token, "call_soon_threadsafe")


def _awaiting(coro: Any) -> Generator[FrameType, None, None]:
    """The frames of a waiting coroutine, outermost first: trio's ``Task.iter_await_frames``."""
    while coro is not None:
        for kind, awaits in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame = getattr(coro, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                coro = getattr(coro, awaits)
                break
        else:
            # asend() and its like do not tell whose they are (CPython #76991), nor do the iterators
            # that __await__ returns.
            coro = next((ref for ref in gc.get_referents(coro) if _has_frames(ref)), None)


def _has_frames(thing: object) -> bool:
    return inspect.isasyncgen(thing) or inspect.iscoroutine(thing)


def _is_library(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in _LIBRARIES


def _can_fail(frames: list[FrameType], sent: object) -> bool:
    """Whether what the innermost code that is not the event loop's awaits may raise an error."""
    for at in reversed(range(len(frames))):
        frame = frames[at]
        if not _is_library(frame):
            return True
        code = frame.f_code
        if code.co_name == "cancel_shielded_checkpoint" and _is_checkpoint(frames[:at]):
            return True
        if code.co_name in _CANNOT_FAIL or code.co_qualname in _CANNOT_FAIL_METHODS:
            return False
        if code.co_name == "to_thread_run_sync" and not hasattr(
            getattr(sent, "value", None), "unwrap"
        ):
            return False  # the thread has a question and would wait for the answer for ever
    return True


def _is_checkpoint(callers: list[FrameType]) -> bool:
    """Whether a shielded checkpoint is a part of an ordinary one, as trio's is."""
    return bool(callers) and callers[-1].f_code.co_name == "checkpoint"


def _describe(name: str, frames: list[FrameType]) -> str:
    ours = [frame for frame in frames if not _is_library(frame)] or frames
    if not ours:
        return name
    frame = ours[-1]
    code = frame.f_code
    return f"{name}: {code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
