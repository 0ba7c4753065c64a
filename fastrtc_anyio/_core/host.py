"""The event loop of a session, reachable from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from anyio.lowlevel import current_token

Lock = threading.Lock
"""Mutex for modules that may not import ``threading``."""


class Host:
    """The event loop that runs at construction, reachable from any thread.

    Only this class uses the interfaces of trio and asyncio for work from other threads.
    """

    def __init__(self) -> None:
        token: Any = current_token().native_token
        self._post: Callable[..., object] = (
            token.run_sync_soon if hasattr(token, "run_sync_soon") else token.call_soon_threadsafe
        )
        self.asyncio_loop: Any = token if hasattr(token, "call_soon_threadsafe") else None
        """asyncio's event loop; None under trio."""
        self._thread = threading.get_ident()

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller runs on the thread of the event loop."""
        return threading.get_ident() == self._thread

    def post(self, function: Callable[[], object]) -> None:
        """Schedule ``function`` on the event loop. Any thread may call this; it never blocks.

        ``function`` must not raise: trio would end the run with an internal error. After the end of
        the loop, which threads may outlive, the call has no effect.
        """
        with suppress(RuntimeError):  # trio.RunFinishedError, asyncio's "Event loop is closed"
            self._post(function)

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` now on the loop's thread; schedule it from any other thread."""
        if self.is_current_thread:
            function()
        else:
            self.post(function)
