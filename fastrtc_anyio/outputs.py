"""``AdditionalOutputs``: values that a handler emits for the application, and their readers."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any
from weakref import finalize

from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    EndOfStream,
    WouldBlock,
    create_memory_object_stream,
    move_on_after,
)
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from ._core.gate import Gate
from ._core.log import logger
from .errors import UnknownSession

__all__ = [
    "AdditionalOutputs",
    "OutputBoard",
    "OutputReader",
    "OutputStatistics",
    "OutputStream",
]

BACKLOG = 64
"""Maximum outputs queued for one reader; a further one drops the oldest."""


class AdditionalOutputs:
    """Values for the page or the application, emitted alone or beside a frame."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __repr__(self) -> str:
        return f"AdditionalOutputs{self.args!r}"


@dataclass(frozen=True)
class OutputStatistics:
    """Counters of a session's outputs."""

    published: int
    dropped: int
    """Outputs dropped from a full backlog before a reader received them."""
    readers: int
    """Readers open now."""


class OutputBoard:
    """Broadcasts the outputs of one session to its readers.

    Outputs published without a reader wait for the next one, 64 at most, so a browser's
    ``EventSource`` that reconnects misses nothing.
    """

    def __init__(self) -> None:
        self._kept: deque[AdditionalOutputs] = deque(maxlen=BACKLOG)
        self._latest: AdditionalOutputs | None = None
        self._any_published = Gate()
        self._closed = False
        # A dict as an ordered set. `list(d)` and `d.pop(k, None)` are atomic: threads need no lock.
        self._readers: dict[OutputReader, None] = {}
        self._listeners: list[Callable[[AdditionalOutputs], object]] = []
        self._published = self._dropped = 0

    def publish(self, outputs: AdditionalOutputs) -> None:
        """Queue outputs for every reader without waiting."""
        self._published += 1
        self._latest = outputs
        self._any_published.set()
        readers = self._open_readers()
        if not readers:
            self._dropped += len(self._kept) == BACKLOG
            self._kept.append(outputs)
        for reader in readers:
            self._dropped += reader.put(outputs)
        for listener in self._listeners:
            listener(outputs)

    def listen(self, listener: Callable[[AdditionalOutputs], object]) -> None:
        """Call a plain function with all outputs from now on. An exception ends the session."""
        self._listeners.append(listener)

    async def latest(self) -> AdditionalOutputs:
        """Return the newest outputs. Waits for the first.

        Raises:
            anyio.EndOfStream: the session ended without any.
        """
        await self._any_published.wait()
        if self._latest is None:
            raise EndOfStream
        return self._latest

    def read(self) -> OutputStream:
        """Iterate over the outputs from now on, until the session ends."""
        reader = OutputReader()
        self.add(reader)
        return OutputStream(reader)

    def add(self, reader: OutputReader) -> None:
        """Queue all outputs from now on, and those kept without a reader, for ``reader``."""
        self._readers[reader] = None
        kept, self._kept = self._kept, deque(maxlen=BACKLOG)
        for outputs in kept:
            reader.put(outputs)
        reader.begin()
        if self._closed:
            reader.end()

    def statistics(self) -> OutputStatistics:
        """Return the counters so far."""
        return OutputStatistics(self._published, self._dropped, len(self._open_readers()))

    def close(self) -> None:
        """End every reader once it has received its backlog: no further outputs will come."""
        self._closed = True
        self._any_published.set()
        for reader in self._open_readers():
            reader.end()

    def _open_readers(self) -> list[OutputReader]:
        for reader in list(self._readers):
            if not reader.is_open:
                self._readers.pop(reader, None)
        return list(self._readers)


class OutputReader(AsyncIterator[AdditionalOutputs]):
    """One reader of a session's outputs, which its owner must close.

    ``async for`` ends with the session. A reader that falls 64 outputs behind loses the oldest.

    Args:
        awaited: id of the session to wait for, if the session may not exist yet.
        patience_s: seconds to wait for that session.
    """

    def __init__(self, awaited: str = "", patience_s: float = inf) -> None:
        self._awaited = awaited
        self._patience_s = patience_s
        self._begun = Gate()
        streams = create_memory_object_stream[AdditionalOutputs](BACKLOG)
        self._send: MemoryObjectSendStream[AdditionalOutputs] = streams[0]
        self._receive: MemoryObjectReceiveStream[AdditionalOutputs] = streams[1]

    def put(self, outputs: AdditionalOutputs) -> int:
        """Queue outputs, and return how many older ones were dropped for them: 0 or 1."""
        try:
            self._send.send_nowait(outputs)
        except WouldBlock:  # policy: a slow reader loses the oldest
            with suppress(WouldBlock):
                self._receive.receive_nowait()
            self._send.send_nowait(outputs)
            return 1
        except BrokenResourceError:  # the reader was closed meanwhile
            pass
        return 0

    def begin(self) -> None:
        """Mark the session as begun."""
        self._begun.set()

    def end(self) -> None:
        """End the iteration after the backlog."""
        self._send.close()
        self._begun.set()

    async def wait_begun(self) -> None:
        """Wait until the session exists.

        Raises:
            UnknownSession: no such session began in time.
        """
        with move_on_after(self._patience_s):
            await self._begun.wait()
        if not self._begun.is_set():
            raise UnknownSession(
                f"no session with the id {self._awaited!r} began within {self._patience_s:g} s"
            )

    async def __anext__(self) -> AdditionalOutputs:
        if not self._begun.is_set():
            try:
                await self.wait_begun()
            except UnknownSession as exc:
                # Not raised: an open page requests the outputs of an ended call repeatedly.
                logger.warning(
                    "a reader waited for a session that did not begin in time",
                    event="outputs.no_session",
                )
                logger.debug("%s", exc, event="outputs.no_session")
                self.end()
        try:
            return await self._receive.receive()
        except (EndOfStream, ClosedResourceError):
            self.close()
            raise StopAsyncIteration from None

    def close(self) -> None:
        """Stop reading, and free the backlog. Idempotent."""
        self._send.close()
        self._receive.close()

    async def aclose(self) -> None:
        """Stop reading, and end an iteration in another task. Idempotent."""
        self.close()
        self._begun.set()
        await checkpoint()

    @property
    def is_open(self) -> bool:
        """Whether the reader still accepts outputs."""
        return self._receive.statistics().open_receive_streams > 0


class OutputStream(AsyncIterator[AdditionalOutputs]):
    """Owns an :class:`OutputReader`, and closes it when the stream itself is dropped.

    FastRTC's programs leave ``async for outputs in stream.output_stream(id)`` without closing it.
    """

    def __init__(self, reader: OutputReader) -> None:
        self._reader = reader
        # Unlike `__del__`, it comes before the finalizers of the channels, even in a cycle.
        finalize(self, reader.close).atexit = False

    async def wait_begun(self) -> None:
        """Wait until the session exists; see :meth:`OutputReader.wait_begun`."""
        await self._reader.wait_begun()

    async def __anext__(self) -> AdditionalOutputs:
        return await anext(self._reader)

    async def aclose(self) -> None:
        """Stop reading. Idempotent."""
        await self._reader.aclose()
