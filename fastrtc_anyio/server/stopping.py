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

    def __init__(self, service: SessionService, app: object) -> None:
        self.service = service
        self.app = app
        self.host = Host()
        self.is_asked = False
        """Whether a SIGTERM waits until the stream has drained."""
        self.is_drained = False
        self.is_passed_on = False
        """Whether the server has received that SIGTERM."""
        self.is_cut = False
        """Whether a signal asked for an immediate end."""
        self.is_ending = False
        """Whether the server has ended the lifespan: it needs no signal any more."""
        self._asked, self._cut = anyio.Event(), anyio.Event()
        self._waiting = CancelScope()

    def ask(self) -> None:
        self.is_asked = True
        self.host.post(self._asked.set)

    def cut(self) -> None:
        self.is_cut = True
        self.host.post(self._cut.set)

    async def drain_when_asked(self) -> None:
        await self._asked.wait()
        await self.service.drain()
        self.is_drained = True
        _stopping.pass_on_drained()

    async def end_when_cut(self) -> None:
        await self._cut.wait()
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
        """Those of the main thread, of one application or of several with their servers."""
        self._before: dict[int, list[_Handler]] = {number: [] for number in _SIGNALS}
        """Handlers that were replaced, the latest last. Those that run now are left out: one may
        pass the signal on to the handler that it has replaced itself, which is this one."""
        self._passing: set[int] = set()
        self._pid = 0

    def enter(self, lifespan: _Lifespan) -> None:
        if self._pid != os.getpid():  # a forked process has a copy of those of its parent
            self._pid = os.getpid()
            self._lifespans.clear()
        self._lifespans.append(lifespan)
        self._install()

    def leave(self, lifespan: _Lifespan) -> None:
        if lifespan in self._lifespans:  # not in a forked process
            self._lifespans.remove(lifespan)
        if self._lifespans:
            self.pass_on_drained()
            return
        for number, before in self._before.items():
            if before and signal.getsignal(number) == self._handle:
                signal.signal(number, before[-1])
                # Code that has replaced this handler may yet install it again, or call it.
                if len(before) > 1:
                    before.pop()

    async def finish(self, lifespan: _Lifespan) -> None:
        """Drain the streams of an application; return when that of ``lifespan`` has drained."""
        lifespan.is_ending = True
        self._install()
        self.pass_on_drained()
        for other in self._lifespans:
            if other.app is lifespan.app:
                other.service.begin_drain()
        await lifespan.wait_drained()

    def cut(self) -> None:
        """End all sessions now."""
        for lifespan in self._lifespans:
            lifespan.cut()

    def pass_on_drained(self) -> None:
        """Pass SIGTERM on to the server once all streams that it has asked are drained."""
        waiting = [one for one in self._lifespans if one.is_asked and not one.is_ending]
        if all(one.is_passed_on for one in waiting):
            return
        if all(one.is_drained for one in waiting):
            for one in waiting:
                one.is_passed_on = True
            self._pass_on(signal.SIGTERM, None)

    @property
    def _is_ending(self) -> bool:
        """Whether all servers stop already."""
        return all(lifespan.is_ending for lifespan in self._lifespans)

    def _install(self) -> None:
        for number in _SIGNALS:
            now = signal.getsignal(number)
            is_ignored = now == signal.SIG_IGN and not self._is_ending
            if now is None or now == self._handle or is_ignored:
                continue
            self._before[number].append(now)
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A forked process has the handler, but not the event loop. Code that had replaced this
        # handler may have installed it again after the end.
        is_passed_back = number in self._passing
        if self._lifespans and os.getpid() == self._pid and not is_passed_back:
            is_first = not any(one.is_asked or one.is_cut for one in self._lifespans)
            if number == signal.SIGTERM and is_first and not self._is_ending:
                for lifespan in self._lifespans:
                    lifespan.ask()
                return
            is_second = any(one.is_cut for one in self._lifespans)
            self.cut()
            if self._is_ending:
                return
            if not is_first and not is_second and self._before[number][-1:] == [signal.SIG_DFL]:
                return  # it would kill the process: it is passed on once the sessions have ended
            for lifespan in self._lifespans:
                lifespan.is_passed_on = True
        self._pass_on(number, frame)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if not self._before[number]:
            return
        before, is_outer = self._before[number].pop(), number not in self._passing
        self._passing.add(number)
        try:
            if callable(before):
                before(number, frame)
            elif before == signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
        finally:
            self._before[number].append(before)
            if is_outer:
                self._passing.discard(number)


_stopping = _Stopping()


def note_interrupt() -> None:
    """End the sessions of all mounted streams: a signal has asked for an immediate end."""
    _stopping.cut()


@asynccontextmanager
async def drain_at_end(service: SessionService, app: object) -> AsyncGenerator[None, None]:
    """Drain a service at SIGTERM, and otherwise at the end of the block unless it raises.

    The end of the block also begins to drain the other services of ``app``, which end next.
    """
    if drains_itself.get():
        yield
        return
    if not is_main_thread():
        yield
        await service.drain()
        return
    lifespan = _Lifespan(service, app)
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
