"""The event loop that a session runs on, reachable from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from anyio.lowlevel import current_token

__all__ = ["Host", "Lock"]

Lock = threading.Lock


class Host:
    """The event loop this object was made on, reachable from any thread.

    The only place that knows how trio and asyncio take work from other threads.
    """

    def __init__(self) -> None:
        token: Any = current_token().native_token
        self._post: Callable[..., object] = (
            token.run_sync_soon if hasattr(token, "run_sync_soon") else token.call_soon_threadsafe
        )
        self.asyncio_loop: Any = token if hasattr(token, "call_soon_threadsafe") else None
        """The event loop, if it is asyncio's."""
        self._thread = threading.get_ident()

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller runs on the event loop's own thread."""
        return threading.get_ident() == self._thread

    def post(self, function: Callable[[], object]) -> None:
        """Have the loop call ``function`` soon. Any thread may call this; it never blocks.

        ``function`` must not raise: trio would crash the run. Once the loop has ended, nothing
        happens: threads outlive it, and nobody is left to care.
        """
        with suppress(RuntimeError):  # trio.RunFinishedError, asyncio's "Event loop is closed"
            self._post(function)

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` now on the loop's own thread, and soon from any other."""
        if self.is_current_thread:
            function()
        else:
            self.post(function)
