"""The end of a server: SIGTERM drains the mounted streams before the server closes connections.

A server closes its listener and WebSockets first, and then ends the lifespan of the application. To
drain before, the lifespan puts a handler of SIGTERM in front of the server's, which receives the
signal when no session is left. SIGINT, and a second SIGTERM, reach the server at once. A server
that is stopped by other means drains at the end of the lifespan, until a signal arrives.

Only the main thread receives signals. On other threads, and before the handlers of asyncio's
``add_signal_handler``, which no handler precedes, the drain begins as the lifespan ends.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from types import FrameType

import anyio
from anyio import CancelScope, create_task_group

from fastrtc_anyio._core.host import Host, is_main_thread
from fastrtc_anyio._sessions.service import SessionService

__all__ = ["drain_at_end", "drains_itself", "note_interrupt"]

_Handler = Callable[[int, FrameType | None], object] | int | None

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

drains_itself: ContextVar[bool] = ContextVar("drains_itself", default=False)
"""Whether the server decides about draining before it ends the lifespan, as that of ``launch``."""


class _Lifespan:
    """A mounted stream in the lifespan of its application."""

    def __init__(self, service: SessionService) -> None:
        self.service = service
        self.host = Host()
        self.asked = anyio.Event()
        """Set by the first SIGTERM."""
        self.cut = anyio.Event()
        """Set by a signal for an immediate end."""
        self.is_drained = False
        self._waiting = CancelScope()

    async def drain_when_asked(self) -> None:
        await self.asked.wait()
        await self.service.drain()
        self.is_drained = True
        _stopping.pass_on_drained()

    async def end_when_cut(self) -> None:
        await self.cut.wait()
        # Now, because servers give open WebSockets some time before they end the lifespan.
        self.service.end_sessions()
        self._waiting.cancel()

    async def wait_drained(self) -> None:
        with self._waiting:
            await self.service.drain()


class _Stopping:
    """The signal handlers of this process while streams are mounted on its main thread."""

    def __init__(self) -> None:
        self._lifespans: list[_Lifespan] = []
        """Those of the main thread."""
        self._before: dict[int, _Handler] = {}
        self._pid = 0
        self._is_asked = False
        self._is_cut = False
        self._is_ending = False

    def enter(self, lifespan: _Lifespan) -> None:
        if not self._lifespans:
            self._pid = os.getpid()
            self._is_asked = self._is_cut = self._is_ending = False
        self._lifespans.append(lifespan)
        self._install()

    def leave(self, lifespan: _Lifespan) -> None:
        self._lifespans.remove(lifespan)
        if not self._lifespans:
            for number, before in self._before.items():
                if signal.getsignal(number) == self._handle:
                    signal.signal(number, before)
            self._before.clear()

    async def finish(self, lifespan: _Lifespan) -> None:
        """Drain all streams of the main thread; return when the one of ``lifespan`` has drained."""
        self._is_ending = True
        self._install()
        for other in self._lifespans:
            other.service.begin_drain()
        await lifespan.wait_drained()

    def cut(self) -> None:
        """End all sessions now."""
        self._is_cut = True
        for lifespan in self._lifespans:
            lifespan.host.post(lifespan.cut.set)

    def pass_on_drained(self) -> None:
        """Pass SIGTERM on to the server if all streams are drained."""
        is_over = self._is_cut or self._is_ending
        if not is_over and all(lifespan.is_drained for lifespan in self._lifespans):
            self._pass_on(signal.SIGTERM, None)

    def _install(self) -> None:
        for number in _SIGNALS:
            now = signal.getsignal(number)
            is_ignored = now == signal.SIG_IGN and not self._is_ending
            if now is None or now == self._handle or is_ignored:
                continue
            self._before[number] = now
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._pid:  # a forked process has the handler, but not the event loop
            if number == signal.SIGTERM and not (self._is_asked or self._is_ending):
                self._is_asked = True
                for lifespan in self._lifespans:
                    lifespan.host.post(lifespan.asked.set)
                return
            self.cut()
            if self._is_ending:
                return
        self._pass_on(number, frame)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        before = self._before.get(number)
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


_stopping = _Stopping()


def note_interrupt() -> None:
    """End the sessions of all mounted streams: a signal has asked for an immediate end."""
    _stopping.cut()


@asynccontextmanager
async def drain_at_end(service: SessionService) -> AsyncGenerator[None, None]:
    """Drain a service at SIGTERM, and otherwise at the end of the block unless it raises."""
    if drains_itself.get():
        yield
        return
    if not is_main_thread():
        yield
        await service.drain()
        return
    lifespan = _Lifespan(service)
    async with create_task_group() as tasks:
        tasks.start_soon(lifespan.drain_when_asked)
        tasks.start_soon(lifespan.end_when_cut)
        _stopping.enter(lifespan)
        try:
            yield
            await _stopping.finish(lifespan)
        finally:
            _stopping.leave(lifespan)
        tasks.cancel_scope.cancel()
