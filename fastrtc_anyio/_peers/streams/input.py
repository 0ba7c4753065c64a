"""The receiving half of a stream, the same for all media."""

from __future__ import annotations

from copy import copy
from typing import Generic, Protocol, TypeVar

import anyio

from .link import Link, Parking, wait_for

T = TypeVar("T")
S_co = TypeVar("S_co", covariant=True)


class _Queue(Protocol[T, S_co]):
    @property
    def statistics(self) -> S_co: ...

    def push(self, item: T, /) -> None: ...

    def pop(self) -> T | None: ...

    def __len__(self) -> int: ...


class Input(Generic[T, S_co]):
    """Receiving half of a stream, until it ends."""

    def __init__(self, link: Link, queue: _Queue[T, S_co]) -> None:
        self._link = link
        self._queue = queue
        self._arrived = Parking(link)
        self._ended = False

    async def receive(self) -> T:
        link = self._link
        with link.lock:
            arrived = None if self._queue or self._ended else self._arrived.park()
        if arrived is not None:
            # The usual case, for every frame of every call: wait_for() does more.
            await arrived.wait()
            link.turns += 1
            with link.lock:
                frame = self._pop()
            if frame is not None:
                return frame
        return await wait_for(link, self._pop, self._arrived)

    def _pop(self) -> T | None:
        frame = self._queue.pop()
        if frame is None and self._ended:
            raise anyio.EndOfStream
        return frame

    def statistics(self) -> S_co:
        with self._link.lock:
            return copy(self._queue.statistics)

    def push(self, frame: T) -> None:
        """Transport side: queue a frame. Ignored after :meth:`end`."""
        with self._link.lock:
            if not self._ended:
                self._queue.push(frame)
                self._arrived.wake()

    def end(self) -> None:
        """Transport side: end the stream behind the frames queued."""
        with self._link.lock:
            self._ended = True
            self._arrived.wake()
