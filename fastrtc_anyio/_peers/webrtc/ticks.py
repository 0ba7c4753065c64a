"""One timer for the media of all connections on an event loop.

Reading the sockets of all connections together, and sending for all of them together, costs a
fraction of doing each on its own: the loop wakes up less, and the code stays in the caches.

The grid of a loop has a period of 10 ms. At each of its points the *readers* are called, and 3 ms
later the *senders* of one of two phases: what has been read then had time to pass a handler, also
if the readers were late. A sender is thus called every 20 ms. The timer runs only while a step is
registered.

If the loop is late, each point that has passed is made up for at once, but only the last one of
each kind: the steps know from the clock how much time has passed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Protocol, cast

from fastrtc_anyio._core.host import collect_posts
from fastrtc_anyio._core.records import log_failure

PERIOD = 0.01
"""Seconds between two points of the grid."""
SEND_AFTER = 0.003
"""Seconds from a point of the grid to the senders of its phase, and from the end of reading."""
PHASES = 2

_EPSILON = 1e-6
"""Part of a period by which timers may be early."""
_ATTRIBUTE = "fastrtc_anyio_ticks"


class Timer(Protocol):
    """Handle of a timer."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """The part of an event loop that ticks need."""

    def time(self) -> float: ...

    def call_at(
        self, when: float, callback: Callable[..., object], *, context: Context | None = None
    ) -> Timer: ...


def _ignore(argument: object) -> None:
    """Do nothing, in place of a step that was removed."""


class Registration:
    """A step that is called until it is removed or raises an exception."""

    def __init__(
        self,
        ticks: Ticks,
        step: Callable[[float], None],
        on_failure: Callable[[BaseException], None],
        phase: int | None,
    ) -> None:
        self._ticks = ticks
        self.phase = phase
        """Phase of a sender; None for a reader."""
        self.active = True
        """Whether the step is still called."""
        self._step: Callable[[float], None] = step
        self._on_failure: Callable[[BaseException], None] = on_failure
        # Tasks that the step starts belong to the connection that has registered it.
        self._run = copy_context().run

    def remove(self) -> None:
        """Do not call the step again. Idempotent."""
        if self.active:
            self.active = False
            self._ticks.remove(self)
            # The owner of the step keeps this object: no reference cycle is left.
            self._step, self._on_failure, self._run = _ignore, _ignore, Context().run

    def move(self) -> None:
        """Call the step of a sender at the other phase from now on."""
        if self.active and self.phase is not None:
            self._ticks.move(self, (self.phase + 1) % PHASES)

    def call(self, due: float) -> None:
        """Call the step. If it raises, remove and report it: the other steps are called."""
        if not self.active:
            return
        try:
            self._run(self._step, due)
        except BaseException as exc:
            on_failure = self._on_failure
            self.remove()
            try:
                on_failure(exc)
            except Exception as failure:
                log_failure(
                    "the failure of a step was not reported",
                    error=failure,
                    event="thread.error_lost",
                )
            finally:
                del on_failure  # which may keep the exception, whose traceback keeps this frame
            if not isinstance(exc, (Exception, asyncio.CancelledError)):
                raise


class Ticks:
    """The ticks of an event loop. Must be used on its thread.

    Args:
        clock: the loop, or a replacement with its clock and timers.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._origin = clock.time()
        self._readers: tuple[Registration, ...] = ()
        self._senders: tuple[tuple[Registration, ...], ...] = ((),) * PHASES
        self._next_read = 0
        self._next_send = 0
        self._send_from = 0.0
        self._waiting = False  # whether senders were due when the readers were called
        self._timer: Timer | None = None
        self._running = False

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Ticks:
        """Return the ticks of a loop."""
        ticks = vars(loop).get(_ATTRIBUTE)
        if not isinstance(ticks, cls):
            ticks = cls(cast(Clock, loop))
            setattr(loop, _ATTRIBUTE, ticks)
        return ticks

    def add_reader(
        self, step: Callable[[], None], on_failure: Callable[[BaseException], None]
    ) -> Registration:
        """Call ``step`` at each point of the grid.

        Its work must be bounded, as all other steps wait for it. An exception ends the step and is
        passed to ``on_failure``.
        """
        one = Registration(self, lambda due: step(), on_failure, None)
        self._readers = (*self._readers, one)
        self._start()
        return one

    def add_sender(
        self,
        step: Callable[[float], None],
        on_failure: Callable[[BaseException], None],
        phase: int = 0,
    ) -> Registration:
        """Call ``step`` every 20 ms, at a phase, with the time at which it was due.

        The time is on the loop's clock, and less than 20 ms ago plus the time that steps take: a
        late loop calls a step once for all the times it has missed.
        """
        one = Registration(self, step, on_failure, phase)
        self._place(one, phase)
        self._start()
        return one

    def remove(self, one: Registration) -> None:
        """Forget a registration; see :meth:`Registration.remove`."""
        if one.phase is None:
            self._readers = tuple(other for other in self._readers if other is not one)
        else:
            self._displace(one, one.phase)
        if not self._running:
            self._set_timer()

    def move(self, one: Registration, phase: int) -> None:
        """Change the phase of a sender; see :meth:`Registration.move`."""
        assert one.phase is not None
        self._displace(one, one.phase)
        self._place(one, phase)
        if not self._running:
            self._set_timer()

    def _place(self, one: Registration, phase: int) -> None:
        one.phase = phase
        steps = list(self._senders)
        steps[phase] = (*steps[phase], one)
        self._senders = tuple(steps)

    def _displace(self, one: Registration, phase: int) -> None:
        steps = list(self._senders)
        steps[phase] = tuple(other for other in steps[phase] if other is not one)
        self._senders = tuple(steps)

    def _start(self) -> None:
        """Begin with the next points of the grid, unless the timer runs."""
        if self._timer is None and not self._running:
            now = self._clock.time()
            self._next_read = self._passed(now) + 1
            self._next_send = self._passed(now - SEND_AFTER) + 1
        if not self._running:
            self._set_timer()

    def _passed(self, now: float) -> int:
        """Return the number of the last point of the grid."""
        return math.floor((now - self._origin) / PERIOD + _EPSILON)

    def _tick(self) -> None:
        self._timer = None
        self._running = True
        try:
            with collect_posts():
                self._call_due(self._clock.time())
        finally:
            self._running = False
            self._set_timer()

    def _call_due(self, now: float) -> None:
        point = self._passed(now)
        to_read = point >= self._next_read and bool(self._readers)
        self._next_read = max(self._next_read, point + 1)
        # Senders wait for the readers once: reading may take longer than a period.
        if now >= self._send_from - _EPSILON * PERIOD and (self._waiting or not to_read):
            self._waiting = False
            self._send(now)
        if to_read:
            for one in self._readers:
                one.call(now)
            self._waiting = any(
                self._senders[number % PHASES]
                for number in range(self._next_send, self._passed(now - SEND_AFTER) + 1)
            )
            if self._send_from <= now:
                self._send_from = self._clock.time() + SEND_AFTER

    def _send(self, now: float) -> None:
        point = self._passed(now - SEND_AFTER)
        first, self._next_send = max(self._next_send, point - PHASES + 1), point + 1
        for number in range(first, point + 1):
            due = self._origin + number * PERIOD + SEND_AFTER
            for one in self._senders[number % PHASES]:
                one.call(due)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._next_due()
        if due is not None:
            # An empty context: the timer belongs to no connection.
            self._timer = self._clock.call_at(due, self._tick, context=Context())

    def _next_due(self) -> float | None:
        """Return the time of the next point that has steps; None without steps."""
        times = [self._origin + self._next_read * PERIOD] if self._readers else []
        for number in range(self._next_send, self._next_send + PHASES):
            if self._senders[number % PHASES]:
                due = self._origin + number * PERIOD + SEND_AFTER
                times.append(max(due, self._send_from))
                break
        return min(times, default=None)
