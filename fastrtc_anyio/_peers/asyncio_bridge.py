"""Bridge from a session to asyncio-only libraries.

Under asyncio calls go straight to the host's loop. Under trio they run on an asyncio loop in a
separate thread, which is imported and started on first use.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from fastrtc_anyio._core.host import Host, Lock
from fastrtc_anyio._core.threads import hold_virtual_clock
from fastrtc_anyio.abc import AsyncioBridge

if TYPE_CHECKING:
    from .portal import AsyncioThread

logger = logging.getLogger("fastrtc_anyio")

T = TypeVar("T")


@asynccontextmanager
async def open_asyncio_bridge() -> AsyncGenerator[AsyncioBridge, None]:
    """Provide a bridge while the block runs. Under trio its thread ends with the block."""
    bridge = _Bridge()
    try:
        yield bridge
    finally:
        if bridge.thread is not None and not await bridge.thread.aclose():
            logger.error("handler.loop did not stop: a callback blocks it; its thread is abandoned")


class _Bridge:
    def __init__(self) -> None:
        self.thread: AsyncioThread | None = None
        self._host_loop = Host().asyncio_loop
        self._lock = Lock()

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
            return await self._started().run(call)

    def _started(self) -> AsyncioThread:
        with self._lock:
            if self.thread is None:
                from .portal import AsyncioThread

                self.thread = AsyncioThread()
            return self.thread
