"""pytest plugin: a test that uses the fixture ``open_call`` runs on virtual time.

::

    async def test_it_answers(open_call):
        async with open_call(MyHandler()) as call:
            await call.speak(tone(440, 48_000, 1.0))
            await anyio.sleep(60)

The test needs no mark, no other plugin and no real waiting. It runs under trio with its own
``MockClock``, which jumps to the next deadline whenever all tasks wait, for at most an hour of
virtual time. Its other fixtures must be synchronous. With Hypothesis, each example is a new run.

Other tests are unaffected. So are tests that another plugin runs: those with the ``anyio_backend``
fixture, a mark of anyio, pytest-trio or pytest-asyncio, or in the automatic mode of one of these.
They may use the fixture as well.

pytest loads this module in every run, so it imports only pytest until it is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import pytest

if TYPE_CHECKING:
    from .call import OpenCall

__all__ = ["open_call", "pytest_pyfunc_call", "pytest_runtest_setup"]

P = ParamSpec("P")

_LIMIT = 3600
"""Maximum seconds of virtual time. Without it, a test that waits for nothing would never end."""
_MARKS_OF_OTHERS = ("anyio", "asyncio", "trio")


@pytest.fixture(scope="session")  # Hypothesis rejects function-scoped fixtures
def open_call() -> OpenCall:
    """Return ``fastrtc_anyio.testing.open_call``, which calls a handler on virtual time."""
    from . import call

    return call.open_call


def pytest_runtest_setup() -> None:
    """Let each test log as if it ran in a new process: records that repeat are limited."""
    from fastrtc_anyio._core.records import forget_records  # the package itself is loaded

    forget_records()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine functions that use ``open_call`` and belong to no other plugin."""
    if "open_call" not in pyfuncitem.fixturenames or not _is_ours(pyfuncitem):
        return None
    function: Any = pyfuncitem.obj
    if hasattr(function, "hypothesis"):
        # As in anyio's plugin: Hypothesis calls the inner test for each example.
        inner = function.hypothesis.inner_test
        if inspect.iscoroutinefunction(inner):
            function.hypothesis.inner_test = _on_virtual_time(inner)
        return None
    if not inspect.iscoroutinefunction(function):
        return None
    arguments = inspect.signature(function).parameters
    _on_virtual_time(function)(
        **{name: value for name, value in pyfuncitem.funcargs.items() if name in arguments}
    )
    return True


def _is_ours(item: pytest.Function) -> bool:
    from . import call

    return (
        item.funcargs.get("open_call")
        is call.open_call  # not a fixture of the application with this name
        and "anyio_backend" not in item.fixturenames
        and not any(item.get_closest_marker(mark) for mark in _MARKS_OF_OTHERS)
    )


def _on_virtual_time(function: Callable[P, Awaitable[object]]) -> Callable[P, None]:
    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        import trio.testing

        async def limited() -> None:
            with trio.move_on_after(_LIMIT) as scope:
                await function(*args, **kwargs)
            if scope.cancelled_caught:
                raise TimeoutError(
                    f"the test took more than {_LIMIT} s of virtual time; anyio.fail_after() "
                    "finds the wait that never ends"
                )

        trio.run(limited, clock=trio.testing.MockClock(autojump_threshold=0))

    return run
