"""Fault injection at the k-th checkpoint.

Every ``await`` that waits can raise an error or be cancelled. A program has hundreds of such
checkpoints, and ordinary tests fail at few of them. A test with :func:`inject_fault` fails at the
k-th, and increments k until the program has no more checkpoints::

    for k in itertools.count(1):
        with inject_fault(k, OSError("injected")) as fault, suppress(OSError):
            async with open_call(MyHandler()):
                await anyio.sleep(1)
        if not fault.reached:
            break
        assert everything_is_released(), fault.where

Theory of operation. Tasks that start in the block get a proxy of their coroutine, which checks the
plan each time the event loop resumes the task. Under trio an instrument installs the proxies, under
asyncio a task factory. A context variable, which tasks inherit, identifies the tasks of the block.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, cast

import anyio

from fastrtc_anyio._core.host import Host
from fastrtc_anyio._core.options import check_number
from fastrtc_anyio._core.stacks import awaiting_frames

from ._checkpoints import can_fail, describe

__all__ = ["FaultPlan", "FaultyFunction", "faulty", "inject_fault"]

_Steps: TypeAlias = Generator[Any, Any, Any]

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

_plans: ContextVar[tuple[FaultPlan, ...]] = ContextVar("fastrtc_anyio_fault_plans", default=())
"""Plans of the blocks that the current task was started in."""


class FaultPlan:
    """Plan and outcome of a fault; see :func:`inject_fault` for its arguments."""

    def __init__(
        self,
        at: int,
        error: BaseException | None = None,
        *,
        skip: Callable[[str], bool] | None = None,
    ) -> None:
        check_number("at", at, at_least=1, integer=True)
        self.at = at
        self.error = error
        self.skip = skip
        self.checkpoints: int = 0
        """Checkpoints passed so far, including the one of the fault."""
        self.where: str | None = None
        """Task and line of code where the fault was injected; None before."""
        self._open = True
        self._cancel: Callable[[], object] | None = None

    @property
    def reached(self) -> bool:
        """Whether the fault was injected, because there were enough checkpoints."""
        return self.where is not None

    def __repr__(self) -> str:
        return (
            f"<FaultPlan at={self.at} error={self.error!r} "
            f"checkpoints={self.checkpoints} where={self.where!r}>"
        )

    def _pass(self, coro: object, sent: object) -> BaseException | None:
        """Return the error to throw into a coroutine instead of sending ``sent``, or None."""
        if not self._open or self.reached:
            return None
        frames = list(awaiting_frames(coro))
        if not can_fail(frames, sent):
            return None
        name = anyio.get_current_task().name or ""
        if self.skip is not None and self.skip(name):
            return None
        self.checkpoints += 1
        if self.checkpoints < self.at:
            return None
        self.where = describe(name, frames)
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
    """Inject a fault at the ``at``-th checkpoint in the block.

    Enter the block in a task, around the code under test. A checkpoint counts when a task that was
    started in the block, or a descendant of it, resumes after waiting. The task that enters the
    block and system tasks are exempt. Threads have no checkpoints.

    The error is raised where the task waited, as if the awaited operation had raised it. The result
    or the cancellation that the task was about to receive is lost. Cleanup code is not exempt, even
    if it is shielded. Operations that cannot fail are exempt: waiting for a lock, a semaphore, a
    condition, a limiter, or the tasks of a task group.

    With ``error=None`` the whole block is cancelled at that checkpoint, as by a timeout of its
    caller. The ``with`` statement then ends without an error, like ``anyio.CancelScope``.

    The order of checkpoints is reproducible as far as the event loop allows it. Trio's scheduler is
    made deterministic inside the block. asyncio's scheduler is deterministic, but anyio on asyncio
    cancels the tasks of a scope in any order. With threads the operating system decides.

    Args:
        at: number of the checkpoint, from 1.
        error: error to raise there; None to cancel the block.
        skip: predicate of task names; checkpoints of these tasks do not count.

    Yields:
        The plan. ``fault.reached`` tells whether there were enough checkpoints.

    Raises:
        ValueError: ``at`` is less than 1.
        TypeError: ``at`` is not an int, or ``error`` is a cancellation.
        RuntimeError: tasks ran in the block, but this version of the event loop does not support
            the proxies.
    """
    fault = FaultPlan(at, error, skip=skip)
    if isinstance(error, anyio.get_cancelled_exc_class()):
        raise TypeError("error must not be a cancellation; use error=None to cancel the block")
    watch = _watch_trio if Host().asyncio_loop is None else _watch_asyncio
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
    """Function returned by :func:`faulty`, with its plan."""

    fault: FaultPlan

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T_co]: ...


def faulty(
    function: Callable[P, Awaitable[T]], at: int, error: BaseException
) -> FaultyFunction[P, T]:
    """Return a version of a coroutine function that fails at its ``at``-th checkpoint.

    Checkpoints are counted over all calls of the function, in everything it awaits, but not in
    tasks that it starts. The error is raised where it waited, as with :func:`inject_fault`.

    Example::

        class Broken(MyHandler):
            receive = faulty(MyHandler.receive, 5, OSError("the network is down"))

    Args:
        function: a coroutine function or method.
        at: number of the checkpoint, from 1.
        error: error to raise there.

    Returns:
        A coroutine function, whose ``fault`` is the plan.

    Raises:
        TypeError: ``function`` is not a coroutine function.
        ValueError: ``at`` is less than 1.
    """
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"function must be a coroutine function; got {function!r}")
    plan = FaultPlan(at, error)

    @wraps(function)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        result: T = await _Watched(function(*args, **kwargs), plan)
        return result

    wrapper.fault = plan  # type: ignore[attr-defined]
    return cast(FaultyFunction[P, T], wrapper)


class _Watched(Coroutine[Any, Any, Any]):
    """Proxy of a coroutine that checks the plan before each resumption but the first.

    A wrapping ``async def`` would not do: cancelled before its first step, it would never await the
    coroutine, and it would hide the coroutine from tools that inspect the task.
    """

    def __init__(self, coro: Any, plan: FaultPlan) -> None:
        self._coro = coro
        self._plan = plan
        self.started = False
        """Whether the coroutine has made its first step through this proxy."""

    def send(self, value: object) -> object:
        return self._resume(value, self._coro.send, value)

    def throw(self, *error: Any) -> object:
        return self._resume(None, self._coro.throw, *error)

    def _resume(self, sent: object, resume: Callable[..., object], *args: object) -> object:
        injected = self._plan._pass(self._coro, sent) if self.started else None
        self.started = True
        return resume(*args) if injected is None else self._coro.throw(injected)

    def close(self) -> None:
        self.started = True
        self._coro.close()

    def __await__(self) -> _Steps:
        return cast(_Steps, self)

    def __iter__(self) -> Iterator[object]:
        return self

    def __next__(self) -> object:
        return self.send(None)

    def __getattr__(self, name: str) -> object:  # cr_frame, cr_await, __qualname__ and others
        return getattr(self._coro, name)


@contextmanager
def _watch_trio(fault: FaultPlan) -> Generator[None, None, None]:
    import trio

    proxies: dict[trio.lowlevel.Task, _Watched] = {}
    missed: list[str] = []

    class Watch(trio.abc.Instrument):
        def task_spawned(self, task: trio.lowlevel.Task) -> None:
            # Trio calls this before it first schedules the task, which binds task.coro.send.
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
    # Without this check, a test that counts up to the first checkpoint that is not reached would
    # pass without testing anything.
    if missed:
        raise RuntimeError(
            f"this version of trio does not support fault injection: {missed[0]} ran without a "
            "proxy; please report it to fastrtc_anyio"
        )


@contextmanager
def _deterministic_trio() -> Generator[None, None, None]:
    """Disable trio's random order of ready tasks, as pytest-trio does."""
    from trio._core import _run

    # Trio has no public interface for this. Without these names only reproducibility is lost.
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
    # An eager task makes its first step before anyio knows it. anyio bypasses that factory, but
    # would not recognise it behind this one.
    eager = getattr(asyncio, "eager_task_factory", None)
    is_eager = eager is not None and getattr(before, "__code__", None) is eager.__code__

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Future[Any]:
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
