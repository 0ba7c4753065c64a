"""The event loop of a session, reachable from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from anyio.abc import AsyncBackend
from anyio.lowlevel import current_token

from .log import logger

Lock = threading.Lock
"""Mutex for modules that may not import ``threading``."""


class Host:
    """The event loop that runs at construction, reachable from any thread.

    Only this class uses the interfaces of trio and asyncio for work from other threads.
    """

    def __init__(self) -> None:
        current = current_token()
        self.backend: type[AsyncBackend] = current.backend_class
        """Checkpoints and events of the loop's library. anyio's functions look for the library
        that runs, which takes longer than most of them."""
        token: Any = current.native_token
        self._loop = token
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

        Within :func:`collect_posts`, the function is scheduled at the end of that block.
        """
        collected = _collected.posts
        if collected is None:
            with suppress(RuntimeError):  # trio.RunFinishedError, asyncio's "Event loop is closed"
                self._post(function)
        elif self._loop in collected:
            collected[self._loop][1].append(function)
        else:
            collected[self._loop] = self, [function]

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` now on the loop's thread; schedule it from any other thread."""
        if threading.get_ident() == self._thread:
            function()
        else:
            self.post(function)


def is_main_thread() -> bool:
    """Whether the caller runs on the thread that receives the process's signals."""
    return threading.current_thread() is threading.main_thread()


class _Collected(threading.local):
    posts: dict[Any, tuple[Host, list[Callable[[], object]]]] | None = None
    """By event loop: one of its hosts, and the functions for it. None outside of a block."""


_collected = _Collected()


@contextmanager
def collect_posts() -> Generator[None, None, None]:
    """Wake each event loop at most once for all that this thread posts to it within the block.

    Waking a sleeping thread costs more than most functions posted. The functions are scheduled at
    the end of the block, in their order, also if the block raises. A function that raises is
    logged, and the others are called. Blocks may be nested: the outer one schedules. A block must
    not contain an ``await``, because other tasks of the thread would post within it.
    """
    if _collected.posts is not None:
        yield
        return
    posts = _collected.posts = {}
    try:
        yield
    finally:
        _collected.posts = None
        for host, functions in posts.values():
            host.post(partial(_call_all, functions))


def _call_all(functions: list[Callable[[], object]]) -> None:
    for function in functions:
        try:
            function()
        except Exception:
            logger.exception(
                "a function posted to the event loop failed", event="loop.function_failed"
            )
