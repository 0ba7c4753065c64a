"""A thread that logs code which blocks an event loop.

The thread samples what the thread of each watched loop runs. Code counts as blocking once the same
step of the loop was seen for long enough. A loop that is late because it has many short steps to
run is therefore not reported, and neither is a process that was suspended: time in which this
thread did not run counts only as far as the loop's thread has computed, as code does that holds
the interpreter's lock.
"""

from __future__ import annotations

import gc
import math
import os
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from types import CodeType, FrameType
from weakref import ref

from .log import logger
from .loop_steps import Running, find_running
from .records import Lines, log_failure
from .session_log import current_log
from .shared_thread import SharedThread
from .stacks import extract_stack

__all__ = ["LoopWatch", "watch_loop"]

_SAMPLES = 5
"""Samples within the limit, while a step runs."""
_IDLE_SAMPLES = 2.5
"""The same while the loop waits. A step that began just after a sample is seen soon enough."""
_LATE = 3
"""Sampling periods after which this thread counts as stopped in the meantime."""
_MIN_PERIOD = 0.001
"""Seconds between two samples, at least."""
_MAX_NAMED = 100
"""Functions outside of sessions to remember, each of which is logged once."""
_PACKAGE = "fastrtc_anyio"
_LIBRARIES = {
    _PACKAGE,
    "anyio",
    "asyncio",
    "contextlib",
    "fastapi",
    "hypercorn",
    "starlette",
    "trio",
    "uvicorn",
}
"""Top-level packages whose functions are not named."""


class LoopWatch:
    """Measures how long each step of a loop holds it.

    Args:
        limit: seconds for which code outside of sessions may hold the loop; a session has its own.
    """

    waiting = False

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.users = 0
        self._now = time.monotonic()
        self._cpu = 0.0
        self._collections = 0
        self._token: object = None
        self._held = 0.0
        self._named: set[CodeType] = set()

    @property
    def period(self) -> float:
        """Seconds from one sample to the next."""
        samples = _IDLE_SAMPLES if self._token is None else _SAMPLES
        return max(self.limit / samples, _MIN_PERIOD)

    def check(
        self, frame: FrameType | None, now: float, cpu: float | None, collections: int = 0
    ) -> None:
        """Take a sample, and log the code that has held the loop for too long.

        Args:
            frame: the innermost frame of the loop's thread.
            now: the time in seconds.
            cpu: the seconds for which that thread has computed; None if unknown.
            collections: the number of full garbage collections so far. They stop all threads, and
                no code is to blame for one.
        """
        elapsed = now - self._now
        is_late = elapsed > _LATE * self.period
        if is_late:
            computed = 0.0 if cpu is None else cpu - self._cpu
            elapsed = computed if collections == self._collections else 0.0
        self._now, self._cpu, self._collections = now, cpu or 0.0, collections
        running = find_running(frame)
        if running is None:
            self._token = None
            return
        token = running.step.token
        if token == self._token:
            self._held += elapsed
        else:
            # If this thread could not run, neither could another step of the loop.
            self._token, self._held = token, elapsed if is_late else 0.0
        self._judge(running)

    def _judge(self, running: Running) -> None:
        context = running.step.context
        log = context.get(current_log)
        if log is not None:
            if log.block is None or self._held < log.block or log.has_blocked:
                return
            log.has_blocked = True
        elif self._held < self.limit:
            return
        frames = _cut(running.frames(), in_session=log is not None)
        function = frames[0][0].f_code
        if log is None:
            if function in self._named or len(self._named) >= _MAX_NAMED:
                return
            self._named.add(function)
        stack = Lines("".join(extract_stack(frames).format()).rstrip())
        text = "%s has blocked the event loop for more than %.0f ms:\n%s"
        args: tuple[object, ...] = (function.co_qualname, 1000 * self._held, stack)
        if log is not None:
            text, args = f"session %s: {text}", (log.id, *args)
        context.copy().run(logger.warning, text, *args, event="loop.blocked")

    def end(self, error: Exception) -> None:
        """Report that the loop is no longer watched."""
        cause = error.__cause__ or error
        log_failure("the watchdog has ended", error=cause, event="loop.watchdog_failed")


def _cut(
    frames: Sequence[tuple[FrameType, int]], *, in_session: bool
) -> Sequence[tuple[FrameType, int]]:
    """Return the frames from the outermost function of the application on; all without one.

    Outside of sessions, servers and middleware may have called this package, so that the function
    is one that the package has called, if there is one.
    """
    packages = [str(frame.f_globals.get("__name__")).partition(".")[0] for frame, _ in frames]
    own = [place for place, package in enumerate(packages) if package not in _LIBRARIES]
    if not in_session and _PACKAGE in packages:
        last = len(packages) - 1 - packages[::-1].index(_PACKAGE)
        own = [place for place in own if place > last] or own
    return frames[own[0] :] if own else frames


class _ThreadWatch(LoopWatch):
    """The watch of the loop that runs on the current thread."""

    def __init__(self, limit: float) -> None:
        super().__init__(limit)
        self.thread = threading.get_ident()
        self._thread = ref(threading.current_thread())
        get_clock = getattr(time, "pthread_getcpuclockid", None)  # not on Windows
        self._clock = None if get_clock is None else get_clock(self.thread)

    def is_of_current_thread(self) -> bool:
        """Whether the calling thread is the watched one, and not a later one with its id."""
        return self._thread() is threading.current_thread()

    def read_cpu(self) -> float | None:
        if self._clock is None:
            return None
        try:
            return time.clock_gettime(self._clock)
        except OSError:  # the thread has ended, and has not left the block
            return None

    def end(self, error: Exception) -> None:
        _forget(self)
        super().end(error)


def _check(watches: Sequence[_ThreadWatch]) -> None:
    frames, collections = sys._current_frames(), gc.get_stats()[-1]["collections"]
    # This function's frame, which would keep all others alive: the variable would be in a cycle.
    del frames[threading.get_ident()]
    for watch in watches:
        frame = frames.get(watch.thread)
        try:
            watch.check(frame, time.monotonic(), watch.read_cpu(), collections)
        except Exception as exc:  # such as that of a filter of the application's log
            _thread.remove(watch)
            _end(watch, exc)


def _end(watch: _ThreadWatch, error: Exception) -> None:
    with suppress(Exception):
        watch.end(error)


_thread: SharedThread[_ThreadWatch] = SharedThread(
    "fastrtc-watchdog", _check, lambda watches: min(watch.period for watch in watches)
)
_lock = threading.Lock()
_watches: dict[int, _ThreadWatch] = {}
"""By the ids of their threads."""


def _forget(watch: _ThreadWatch) -> None:
    with _lock:
        if _watches.get(watch.thread) is watch:
            del _watches[watch.thread]


def _reset() -> None:
    """Forget the threads of the parent of a forked process."""
    global _lock
    _lock = threading.Lock()
    _watches.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_reset)


@contextmanager
def watch_loop(limit: float | None) -> Generator[None, None, None]:
    """Watch the event loop of the current thread within the block, unless ``limit`` is None."""
    if limit is None or math.isinf(limit):
        yield
        return
    ident = threading.get_ident()
    with _lock:
        watch = _watches.get(ident)
        if watch is not None and not watch.is_of_current_thread():
            _thread.remove(watch)
            watch = None
        if watch is None:
            watch = _ThreadWatch(limit)
            _thread.add(watch)
            _watches[ident] = watch
        watch.users += 1
        watch.limit = min(watch.limit, limit)
    try:
        yield
    finally:
        with _lock:
            watch.users -= 1
        if not watch.users:
            _forget(watch)
            _thread.remove(watch)
