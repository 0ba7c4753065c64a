"""Bridge from a session to asyncio-only libraries.

Under asyncio calls go straight to the host's loop. Under trio they run on an asyncio loop in a
separate thread, which is imported and started on first use.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from fastrtc_anyio._core.host import Host, Lock
from fastrtc_anyio._core.log import logger
from fastrtc_anyio._core.threads import hold_virtual_clock
from fastrtc_anyio.abc import AsyncioBridge

if TYPE_CHECKING:
    from .portal import Portal

_GRACE_SECONDS = 5.0
"""Seconds that code on the separate loop gets to end after its cancellation."""

T = TypeVar("T")


@asynccontextmanager
async def open_asyncio_bridge() -> AsyncGenerator[AsyncioBridge, None]:
    """Provide a bridge while the block runs. Under trio its thread ends with the block."""
    bridge = _Bridge()
    try:
        yield bridge
    finally:
        await bridge.aclose()


class _Bridge:
    def __init__(self) -> None:
        self._host_loop = Host().asyncio_loop
        self._portal: Portal | None = None
        self._lock = Lock()
        self._closed = False

    @property
    def loop(self) -> Any:
        return self._host_loop if self._host_loop is not None else self._started().loop

    async def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        if self._host_loop is not None:
            return await function(*args)

        async def call() -> T:
            return await function(*args)  # a portal takes coroutine functions only

        call.__qualname__ = getattr(function, "__qualname__", repr(function))
        with hold_virtual_clock.get()(call.__qualname__):
            return await self._started().call(call, give_up_after=_GRACE_SECONDS)

    def _started(self) -> Portal:
        with self._lock:
            if self._closed:
                raise RuntimeError("the asyncio loop ended when its stream was closed")
            if self._portal is None:
                from .portal import Portal

                self._portal = Portal("fastrtc-sdk")
                self._portal.start()
            return self._portal

    async def aclose(self) -> None:
        with self._lock:
            self._closed = True
        if self._portal is None:
            return
        # Only user code runs on the loop. It may block it for ever: the thread is a daemon.
        with anyio.move_on_after(_GRACE_SECONDS, shield=True) as scope:
            await self._portal.stop()
        if scope.cancelled_caught:
            logger.error(
                "handler.loop did not stop: a callback blocks it; its thread is abandoned",
                event="handler.loop_abandoned",
            )
