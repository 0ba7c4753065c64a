"""Lock and wake-ups shared by the host and the transport of one connection.

A waiting host task is woken once for any number of frames: it parks, the next frame posts one
wake-up, and the task then reads all frames queued without parking again. Under load this costs a
third of a wake-up per frame.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio

from fastrtc_anyio._core.host import Host, Lock
from fastrtc_anyio._media.input_lead import InputLead

T = TypeVar("T")


class Link:
    """Connection between a transport, on any thread, and the host of its session.

    Both sides use the same monotonic ``clock``, in seconds. ``input_lead`` is guarded by the lock.
    """

    def __init__(self, host: Host, clock: Callable[[], float]) -> None:
        self.lock: Lock = Lock()
        self.host = host
        self.clock = clock
        self.input_lead: InputLead = InputLead()
        self.turns = 0
        """How often tasks of the host have waited for this connection and resumed. If it has
        changed, other tasks had a chance to run. Only the host's thread uses it."""


class Parking:
    """Place where host tasks wait for a change. Call every method with the lock held."""

    def __init__(self, link: Link) -> None:
        self._host = link.host
        self.parked: anyio.Event | None = None
        """The event that the next :meth:`wake` sets; None if no task has parked since the last."""

    def park(self) -> anyio.Event:
        """Return the event that the next :meth:`wake` sets."""
        if self.parked is None:
            self.parked = self._host.backend.create_event()
        return self.parked

    @property
    def occupied(self) -> bool:
        """Whether a task is waiting."""
        return self.parked is not None and self.parked.statistics().tasks_waiting > 0

    def wake(self) -> None:
        """Wake every task that is waiting."""
        event = self.parked
        if event is not None:
            self.parked = None
            self._host.call(event.set)


async def wait_for(
    link: Link,
    poll: Callable[[], T | None],
    parking: Parking,
    due: Callable[[], float | None] = lambda: None,
) -> T:
    """Wait until ``poll``, called with the lock held, returns a value other than None.

    It is called after each wake-up, and at the time on the link's clock that ``due`` returns.

    There is a checkpoint on every path, and only one for a call that had to wait. A cancelled call
    has not taken a value.
    """
    backend = link.host.backend
    await backend.checkpoint_if_cancelled()
    waited = False
    while True:
        with link.lock:
            value = poll()
            # Parked under the same lock as the poll: a wake-up in between cannot be missed.
            change = parking.park() if value is None else None
            deadline = due() if value is None else None
        if value is not None:
            if not waited:
                # Not a plain checkpoint: the value is taken already, and a cancellation would
                # lose it.
                await backend.cancel_shielded_checkpoint()
                link.turns += 1
            return value
        assert change is not None
        if deadline is None:
            await change.wait()
        else:
            with anyio.move_on_after(deadline - link.clock()):
                await change.wait()
        waited = True
        link.turns += 1
