"""Values a handler gives to the application: ``AdditionalOutputs``, and who reads them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    EndOfStream,
    WouldBlock,
    create_memory_object_stream,
)
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from .gate import Gate

__all__ = ["AdditionalOutputs", "OutputBoard", "OutputReader", "OutputStatistics"]

BACKLOG = 64
"""Outputs kept for each reader. One more pushes the oldest out."""


class AdditionalOutputs:
    """Values for the page or the application, emitted alone or beside a frame."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __repr__(self) -> str:
        return f"AdditionalOutputs{self.args!r}"


@dataclass(frozen=True)
class OutputStatistics:
    """Counters of an :class:`OutputBoard`, in outputs."""

    published: int
    dropped: int
    """Pushed out of a full backlog before its reader came to them."""
    readers: int
    """Who is reading now."""


class OutputBoard:
    """A session's outputs. Everybody who reads gets all of them, in order.

    What was published before anybody read is kept for the first who does, up to 64.
    """

    def __init__(self) -> None:
        self._early: deque[AdditionalOutputs] | None = deque(maxlen=BACKLOG)
        self._latest: AdditionalOutputs | None = None
        self._some = Gate()
        self._closed = False
        # Not held: who is no longer read by anybody is gone.
        self._readers: WeakSet[OutputReader] = WeakSet()
        self._listeners: list[Callable[[AdditionalOutputs], object]] = []
        self._published = self._dropped = 0

    def publish(self, outputs: AdditionalOutputs) -> None:
        """Give outputs to everybody who reads. Never waits."""
        self._published += 1
        self._latest = outputs
        self._some.set()
        if self._early is not None:
            self._dropped += len(self._early) == BACKLOG
            self._early.append(outputs)
        for reader in self._open_readers():
            self._dropped += reader.put(outputs)
        for listener in self._listeners:
            listener(outputs)

    def listen(self, listener: Callable[[AdditionalOutputs], object]) -> None:
        """Have a plain function called with everything from now on. What it raises ends the
        session: it is part of the handler."""
        self._listeners.append(listener)

    async def latest(self) -> AdditionalOutputs:
        """The newest outputs; waits for the first.

        Raises:
            anyio.EndOfStream: the session ended without any.
        """
        await self._some.wait()
        if self._latest is None:
            raise EndOfStream
        return self._latest

    def read(self) -> OutputReader:
        """Everything from now on, until the session ends. Reading begins at once."""
        early, self._early = self._early or (), None
        reader = OutputReader()
        self._readers.add(reader)
        for outputs in early:
            reader.put(outputs)
        if self._closed:
            reader.end()
        return reader

    def statistics(self) -> OutputStatistics:
        """Counters so far."""
        return OutputStatistics(self._published, self._dropped, len(self._open_readers()))

    def close(self) -> None:
        """Nothing more will be published: readers end when they have read what there is."""
        self._closed = True
        self._some.set()
        for reader in self._open_readers():
            reader.end()

    def _open_readers(self) -> list[OutputReader]:
        return [reader for reader in self._readers if reader.is_open]


class OutputReader(AsyncIterator[AdditionalOutputs]):
    """One reader's memory channel. It ends with the session, by :meth:`aclose`, or when it is
    dropped unfinished, as by a request whose client has gone."""

    def __init__(self) -> None:
        streams = create_memory_object_stream[AdditionalOutputs](BACKLOG)
        self._send: MemoryObjectSendStream[AdditionalOutputs] = streams[0]
        self._receive: MemoryObjectReceiveStream[AdditionalOutputs] = streams[1]

    def put(self, outputs: AdditionalOutputs) -> int:
        """Add outputs, and say how many were pushed out by them: 0 or 1."""
        try:
            self._send.send_nowait(outputs)
        except WouldBlock:
            # Policy: a slow reader loses the oldest.
            with suppress(WouldBlock):
                self._receive.receive_nowait()
            self._send.send_nowait(outputs)
            return 1
        except BrokenResourceError:  # it is being dropped
            pass
        return 0

    def end(self) -> None:
        """Nothing more will come."""
        self._send.close()

    async def __anext__(self) -> AdditionalOutputs:
        try:
            return await self._receive.receive()
        except (EndOfStream, ClosedResourceError):
            self._close()
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Stop reading."""
        self._close()
        await checkpoint()

    def _close(self) -> None:
        self._send.close()
        self._receive.close()

    @property
    def is_open(self) -> bool:
        """Whether it may be given outputs."""
        return self._receive.statistics().open_receive_streams > 0

    def __del__(self) -> None:
        self._close()
