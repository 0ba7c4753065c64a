from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import hypothesis
import pytest
import trio.testing

from fastrtc_anyio._core.threads import hold_virtual_clock
from tests.kit.virtual_asyncio import VirtualLoop

# The same examples on every run, and no deadline on a busy machine.
hypothesis.settings.register_profile(
    "deterministic", derandomize=True, deadline=None, max_examples=60
)
hypothesis.settings.load_profile("deterministic")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both backends on virtual time; tests/kit/backends.py has them in real time."""
    if request.param == "trio":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def no_garbage_collection() -> Generator[None, None, None]:
    """Free memory by reference counts alone during the test, which begins without garbage."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def hold_virtual_asyncio() -> Generator[None, None, None]:
    """Hold virtual time on asyncio while a thread works for a task.

    The loop that runs decides, not the fixture ``anyio_backend``: anyio before 4.16 runs Hypothesis
    tests of both backends on the first.
    """

    def hold(name: str) -> AbstractContextManager[object]:
        import asyncio

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return nullcontext()
        return loop.hold(name) if isinstance(loop, VirtualLoop) else nullcontext()

    token = hold_virtual_clock.set(hold)
    yield
    hold_virtual_clock.reset(token)
