"""The pytest plugin: a test that asks for ``open_call`` runs on virtual time, with nothing set up.

::

    async def test_it_answers(open_call):
        async with open_call(MyHandler()) as call:
            await call.speak(tone(440, 48_000, 1.0))
            await anyio.sleep(600)

No mark, no other plugin, no waiting: the test runs on trio with a ``MockClock`` of its own, which
jumps to the next deadline whenever all tasks wait. It has an hour of virtual time. Fixtures it uses
must be plain. Hypothesis works, with a new run for each example.

Tests that do not ask for ``open_call`` are none of our business; nor are those that another plugin
was told to run: with the ``anyio_backend`` fixture, a mark of anyio, pytest-trio or pytest-asyncio,
or one of them in its automatic mode. They can use the fixture all the same.

pytest loads this module in every run, so it imports nothing but pytest before it is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

__all__ = ["open_call", "pytest_pyfunc_call"]

_LIMIT = 3600
"""Seconds of virtual time. On a virtual clock a wait for nothing would be an endless loop."""
_MARKS_OF_OTHERS = ("anyio", "asyncio", "trio")


@pytest.fixture(scope="session")  # Hypothesis frowns on those of a function
def open_call() -> Any:
    """``fastrtc_anyio.testing.open_call``: call a handler. The test runs on virtual time."""
    from . import call

    return call.open_call


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the coroutine functions that are ours."""
    if "open_call" not in pyfuncitem.fixturenames or not _is_ours(pyfuncitem):
        return None
    function: Any = pyfuncitem.obj
    if hasattr(function, "hypothesis"):
        # As anyio's plugin does it: Hypothesis calls the inner test for each example.
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
        is call.open_call  # and not a fixture of that name of the user's
        and "anyio_backend" not in item.fixturenames
        and not any(item.get_closest_marker(mark) for mark in _MARKS_OF_OTHERS)
    )


def _on_virtual_time(function: Callable[..., Any]) -> Callable[..., None]:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        import trio.testing

        async def limited() -> None:
            with trio.move_on_after(_LIMIT) as scope:
                await function(*args, **kwargs)
            if scope.cancelled_caught:
                raise TimeoutError(
                    f"the test waited for {_LIMIT} s of virtual time: for something that never "
                    "happens? anyio.fail_after() says where"
                )

        trio.run(limited, clock=trio.testing.MockClock(autojump_threshold=0))

    return run
